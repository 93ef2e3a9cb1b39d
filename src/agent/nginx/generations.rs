//! Which workers are alive, and which release each of them serves.
//!
//! A reload starts new workers; the old ones finish their requests, and a WebSocket may keep one for hours. What a
//! release names on the volume must stay as long as one of its workers lives, and so must the sockets on which its
//! resolver asks. Each further generation costs memory, so there is a bound.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Worker;
use super::includes::Stamp;
use crate::agent::dns;
use crate::volume::Digest;

/// How many generations of old workers there may be.
pub const BOUND: usize = 4;

/// All that are alive, newest first.
#[derive(Default)]
pub struct Generations(Vec<Generation>);

/// The workers of one start or reload.
pub struct Generation {
    /// The releases that they may serve: one, unless a former agent left them without saying which.
    digests: Vec<Digest>,
    /// Of its stamp.
    serial: u64,
    workers: BTreeSet<i32>,
    /// Where their resolver asks. Never read: it lives as long as they do.
    client: Option<dns::Client>,
    /// Since when they finish.
    superseded: Option<Instant>,
    /// How long they may finish before they can be ended for lack of room.
    patience: Duration,
}

impl Generations {
    /// Workers with this stamp are about to start; those there are by now will finish.
    pub fn begin(&mut self, stamp: &Stamp, client: dns::Client, patience: Duration, workers: &[Worker]) {
        self.look(workers);
        let digests = vec![stamp.digest.clone()];
        self.supersede();
        let generation = Generation {
            digests,
            serial: stamp.serial,
            workers: BTreeSet::new(),
            client: Some(client),
            superseded: None,
            patience,
        };
        self.0.insert(0, generation);
    }

    /// Workers that a former agent left: `serving` serves, the others may serve any of `former`.
    pub fn adopt(&mut self, serving: &Stamp, former: &[Digest], workers: &[Worker], patience: Duration) {
        let (draining, active): (Vec<_>, Vec<_>) = workers.iter().partition(|worker| worker.draining);
        let pids = |workers: Vec<&Worker>| workers.into_iter().map(|worker| worker.pid).collect();
        let generation = |digests, serial, workers, superseded| Generation {
            digests,
            serial,
            workers,
            client: None,
            superseded,
            patience,
        };
        self.0.clear();
        self.0.push(generation(vec![serving.digest.clone()], serving.serial, pids(active), None));
        if !draining.is_empty() {
            self.0.push(generation(former.to_vec(), 0, pids(draining), Some(Instant::now())));
        }
    }

    /// What began after `serving` did not come to serve; if it has no workers either, `serving` serves on.
    pub fn failed(&mut self, serving: &Stamp, workers: &[Worker]) {
        self.look(workers);
        let failed = |newest: &Generation| newest.serial != serving.serial && newest.workers.is_empty();
        if self.0.len() > 1 && self.0.first().is_some_and(failed) {
            self.0.remove(0);
            self.0[0].superseded = None;
        }
    }

    /// nginx has ended, and all workers with it.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes note of who is alive.
    pub fn look(&mut self, workers: &[Worker]) {
        let alive: BTreeSet<_> = workers.iter().map(|worker| worker.pid).collect();
        let mut unknown = alive.clone();
        for generation in &mut self.0 {
            generation.workers.retain(|pid| alive.contains(pid));
            unknown.retain(|pid| !generation.workers.contains(pid));
        }
        if let Some(newest) = self.0.first_mut() {
            newest.workers.extend(unknown);
        }
        self.0.retain(|generation| generation.superseded.is_none() || !generation.workers.is_empty());
    }

    /// The workers of the newest generation.
    pub fn newest(&self) -> Vec<i32> {
        self.0.first().map(|generation| generation.workers.iter().copied().collect()).unwrap_or_default()
    }

    /// The workers of all generations.
    pub fn workers(&self) -> Vec<i32> {
        self.0.iter().flat_map(|generation| &generation.workers).copied().collect()
    }

    /// Where the newest workers ask for endpoints.
    pub fn client(&self) -> Option<&dns::Client> {
        self.0.first()?.client.as_ref()
    }

    /// How many generations of old workers there are.
    pub fn old(&self) -> usize {
        self.0.len().saturating_sub(1)
    }

    /// The releases that some worker serves, newest first.
    pub fn digests(&self) -> Vec<Digest> {
        let mut digests: Vec<Digest> = vec![];
        for digest in self.0.iter().flat_map(|generation| &generation.digests) {
            if !digests.contains(digest) {
                digests.push(digest.clone());
            }
        }
        digests
    }

