//! The loop: looks at what is wanted and what runs, does what is due, says how it stands, and waits.
//!
//! Everything is decided anew in each round from the volume and from `/proc`, so that a round may fail, or the agent
//! die in the middle of it, and the next one goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Settings;
use super::backoff::Backoff;
use super::dns;
use super::generations::Generations;
use super::nginx::access_log::{self, AccessLog};
use super::nginx::includes::{Includes, Stamp, Surroundings};
use super::nginx::log::Log;
use super::nginx::version::Version;
use super::nginx::{Master, Nginx};
use super::pulse::Pulse;
use super::readiness::Readiness;
use super::reports::Reports;
use super::stops::Stops;
use super::wishes::{self, Wishes};
use crate::volume::{Digest, FaultClass, Manifest, Outcome, Timings, Volume};

/// Where nginx and the agent run: in `out/`.
pub const HERE: &str = ".";

/// Who served for this long and then died is started again at once.
const HEALTHY: Duration = Duration::from_secs(10);

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
    pub(super) readiness: watch::Sender<Readiness>,

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
    pub(super) retry: Option<(Digest, Backoff)>,
    /// Trials that are tried again, and when.
    trials: BTreeMap<Digest, Backoff>,
    /// When nginx may be started again.
    pub(super) restart: Backoff,
    /// Why nginx does not run.
    pub(super) trouble: Option<String>,
    /// The longest a start or reload took, for the next one's bound.
    pub(super) longest: Duration,
    /// How much memory the last start or reload took, in bytes.
    pub(super) footprint: u64,
    /// Zones that were found full, and with which release.
    pub(super) full: BTreeMap<String, Digest>,
    /// Since when a reload waits for old workers to finish.
    pub(super) crowded: Option<Instant>,
    /// How long others before it have waited.
    pub(super) waited: Duration,
    pulse: Pulse,
}

/// The release that the workers serve.
#[derive(Clone, Debug)]
pub struct InForce {
    /// What the workers answer.
    pub stamp: Stamp,
    /// What the release says of itself.
    pub manifest: Manifest,
    /// Where access is logged.
    pub access_log: AccessLog,
}

impl InForce {
    /// What the agent adds to the release.
    pub(super) fn includes(&self, resolver: String) -> Includes {
        let level = self.manifest.error_log_level;
        Includes { stamp: self.stamp.clone(), resolver, level, access_log: self.access_log.clone() }
    }

    /// Whether access can be logged by now where it could not when the workers began.
    fn can_log(&self) -> bool {
        let wanted = self.manifest.access_log.as_ref().filter(|_| self.access_log.trouble.is_some());
        wanted.is_some_and(|path| access_log::open(path).is_ok())
    }
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
            trials: BTreeMap::new(),
            restart: Backoff::new(Duration::from_millis(250), Duration::from_secs(15)),
            trouble: None,
            longest: Duration::ZERO,
            footprint: 0,
            full: BTreeMap::new(),
            crowded: None,
            waited: Duration::ZERO,
            pulse: Pulse::start(),
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
        if self.pulse.stood_still() {
            tracing::warn!("the agent stood still for a long time: what changed meanwhile is taken up by a reload");
            self.stale = true;
        }
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
        self.no_longer_crowded();
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
            self.no_longer_crowded();
            return self.repair_current();
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
        if let Err(rejection) = self.is_there_memory() {
            return self.refused(&target, attempt, &rejection);
        }
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

    /// Whether the workers ask where nobody answers, or not for addresses that there are by now; or log elsewhere than
    /// the release wants although they could.
    fn is_stale(&self) -> bool {
        let deaf = self.generations.client().is_some_and(|client| !client.ipv6() && self.dns.has_ipv6());
        self.stale || deaf || self.in_force.as_ref().is_some_and(InForce::can_log)
    }

    /// A failed attempt could not even put the link back, and nobody wants that release any more.
    fn repair_current(&mut self) {
        let Some(in_force) = self.in_force.clone() else { return };
        if wishes::current(&self.volume).as_ref() != Some(&in_force.stamp.digest)
            && let Err(err) = self.restore_former(&in_force)
        {
            tracing::warn!("{err:#}");
        }
    }

    pub(super) fn look_at_workers(&mut self) {
        if let Some(master) = &self.master {
            self.generations.look(&master.workers());
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
            match self.nginx.validate(&self.volume.trial(&trial), "nginx.conf").await {
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
        let in_force = self.in_force.as_ref().map(|in_force| &in_force.stamp.digest);
        in_force != Some(desired) && !self.rejected.contains(desired)
    }

    /// The release that a link of ours points to now, by whatever names nginx may call it.
    pub(super) fn folders(&self, digest: &Digest) -> [std::path::PathBuf; 2] {
        [self.volume.release(digest), self.volume.current()]
    }
}

/// The pauses between attempts at something that the environment does not let happen.
pub fn backoff() -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_secs(15))
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
