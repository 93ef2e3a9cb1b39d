//! Whether one more generation of workers has room beside those that live, and how room is made.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::generations::BOUND;
use super::proxy::NginxProxy;
use crate::agent::memory;
use crate::agent::rejection::Rejection;

const MEBIBYTE: u64 = 1024 * 1024;

/// What a test and the agent itself need meanwhile.
const OWN_NEEDS: u64 = 4 * MEBIBYTE;

impl NginxProxy {
    /// Whether one generation more may live. If not, and the oldest has had its time, that one is ended.
    pub(super) fn is_there_room(&mut self) -> bool {
        self.look_at_workers();
        if self.generations.old() < BOUND {
            self.no_longer_crowded();
            return true;
        }
        if self.crowded.is_none() {
            self.crowded = Some(Instant::now());
            tracing::warn!("{BOUND} generations of old workers are alive: the next reload waits for one of them");
        }
        if let Some(workers) = self.generations.overdue() {
            end_workers(&workers, "they have had their time (worker-shutdown-timeout)");
        }
        false
    }

    /// No reload waits for old workers any more.
    pub(super) fn no_longer_crowded(&mut self) {
        self.waited = self.waited();
        self.crowded = None;
    }

    /// How long reloads have waited for old workers, by now.
    pub(super) fn waited(&self) -> Duration {
        self.waited + self.crowded.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether a reload will find the memory that the last one took. If not, the oldest generation is ended first: an
    /// end of some old connections is better than the end of the container.
    pub(super) fn is_there_memory(&mut self) -> Result<(), Rejection> {
        let needed = self.footprint + self.footprint / 10 + OWN_NEEDS;
        let Some(free) = memory::free().filter(|free| *free < needed) else { return Ok(()) };
        let (needed, free) = (needed / MEBIBYTE, free / MEBIBYTE);
        let mut message = format!("a reload takes about {needed} MiB of memory, and {free} MiB are free");
        if let Some(workers) = self.generations.oldest() {
            end_workers(&workers, &message);
            message.push_str("; the oldest workers were ended to make room");
        }
        Err(Rejection::environment(message))
    }
}

/// Ends old workers, and with them the connections that they still serve.
fn end_workers(workers: &[i32], why: &str) {
    tracing::warn!(?workers, "ending old workers: {why}");
    for pid in workers {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGTERM);
    }
}
