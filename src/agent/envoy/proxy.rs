//! Envoy as the loop steers it: whether it runs, and which release it holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::log::Log;
use super::version::Version;
use super::{Envoy, admin};
use crate::agent::access_log::AccessLog;
use crate::agent::endpoints::{Names, Source};
use crate::agent::process::Process;
use crate::agent::proxy::Proxy;
use crate::agent::rejection::Rejection;
use crate::agent::releases::flip;
use crate::agent::steering::here;
use crate::agent::xds::target::Target;
use crate::agent::{Settings, wishes, xds};
use crate::volume::{Digest, Manifest, ProxyInfo, ProxyKind, Timings, Volume, socket};

/// How long an Envoy that runs already may take to say so.
const ADOPTION: Duration = Duration::from_secs(5);

/// How long it may take to end when it is no longer asked but told.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// The pause between two looks at what is still being answered.
const LOOK: Duration = Duration::from_millis(50);

/// How long connections without a request may take to close once there are no requests any more.
const FAREWELL: Duration = Duration::from_millis(300);

/// Envoy, running or not, and what it is served from.
pub struct EnvoyProxy {
    pub(super) volume: Volume,
    pub(super) envoy: Envoy,
    pub(super) xds: xds::Server,
    pub(super) log: Log,
    pub(super) reload_timeout: Duration,
    version: Version,

    pub(super) process: Option<Process>,
    pub(super) in_force: Option<InForce>,
    /// A former agent started it: what it holds must be compared once.
    pub(super) stale: bool,
    /// The longest a start or change took, for the next one's bound.
    pub(super) longest: Duration,
}

/// The release that Envoy holds.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Which one.
    pub digest: Digest,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Where access is logged.
    pub access_log: AccessLog,
    /// What is in it.
    pub target: Arc<Target>,
}

impl EnvoyProxy {
    /// Prepares everything that Envoy needs, in the volume's `out/`, which is the working directory by now. Nothing runs
    /// yet, as far as we know.
    pub async fn prepare(settings: &Settings, volume: &Volume, envoy: Envoy) -> anyhow::Result<Self> {
        let version = envoy.version().await?;
        if nix::unistd::geteuid().is_root() {
            tracing::warn!(
                "Envoy runs as root, as this agent does: unlike nginx it has no workers that could be somebody else"
            );
        }
        let source = Source::start(volume, Names::system()).await?;
        let xds = xds::Server::start(volume, source, &here().join(socket::XDS))?;
        Ok(Self {
            volume: volume.clone(),
            envoy,
            xds,
            log: Log::listen(here())?,
            reload_timeout: settings.reload_timeout,
            version,
            process: None,
            in_force: None,
            stale: false,
            longest: Duration::ZERO,
        })
    }

