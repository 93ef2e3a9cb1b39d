//! The end: gently, for as long as the flags allow, or at once.

use super::proxy::Proxy;
use super::readiness::Readiness;
use super::steering::Steering;
use super::stops::{Stop, Stops};

impl<P: Proxy> Steering<P> {
    /// Ends the proxy: gently, for as long as the flags allow, or at once.
    pub(super) async fn end(mut self, stop: Stop, stops: &mut Stops) {
        self.readiness.send_replace(Readiness::Draining);
        if stop == Stop::Drain {
            let (grace, drain) = (self.settings.shutdown_grace_period, self.settings.drain_timeout);
            tracing::info!(?grace, ?drain, "told to stop: no longer ready");
            tokio::select! {
                () = self.proxy.drain(grace, drain) => {}
                () = stops.at_once() => {}
            }
        }
        self.proxy.end().await;
        self.tell_of_proxy();
        tracing::info!("{} has ended", P::KIND);
    }
}
