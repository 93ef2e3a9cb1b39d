//! A virtual host.

use serde::Serialize;

use crate::problem::Subject;
use crate::value::host::HostMatch;

use super::{Route, SlotId};

/// The requests of one host, or of one wildcard, or all others.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct VirtualHost {
    /// Which requests belong here.
    pub host: HostMatch,
    /// The certificate: `Some` where an Ingress asks for TLS for this host (then the redirect to https is on by
    /// default), `None`: the default certificate, and no redirect unless forced.
    pub tls: Option<SlotId>,
    /// The routes in order of precedence: the first that matches answers. Exact ones first, then Prefix and Regex
    /// together by length, longest first. The last one is always Prefix `/`: there is no request without a route.
    pub routes: Vec<Route>,
    /// The oldest object that has this host; `None` for the catch-all without any.
    pub source: Option<Subject>,
}

impl VirtualHost {
    /// Whether a route is matched by a regular expression. nginx needs to know: it prefers regexes to prefixes.
    pub fn has_regex(&self) -> bool {
        self.routes.iter().any(|route| matches!(route.path, super::PathMatch::Regex(_)))
    }
}
