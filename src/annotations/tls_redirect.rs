//! `ssl-redirect`, `force-ssl-redirect`, `http-redirect-code`, `no-tls-redirect-locations`: from http to https.

use serde::Serialize;

use crate::value::path::RulePath;

/// Code and exceptions of the redirect to https. Which routes redirect is `Route::redirect_to_https`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TlsRedirect {
    /// 301, 302, 307 or 308.
    pub code: u16,
    /// Requests whose path begins with one of these are never redirected.
    pub exempt: Vec<RulePath>,
}

impl Default for TlsRedirect {
    fn default() -> Self {
        use crate::value::Value as _;
        let acme = RulePath::parse("/.well-known/acme-challenge");
        Self { code: 308, exempt: acme.into_iter().collect() }
    }
}
