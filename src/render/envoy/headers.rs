//! What is believed of a request, what endpoints are told of it, and what clients are told by us.

use envoy_types::pb::envoy::config::common::mutation_rules::v3::HeaderMutation;
use envoy_types::pb::envoy::config::common::mutation_rules::v3::header_mutation::{Action, RemoveOnMatch};
use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::filter::act;
use super::make::{header, pattern};
use crate::annotations::forwarded::{Forwarded, Trust};
use crate::annotations::hsts::Hsts;
use crate::model::ProxyConfig;

/// Where a request came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Side {
    /// Over TLS.
    pub tls: bool,
    /// From a proxy in front that is trusted.
    pub trusting: bool,
}

const CLIENT: &str = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%";
const PEER: &str = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%";

/// What clients sent in X-Forwarded-For, where something else stands there to tell Envoy of the client.
const BROUGHT: &str = "x-coxswain-forwarded-for";

/// The id that a request brought. The script at the edge takes it away.
const ID: &str = "x-coxswain-request-id";

/// What endpoints may take for our headers.
const ALIKE: [&str; 7] = [
    "x_forwarded_for",
    "x_forwarded_host",
    "x_forwarded_port",
    "x_forwarded_proto",
    "x_forwarded_scheme",
    "x_real_ip",
    "x_scheme",
];

/// Before anything else looks at a request: what is Envoy's own to say is taken away, and what clients say of forwarding
/// is kept under the names that ingress-nginx gave it.
pub(super) fn early(config: &ProxyConfig, side: Side) -> Vec<HeaderMutation> {
    let trust = config.globals.forwarded.trust.as_ref().filter(|_| side.trusting);
    let of_client = trust.map_or("x-forwarded-for".to_owned(), |trust| trust.header.as_str().to_ascii_lowercase());
    let mut all = vec![remove_all("x-envoy-"), remove_all("x-coxswain-"), remove("proxy")];
    all.push(set(ID, command("x-request-id")));
    all.extend(ALIKE.map(remove));
    all.extend([
        remove("x-original-forwarded-for"),
        set("x-original-forwarded-for", command(&of_client)),
        remove("x-original-forwarded-host"),
        set("x-original-forwarded-host", command("x-forwarded-host")),
    ]);
    if trust.is_some() {
        all.push(set(BROUGHT, command("x-forwarded-for")));
        if of_client != "x-forwarded-for" {
            all.extend([remove("x-forwarded-for"), set("x-forwarded-for", command(&of_client))]);
        }
    }
    all
}

/// What endpoints are told.
pub(super) fn sent(config: &ProxyConfig, side: Side) -> Vec<HeaderMutation> {
    let Forwarded { trust, request_id: _ } = &config.globals.forwarded;
    let trust = trust.as_ref().filter(|_| side.trusting);
    let listeners = &config.listeners;
    let port = if side.tls { listeners.public_https } else { listeners.public_http };
    let scheme = "%REQ(X-FORWARDED-PROTO)%";
    let (host, port) = match trust {
        Some(_) => (
            set("x-forwarded-host", "%REQ(X-FORWARDED-HOST?:AUTHORITY)%"),
            default("x-forwarded-port", port.to_string()),
        ),
        None => (set("x-forwarded-host", "%REQ(:AUTHORITY)%"), set("x-forwarded-port", port.to_string())),
    };
    let mut all = match trust {
        Some(Trust { append: true, .. }) => vec![
            // With a comma after it, unless it is empty.
            set("x-forwarded-for", format!("{}{PEER}", command(BROUGHT))),
            remove(BROUGHT),
        ],
        _ => vec![set("x-forwarded-for", CLIENT), remove(BROUGHT)],
    };
    all.extend([
        set("x-real-ip", CLIENT),
        host,
        port,
        set("x-forwarded-scheme", scheme),
        set("x-scheme", scheme),
        // What Envoy itself adds.
        remove("x-envoy-external-address"),
        remove("x-envoy-internal"),
    ]);
    all
}

/// What clients are told, whoever answers.
pub(super) fn answered(config: &ProxyConfig, side: Side) -> Vec<HeaderMutation> {
    let Hsts { enabled, .. } = &config.globals.hsts;
    match (enabled, side.tls) {
        (true, true) => vec![set("strict-transport-security", config.globals.hsts.value())],
        (true, false) => vec![remove("strict-transport-security")],
        (false, _) => Vec::new(),
    }
}

/// The command for the value of a header.
fn command(name: &str) -> String {
    format!("%REQ({name})%")
}

fn set(name: &str, format: impl Into<String>) -> HeaderMutation {
    act(Action::Append(header(name, format)))
}

/// Unless the request brought it.
fn default(name: &str, format: String) -> HeaderMutation {
    let value = HeaderValueOption { append_action: HeaderAppendAction::AddIfAbsent.into(), ..header(name, format) };
    act(Action::Append(value))
}

fn remove(name: &str) -> HeaderMutation {
    act(Action::Remove(name.to_owned()))
}

fn remove_all(beginning: &str) -> HeaderMutation {
    let key_matcher = Some(pattern(MatchPattern::Prefix(beginning.to_owned())));
    act(Action::RemoveOnMatch(RemoveOnMatch { key_matcher }))
}
