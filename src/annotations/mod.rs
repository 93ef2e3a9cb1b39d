//! Annotations and settings: one family, one file, which holds keys, parsing, policy type, documentation and cases.
//!
//! [`Policies`] is what a route carries, [`Globals`] what holds for the whole proxy. Families know nothing of
//! Kubernetes types or of a proxy.
//!
//! A family is described by its [`Spec`] and reads its keys through a [`Reader`], layer by layer. What no family used is
//! told at the end of each layer; [`known`] and [`known_settings`] have the names of ingress-nginx that are not built.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod backend_protocol;
pub mod body_size;
pub mod buffering;
pub mod canary;
pub mod client_tls;
pub mod connections;
pub mod forwarded;
pub mod hsts;
pub mod known;
pub mod known_settings;
mod leftovers;
pub mod load_balance;
pub mod logging;
pub mod path_type;
pub mod process;
pub mod rate;
pub mod reader;
pub mod redirect;
pub mod reference;
pub mod retries;
pub mod rewrite;
pub mod source_range;
pub mod spec;
pub mod timeouts;
pub mod tls_redirect;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::problem::{Problem, Subject};
use crate::value::rewrite::RewriteTarget;
use crate::volume::Protocol;

pub use reader::{Layer, Reader};
pub use spec::Spec;

/// One family of keys: a file of its own.
pub trait Family: Sync {
    /// What it is.
    fn spec(&self) -> &'static Spec;

    /// Reads what an Ingress may say, or its class, or the ConfigMap for all of them.
    fn read(&self, from: &mut Reader<'_>, into: &mut IngressPolicies) {
        let _ = (from, into);
    }

    /// Reads what only the global ConfigMap may say.
    fn read_globals(&self, from: &mut Reader<'_>, into: &mut GlobalPolicies) {
        let _ = (from, into);
    }
}

/// All families, in the order of the reference. They read in this order too: a family may look at what those before it
/// have read.
pub const FAMILIES: &[&dyn Family] = &[
    &backend_protocol::Family,
    &body_size::Family,
    &buffering::Family,
    &canary::Family,
    &load_balance::Family,
    &rate::Family,
    &redirect::Family,
    &retries::Family,
    &rewrite::Family,
    &source_range::Family,
    &timeouts::Family,
    &tls_redirect::Family,
    // The global ones.
    &client_tls::Family,
    &connections::Family,
    &forwarded::Family,
    &hsts::Family,
    &logging::Family,
    &path_type::Family,
    &process::Family,
];

/// What a route carries. Both renderers destructure it without `..`: a new field breaks them at compile time.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Policies {
    /// The largest request body.
    pub body_size: body_size::BodySize,
    /// How much of requests and answers is taken in ahead of the other side.
    pub buffering: buffering::Buffering,
    /// How fast clients get answers.
    pub rate: rate::Rate,
    /// Where every request is sent, in place of the route's action.
    pub redirect: redirect::Redirect,
    /// When a request is tried at a further endpoint.
    pub retries: retries::Retries,
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

/// What only the global ConfigMap may say.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct GlobalPolicies {
    /// What the proxy is told.
    pub globals: Globals,
    /// Exact and Prefix paths that look like regular expressions are not served.
    pub strict_validate_path_type: bool,
}

impl Default for GlobalPolicies {
    fn default() -> Self {
        Self { globals: Globals::default(), strict_validate_path_type: true }
    }
}

/// What an Ingress asks for, as far as translation needs it: the policies of its routes, and what decides how its paths
/// and backends become routes and upstreams.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct IngressPolicies {
    /// What each of its routes carries. `rewrite` is `None` still: it depends on the path, see `rewrite_target`.
    pub policies: Policies,
    /// ImplementationSpecific paths are regular expressions.
    pub use_regex: bool,
    /// The path that goes upstream. One that equals the path of a rule changes nothing for that rule.
    pub rewrite_target: Option<RewriteTarget>,
    /// Redirect to https where the host has TLS.
    pub ssl_redirect: bool,
    /// Redirect to https whether or not the host has TLS.
    pub force_ssl_redirect: bool,
    /// What the proxy speaks to the endpoints.
    pub backend_protocol: Protocol,
    /// How requests are spread over the endpoints.
    pub load_balance: load_balance::LoadBalance,
    /// It is to take a share of another Ingress's requests and is left out, having no routes and hosts of its own; that is
    /// told already.
    pub canary: bool,
    /// Keys that are meant to protect and cannot be honoured; the problems are told already. Unless this is empty,
    /// every route answers 503.
    pub denied: BTreeSet<&'static str>,
}

impl Default for IngressPolicies {
    fn default() -> Self {
        Self {
            policies: Policies::default(),
            use_regex: false,
            rewrite_target: None,
            ssl_redirect: true,
            force_ssl_redirect: false,
            backend_protocol: Protocol::default(),
            load_balance: load_balance::LoadBalance::default(),
            canary: false,
            denied: BTreeSet::new(),
        }
    }
}

/// An object whose annotations are read.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The object.
    pub subject: &'a Subject,
    /// Its annotations, ours and others'.
    pub annotations: Option<&'a BTreeMap<String, String>>,
}

/// Reads the global ConfigMap. `None`: there is none, and the defaults hold.
pub fn read_config_map(
    subject: &Subject,
    data: Option<&BTreeMap<String, String>>,
    problems: &mut Vec<Problem>,
) -> (GlobalPolicies, IngressPolicies) {
    let (mut globals, mut policies) = (GlobalPolicies::default(), IngressPolicies::default());
    let mut reader = Reader::new(Layer::ConfigMap, subject, data, problems);
    for family in FAMILIES {
        family.read(&mut reader, &mut policies);
        family.read_globals(&mut reader, &mut globals);
    }
    reader.finish(&mut policies.denied);
    (globals, policies)
}

/// Reads the ConfigMap with the parameters of a class. What it does not say is as `base` has it, which is what the
/// global ConfigMap gave.
pub fn read_parameters(
    base: &IngressPolicies,
    subject: &Subject,
    data: Option<&BTreeMap<String, String>>,
    problems: &mut Vec<Problem>,
) -> IngressPolicies {
    read_layer(base, Reader::new(Layer::Class, subject, data, problems)).into_owned()
}

/// Reads the annotations of an Ingress with our prefix. What it does not say is as `base` has it
/// (`Settings::base` of its class).
pub fn read_policies<'a>(
    prefix: &str,
    base: &'a IngressPolicies,
    ingress: Source<'_>,
    problems: &mut Vec<Problem>,
) -> Cow<'a, IngressPolicies> {
    read_layer(base, Reader::new(Layer::Ingress { prefix }, ingress.subject, ingress.annotations, problems))
}

/// Reads the annotations of a Service with our prefix: keys of scope `Upstream` there come before those of the Ingress
/// whose route leads to it. A Service is read for each such route, so the same problems may be pushed several times.
pub fn read_service<'a>(
    prefix: &str,
    ingress: &'a IngressPolicies,
    service: Source<'_>,
    problems: &mut Vec<Problem>,
) -> Cow<'a, IngressPolicies> {
    read_layer(ingress, Reader::new(Layer::Service { prefix }, service.subject, service.annotations, problems))
}

fn read_layer<'a>(weaker: &'a IngressPolicies, mut reader: Reader<'_>) -> Cow<'a, IngressPolicies> {
    if reader.is_empty() {
        return Cow::Borrowed(weaker);
    }
    let mut policies = weaker.clone();
    for family in FAMILIES {
        family.read(&mut reader, &mut policies);
    }
    reader.finish(&mut policies.denied);
    Cow::Owned(policies)
}
