//! From one release to the next: test what changed, put it in place, signal, observe; and back, if that fails.

use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::includes::Includes;
use super::observe::{Awaited, Failed, Observed, observe};
use super::proxy::{InForce, NginxProxy};
use super::{Master, status};
use crate::agent::memory;
use crate::agent::rejection::Rejection;
use crate::agent::releases::{flip, read_manifest};
use crate::agent::steering::{here, millis};
use crate::volume::{Digest, Manifest, Timings, release};

impl NginxProxy {
    /// Puts a release in force, or leaves everything as it was.
    pub(super) async fn try_to_take_up(&mut self, digest: &Digest, attempt: u64) -> Result<Timings, Rejection> {
        let manifest = read_manifest(&self.volume, digest).map_err(Rejection::of_ours)?;
        let validate = self.validate(digest, &manifest).await?;
        crate::fault::point("after-test");
        match self.reload(digest, attempt, manifest).await {
            Ok(observed) => {
                self.stale = false;
                Ok(Timings { validate, reload: millis(observed.reload), observe: millis(observed.observe) })
            }
            Err(failed) => {
                self.roll_back(failed.refused).await;
                Err(failed.rejection)
            }
        }
    }

    /// nginx's own test, of no more than has changed: the reload proves the whole.
    async fn validate(&self, digest: &Digest, manifest: &Manifest) -> Result<u64, Rejection> {
        let in_force = self.in_force.as_ref().map(|in_force| &in_force.stamp.digest);
        if in_force == Some(digest) {
            return Ok(0);
        }
        let folder = self.volume.release(digest);
        let changed =
            manifest.base.is_some() && manifest.base.as_ref() == in_force && folder.join(release::CHANGED).exists();
        self.nginx.validate(&folder, if changed { release::CHANGED } else { release::MAIN }).await.map(millis)
    }

    async fn reload(&mut self, digest: &Digest, attempt: u64, manifest: Manifest) -> Result<Observed, Failed> {
        let ours = |err| Failed { rejection: Rejection::of_ours(err), refused: true };
        let client = self.dns.listen().await.map_err(ours)?;
        let stamp = self.next_stamp(digest, attempt);
        let in_force = InForce::new(stamp.clone(), manifest);
        let manifest = &in_force.manifest;
        self.put_in_place(digest, &in_force.includes(client.resolver())).map_err(ours)?;
        let free = memory::free();
        let since = self.log.now();
        self.look_at_workers();
        let (former, old) = (self.generations.newest(), self.generations.workers());
        let Some(master) = &self.master else {
            return Err(Failed { rejection: Rejection::environment("nginx has ended"), refused: false });
        };
        self.generations.begin(
            &stamp,
            client,
            Duration::from_secs(manifest.worker_shutdown_timeout),
            &master.workers(),
        );
        master.signal(Signal::SIGHUP).map_err(|err| Failed { rejection: Rejection::of_ours(err), refused: false })?;
        crate::fault::point("after-signal");
        let folders = self.folders(digest);
        let folders = [folders[0].as_path(), folders[1].as_path()];
        let bound = self.reload_timeout + 3 * self.longest;
        let awaited = Awaited { stamp: &stamp, former: &former, old: &old, since, bound, folders: &folders };
        let observed = observe(here(), master, &self.log, awaited).await?;
        crate::fault::point("after-observe");
        self.learn(observed, free);
        self.log.set_level(manifest.error_log_level);
        self.in_force = Some(in_force);
        self.look_at_workers();
        Ok(observed)
    }

    /// Writes the includes and flips `out/current`.
    pub(super) fn put_in_place(&self, digest: &Digest, includes: &Includes) -> anyhow::Result<()> {
        self.surroundings.write(&self.volume, includes)?;
        crate::fault::point("after-includes");
        flip(&self.volume, digest)?;
        crate::fault::point("after-flip");
        Ok(())
    }

    /// Back to the release in force. When nginx has refused the new one, it still serves the old one, and another
    /// reload would only cost memory; else it is reloaded; and if that fails, it is started anew.
    async fn roll_back(&mut self, refused: bool) {
        let Some(former) = self.in_force.clone() else { return };
        if let Some(master) = &self.master {
            self.generations.failed(&former.stamp, &master.workers());
        }
        let digest = former.stamp.digest.clone();
        if refused {
            match self.restore_former(&former) {
                Ok(()) if self.serves_still(&former).await => return,
                Ok(()) => tracing::warn!("nginx does not serve the former release any more"),
                // It serves from memory, and the files are written again by the next attempt.
                Err(err) => return tracing::error!("going back to the former release: {err:#}"),
            }
        }
        crate::fault::point("before-roll-back-reload");
        match Box::pin(self.reload(&digest, former.stamp.attempt, former.manifest)).await {
            Ok(_) => {}
            Err(failed) => {
                tracing::error!(
                    "nginx does not go back to the former release and is started anew: {}",
                    failed.rejection
                );
                if let Some(master) = &self.master {
                    let _ = master.signal(Signal::SIGTERM);
                }
                self.nginx.end_all().await;
            }
        }
    }

    pub(super) fn restore_former(&self, former: &InForce) -> anyhow::Result<()> {
        let client = self.generations.client();
        let resolver = client.map(crate::agent::dns::Client::resolver).context("the workers' resolver has gone")?;
        self.put_in_place(&former.stamp.digest, &former.includes(resolver))
    }

    /// Takes note of what a start or reload has cost, for the next one.
    pub(super) fn learn(&mut self, observed: Observed, free_before: Option<u64>) {
        self.longest = self.longest.max(observed.reload);
        if let (Some(before), Some(after)) = (free_before, memory::free()) {
            self.footprint = before.saturating_sub(after);
        }
    }

    /// Whether the workers still answer with the stamp they had.
    async fn serves_still(&self, former: &InForce) -> bool {
        let begun = Instant::now();
        // New workers may have died at once, after which the old ones were told to go: nobody is left to answer.
        let serving = |master: &Master| master.workers().iter().any(|worker| !worker.draining);
        while begun.elapsed() < Duration::from_secs(5) && self.master.as_ref().is_some_and(serving) {
            match status::stamp(here()).await {
                Ok(stamp) => return stamp == former.stamp,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        false
    }
}
