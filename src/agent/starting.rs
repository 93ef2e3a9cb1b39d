//! Starting the proxy with the best release there is, and waiting until its upstreams have their endpoints.

use std::time::Duration;

use tokio::time::Instant;

use super::proxy::Proxy;
use super::steering::Steering;
use super::wishes;
use crate::volume::{Digest, FaultClass};

/// How long the upstreams may take to be answered before the release counts as live without them.
const ANSWERS: Duration = Duration::from_secs(30);

/// The same for a proxy that already serves everything that it served before.
const ANSWERS_BESIDE_TRAFFIC: Duration = Duration::from_secs(5);

impl<P: Proxy> Steering<P> {
    /// Starts the proxy with the best release there is, if its time has come.
    pub(super) async fn start_up(&mut self) {
        while self.restart.is_due() {
            let Some(digest) = self.candidate() else { return };
            let attempt = self.attempt(&digest);
            match self.proxy.start(&digest, attempt).await {
                Ok(timings) => {
                    self.settle().await;
                    return self.accepted(&digest, attempt, timings);
                }
                Err(rejection) => {
                    self.trouble = Some(format!("{} does not start: {rejection}", P::KIND));
                    self.refused(&digest, attempt, &rejection);
                    let other = self.candidate().is_some_and(|next| !self.rejected.contains(&next));
                    if rejection.class == FaultClass::Environment || !other {
                        self.restart.failed();
                    }
                }
            }
        }
    }

    /// The last accepted release, else the one that is wanted. When all have been rejected, the last resort is to try
    /// one of them again: nothing is worse than not to serve.
    fn candidate(&self) -> Option<Digest> {
        let current = wishes::current(&self.volume);
        let mut accepted = self.reports.accepted();
        accepted.sort_by_key(|digest| Some(digest) != current.as_ref());
        let mut known = accepted;
        known.extend(current);
        known.extend(wishes::desired(&self.volume));
        known.retain(|digest| self.volume.release(digest).is_dir());
        known.iter().find(|digest| !self.rejected.contains(digest)).or(known.first()).cloned()
    }

    /// Waits until every upstream has its endpoints, for a while, and not when something else is wanted by now.
    pub(super) async fn settle(&mut self) {
        let begun = Instant::now();
        let wanted = wishes::desired(&self.volume);
        loop {
            let (answered, all) = self.proxy.answered();
            if answered == all {
                break;
            }
            if begun.elapsed() > if self.settled { ANSWERS_BESIDE_TRAFFIC } else { ANSWERS } {
                tracing::warn!("{} of {all} upstreams have not asked for their endpoints", all - answered);
                break;
            }
            self.tell();
            let gone = self.proxy.pid().is_none();
            if gone || (self.settled && wishes::desired(&self.volume) != wanted) {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(250), self.proxy.answered_more()).await;
        }
        self.settled = true;
    }
}
