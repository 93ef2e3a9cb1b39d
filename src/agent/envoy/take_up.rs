//! From one release to the next: say what Envoy shall hold, hear whether it takes it; and back, if it does not.
//!
//! A release is in force when Envoy has acknowledged every push of it. A push that it refuses may have been taken in
//! part, so going back means that everything that differs is told once more.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::proxy::{EnvoyProxy, InForce};
use super::{admin, rejection};
use crate::agent::access_log::AccessLog;
use crate::agent::nginx::includes::replace;
use crate::agent::process::Process;
use crate::agent::proxy::Proxy;
use crate::agent::rejection::Rejection;
use crate::agent::releases::{flip, read_manifest};
use crate::agent::steering::{here, millis};
use crate::agent::xds::target::Target;
use crate::volume::{Digest, Manifest, Timings, local, release, socket};

/// The pause between two questions whether Envoy serves.
const LOOK: Duration = Duration::from_millis(20);

/// How long the log of an Envoy that has ended may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long Envoy may take to go back to what it held before.
const WAY_BACK: Duration = Duration::from_secs(20);

impl EnvoyProxy {
    /// Starts Envoy with a release. Nobody is served meanwhile, so nothing is tested before.
    pub(super) async fn try_to_start(&mut self, digest: &Digest) -> Result<Timings, Rejection> {
        self.envoy.end_all().await;
        self.in_force = None;
        self.stale = false;
        let started = self.start_and_wait(digest).await;
        if started.is_err() {
            if let Some(mut process) = self.process.take() {
                let _ = process.signal(Signal::SIGTERM);
                process.ended_within(Duration::from_secs(1)).await;
            }
            self.envoy.end_all().await;
            self.xds.aim(Arc::default());
        }
        started
    }

    async fn start_and_wait(&mut self, digest: &Digest) -> Result<Timings, Rejection> {
        let next = self.read(digest, &Target::default())?;
        are_free(next.target.addresses())?;
        // Of an Envoy that was killed. We hold the lock, and nothing of ours runs.
        let _ = std::fs::remove_file(here().join(socket::ADMIN));
        let bootstrap = self.bootstrap(digest).map_err(Rejection::of_ours)?;
        replace(&here().join(release::BOOTSTRAP), &bootstrap, 0o600).map_err(Rejection::of_ours)?;
        link_access_log(&next).map_err(Rejection::of_ours)?;
        self.xds.aim(next.target.clone());
        let (begun, since) = (Instant::now(), self.log.now());
        let bound = begun + self.bound();
        let process = self.envoy.start(workers(&next.manifest), next.manifest.error_log_level, &self.log);
        self.process = Some(process.map_err(Rejection::of_ours)?);
        crate::fault::point("after-start");
        let taken = match self.taken(&next.target, bound).await {
            Ok(()) => self.live(bound).await,
            Err(rejection) => Err(rejection),
        };
        if let Err(rejection) = taken {
            let ended = self.process.as_ref().is_none_or(Process::is_gone);
            return Err(if ended { self.last_words(since, rejection).await } else { rejection });
        }
        let took = begun.elapsed();
        self.longest = self.longest.max(took);
        flip(&self.volume, digest).map_err(Rejection::of_ours)?;
        self.in_force = Some(next);
        Ok(Timings { validate: 0, reload: millis(took), observe: 0 })
    }

    /// Puts a release in force, or leaves everything as it was.
    pub(super) async fn try_to_take_up(&mut self, digest: &Digest) -> Result<Timings, Rejection> {
        let Some(former) = self.in_force.clone() else { return self.try_to_start(digest).await };
        let next = self.read(digest, &former.target)?;
        if self.needs_a_start(&former, &next).map_err(Rejection::of_ours)? {
            tracing::warn!(
                "the release changes what Envoy reads at its start only (its workers or its bootstrap): that holds from \
                 its next start on, for a start now would cut connections"
            );
        }
        let mut addresses = next.target.addresses();
        let own = former.target.addresses();
        addresses.retain(|address| !own.contains(address));
        are_free(addresses)?;
        let begun = Instant::now();
        let linked = link_access_log(&next).map_err(Rejection::of_ours)?;
        self.xds.aim(next.target.clone());
        crate::fault::point("after-aim");
        let mut taken = self.taken(&next.target, begun + self.bound()).await;
        if taken.is_ok() {
            crate::fault::point("after-taken");
            taken = flip(&self.volume, digest).map_err(Rejection::of_ours);
        }
        if let Err(rejection) = taken {
            self.go_back(&former).await;
            return Err(rejection);
        }
        let took = begun.elapsed();
        self.longest = self.longest.max(took);
        if former.manifest.error_log_level != next.manifest.error_log_level
            && let Err(err) = admin::set_level(here(), next.manifest.error_log_level).await
        {
            tracing::warn!("{err:#}");
        }
        if linked && let Err(err) = admin::reopen_logs(here()).await {
            tracing::warn!("{err:#}");
        }
        self.stale = false;
        self.in_force = Some(next);
        Ok(Timings { validate: 0, reload: millis(took), observe: 0 })
    }

