//! The loop: looks at what is wanted and what runs, does what is due, says how it stands, and waits.
//!
//! Everything is decided anew in each round from the volume and from `/proc`, so that a round may fail, or the agent
//! die in the middle of it, and the next one goes on from there.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Settings;
use super::backoff::Backoff;
use super::dns;
use super::generations::{BOUND, Generations};
use super::nginx::includes::{Stamp, Surroundings};
use super::nginx::log::Log;
use super::nginx::rejection::Rejection;
use super::nginx::version::Version;
use super::nginx::{Master, Nginx};
use super::readiness::Readiness;
use super::reports::Reports;
use super::stops::{Stop, Stops};
use super::wishes::{self, Wishes};
use crate::volume::{Digest, FaultClass, Manifest, Outcome, ProxyInfo, ProxyKind, Report, Timings, Volume};

/// Where nginx and the agent run: in `out/`.
pub const HERE: &str = ".";

/// Who served for this long and then died is started again at once.
const HEALTHY: Duration = Duration::from_secs(10);

/// How long nginx may take to end when it is no longer asked but told.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// The agent proper.
pub struct Steering {
    pub(super) settings: Settings,
    pub(super) volume: Volume,
    pub(super) nginx: Nginx,
    pub(super) version: Version,
    pub(super) surroundings: Surroundings,
    pub(super) dns: dns::Server,
    pub(super) log: Log,
    pub(super) reports: Reports,
    readiness: watch::Sender<Readiness>,

    pub(super) master: Option<Master>,
    pub(super) in_force: Option<InForce>,
    pub(super) generations: Generations,
    /// The serial of the last stamp.
    pub(super) serial: u64,
    /// The release in force must be loaded once more: a former agent's sockets are gone.
    pub(super) stale: bool,
    /// The names of the release in force have been answered, or had their time.
    pub(super) settled: bool,
    /// Releases that are not tried again, because of what they say.
    pub(super) rejected: BTreeSet<Digest>,
    /// The release that is tried again, and when.
    retry: Option<(Digest, Backoff)>,
    /// When nginx may be started again.
    pub(super) restart: Backoff,
    /// Why nginx does not run.
    pub(super) trouble: Option<String>,
    /// The longest a start or reload took, for the next one's bound.
    pub(super) longest: Duration,
    /// It was said that there are too many old workers.
    crowded: bool,
}

/// The release that the workers serve.
#[derive(Clone, Debug)]
pub struct InForce {
    /// What the workers answer.
    pub stamp: Stamp,
    /// What the release says of itself.
    pub manifest: Manifest,
}

impl Steering {
    /// Nothing runs yet, as far as we know.
    #[expect(clippy::too_many_arguments, reason = "the parts of the agent, put together in one place only")]
    pub fn new(
        settings: Settings,
        volume: Volume,
        nginx: Nginx,
        version: Version,
        surroundings: Surroundings,
        dns: dns::Server,
        log: Log,
        readiness: watch::Sender<Readiness>,
    ) -> Self {
        Self {
            reports: Reports::new(&volume),
            settings,
            volume,
            nginx,
            version,
            surroundings,
            dns,
            log,
            readiness,
            master: None,
            in_force: None,
            generations: Generations::default(),
            serial: 0,
            stale: false,
            settled: false,
            rejected: BTreeSet::new(),
            retry: None,
            restart: Backoff::new(Duration::from_millis(250), Duration::from_secs(15)),
            trouble: None,
            longest: Duration::ZERO,
            crowded: false,
        }
    }

    /// Steers until it is told to stop, and ends nginx then.
    pub async fn run(mut self, mut wishes: Wishes, mut stops: Stops) -> anyhow::Result<()> {
        let stop = tokio::select! {
            never = self.forever(&mut wishes) => match never {},
            stop = stops.next() => stop,
        };
        self.end(stop, &mut stops).await;
        Ok(())
    }

