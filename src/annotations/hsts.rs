//! `hsts`, `hsts-max-age`, `hsts-include-subdomains`, `hsts-preload`: Strict-Transport-Security.

use serde::Serialize;

use crate::value::number::Seconds;

/// The Strict-Transport-Security header on every https answer, in place of the upstream's.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Hsts {
    /// Send it.
    pub enabled: bool,
    /// How long a client remembers.
    pub max_age: Seconds,
    /// `includeSubDomains`.
    pub include_subdomains: bool,
    /// `preload`.
    pub preload: bool,
}

impl Default for Hsts {
    fn default() -> Self {
        Self { enabled: true, max_age: Seconds::new(31_536_000), include_subdomains: true, preload: false }
    }
}
