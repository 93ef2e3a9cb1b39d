//! `ssl-protocols`, `ssl-ciphers`, `use-http2`: TLS and HTTP/2 towards clients.

use serde::Serialize;

use crate::value::tls::{Ciphers, TlsVersion};

/// TLS and HTTP/2 towards clients.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ClientTls {
    /// The versions offered, oldest first, none twice.
    pub protocols: Vec<TlsVersion>,
    /// The ciphers up to TLS 1.2, in order of preference; the proxy's order counts.
    pub ciphers: Ciphers,
    /// Offer HTTP/2 by ALPN.
    pub http2: bool,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self { protocols: vec![TlsVersion::V1_2, TlsVersion::V1_3], ciphers: Ciphers::default(), http2: true }
    }
}
