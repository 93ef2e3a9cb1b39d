//! What the loop asks of a proxy, whichever it is.
//!
//! A proxy is a process that serves one release at a time, can be given another, and says whether it took it. What is
//! wanted, what is tried again and when, and what is told of it all is the loop's business (`steering`).

use std::time::Duration;

use super::rejection::Rejection;
use crate::volume::{Digest, ProxyInfo, ProxyKind, Timings};

/// A proxy that may run or not.
pub trait Proxy {
    /// Which one it is.
    const KIND: ProxyKind;

    /// Its process id, while it runs.
    fn pid(&self) -> Option<i32>;

    /// The release that it serves.
    fn in_force(&self) -> Option<&Digest>;

    /// All that may be said of it.
    fn info(&self) -> ProxyInfo;

    /// How many upstreams of the release in force have their endpoints, of how many.
    fn answered(&self) -> (usize, usize);

    /// Resolves when that may have changed.
    async fn answered_more(&self);

    /// Goes on with the one that a former agent left running, if anybody can say what it serves. `former` is what that
    /// agent said last.
    async fn adopt(&mut self, former: Option<ProxyInfo>);

    /// Starts it with a release, or leaves nothing running.
    async fn start(&mut self, digest: &Digest, attempt: u64) -> Result<Timings, Rejection>;

    /// Puts a release in force, or leaves everything as it was.
    async fn take_up(&mut self, digest: &Digest, attempt: u64) -> Result<Timings, Rejection>;

    /// Has it test what is only to be tested.
    async fn test(&self, trial: &Digest) -> Result<Duration, Rejection>;

    /// Whether the release in force must be taken up once more.
    fn is_stale(&self) -> bool;

    /// Whether there is room for another release beside what is still served; false: not yet.
    fn has_room(&mut self) -> Result<bool, Rejection>;

    /// Takes note of what has changed by itself.
    fn look(&mut self);

    /// Why access is not logged where the release in force wants it.
    fn access_log_trouble(&self) -> Option<&str> {
        None
    }

    /// Nothing is wanted of it: puts right what a failed attempt could not even put back.
    fn rest(&mut self);

    /// Resolves when it has ended by itself; never while it does not run.
    async fn ended(&mut self);

    /// Forgets it, if it has ended: for how long it served, and its last words.
    fn bury(&mut self) -> Option<(Duration, String)>;

    /// Accepts for `grace` still and then lets requests finish, for `bound` at most.
    async fn drain(&mut self, grace: Duration, bound: Duration);

    /// Ends it, by force if need be.
    async fn end(&mut self);
}
