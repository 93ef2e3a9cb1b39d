//! The neutral model: what the proxy shall do, in no proxy's words.
//!
//! `translate` builds it, `render` and `live` read it. Everything is in a defined order; equality decides whether
//! anything is published. It holds no text of a user except in value types, and no key except in `PrivateBytes`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod certificate;
mod route;
mod upstream;
mod virtual_host;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::annotations::Globals;
use crate::problem::Subject;

pub use certificate::{Certificate, Slot, SlotId};
pub use route::{Action, BackendName, PathMatch, Route, StaticFile, StaticFiles};
pub use upstream::{PortId, Upstream, UpstreamId};
pub use virtual_host::VirtualHost;

/// All that the proxy shall do.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ProxyConfig {
    /// Where requests come in.
    pub listeners: Listeners,
    /// What holds for every host.
    pub globals: Globals,
    /// The ConfigMap that says so, for what a proxy cannot do of it; `None` where there is none.
    #[serde(skip)]
    pub globals_source: Option<Subject>,
    /// The virtual hosts, in the order of `HostMatch` (exact names, wildcards, the catch-all). The last one is always
    /// `HostMatch::Any`; a request whose host is in none of the others belongs to it.
    pub hosts: Vec<VirtualHost>,
    /// Where requests are sent to. Each is named by a route.
    pub upstreams: BTreeMap<UpstreamId, Upstream>,
    /// The certificates. `SlotId::default_slot()` is always among them.
    pub slots: BTreeMap<SlotId, Slot>,
}

/// Where requests come in. Ports are those of the proxy's own sockets; public ones are what clients see.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Listeners {
    /// Port for plain HTTP.
    pub http: u16,
    /// Port for HTTP over TLS.
    pub https: u16,
    /// The port in front of `http`: for X-Forwarded-Port and redirects.
    pub public_http: u16,
    /// The port in front of `https`: for X-Forwarded-Port and redirects.
    pub public_https: u16,
    /// Listen on IPv6 too.
    pub ipv6: bool,
}
