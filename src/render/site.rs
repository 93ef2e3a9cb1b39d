//! Which hosts and routes a file holds: all of them, those that changed, or those of a few objects.

use std::collections::BTreeSet;

use crate::model::{ProxyConfig, Route, VirtualHost};
use crate::problem::Subject;
use crate::value::host::HostMatch;

/// A host in a file, with the routes of it that the file holds.
pub(super) struct Site<'a> {
    /// The host.
    pub host: &'a VirtualHost,
    pub routes: Vec<&'a Route>,
}

impl<'a> Site<'a> {
    fn whole(host: &'a VirtualHost) -> Self {
        Self { host, routes: host.routes.iter().collect() }
    }

    /// Answers what no other host does: the default server, which every file needs.
    pub fn is_default(&self) -> bool {
        self.host.host == HostMatch::Any
    }
}

/// Every host.
pub(super) fn all(config: &ProxyConfig) -> Vec<Site<'_>> {
    config.hosts.iter().map(Site::whole).collect()
}

/// The hosts that are not in `base` as they are in `config`, and the default server.
pub(super) fn changed<'a>(config: &'a ProxyConfig, base: &ProxyConfig) -> Vec<Site<'a>> {
    let is_new = |host: &&VirtualHost| {
        // Both are in the order of `HostMatch`.
        let before = base.hosts.binary_search_by(|other| other.host.cmp(&host.host));
        host.host == HostMatch::Any || before.ok().and_then(|at| base.hosts.get(at)) != Some(host)
    };
    config.hosts.iter().filter(is_new).map(Site::whole).collect()
}

/// The hosts and routes that these objects bring, and the default server with theirs alone.
pub(super) fn of<'a>(config: &'a ProxyConfig, objects: &BTreeSet<Subject>) -> Vec<Site<'a>> {
    let brought = |source: &Option<Subject>| source.as_ref().is_some_and(|source| objects.contains(source));
    let site = |host: &'a VirtualHost| {
        let routes: Vec<_> = host.routes.iter().filter(|route| brought(&route.source)).collect();
        let wanted = !routes.is_empty() || brought(&host.source) || host.host == HostMatch::Any;
        wanted.then_some(Site { host, routes })
    };
    config.hosts.iter().filter_map(site).collect()
}
