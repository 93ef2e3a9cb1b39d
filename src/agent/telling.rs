//! What is said of all this: reports on releases and trials, `proxy.json`, readiness.

use super::nginx::rejection::{Rejection, full_zone};
use super::readiness::Readiness;
use super::steering::{InForce, Steering, backoff};
use crate::volume::{Digest, FaultClass, Outcome, ProxyInfo, ProxyKind, Report, Timings};

impl Steering {
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
        if let Some(zone) = full_zone(&rejection.message) {
            self.full.insert(zone.to_owned(), digest.clone());
        }
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
            access_log: self.serving(digest).and_then(|in_force| in_force.access_log.trouble.clone()),
            timings: result.unwrap_or_default(),
        });
        crate::fault::point("after-report");
    }

    /// What is still to be said of an accepted release.
    fn unanswered(&self, digest: &Digest) -> String {
        match self.answered() {
            (answered, all) if self.serving(digest).is_some() && answered < all => {
                format!("{} of {all} upstreams have not asked for their endpoints yet", all - answered)
            }
            _ => String::new(),
        }
    }

    /// The release in force, if it is this one.
    fn serving(&self, digest: &Digest) -> Option<&InForce> {
        self.in_force.as_ref().filter(|in_force| in_force.stamp.digest == *digest)
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
        self.tell_of_proxy();
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

    /// Says what the proxy is.
    pub(super) fn tell_of_proxy(&mut self) {
        self.note_full_zones();
        self.reports.tell(ProxyInfo {
            kind: ProxyKind::Nginx,
            version: self.version.to_string(),
            pid: self.master.as_ref().map(|master| master.pid().cast_unsigned()),
            generations: self.generations.digests(),
            answered: self.answered(),
            full: self.full.clone(),
            old_generations: self.generations.old(),
            waited: u64::try_from(self.waited().as_millis()).unwrap_or(u64::MAX),
        });
    }

    /// Takes note of what workers have run out of. What only releases had that are gone is over.
    fn note_full_zones(&mut self) {
        for (pid, zone) in self.log.full_zones() {
            // What the master says is about a reload, and part of the reason why that failed.
            if let Some(digest) = self.generations.served_by(pid) {
                self.full.insert(zone, digest.clone());
            }
        }
        self.full.retain(|_, digest| self.volume.release(digest).is_dir());
    }
}
