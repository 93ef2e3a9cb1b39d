//! Annotations and settings: one family, one file, which holds keys, parsing, policy type, documentation and cases.
//!
//! [`Policies`] is what a route carries, [`Globals`] what holds for the whole proxy. Families know nothing of
//! Kubernetes types or of a proxy.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod backend_protocol;
pub mod body_size;
pub mod client_tls;
pub mod connections;
pub mod forwarded;
pub mod hsts;
pub mod load_balance;
pub mod logging;
pub mod process;
pub mod rewrite;
pub mod source_range;
pub mod timeouts;
pub mod tls_redirect;

use serde::Serialize;

/// What a route carries. Both renderers destructure it without `..`: a new field breaks them at compile time.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Policies {
    /// The largest request body.
    pub body_size: body_size::BodySize,
    /// How the path is rewritten before it goes upstream.
    pub rewrite: Option<rewrite::Rewrite>,
    /// Which clients may come.
    pub source_range: source_range::SourceRange,
    /// How long the proxy waits for the upstream.
    pub timeouts: timeouts::Timeouts,
}

/// What holds for the whole proxy. Both renderers destructure it without `..`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Globals {
    /// Protocols and ciphers towards clients.
    pub client_tls: client_tls::ClientTls,
    /// Keep-alive and header buffers towards clients, keep-alive towards upstreams.
    pub connections: connections::Connections,
    /// What is believed of forwarded addresses, and what is sent on.
    pub forwarded: forwarded::Forwarded,
    /// Strict-Transport-Security.
    pub hsts: hsts::Hsts,
    /// Access and error log.
    pub logging: logging::Logging,
    /// Worker processes.
    pub process: process::Process,
    /// Code and exceptions of the redirect to https.
    pub tls_redirect: tls_redirect::TlsRedirect,
}
