//! The loop: looks at what is wanted and what runs, does what is due, says how it stands, and waits.
//!
//! Everything is decided anew in each round from the volume and from `/proc`, so that a round may fail, or the agent
//! die in the middle of it, and the next one goes on from there. How a proxy is started, given a release and observed
//! lies elsewhere (`nginx`, `envoy`): here is what is the same for each.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Settings;
use super::backoff::Backoff;
use super::proxy::Proxy;
use super::readiness::Readiness;
use super::reports::Reports;
use super::stops::Stops;
use super::wishes::{self, Wishes};
use crate::volume::{Digest, FaultClass, Outcome, Timings, Volume};

/// Where the proxy and the agent run: in `out/`.
pub const HERE: &str = ".";

/// Who served for this long and then died is started again at once.
const HEALTHY: Duration = Duration::from_secs(10);

/// The agent proper.
pub struct Steering<P> {
    pub(super) settings: Settings,
    pub(super) volume: Volume,
    pub(super) proxy: P,
    pub(super) reports: Reports,
    pub(super) readiness: watch::Sender<Readiness>,
    /// The upstreams of the release in force have been answered, or had their time.
    pub(super) settled: bool,
    /// Releases that are not tried again, because of what they say.
    pub(super) rejected: BTreeSet<Digest>,
    /// The release that is tried again, and when.
    pub(super) retry: Option<(Digest, Backoff)>,
    /// Trials that are tried again, and when.
    trials: BTreeMap<Digest, Backoff>,
    /// When the proxy may be started again.
    pub(super) restart: Backoff,
    /// Why it does not run.
    pub(super) trouble: Option<String>,
}

impl<P: Proxy> Steering<P> {
    /// Nothing runs yet, as far as we know.
    pub fn new(settings: Settings, volume: Volume, proxy: P, readiness: watch::Sender<Readiness>) -> Self {
        Self {
            reports: Reports::new(&volume),
            settings,
            volume,
            proxy,
            readiness,
            settled: false,
            rejected: BTreeSet::new(),
            retry: None,
            trials: BTreeMap::new(),
            restart: Backoff::new(Duration::from_millis(250), Duration::from_secs(15)),
            trouble: None,
        }
    }

    /// Steers until it is told to stop, and ends the proxy then.
    pub async fn run(mut self, mut wishes: Wishes, mut stops: Stops) -> anyhow::Result<()> {
        let stop = tokio::select! {
            never = self.forever(&mut wishes) => match never {},
            stop = stops.next() => stop,
        };
        self.end(stop, &mut stops).await;
        Ok(())
    }

    async fn forever(&mut self, wishes: &mut Wishes) -> Infallible {
        self.proxy.adopt(self.reports.former_info()).await;
        // It served while nobody was there to say so.
        self.settled = self.proxy.in_force().is_some();
        loop {
            self.round().await;
            self.tell();
            let due = self.due();
            tokio::select! {
                impatient = wishes.changed() => if impatient {
                    self.retry = None;
                    self.restart.reset();
                    self.rejected.clear();
                },
                () = self.proxy.ended() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// Does what is due.
    async fn round(&mut self) {
        self.proxy.look();
        self.bury();
        if self.proxy.pid().is_none() {
            self.start_up().await;
        } else {
            self.keep_up().await;
        }
        self.proxy.look();
        self.test_trials().await;
    }

    /// The moment of the next attempt, or a second from now.
    fn due(&self) -> Instant {
        let retry = self.retry.as_ref().and_then(|(_, backoff)| backoff.until());
        let restart = if self.proxy.pid().is_none() { self.restart.until() } else { None };
        let later = Instant::now() + wishes::LOOK;
        [retry, restart].into_iter().flatten().filter(|at| *at > Instant::now()).fold(later, Instant::min)
    }

    /// The proxy may have ended by itself.
    fn bury(&mut self) {
        let Some((age, words)) = self.proxy.bury() else { return };
        self.settled = false;
        if age >= HEALTHY {
            self.restart.reset();
        } else {
            self.restart.failed();
        }
        let trouble = format!("{} has ended by itself: {words}", P::KIND);
        tracing::error!("{trouble}");
        self.trouble = Some(trouble);
    }

    /// Takes up what is wanted, if it is not in force and its time has come.
    async fn keep_up(&mut self) {
        let Some(in_force) = self.proxy.in_force().cloned() else { return };
        let desired = wishes::desired(&self.volume);
        let new = desired.filter(|desired| *desired != in_force && !self.rejected.contains(desired));
        let Some(target) = new.or_else(|| self.proxy.is_stale().then_some(in_force.clone())) else {
            self.retry = None;
            return self.proxy.rest();
        };
        match &self.retry {
            Some((digest, backoff)) if *digest == target && !backoff.is_due() => return,
            Some((digest, _)) if *digest != target => self.retry = None,
            _ => {}
        }
        let attempt = self.attempt(&target);
        match self.proxy.has_room() {
            Ok(true) => {}
            Ok(false) => return,
            Err(rejection) => return self.refused(&target, attempt, &rejection),
        }
        match self.proxy.take_up(&target, attempt).await {
            Ok(timings) => {
                self.settle().await;
                self.accepted(&target, attempt, timings);
            }
            Err(mut rejection) => {
                if target == in_force {
                    // It has been accepted before: whatever is wrong now is not what it says.
                    rejection.class = FaultClass::Environment;
                }
                self.refused(&target, attempt, &rejection);
            }
        }
    }

    /// Tests what is only to be tested and has not been yet.
    async fn test_trials(&mut self) {
        let trials = wishes::trials(&self.volume);
        self.trials.retain(|trial, _| trials.contains(trial));
        for trial in trials {
            let known = self.reports.of(&trial);
            let waits = self.trials.get(&trial).is_some_and(|backoff| !backoff.is_due());
            if known.is_some_and(|report| report.outcome != Outcome::Retrying) || waits {
                continue;
            }
            let attempt = self.attempt(&trial);
            match self.proxy.test(&trial).await {
                Ok(took) => {
                    let timings = Timings { validate: millis(took), ..Timings::default() };
                    self.report(&trial, attempt, Ok(timings));
                }
                Err(rejection) => {
                    self.trials.entry(trial.clone()).or_insert_with(backoff).failed();
                    self.report(&trial, attempt, Err(&rejection));
                }
            }
            // What is wanted may have changed meanwhile, and goes first.
            if wishes::desired(&self.volume).is_some_and(|desired| self.is_new(&desired)) {
                return;
            }
        }
    }

    fn is_new(&self, desired: &Digest) -> bool {
        self.proxy.in_force() != Some(desired) && !self.rejected.contains(desired)
    }
}

/// The pauses between attempts at something that the environment does not let happen.
pub fn backoff() -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_secs(15))
}

/// Whole milliseconds, at least one: what happened took time.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Where the agent's sockets and the proxy's are.
pub fn here() -> &'static Path {
    Path::new(HERE)
}
