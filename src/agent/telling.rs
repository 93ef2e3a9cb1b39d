//! What is said of all this: reports on releases and trials, `proxy.json`, readiness.

use super::proxy::Proxy;
use super::readiness::Readiness;
use super::rejection::Rejection;
use super::steering::{Steering, backoff};
use crate::volume::{Digest, FaultClass, Outcome, Report, Timings};

impl<P: Proxy> Steering<P> {
    /// How often this release or trial will have been tried.
    pub(super) fn attempt(&self, digest: &Digest) -> u64 {
        self.reports.of(digest).map_or(1, |report| report.attempt.saturating_add(1))
    }

    /// A release has come into force.
    pub(super) fn accepted(&mut self, digest: &Digest, attempt: u64, timings: Timings) {
        let Timings { validate, reload, observe } = timings;
        let release = digest.short();
        tracing::info!(release, attempt, ms.test = validate, ms.reload = reload, ms.observe = observe, "accepted");
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
                    _ => backoff(),
                };
                let pause = backoff.failed();
                tracing::error!(release = digest.short(), attempt, ?pause, "not taken up, trying again: {rejection}");
                self.retry = Some((digest.clone(), backoff));
            }
        }
        self.report(digest, attempt, Err(rejection));
    }

    pub(super) fn report(&mut self, digest: &Digest, attempt: u64, result: Result<Timings, &Rejection>) {
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
            message: rejection.map_or_else(|| self.unanswered(digest), |rejection| rejection.message.clone()),
            access_log: self.proxy.access_log_trouble().filter(|_| self.is_serving(digest)).map(str::to_owned),
            timings: result.unwrap_or_default(),
        });
        crate::fault::point("after-report");
    }

    /// What is still to be said of an accepted release.
    fn unanswered(&self, digest: &Digest) -> String {
        match self.proxy.answered() {
            (answered, all) if self.is_serving(digest) && answered < all => {
                format!("{} of {all} upstreams have not asked for their endpoints yet", all - answered)
            }
            _ => String::new(),
        }
    }

    fn is_serving(&self, digest: &Digest) -> bool {
        self.proxy.in_force() == Some(digest)
    }

    /// Says how it stands.
    pub(super) fn tell(&mut self) {
        self.reports.flush();
        self.tell_of_proxy();
        let readiness = match (self.proxy.in_force(), &self.trouble) {
            (Some(_), _) if self.settled => Readiness::Ready,
            (Some(_), _) => {
                let (answered, all) = self.proxy.answered();
                Readiness::Waiting(format!("{answered} of {all} upstreams have their endpoints"))
            }
            (None, Some(trouble)) => Readiness::Waiting(trouble.clone()),
            (None, None) => Readiness::Waiting("waiting for the first release".to_owned()),
        };
        self.readiness.send_if_modified(|told| std::mem::replace(told, readiness.clone()) != readiness);
    }

    /// Says what the proxy is.
    pub(super) fn tell_of_proxy(&mut self) {
        self.reports.tell(self.proxy.info());
    }
}
