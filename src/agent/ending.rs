//! The end: gently, for as long as the flags allow, or at once.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::readiness::Readiness;
use super::steering::Steering;
use super::stops::{Stop, Stops};

/// How long nginx may take to end when it is no longer asked but told.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

impl Steering {
    /// Ends nginx: gently, for as long as the flags allow, or at once.
    pub(super) async fn end(mut self, stop: Stop, stops: &mut Stops) {
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
        self.tell_of_proxy();
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
}