    async fn held_by_running(&self) -> anyhow::Result<InForce> {
        let live = async {
            while !admin::is_live(here()).await.unwrap_or(false) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(ADOPTION, live).await?;
        let digest = wishes::current(&self.volume).ok_or_else(|| anyhow::anyhow!("no release is in force"))?;
        self.read_release(&digest, &Target::default())
    }

    /// Waits until nothing is answered any more.
    async fn finish(&self) {
        let mut idle: Option<Instant> = None;
        loop {
            match admin::busy(here()).await {
                Ok(busy) if busy.connections == 0 => return,
                Ok(busy) if busy.requests == 0 => {
                    if idle.get_or_insert_with(Instant::now).elapsed() >= FAREWELL {
                        return;
                    }
                }
                Ok(_) => idle = None,
                Err(_) if self.process.as_ref().is_none_or(Process::is_gone) => return,
                Err(err) => tracing::warn!("{err:#}"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets requests finish, for `bound` at most.
    async fn let_finish(&self, bound: Duration) {
        // The first asks every client to go once it has its answer; only then is nobody new let in.
        for told in [admin::let_go(here()).await, admin::stop_accepting(here()).await] {
            if let Err(err) = told {
                tracing::warn!("{err:#}");
            }
        }
        if tokio::time::timeout(bound, self.finish()).await.is_err() {
            tracing::warn!("requests have not finished in time and are cut (--drain-timeout)");
        }
    }
}

impl Proxy for EnvoyProxy {
    const KIND: ProxyKind = ProxyKind::Envoy;

    fn pid(&self) -> Option<i32> {
        self.process.as_ref().filter(|process| !process.is_gone()).map(Process::pid)
    }

    fn in_force(&self) -> Option<&Digest> {
        self.in_force.as_ref().map(|in_force| &in_force.digest)
    }

    fn info(&self) -> ProxyInfo {
        ProxyInfo {
            kind: Self::KIND,
            version: self.version.to_string(),
            pid: self.pid().map(i32::cast_unsigned),
            generations: self.in_force().cloned().into_iter().collect(),
            answered: self.answered(),
            full: BTreeMap::new(),
            old_generations: 0,
            waited: 0,
        }
    }

    fn answered(&self) -> (usize, usize) {
        if self.in_force.is_some() { self.xds.progress().borrow().answered } else { (0, 0) }
    }

    async fn answered_more(&self) {
        // Its sender lives in what we hold.
        let _ = self.xds.progress().changed().await;
    }

    async fn adopt(&mut self, _: Option<ProxyInfo>) {
        let Some(process) = self.envoy.adopt().await else { return };
        let pid = process.pid();
        match self.held_by_running().await {
            Ok(in_force) => {
                tracing::info!(pid, release = in_force.digest.short(), "going on with the Envoy that runs");
                self.xds.aim(in_force.target.clone());
                self.process = Some(process);
                self.in_force = Some(in_force);
                self.stale = true;
            }
            Err(err) => {
                tracing::warn!(pid, "ending the Envoy that runs, because nobody knows what it serves: {err:#}");
                self.envoy.end_all().await;
            }
        }
    }

    async fn start(&mut self, digest: &Digest, _: u64) -> Result<Timings, Rejection> {
        self.try_to_start(digest).await
    }

    async fn take_up(&mut self, digest: &Digest, _: u64) -> Result<Timings, Rejection> {
        self.try_to_take_up(digest).await
    }

    async fn test(&self, trial: &Digest) -> Result<Duration, Rejection> {
        self.envoy.validate(&self.volume.trial(trial)).await
    }

    /// Whether what it holds must be compared, or access can be logged by now where it could not be before.
    fn is_stale(&self) -> bool {
        let in_force = self.in_force.as_ref();
        let can_log = |held: &InForce| held.access_log.could_be(held.manifest.access_log.as_deref());
        self.stale || in_force.is_some_and(can_log)
    }

    fn access_log_trouble(&self) -> Option<&str> {
        self.in_force.as_ref()?.access_log.trouble.as_deref()
    }

    /// There always is: what is served twice is a listener at most.
    fn has_room(&mut self) -> Result<bool, Rejection> {
        Ok(true)
    }

    fn look(&mut self) {}

    fn rest(&mut self) {
        let Some(in_force) = &self.in_force else { return };
        if wishes::current(&self.volume).as_ref() != Some(&in_force.digest)
            && let Err(err) = flip(&self.volume, &in_force.digest)
        {
            tracing::warn!("{err:#}");
        }
    }

    async fn ended(&mut self) {
        match &mut self.process {
            Some(process) => process.ended().await,
            None => std::future::pending().await,
        }
    }

    fn bury(&mut self) -> Option<(Duration, String)> {
        let process = self.process.take_if(|process| process.is_gone())?;
        self.in_force = None;
        let words = self.log.severe_since(0).pop().unwrap_or_else(|| "it said nothing".to_owned());
        Some((process.age(), words))
    }

    async fn drain(&mut self, grace: Duration, bound: Duration) {
        let Some(process) = &mut self.process else { return };
        if process.ended_within(grace).await {
            return;
        }
        self.let_finish(bound).await;
    }

    async fn end(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.signal(Signal::SIGTERM);
            process.ended_within(LAST_PATIENCE).await;
        }
        self.envoy.end_all().await;
        self.process = None;
        self.in_force = None;
    }
}
