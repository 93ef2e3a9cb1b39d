//! Taking over an nginx that runs already, or starting one.

use std::time::Duration;

use super::includes::Stamp;
use super::observe::{Awaited, Failed, observe};
use super::proxy::{InForce, NginxProxy};
use super::status;
use crate::agent::rejection::Rejection;
use crate::agent::releases::{self, read_manifest};
use crate::agent::steering::{here, millis};
use crate::agent::{memory, wishes};
use crate::volume::{Digest, Timings};

/// How long an nginx that runs already may take to say what it serves.
const ADOPTION: Duration = Duration::from_secs(5);

impl NginxProxy {
    /// Goes on with the nginx that a former agent left. Its workers ask for endpoints where nobody answers any more, so
    /// it is reloaded as soon as possible; until then they keep those they have.
    pub(super) async fn adopt_running(&mut self, former: &[Digest]) {
        let Some(master) = self.nginx.adopt().await else { return };
        let pid = master.pid();
        match self.served_by_running().await {
            Ok(in_force) => {
                tracing::info!(pid, release = in_force.stamp.digest.short(), "going on with the nginx that runs");
                let patience = Duration::from_secs(in_force.manifest.worker_shutdown_timeout);
                self.generations.adopt(&in_force.stamp, former, &master.workers(), patience);
                self.serial = in_force.stamp.serial;
                self.log.set_level(in_force.manifest.error_log_level);
                self.master = Some(master);
                self.in_force = Some(in_force);
                self.stale = true;
            }
            Err(err) => {
                tracing::warn!(pid, "ending the nginx that runs, because nobody knows what it serves: {err:#}");
                self.nginx.end_all().await;
            }
        }
    }

    async fn served_by_running(&self) -> anyhow::Result<InForce> {
        let asked = async {
            loop {
                match status::stamp(here()).await {
                    Ok(stamp) => return stamp,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let stamp = tokio::time::timeout(ADOPTION, asked).await?;
        let manifest = read_manifest(&self.volume, &stamp.digest)?;
        Ok(InForce::new(stamp, manifest))
    }

    /// Starts nginx with a release. The start is the test: it reads everything, and nobody is served meanwhile anyway.
    pub(super) async fn try_to_start(&mut self, digest: &Digest, attempt: u64) -> Result<Timings, Rejection> {
        self.nginx.end_all().await;
        self.generations.clear();
        self.stale = false;
        // Of an nginx that was killed. We hold the lock, and nothing of ours runs.
        let _ = std::fs::remove_file(status::SOCKET);
        let former = wishes::current(&self.volume);
        let started = self.start_and_observe(digest, attempt).await;
        if started.is_err() {
            if let Some(mut master) = self.master.take() {
                let _ = master.signal(nix::sys::signal::Signal::SIGTERM);
                master.ended_within(Duration::from_secs(1)).await;
            }
            self.nginx.end_all().await;
            self.generations.clear();
            self.in_force = None;
            if let Err(err) = releases::restore(&self.volume, former.as_ref()) {
                tracing::warn!("{err:#}");
            }
        }
        started
    }

    async fn start_and_observe(&mut self, digest: &Digest, attempt: u64) -> Result<Timings, Rejection> {
        let manifest = read_manifest(&self.volume, digest).map_err(Rejection::of_ours)?;
        let client = self.dns.listen().await.map_err(Rejection::of_ours)?;
        let stamp = self.next_stamp(digest, attempt);
        let in_force = InForce::new(stamp.clone(), manifest);
        self.log.set_level(in_force.manifest.error_log_level);
        self.put_in_place(digest, &in_force.includes(client.resolver())).map_err(Rejection::of_ours)?;
        let free = memory::free();
        let since = self.log.now();
        let master = self.nginx.start().map_err(Rejection::of_ours)?;
        crate::fault::point("after-start");
        let patience = Duration::from_secs(in_force.manifest.worker_shutdown_timeout);
        self.generations.begin(&stamp, client, patience, &[]);
        let master = self.master.insert(master);
        let folders = [self.volume.release(digest), self.volume.current()];
        let folders = [folders[0].as_path(), folders[1].as_path()];
        let bound = self.reload_timeout + 3 * self.longest;
        let awaited = Awaited { stamp: &stamp, former: &[], old: &[], since, bound, folders: &folders };
        let observed =
            observe(here(), master, &self.log, awaited).await.map_err(|Failed { rejection, .. }| rejection)?;
        self.learn(observed, free);
        self.in_force = Some(in_force);
        self.look_at_workers();
        Ok(Timings { validate: 0, reload: millis(observed.reload), observe: millis(observed.observe) })
    }

    /// A stamp that no living worker has.
    pub(super) fn next_stamp(&mut self, digest: &Digest, attempt: u64) -> Stamp {
        self.serial += 1;
        Stamp { digest: digest.clone(), attempt, serial: self.serial }
    }
}
