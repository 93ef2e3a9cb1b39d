//! `use-forwarded-headers` and its kin: what is believed of a client's address and scheme, and what is sent upstream.

use serde::Serialize;

use crate::value::cidr::Cidrs;
use crate::value::header::HeaderName;

/// What is believed of forwarded headers, and what is sent upstream.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Forwarded {
    /// `Some`: a proxy in front is trusted, as far as `Trust` says. `None`: X-Forwarded-* of clients are overwritten.
    pub trust: Option<Trust>,
    /// Send X-Request-ID: the client's, else a new one (`generate-request-id`).
    pub request_id: bool,
}

/// Trust in a proxy in front (`use-forwarded-headers: "true"`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Trust {
    /// The header with the client's address.
    pub header: HeaderName,
    /// Who may say so.
    pub from: Cidrs,
    /// Append to X-Forwarded-For instead of replacing it.
    pub append: bool,
}

impl Default for Forwarded {
    fn default() -> Self {
        Self { trust: None, request_id: true }
    }
}
