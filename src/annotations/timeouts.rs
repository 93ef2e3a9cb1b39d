//! `proxy-connect-timeout`, `proxy-send-timeout`, `proxy-read-timeout`: how long the proxy waits for the upstream.

use serde::Serialize;

use crate::value::number::Seconds;

/// How long the proxy waits for the upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Seconds,
    /// Between two successful writes.
    pub send: Seconds,
    /// Between two successful reads.
    pub read: Seconds,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Seconds::new(5), send: Seconds::new(60), read: Seconds::new(60) }
    }
}
