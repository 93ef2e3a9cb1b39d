//! The filters that every request passes, in their order. Routes say in [`super::route`] what is otherwise for them.

use envoy_types::pb::envoy::config::common::mutation_rules::v3::HeaderMutation as Mutation;
use envoy_types::pb::envoy::config::common::mutation_rules::v3::header_mutation::Action;
use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source};
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3::{HeaderMutation, Mutations};
use envoy_types::pb::envoy::extensions::filters::http::lua::v3::Lua;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use prost::Name;

use super::headers::{self, Side};
use super::log::Log;
use super::make::{any, flag};
use super::{Common, body_size};
use crate::model::ProxyConfig;

/// Names of filters that routes configure.
pub(super) const ACCESS: &str = "envoy.filters.http.rbac";
pub(super) const RATE: &str = "envoy.filters.http.fault";

const EDGE: &str = include_str!("../../../templates/envoy/edge.lua");
const FORWARDED: &str = include_str!("../../../templates/envoy/forwarded.lua");

/// The filters of a listener.
pub(super) fn all(common: &Common<'_>, side: Side) -> Vec<HttpFilter> {
    let mut filters = upgraded(common, side);
    let at = filters.iter().position(|filter| filter.name == ACCESS).map_or(0, |at| at + 1);
    let limits = [filter(body_size::NAME, body_size::place()), filter(RATE, HttpFault::default())];
    filters.splice(at..at, limits);
    filters
}

/// The filters for what becomes a WebSocket: what it sends is no body.
pub(super) fn upgraded(common: &Common<'_>, side: Side) -> Vec<HttpFilter> {
    vec![
        filter("envoy.filters.http.lua", edge(&common.log, side)),
        filter(ACCESS, Rbac::default()),
        filter("envoy.filters.http.header_mutation", mutation(common.config, side)),
        filter("envoy.filters.http.router", Router { suppress_envoy_headers: true, ..Router::default() }),
    ]
}

/// Makes something the only action of a mutation.
pub(super) fn act(action: Action) -> Mutation {
    Mutation { action: Some(action) }
}

fn filter<T: Name>(name: &str, config: T) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(config))),
        ..HttpFilter::default()
    }
}

fn edge(log: &Log<'_>, side: Side) -> Lua {
    let trusting = if side.trusting { FORWARDED } else { "" };
    let code = DataSource {
        specifier: Some(data_source::Specifier::InlineString(format!("{}{EDGE}{trusting}", log.names()))),
        ..DataSource::default()
    };
    // The script says itself when a route must be chosen anew.
    Lua { default_source_code: Some(code), clear_route_cache: flag(false), ..Lua::default() }
}

fn mutation(config: &ProxyConfig, side: Side) -> HeaderMutation {
    let mutations = Mutations {
        request_mutations: headers::sent(config, side),
        response_mutations: headers::answered(config, side),
        ..Mutations::default()
    };
    HeaderMutation { mutations: Some(mutations), ..HeaderMutation::default() }
}