    /// What a release says and holds, if it is for this proxy.
    fn read(&self, digest: &Digest, former: &Target) -> Result<InForce, Rejection> {
        let manifest = read_manifest(&self.volume, digest).map_err(Rejection::of_ours)?;
        if manifest.proxy != Self::KIND {
            let message = format!("the release is for {}, and this is {}", manifest.proxy, Self::KIND);
            return Err(Rejection::content(message));
        }
        self.read_release(digest, former).map_err(Rejection::of_ours)
    }

    pub(super) fn read_release(&self, digest: &Digest, former: &Target) -> anyhow::Result<InForce> {
        let manifest = read_manifest(&self.volume, digest)?;
        let target = Arc::new(Target::read(&self.volume.release(digest), former)?);
        let access_log = AccessLog::of(manifest.access_log.as_deref());
        Ok(InForce { digest: digest.clone(), manifest, access_log, target })
    }

    fn bootstrap(&self, digest: &Digest) -> anyhow::Result<Vec<u8>> {
        let path = self.volume.release(digest).join(release::BOOTSTRAP);
        std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Whether something differs that is only read at a start.
    fn needs_a_start(&self, former: &InForce, next: &InForce) -> anyhow::Result<bool> {
        Ok(workers(&former.manifest) != workers(&next.manifest)
            || self.bootstrap(&former.digest)? != self.bootstrap(&next.digest)?)
    }

    /// Back to the release in force; and if Envoy does not take that either, it is started anew.
    async fn go_back(&mut self, former: &InForce) {
        self.xds.aim(former.target.clone());
        if self.process.as_ref().is_none_or(Process::is_gone) {
            return;
        }
        if let Err(rejection) = self.taken(&former.target, Instant::now() + WAY_BACK).await {
            tracing::error!("Envoy does not go back to the former release and is started anew: {rejection}");
            self.envoy.end_all().await;
        }
    }

    fn bound(&self) -> Duration {
        self.reload_timeout + 3 * self.longest
    }

    /// Waits until Envoy holds what it shall hold, refuses it, ends, or has had its time.
    async fn taken(&mut self, target: &Target, bound: Instant) -> Result<(), Rejection> {
        let mut progress = self.xds.progress();
        loop {
            let now = progress.borrow_and_update().clone();
            if let Some(refusal) = now.refusal {
                return Err(rejection::of_refusal(&refusal, target));
            }
            if now.settled {
                return Ok(());
            }
            tokio::select! {
                // Its sender lives in what we hold.
                _ = progress.changed() => {}
                () = self.ended() => return Err(Rejection::environment("Envoy has ended")),
                () = tokio::time::sleep_until(bound) => {
                    return Err(Rejection::environment(format!("Envoy did not take it up in time: {}", self.xds.missing())));
                }
            }
        }
    }

    /// Waits until Envoy says that it serves.
    async fn live(&mut self, bound: Instant) -> Result<(), Rejection> {
        while !admin::is_live(here()).await.unwrap_or(false) {
            if self.process.as_ref().is_none_or(Process::is_gone) {
                return Err(Rejection::environment("Envoy has ended"));
            }
            if Instant::now() > bound {
                return Err(Rejection::environment("Envoy has taken everything and does not serve"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Why it ended, from what it said.
    async fn last_words(&self, since: u64, otherwise: Rejection) -> Rejection {
        let begun = Instant::now();
        loop {
            if let Some(words) = self.log.severe_since(since).first() {
                return rejection::of_words(words);
            }
            if begun.elapsed() > LAST_WORDS {
                return otherwise;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Points the name by which the release knows its access log to the file, or to what takes its place. Whether that is
/// another than before.
fn link_access_log(next: &InForce) -> anyhow::Result<bool> {
    let Some(wanted) = &next.manifest.access_log else { return Ok(false) };
    let link = here().join(local::access_log(wanted));
    let to = Path::new(next.access_log.file.as_deref().unwrap_or("/dev/null"));
    if std::fs::read_link(&link).is_ok_and(|is| is == to) {
        return Ok(false);
    }
    let new = here().join(".access-log.new");
    let _ = std::fs::remove_file(&new);
    let point = || {
        std::os::unix::fs::symlink(to, &new)?;
        std::fs::rename(&new, &link)
    };
    point().with_context(|| format!("pointing {} at {}", link.display(), to.display()))?;
    Ok(true)
}

/// How many threads answer requests: as many as the container may use processors, unless the release says.
fn workers(manifest: &Manifest) -> u32 {
    let here = || std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
    manifest.workers.unwrap_or_else(here)
}

/// Envoy shares its ports with whoever else wants to (SO_REUSEPORT): it would bind, and get a part of the traffic.
fn are_free(addresses: Vec<SocketAddr>) -> Result<(), Rejection> {
    for address in addresses {
        let bound = TcpListener::bind(address).map(drop).with_context(|| format!("cannot bind {address}"));
        bound.map_err(Rejection::of_ours)?;
    }
    Ok(())
}
