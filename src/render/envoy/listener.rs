//! Where requests come in: sockets, certificates, and whom to believe.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3::{
    DataSource, TransportSocket, TypedExtensionConfig, data_source, transport_socket,
};
use envoy_types::pb::envoy::config::listener::v3::{
    AdditionalAddress, FilterChain, FilterChainMatch, Listener, ListenerFilter, listener_filter,
};
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::Rds;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::cert_mappers::sni::v3::Sni;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::cert_selectors::on_demand_secret::v3::Config as OnDemand;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::SessionTicketKeysType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, TlsCertificate, TlsParameters,
};

use super::headers::Side;
use super::make::{any, from_agent, network, number, socket};
use super::{Common, hosts, manager, names};
use crate::annotations::client_tls::ClientTls;
use crate::value::tls::TlsVersion;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;

/// The name of the certificate for clients that ask for none. No host has it.
const NO_NAME: &str = "-";

/// What listeners take from elsewhere.
pub(super) enum Sources<'a> {
    /// Routes and certificates from the agent.
    Agent,
    /// Routes as they are, certificates from the files of these slots.
    Files(&'a RouteSpecifier, &'a BTreeSet<String>),
}

/// Both listeners.
pub(super) fn all(common: &Common<'_>, sources: &Sources<'_>) -> [Listener; 2] {
    [listener(common, sources, false), listener(common, sources, true)]
}

fn listener(common: &Common<'_>, sources: &Sources<'_>, tls: bool) -> Listener {
    let listeners = &common.config.listeners;
    let port = if tls { listeners.https } else { listeners.http };
    let additional =
        listeners.ipv6.then(|| AdditionalAddress { address: Some(socket("::", port)), ..AdditionalAddress::default() });
    let chain = |trusting| chain(common, sources, Side { tls, trusting });
    let trust = common.config.globals.forwarded.trust.as_ref();
    let everybody = trust.is_some_and(|trust| trust.from.0.iter().any(|cidr| cidr.network().prefix_len() == 0));
    // Whom to believe is decided by who connects.
    let believed = trust.filter(|_| !everybody).map(|trust| FilterChain {
        name: "believed".to_owned(),
        filter_chain_match: Some(FilterChainMatch {
            direct_source_prefix_ranges: trust.from.0.iter().map(network).collect(),
            ..FilterChainMatch::default()
        }),
        ..chain(true)
    });
    let all = chain(everybody);
    // Names that no host can have come no further than here, and that takes a matcher, which chooses alone.
    let matcher = tls.then(|| names::matcher(believed.as_ref(), &all));
    let (chains, otherwise) = match &matcher {
        Some(_) => (believed.into_iter().chain([all]).collect(), None),
        None => (believed.into_iter().collect(), Some(all)),
    };
    Listener {
        name: if tls { "https" } else { "http" }.to_owned(),
        address: Some(socket("0.0.0.0", port)),
        additional_addresses: additional.into_iter().collect(),
        filter_chains: chains,
        filter_chain_matcher: matcher,
        default_filter_chain: otherwise,
        listener_filters: tls.then(inspector).into_iter().collect(),
        tcp_backlog_size: number(BACKLOG),
        ..Listener::default()
    }
}

fn chain(common: &Common<'_>, sources: &Sources<'_>, side: Side) -> FilterChain {
    let routes = match sources {
        Sources::Agent => {
            RouteSpecifier::Rds(Rds { config_source: Some(from_agent()), route_config_name: hosts::NAME.to_owned() })
        }
        Sources::Files(routes, _) => (*routes).clone(),
    };
    FilterChain {
        name: "all".to_owned(),
        filters: vec![manager::filter(common, side, &routes)],
        transport_socket: side.tls.then(|| TransportSocket {
            name: "envoy.transport_sockets.tls".to_owned(),
            config_type: Some(transport_socket::ConfigType::TypedConfig(any(tls(common, sources)))),
        }),
        ..FilterChain::default()
    }
}

/// The newest versions without a gap, oldest first: Envoy offers all between two, and none that nobody asked for.
pub(super) fn span(protocols: &[TlsVersion]) -> &[TlsVersion] {
    let joined = |pair: &[TlsVersion]| matches!(pair, [older, newer] if *newer as u8 == *older as u8 + 1);
    let gap = protocols.windows(2).rposition(|pair| !joined(pair));
    &protocols[gap.map_or(0, |at| at + 1)..]
}

fn tls(common: &Common<'_>, sources: &Sources<'_>) -> DownstreamTlsContext {
    let ClientTls { protocols, ciphers, http2 } = &common.config.globals.client_tls;
    let alpn: &[&str] = if *http2 { &["h2", "http/1.1"] } else { &["http/1.1"] };
    let (certificates, selector) = match sources {
        Sources::Agent => (Vec::new(), Some(on_demand())),
        Sources::Files(_, slots) => (slots.iter().map(|slot| file(slot)).collect(), None),
    };
    DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(TlsParameters {
                tls_minimum_protocol_version: span(protocols).first().map_or(TlsProtocol::TlsAuto, version).into(),
                tls_maximum_protocol_version: span(protocols).last().map_or(TlsProtocol::TlsAuto, version).into(),
                cipher_suites: super::ciphers::known(ciphers),
                ..TlsParameters::default()
            }),
            tls_certificates: certificates,
            custom_tls_certificate_selector: selector,
            alpn_protocols: alpn.iter().map(|&name| name.to_owned()).collect(),
            ..CommonTlsContext::default()
        }),
        // Envoy takes certificates on demand only so.
        disable_stateful_session_resumption: true,
        session_ticket_keys_type: Some(SessionTicketKeysType::DisableStatelessSessionResumption(true)),
        ..DownstreamTlsContext::default()
    }
}

/// By the name that the client asks for, when it asks for it.
fn on_demand() -> TypedExtensionConfig {
    let mapper = TypedExtensionConfig {
        name: "envoy.tls.certificate_mappers.sni".to_owned(),
        typed_config: Some(any(Sni { default_value: NO_NAME.to_owned() })),
    };
    let config =
        OnDemand { config_source: Some(from_agent()), certificate_mapper: Some(mapper), ..OnDemand::default() };
    TypedExtensionConfig {
        name: "envoy.tls.certificate_selectors.on_demand_secret".to_owned(),
        typed_config: Some(any(config)),
    }
}

/// The file of a slot, from the folder in which Envoy runs.
fn file(slot: &str) -> TlsCertificate {
    let path = format!("../in/live/tls/{slot}.pem");
    let pem = DataSource { specifier: Some(data_source::Specifier::Filename(path)), ..DataSource::default() };
    TlsCertificate { certificate_chain: Some(pem.clone()), private_key: Some(pem), ..TlsCertificate::default() }
}

fn version(version: &TlsVersion) -> TlsProtocol {
    match version {
        TlsVersion::V1_0 => TlsProtocol::TlSv10,
        TlsVersion::V1_1 => TlsProtocol::TlSv11,
        TlsVersion::V1_2 => TlsProtocol::TlSv12,
        TlsVersion::V1_3 => TlsProtocol::TlSv13,
    }
}

/// Reads the name that a client asks for.
fn inspector() -> ListenerFilter {
    ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(any(TlsInspector::default()))),
        ..ListenerFilter::default()
    }
}
