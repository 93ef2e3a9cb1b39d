//! `keep-alive`, `large-client-header-buffers`, `enable-underscores-in-headers`, `upstream-keepalive-*`: connections
//! on both sides.

use serde::Serialize;

use crate::value::number::{Count, Seconds};
use crate::value::size::Size;

/// Connections on both sides.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Connections {
    /// How long an idle connection of a client is kept; 0: closed after each answer.
    pub keep_alive: Seconds,
    /// Number and size of the buffers for large request headers.
    pub large_header_buffers: (Count, Size),
    /// Take request headers with underscores in their names.
    pub underscores_in_headers: bool,
    /// Idle connections to each upstream that a worker keeps; 0: none, each request connects anew.
    pub upstream_connections: Count,
    /// The longest life of a connection to an upstream.
    pub upstream_time: Seconds,
    /// How long an idle connection to an upstream is kept.
    pub upstream_timeout: Seconds,
    /// The most requests over one connection to an upstream.
    pub upstream_requests: Count,
    /// Name the version of the proxy in its own pages and the `Server` header (`server-tokens`).
    pub server_tokens: bool,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            keep_alive: Seconds::new(75),
            large_header_buffers: (Count::new(4), Size::bytes(8 << 10)),
            underscores_in_headers: false,
            upstream_connections: Count::new(320),
            upstream_time: Seconds::new(3600),
            upstream_timeout: Seconds::new(60),
            upstream_requests: Count::new(10_000),
            server_tokens: false,
        }
    }
}