    async fn forever(&mut self, wishes: &mut Wishes) -> Infallible {
        self.adopt().await;
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
                () = ended(&mut self.master) => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// Does what is due.
    async fn round(&mut self) {
        if self.master.as_ref().is_some_and(Master::is_gone) {
            self.bury();
        }
        if self.master.is_none() {
            self.start_up().await;
        } else {
            self.keep_up().await;
        }
        self.look_at_workers();
        self.test_trials().await;
    }

    /// The moment of the next attempt, or a second from now.
    fn due(&self) -> Instant {
        let retry = self.retry.as_ref().and_then(|(_, backoff)| backoff.until());
        let restart = if self.master.is_none() { self.restart.until() } else { None };
        let later = Instant::now() + wishes::LOOK;
        [retry, restart].into_iter().flatten().filter(|at| *at > Instant::now()).fold(later, Instant::min)
    }

    /// nginx has ended by itself.
    fn bury(&mut self) {
        let Some(master) = self.master.take() else { return };
        self.in_force = None;
        self.settled = false;
        self.generations.clear();
        if master.age() >= HEALTHY {
            self.restart.reset();
        } else {
            self.restart.failed();
        }
        let words = master.rejection(&[]);
        tracing::error!(pid = master.pid(), "nginx has ended by itself: {words}");
        self.trouble = Some(format!("nginx has ended by itself: {words}"));
    }

    /// Takes up what is wanted, if it is not in force and its time has come.
    async fn keep_up(&mut self) {
        let Some(in_force) = self.in_force.as_ref().map(|in_force| in_force.stamp.digest.clone()) else { return };
        let desired = wishes::desired(&self.volume);
        let new = desired.filter(|desired| *desired != in_force && !self.rejected.contains(desired));
        let Some(target) = new.or_else(|| self.is_stale().then_some(in_force.clone())) else {
            self.retry = None;
            return;
        };
        match &self.retry {
            Some((digest, backoff)) if *digest == target && !backoff.is_due() => return,
            Some((digest, _)) if *digest != target => self.retry = None,
            _ => {}
        }
        if !self.is_there_room() {
            return;
        }
        let attempt = self.attempt(&target);
        match self.take_up(&target, attempt).await {
            Ok(timings) => self.accepted(&target, attempt, timings),
            Err(mut rejection) => {
                if target == in_force {
                    // It has been accepted before: whatever is wrong now is not what it says.
                    rejection.class = FaultClass::Environment;
                }
                self.refused(&target, attempt, &rejection);
            }
        }
    }

    /// Whether the workers ask where nobody answers, or not for addresses that there are by now.
    fn is_stale(&self) -> bool {
        let deaf = self.generations.client().is_some_and(|client| !client.ipv6() && self.dns.has_ipv6());
        self.stale || deaf
    }

    /// Whether one generation more may live. If not, and the oldest has had its time, that one is ended.
    fn is_there_room(&mut self) -> bool {
        self.look_at_workers();
        if self.generations.old() < BOUND {
            self.crowded = false;
            return true;
        }
        if !self.crowded {
            self.crowded = true;
            tracing::warn!("{BOUND} generations of old workers are alive: the next reload waits for one of them");
        }
        for pid in self.generations.overdue().into_iter().flatten() {
            tracing::warn!(pid, "ending a worker that has had its time (worker-shutdown-timeout)");
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        false
    }

    pub(super) fn look_at_workers(&mut self) {
        if let Some(master) = &self.master {
            self.generations.look(&master.workers());
        }
    }

    /// Tests what is only to be tested and has not been yet.
    async fn test_trials(&mut self) {
        for trial in wishes::trials(&self.volume) {
            let known = self.reports.of(&trial);
            let waits = matches!(&self.retry, Some((digest, backoff)) if *digest == trial && !backoff.is_due());
            if known.is_some_and(|report| report.outcome != Outcome::Retrying) || waits {
                continue;
            }
            let attempt = self.attempt(&trial);
            match self.nginx.validate(&self.volume.trial(&trial), "nginx.conf").await {
                Ok(took) => {
                    let timings = Timings { validate: millis(took), ..Timings::default() };
                    self.report(&trial, attempt, Ok(timings));
                }
                Err(rejection) => self.report(&trial, attempt, Err(&rejection)),
            }
            // What is wanted may have changed meanwhile, and goes first.
            if wishes::desired(&self.volume).is_some_and(|desired| self.is_new(&desired)) {
                return;
            }
        }
    }

    fn is_new(&self, desired: &Digest) -> bool {
        let in_force = self.in_force.as_ref().map(|in_force| &in_force.stamp.digest);
        in_force != Some(desired) && !self.rejected.contains(desired)
    }

    /// How often this release or trial will have been tried.
    pub(super) fn attempt(&self, digest: &Digest) -> u64 {
        self.reports.of(digest).map_or(1, |report| report.attempt.saturating_add(1))
    }

    /// A release has come into force.
    pub(super) fn accepted(&mut self, digest: &Digest, attempt: u64, timings: Timings) {
        tracing::info!(release = digest.short(), attempt, ?timings, "accepted");
        self.retry = None;
        self.trouble = None;
        self.rejected.retain(|rejected| self.volume.release(rejected).is_dir());
        self.reports.prune(digest);
        self.report(digest, attempt, Ok(timings));
    }

    /// A release has not come into force.
    pub(super) fn refused(&mut self, digest: &Digest, attempt: u64, rejection: &Rejection) {
        match rejection.class {
            FaultClass::Content => {
                tracing::error!(release = digest.short(), attempt, "rejected: {rejection}");
                self.rejected.insert(digest.clone());
                self.retry = None;
            }
            FaultClass::Environment => {
                let mut backoff = match self.retry.take() {
                    Some((of, backoff)) if of == *digest => backoff,
                    _ => Backoff::new(Duration::from_secs(1), Duration::from_secs(15)),
                };
                let pause = backoff.failed();
                tracing::error!(release = digest.short(), attempt, ?pause, "not taken up, trying again: {rejection}");
                self.retry = Some((digest.clone(), backoff));
            }
        }
        self.report(digest, attempt, Err(rejection));
    }

    fn report(&mut self, digest: &Digest, attempt: u64, result: Result<Timings, &Rejection>) {
        let (outcome, class) = match result {
            Ok(_) => (Outcome::Accepted, None),
            Err(rejection) => match rejection.class {
                FaultClass::Content => (Outcome::Rejected, Some(FaultClass::Content)),
                FaultClass::Environment => (Outcome::Retrying, Some(FaultClass::Environment)),
            },
        };
        let rejection = result.err();
        self.reports.report(Report {
            digest: digest.clone(),
            attempt,
            outcome,
            class,
            file: rejection.and_then(|rejection| rejection.file.clone()),
            line: rejection.and_then(|rejection| rejection.line),
            message: rejection.map_or_else(|| self.unanswered(), |rejection| rejection.message.clone()),
            timings: result.unwrap_or_default(),
        });
        crate::fault::point("after-report");
    }

    /// What is still to be said of an accepted release.
    fn unanswered(&self) -> String {
        match self.answered() {
            (answered, all) if answered < all => {
                format!("{} of {all} upstreams have not asked for their endpoints yet", all - answered)
            }
            _ => String::new(),
        }
    }

    /// How many upstreams of the release in force have been answered, of how many.
    pub(super) fn answered(&self) -> (usize, usize) {
        let Some(in_force) = &self.in_force else { return (0, 0) };
        let upstreams = &in_force.manifest.upstreams;
        let answered = self.generations.client().map_or(0, |client| client.answered(upstreams));
        (answered, upstreams.len())
    }

    /// Says how it stands.
    pub(super) fn tell(&mut self) {
        self.reports.flush();
        self.reports.tell(ProxyInfo {
            kind: ProxyKind::Nginx,
            version: self.version.to_string(),
            pid: self.master.as_ref().map(|master| master.pid().cast_unsigned()),
            generations: self.generations.digests(),
            answered: self.answered(),
        });
        let readiness = match (&self.in_force, &self.trouble) {
            (Some(_), _) if self.settled => Readiness::Ready,
            (Some(_), _) => {
                let (answered, all) = self.answered();
                Readiness::Waiting(format!("{answered} of {all} upstreams have their endpoints"))
            }
            (None, Some(trouble)) => Readiness::Waiting(trouble.clone()),
            (None, None) => Readiness::Waiting("waiting for the first release".to_owned()),
        };
        self.readiness.send_if_modified(|told| std::mem::replace(told, readiness.clone()) != readiness);
    }

    /// Ends nginx: gently, for as long as the flags allow, or at once.
    async fn end(mut self, stop: Stop, stops: &mut Stops) {
        self.readiness.send_replace(Readiness::Draining);
        if stop == Stop::Drain {
            tracing::info!(
                grace = ?self.settings.shutdown_grace_period,
                drain = ?self.settings.drain_timeout,
                "told to stop: no longer ready"
            );
            tokio::select! {
                () = self.drain() => {}
                () = stops.at_once() => {}
            }
        }
        if let Some(master) = &mut self.master {
            let _ = master.signal(Signal::SIGTERM);
            master.ended_within(LAST_PATIENCE).await;
        }
        self.nginx.end_all().await;
        self.master = None;
        self.generations.clear();
        self.in_force = None;
        self.reports.tell(ProxyInfo {
            kind: ProxyKind::Nginx,
            version: self.version.to_string(),
            pid: None,
            generations: vec![],
            answered: (0, 0),
        });
        tracing::info!("nginx has ended");
    }

    /// Keeps accepting for a while, for those who have not heard yet, and then lets requests finish.
    async fn drain(&mut self) {
        let Some(master) = &mut self.master else { return };
        if master.ended_within(self.settings.shutdown_grace_period).await {
            return;
        }
        if let Err(err) = master.signal(Signal::SIGQUIT) {
            tracing::warn!("{err:#}");
        }
        if !master.ended_within(self.settings.drain_timeout).await {
            tracing::warn!("requests have not finished in time and are cut (--drain-timeout)");
        }
    }

    /// The release that a link of ours points to now, by whatever names nginx may call it.
    pub(super) fn folders(&self, digest: &Digest) -> [std::path::PathBuf; 2] {
        [self.volume.release(digest), self.volume.current()]
    }
}

/// Resolves when the master has ended; never if there is none.
async fn ended(master: &mut Option<Master>) {
    match master {
        Some(master) => master.ended().await,
        None => std::future::pending().await,
    }
}

/// Whole milliseconds, at least one: what happened took time.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Where the agent's sockets and nginx's are.
pub fn here() -> &'static Path {
    Path::new(HERE)
}
