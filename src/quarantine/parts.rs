//! What each object brings to a configuration, for asking whether it brings something else than before.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{ProxyConfig, Route, VirtualHost};
use crate::problem::{Kind, Subject};

/// What each Ingress brings: the routes that come from it, each with its host.
pub struct Parts<'a>(BTreeMap<&'a Subject, Vec<(&'a VirtualHost, &'a Route)>>);

impl<'a> Parts<'a> {
    /// The parts of a configuration.
    pub fn of(config: &'a ProxyConfig) -> Self {
        let mut parts: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for host in &config.hosts {
            for route in &host.routes {
                if let Some(source) = route.source.as_ref().filter(|source| source.kind == Kind::Ingress) {
                    parts.entry(source).or_default().push((host, route));
                }
            }
        }
        Self(parts)
    }

    /// Everybody who brings something.
    pub fn subjects(&self) -> BTreeSet<Subject> {
        self.0.keys().map(|&subject| subject.clone()).collect()
    }

    /// Whether an object brings the same to both. Of a host only its name and certificate count: other routes are
    /// other objects' business.
    pub fn same(&self, other: &Parts<'_>, subject: &Subject) -> bool {
        let empty = Vec::new();
        let (mine, others) = (self.0.get(subject).unwrap_or(&empty), other.0.get(subject).unwrap_or(&empty));
        let pairs = || mine.iter().zip(others);
        mine.len() == others.len()
            && pairs().all(|((h1, r1), (h2, r2))| h1.host == h2.host && h1.tls == h2.tls && r1 == r2)
    }

    /// Those who bring something else than they do to `before`, or nothing there.
    pub fn changed_since(&self, before: &Parts<'_>) -> BTreeSet<Subject> {
        self.0.keys().filter(|subject| !self.same(before, subject)).map(|&subject| subject.clone()).collect()
    }
}