    /// The release that this worker serves.
    pub fn served_by(&self, pid: i32) -> Option<&Digest> {
        self.0.iter().find(|generation| generation.workers.contains(&pid))?.digests.first()
    }

    /// The workers of the oldest generation, unless it is the one that serves.
    pub fn oldest(&self) -> Option<Vec<i32>> {
        let oldest = self.0.last().filter(|oldest| oldest.superseded.is_some())?;
        Some(oldest.workers.iter().copied().collect())
    }

    /// The workers of the oldest generation, if it has had all the time that its release gives it.
    pub fn overdue(&self) -> Option<Vec<i32>> {
        let overdue = |oldest: &Generation| oldest.superseded.is_some_and(|since| since.elapsed() >= oldest.patience);
        self.0.last().filter(|oldest| overdue(oldest)).and_then(|_| self.oldest())
    }

    fn supersede(&mut self) {
        if let Some(newest) = self.0.first_mut() {
            newest.superseded = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::dns::{Client, Responders, Server};
    use crate::volume::Volume;

    fn digest(of: &str) -> Digest {
        Digest::parse(&of.repeat(64)).unwrap()
    }

    fn stamp(of: &str) -> Stamp {
        Stamp { digest: digest(of), attempt: 1, serial: u64::from(of.as_bytes()[0]) }
    }

    fn workers(active: &[i32], draining: &[i32]) -> Vec<Worker> {
        let worker = |draining| move |pid: &i32| Worker { pid: *pid, draining };
        active.iter().map(worker(false)).chain(draining.iter().map(worker(true))).collect()
    }

    async fn client() -> Client {
        let folder = tempfile::tempdir().unwrap();
        let any = "127.0.0.1:1".parse().unwrap();
        let responders = Responders { plain: any, tls: any, h2c: any, h2_tls: any };
        Server::start(&Volume::new(folder.path()), responders).await.unwrap().listen().await.unwrap()
    }

    #[tokio::test]
    async fn a_generation_lives_as_long_as_one_of_its_workers() {
        let mut generations = Generations::default();
        generations.begin(&stamp("a"), client().await, Duration::MAX, &[]);
        generations.look(&workers(&[1, 2], &[]));
        assert_eq!((generations.newest(), generations.old()), (vec![1, 2], 0));

        generations.begin(&stamp("b"), client().await, Duration::MAX, &workers(&[1, 2], &[]));
        generations.look(&workers(&[3, 4], &[1, 2]));
        assert_eq!((generations.newest(), generations.old()), (vec![3, 4], 1));
        assert_eq!(generations.digests(), [digest("b"), digest("a")]);

        // A worker that died was replaced, and an old one has finished.
        generations.look(&workers(&[3, 5], &[2]));
        assert_eq!((generations.newest(), generations.old()), (vec![3, 5], 1));
        generations.look(&workers(&[3, 5], &[]));
        assert_eq!((generations.old(), generations.digests()), (0, vec![digest("b")]));
    }

    #[tokio::test]
    async fn a_failed_reload_leaves_the_former_generation_in_charge() {
        let mut generations = Generations::default();
        generations.begin(&stamp("a"), client().await, Duration::MAX, &[]);
        generations.look(&workers(&[1], &[]));
        generations.begin(&stamp("b"), client().await, Duration::MAX, &workers(&[1], &[]));
        generations.failed(&stamp("a"), &workers(&[1], &[]));
        assert_eq!((generations.newest(), generations.digests()), (vec![1], vec![digest("a")]));
        generations.look(&workers(&[1], &[]));
        assert_eq!(generations.digests(), [digest("a")]);
    }

    #[tokio::test]
    async fn only_the_oldest_is_overdue_and_only_after_its_time() {
        let mut generations = Generations::default();
        generations.begin(&stamp("a"), client().await, Duration::ZERO, &[]);
        generations.look(&workers(&[1], &[]));
        assert_eq!(generations.overdue(), None);
        generations.begin(&stamp("b"), client().await, Duration::MAX, &workers(&[1], &[]));
        generations.look(&workers(&[2], &[1]));
        assert_eq!(generations.overdue(), Some(vec![1]));
    }

    #[tokio::test]
    async fn what_a_former_agent_left_is_kept_under_every_name_it_may_have() {
        let mut generations = Generations::default();
        generations.adopt(&stamp("c"), &[digest("b"), digest("a")], &workers(&[5], &[1, 3]), Duration::MAX);
        assert_eq!((generations.newest(), generations.old()), (vec![5], 1));
        assert_eq!(generations.digests(), [digest("c"), digest("b"), digest("a")]);
    }
}
