//! Upstreams: clusters of Envoy, whose endpoints the agent tells.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use envoy_types::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, TransportSocket, transport_socket,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions as UpstreamHttp;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use prost::{Message, Name};

use super::resources::{Named, any};
use super::{from_agent, number, seconds};
use crate::annotations::connections::Connections;
use crate::annotations::load_balance::LoadBalance;
use crate::model::{Action, ProxyConfig, Route, Upstream, UpstreamId};
use crate::problem::Subject;
use crate::render::site::Site;
use crate::value::number::Seconds;
use crate::volume::Protocol;

/// What routes say of an upstream.
pub(super) struct Use<'a> {
    /// The first object that sends requests to it.
    pub source: Option<&'a Subject>,
    /// The longest time that a route allows for a connection.
    pub connect: Seconds,
}

/// The upstreams that these sites send requests to.
pub(super) fn uses<'a>(sites: &[Site<'a>]) -> BTreeMap<&'a UpstreamId, Use<'a>> {
    let mut uses = BTreeMap::new();
    for route in sites.iter().flat_map(|site| &site.routes) {
        let Route { action: Action::Forward(id), policies, source, .. } = route else { continue };
        let connect = policies.timeouts.connect;
        let seen = uses.entry(id).or_insert(Use { source: source.as_ref(), connect });
        seen.connect = seen.connect.max(connect);
    }
    uses
}

/// Their clusters.
pub(super) fn all(config: &ProxyConfig, uses: &BTreeMap<&UpstreamId, Use<'_>>) -> Vec<Named> {
    let one = |(id, used): (&&UpstreamId, &Use<'_>)| {
        let cluster = cluster(id, config.upstreams.get(*id)?, used.connect, &config.globals.connections);
        Some(Named { name: id.to_string(), bytes: cluster.encode_to_vec(), source: used.source.cloned() })
    };
    uses.iter().filter_map(one).collect()
}

fn cluster(id: &UpstreamId, upstream: &Upstream, connect: Seconds, connections: &Connections) -> Cluster {
    let Upstream { service: _, protocol, load_balance, endpoints: _ } = upstream;
    let lb_policy = match load_balance {
        LoadBalance::RoundRobin => LbPolicy::RoundRobin,
        // Of two at random the one with fewer requests under way.
        LoadBalance::Ewma => LbPolicy::LeastRequest,
    };
    let options = any(http(*protocol, connections));
    Cluster {
        name: id.to_string(),
        connect_timeout: Some(seconds(connect)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(from_agent()), ..EdsClusterConfig::default() }),
        lb_policy: lb_policy.into(),
        circuit_breakers: Some(CircuitBreakers { thresholds: vec![unlimited()], ..CircuitBreakers::default() }),
        // The only entry: maps have no order, and equal releases must have equal bytes.
        typed_extension_protocol_options: [(UpstreamHttp::full_name(), options)].into(),
        transport_socket: matches!(protocol, Protocol::Https | Protocol::Grpcs).then(tls),
        ..Cluster::default()
    }
}

/// How requests are spoken.
fn http(protocol: Protocol, connections: &Connections) -> UpstreamHttp {
    let Connections { upstream_connections, upstream_time, upstream_timeout, upstream_requests, .. } = connections;
    // Envoy keeps as many idle connections as there were requests at once, unless it is to keep none.
    let requests = if upstream_connections.get() == 0 { 1 } else { upstream_requests.get() };
    let protocol = match protocol {
        Protocol::Http | Protocol::Https => ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()),
        Protocol::Grpc | Protocol::Grpcs => ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default()),
    };
    UpstreamHttp {
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: Some(seconds(*upstream_timeout)),
            max_connection_duration: Some(seconds(*upstream_time)).filter(|time| time.seconds != 0),
            max_requests_per_connection: number(requests),
            ..HttpProtocolOptions::default()
        }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(protocol),
        })),
        ..UpstreamHttp::default()
    }
}

/// Envoy has limits for each upstream (1024 connections and requests) that nobody asked for.
fn unlimited() -> Thresholds {
    let most = number(u32::MAX);
    Thresholds {
        max_connections: most,
        max_pending_requests: most,
        max_requests: most,
        max_retries: most,
        ..Thresholds::default()
    }
}

/// Certificates of endpoints are not looked at, and no name is asked for, as ingress-nginx does unless told otherwise.
fn tls() -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(UpstreamTlsContext::default()))),
    }
}
