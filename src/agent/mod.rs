//! The proxy's side of the shared volume: the process that stands beside the proxy and never in a request's way.

pub mod dns;
pub mod endpoints;
