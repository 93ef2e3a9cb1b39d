//! Which upstreams one client can serve: those whose endpoints, and the address of each, it was answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// So many endpoints are always kept.
const LEAST: usize = 1024;

/// What one client was answered.
#[derive(Default)]
pub(super) struct Progress {
    /// The upstreams that were fully answered once, by label. Nothing is taken back: what changes later is in their
    /// next answers.
    answered: BTreeSet<String>,
    /// The endpoints that were last named, by the label of the upstream.
    named: BTreeMap<String, Arc<[SocketAddr]>>,
    /// The endpoints whose addresses were answered. The client keeps them for all upstreams.
    addressed: BTreeSet<SocketAddr>,
    /// How many endpoints may be in `addressed` before those that nobody names any more are dropped.
    enough: usize,
}

/// What an answer tells its client.
#[derive(Clone)]
pub(super) enum Told {
    /// The endpoints of the upstream with this label.
    Endpoints(String, Arc<[SocketAddr]>),
    /// The address of this endpoint.
    Address(SocketAddr),
}

impl Progress {
    /// An answer was sent.
    pub(super) fn note(&mut self, told: Told) {
        match told {
            Told::Endpoints(label, endpoints) => drop(self.named.insert(label, endpoints)),
            Told::Address(endpoint) => {
                self.addressed.insert(endpoint);
                if self.addressed.len() > self.enough.max(LEAST) {
                    let named: BTreeSet<_> = self.named.values().flat_map(|e| e.iter().copied()).collect();
                    self.addressed.retain(|e| named.contains(e));
                    self.enough = 2 * named.len();
                }
            }
        }
    }

    /// Whether the upstream with this label was fully answered.
    pub(super) fn is_answered(&mut self, label: &str) -> bool {
        if self.answered.contains(label) {
            return true;
        }
        let endpoints = self.named.get(label);
        let answered = endpoints.is_some_and(|endpoints| endpoints.iter().all(|e| self.addressed.contains(e)));
        if answered {
            self.answered.insert(label.to_owned());
        }
        answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(n: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], n))
    }

    #[test]
    fn an_upstream_is_answered_when_each_of_its_endpoints_has_an_address() {
        let mut progress = Progress::default();
        progress.note(Told::Address(endpoint(1)));
        assert!(!progress.is_answered("ab"));
        progress.note(Told::Endpoints("ab".into(), [endpoint(1), endpoint(2)].into()));
        assert!(!progress.is_answered("ab"));
        progress.note(Told::Address(endpoint(2)));
        assert!(progress.is_answered("ab"));
        // Another upstream with an endpoint that the client knows already.
        progress.note(Told::Endpoints("cd".into(), [endpoint(2)].into()));
        assert!(progress.is_answered("cd"));
        // A change takes nothing back.
        progress.note(Told::Endpoints("ab".into(), [endpoint(3)].into()));
        assert!(progress.is_answered("ab"));
    }

    #[test]
    fn years_of_changing_endpoints_take_no_memory() {
        let mut progress = Progress::default();
        for n in 0..60_000 {
            progress.note(Told::Endpoints("ab".into(), [endpoint(n)].into()));
            progress.note(Told::Address(endpoint(n)));
            assert!(progress.is_answered("ab"));
        }
        assert!(progress.addressed.len() <= 2_000, "{}", progress.addressed.len());
    }
}
