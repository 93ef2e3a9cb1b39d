//! How connections of clients are read: the rules of an edge, for which Envoy has settings but no defaults.

use envoy_types::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use envoy_types::pb::envoy::config::core::v3::{
    CidrRange, Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, TypedExtensionConfig,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, InternalAddressConfig, PathWithEscapedSlashesAction, RouteSpecifier, UpgradeConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, RequestIdExtension,
};
use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation;
use envoy_types::pb::envoy::extensions::http::original_ip_detection::xff::v3::{XffConfig, XffTrustedCidrs};
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use prost::Name;

use super::headers::{self, Side};
use super::make::{any, flag, network, number, pattern, seconds};
use super::{Common, filter as http_filter, replies};
use crate::annotations::connections::Connections;
use crate::value::number::Seconds;

/// As nginx has them: how long the headers of a request may take, how many streams a connection may have.
const HEADERS: Seconds = Seconds::new(60);
const STREAMS: u32 = 128;

/// How many headers a request may have.
const MOST_HEADERS: u32 = 1000;

/// What a client of HTTP/2 may send ahead: for a stream, and for a connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// The filter that reads HTTP.
pub(super) fn filter(common: &Common<'_>, side: Side, routes: &RouteSpecifier) -> Filter {
    Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any(manager(common, side, routes)))),
    }
}

fn manager(common: &Common<'_>, side: Side, routes: &RouteSpecifier) -> HttpConnectionManager {
    let config = common.config;
    let forwarded = &config.globals.forwarded;
    let trust = forwarded.trust.as_ref().filter(|_| side.trusting);
    let Connections { keep_alive, large_header_buffers: (count, size), underscores_in_headers, .. } =
        &config.globals.connections;
    let kilobytes = (size.as_bytes() * u64::from(count.get())).div_ceil(1 << 10).clamp(1, 8192);
    HttpConnectionManager {
        codec_type: if config.globals.client_tls.http2 { CodecType::Auto } else { CodecType::Http1 }.into(),
        stat_prefix: if side.tls { "https" } else { "http" }.to_owned(),
        route_specifier: Some(routes.clone()),
        http_filters: http_filter::all(common, side),
        upgrade_configs: ["websocket", "spdy/3.1"].map(|kind| upgrade(common, side, kind)).into(),
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: Some(seconds(*keep_alive)).filter(|time| time.seconds != 0),
            max_requests_per_connection: if keep_alive.get() == 0 { number(1) } else { None },
            max_headers_count: number(MOST_HEADERS),
            headers_with_underscores_action: match underscores_in_headers {
                true => HeadersWithUnderscoresAction::Allow,
                false => HeadersWithUnderscoresAction::DropHeader,
            }
            .into(),
            ..HttpProtocolOptions::default()
        }),
        http_protocol_options: Some(Http1ProtocolOptions {
            accept_http_10: true,
            default_host_for_http_10: "_".to_owned(),
            // A connection that becomes HTTP/2 would take requests past every rule of ours.
            ignore_http_11_upgrade: vec![StringMatcher {
                ignore_case: true,
                ..pattern(MatchPattern::Prefix("h2c".to_owned()))
            }],
            ..Http1ProtocolOptions::default()
        }),
        http2_protocol_options: Some(Http2ProtocolOptions {
            max_concurrent_streams: number(STREAMS),
            initial_stream_window_size: number(STREAM_WINDOW),
            initial_connection_window_size: number(CONNECTION_WINDOW),
            ..Http2ProtocolOptions::default()
        }),
        max_request_headers_kb: number(u32::try_from(kilobytes).unwrap_or(8192)),
        request_headers_timeout: Some(seconds(HEADERS)),
        stream_idle_timeout: Some(seconds(HEADERS)),
        access_log: vec![common.log.logger()],
        use_remote_address: flag(trust.is_none()),
        skip_xff_append: true,
        original_ip_detection_extensions: trust.map(|trust| extension("xff", xff(&trust.from.0))).into_iter().collect(),
        early_header_mutation_extensions: vec![extension(
            "early_header_mutation",
            HeaderMutation { mutations: headers::early(config, side) },
        )],
        // Nobody's address makes Envoy obey commands in headers.
        internal_address_config: Some(InternalAddressConfig {
            cidr_ranges: vec![nobody()],
            ..InternalAddressConfig::default()
        }),
        generate_request_id: flag(forwarded.request_id),
        preserve_external_request_id: true,
        // Otherwise Envoy changes a digit of what the client sent.
        request_id_extension: Some(RequestIdExtension {
            typed_config: Some(any(UuidRequestIdConfig {
                pack_trace_reason: flag(false),
                ..UuidRequestIdConfig::default()
            })),
        }),
        // The script at the edge resolves paths for choosing a route; the upstream gets them as they were sent.
        normalize_path: flag(false),
        merge_slashes: false,
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::KeepUnchanged.into(),
        strip_trailing_host_dot: true,
        local_reply_config: Some(replies::config()),
        ..HttpConnectionManager::default()
    }
}

fn upgrade(common: &Common<'_>, side: Side, kind: &str) -> UpgradeConfig {
    UpgradeConfig {
        upgrade_type: kind.to_owned(),
        filters: http_filter::upgraded(common, side),
        ..UpgradeConfig::default()
    }
}

/// Who is believed is decided by the filter chain already; of the addresses that were told, the same networks are
/// skipped.
fn xff(trusted: &[crate::value::cidr::Cidr]) -> XffConfig {
    let mut cidrs: Vec<_> = trusted.iter().map(network).collect();
    if trusted.iter().any(|cidr| cidr.network().prefix_len() == 0) {
        cidrs = vec![everybody("0.0.0.0"), everybody("::")];
    }
    XffConfig {
        xff_trusted_cidrs: Some(XffTrustedCidrs { cidrs }),
        skip_xff_append: flag(true),
        ..XffConfig::default()
    }
}

fn everybody(family: &str) -> CidrRange {
    CidrRange { address_prefix: family.to_owned(), prefix_len: number(0) }
}

fn nobody() -> CidrRange {
    CidrRange { address_prefix: "255.255.255.255".to_owned(), prefix_len: number(32) }
}

fn extension<T: Name>(name: &str, config: T) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(any(config)) }
}
