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
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::envoy::config::route::v3::RetryPolicy;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions as UpstreamHttp;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use prost::{Message, Name};

use super::make::{any, from_agent, number, seconds, socket};
use super::resources::Named;
use super::{Common, transfer};
use crate::annotations::connections::Connections;
use crate::annotations::load_balance::LoadBalance;
use crate::model::{Action, Route, Upstream, UpstreamId};
use crate::problem::Subject;
use crate::render::site::Site;
use crate::value::number::Seconds;
use crate::value::size::Size;
use crate::volume::{Endpoints, Protocol};

/// The least room for the headers of an answer, in KiB: Envoy's own. It holds for an upstream and not for a route, so no
/// route gets less than it asks for.
const HEADERS: u32 = 60;

/// What routes say of an upstream.
pub(super) struct Use<'a> {
    /// The first object that sends requests to it.
    pub source: Option<&'a Subject>,
    /// The longest time that a route allows for a connection.
    pub connect: Seconds,
    /// The most room that a route has for the headers of an answer.
    pub headers: Size,
    /// When requests are tried again, if all routes agree: then the cluster says so, and a table of ten thousand hosts is
    /// a third as large.
    pub retry: Option<RetryPolicy>,
}

/// The upstreams that these sites send requests to.
pub(super) fn uses<'a>(sites: &[Site<'a>]) -> BTreeMap<&'a UpstreamId, Use<'a>> {
    let mut uses = BTreeMap::new();
    for route in sites.iter().flat_map(|site| &site.routes) {
        let Route { action: Action::Forward(id), policies, source, .. } = route else { continue };
        let (connect, headers) = (policies.timeouts.connect, policies.buffering.buffer_size);
        let retry = Some(transfer::retry(&policies.retries));
        let seen =
            uses.entry(id).or_insert_with(|| Use { source: source.as_ref(), connect, headers, retry: retry.clone() });
        seen.connect = seen.connect.max(connect);
        seen.headers = seen.headers.max(headers);
        if seen.retry != retry {
            seen.retry = None;
        }
    }
    uses
}

/// Their clusters, with endpoints from the agent.
pub(super) fn all(common: &Common<'_>) -> Vec<Named> {
    let named = |(cluster, source): (Cluster, Option<&Subject>)| Named {
        bytes: cluster.encode_to_vec(),
        name: cluster.name,
        source: source.cloned(),
    };
    clusters(common).map(|(cluster, source, _)| (cluster, source)).map(named).collect()
}

/// Their clusters, with the endpoints of this moment.
pub(super) fn fixed(common: &Common<'_>) -> Vec<Cluster> {
    let fixed = |(cluster, _, upstream): (Cluster, Option<&Subject>, &Upstream)| {
        let (kind, addresses) = match &upstream.endpoints {
            Endpoints::Addresses(addresses) => {
                let parts = addresses.iter().map(|address| (address.ip().to_string(), address.port()));
                (DiscoveryType::Static, parts.collect())
            }
            Endpoints::Name { host, port } => (DiscoveryType::StrictDns, vec![(host.clone(), *port)]),
        };
        Cluster {
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
            eds_cluster_config: None,
            load_assignment: Some(assignment(&cluster.name, addresses)),
            ..cluster
        }
    };
    clusters(common).map(fixed).collect()
}

fn clusters<'a>(common: &Common<'a>) -> impl Iterator<Item = (Cluster, Option<&'a Subject>, &'a Upstream)> {
    let config = common.config;
    common.uses.iter().filter_map(|(id, used)| {
        let upstream = config.upstreams.get(*id)?;
        Some((cluster(id, upstream, used, &config.globals.connections), used.source, upstream))
    })
}

fn assignment(cluster_name: &str, addresses: Vec<(String, u16)>) -> ClusterLoadAssignment {
    let endpoint = |(address, port)| {
        let endpoint = Endpoint { address: Some(socket(address, port)), ..Endpoint::default() };
        LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() }
    };
    let lb_endpoints = addresses.into_iter().map(endpoint).collect();
    let endpoints = vec![LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() }];
    ClusterLoadAssignment { cluster_name: cluster_name.to_owned(), endpoints, ..ClusterLoadAssignment::default() }
}

fn cluster(id: &UpstreamId, upstream: &Upstream, used: &Use<'_>, connections: &Connections) -> Cluster {
    let Upstream { service: _, protocol, load_balance, endpoints: _ } = upstream;
    let lb_policy = match load_balance {
        LoadBalance::RoundRobin => LbPolicy::RoundRobin,
        // Of two at random the one with fewer requests under way.
        LoadBalance::Ewma => LbPolicy::LeastRequest,
    };
    let options = any(http(*protocol, used, connections));
    Cluster {
        name: id.to_string(),
        connect_timeout: Some(seconds(used.connect)),
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
fn http(protocol: Protocol, used: &Use<'_>, connections: &Connections) -> UpstreamHttp {
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
            max_response_headers_kb: number(
                HEADERS.max(used.headers.as_bytes().div_ceil(1 << 10).try_into().unwrap_or(u32::MAX)).min(8192),
            ),
            ..HttpProtocolOptions::default()
        }),
        retry_policy: used.retry.clone(),
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
