//! The filters that every request passes, in their order. Routes say in [`super::route`] what is otherwise for them.

use envoy_types::pb::envoy::config::common::mutation_rules::v3::HeaderMutation as Mutation;
use envoy_types::pb::envoy::config::common::mutation_rules::v3::header_mutation::Action;
use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source};
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue;
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::filter_state_value::{Key, Value};
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3::{HeaderMutation, Mutations};
use envoy_types::pb::envoy::extensions::filters::http::lua::v3::Lua;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3::Config as FilterState;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use prost::Name;

use super::body_size;
use super::headers::{self, Side};
use super::make::{any, flag, formatted};
use crate::model::ProxyConfig;

/// Names of filters that routes configure.
pub(super) const ACCESS: &str = "envoy.filters.http.rbac";
pub(super) const RATE: &str = "envoy.filters.http.fault";

/// Where the log finds the path as it was sent, whatever became of it since.
pub(super) const PATH: &str = "coxswain.path";

const EDGE: &str = include_str!("../../../templates/envoy/edge.lua");
const FORWARDED: &str = include_str!("../../../templates/envoy/forwarded.lua");

/// The filters of a listener.
pub(super) fn all(config: &ProxyConfig, side: Side) -> Vec<HttpFilter> {
    let mut filters = upgraded(config, side);
    let at = filters.iter().position(|filter| filter.name == ACCESS).map_or(0, |at| at + 1);
    let limits = [filter(body_size::NAME, body_size::place()), filter(RATE, HttpFault::default())];
    filters.splice(at..at, limits);
    filters
}

/// The filters for what becomes a WebSocket: what it sends is no body.
pub(super) fn upgraded(config: &ProxyConfig, side: Side) -> Vec<HttpFilter> {
    vec![
        filter("envoy.filters.http.set_filter_state", path()),
        filter("envoy.filters.http.lua", edge(side)),
        filter(ACCESS, Rbac::default()),
        filter("envoy.filters.http.header_mutation", mutation(config, side)),
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

fn path() -> FilterState {
    let value = FilterStateValue {
        factory_key: "envoy.string".to_owned(),
        key: Some(Key::ObjectKey(PATH.to_owned())),
        value: Some(Value::FormatString(formatted("%REQ(:PATH)%".to_owned()))),
        ..FilterStateValue::default()
    };
    FilterState { on_request_headers: vec![value], ..FilterState::default() }
}

fn edge(side: Side) -> Lua {
    let trusting = if side.trusting { FORWARDED } else { "" };
    let code = DataSource {
        specifier: Some(data_source::Specifier::InlineString(format!("{EDGE}{trusting}"))),
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
