//! Short ways to write what Envoy's types need many words for.

use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, CidrRange, ConfigSource, DataSource, HeaderValue, HeaderValueOption,
    SocketAddress, SubstitutionFormatString, address, data_source,
};
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, UInt32Value};
use envoy_types::util::pack_any;
use prost::Name;

use crate::value::cidr::Cidr;
use crate::value::number::Seconds;

/// A message in an envelope that says its type.
pub(super) fn any<T: Name>(message: T) -> Any {
    pack_any(message)
}

/// The agent, over the stream of all resources. Without an answer Envoy waits, rather than doing without.
pub(super) fn from_agent() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource::default())),
        initial_fetch_timeout: Some(Duration::default()),
        ..ConfigSource::default()
    }
}

pub(super) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub(super) fn flag(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

pub(super) fn seconds(seconds: Seconds) -> Duration {
    Duration { seconds: seconds.get().into(), nanos: 0 }
}

pub(super) fn network(cidr: &Cidr) -> CidrRange {
    let network = cidr.network();
    CidrRange { address_prefix: network.network().to_string(), prefix_len: number(network.prefix_len().into()) }
}

pub(super) fn socket(address: impl Into<String>, port: u16) -> Address {
    let socket = SocketAddress {
        address: address.into(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

/// Text in which Envoy looks for nothing.
pub(super) fn inline(content: &[u8]) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::InlineBytes(content.to_vec())), ..DataSource::default() }
}

/// Text in which Envoy looks for commands.
pub(super) fn formatted(format: String) -> SubstitutionFormatString {
    let text = DataSource { specifier: Some(data_source::Specifier::InlineString(format)), ..DataSource::default() };
    SubstitutionFormatString { format: Some(Format::TextFormatSource(text)), ..SubstitutionFormatString::default() }
}

/// Text of somebody's as part of a format.
pub(super) fn literal(text: &str) -> String {
    text.replace('%', "%%")
}

/// A header in place of all others of its name; an empty one is left out. Envoy looks for commands in the value.
pub(super) fn header(name: &str, format: impl Into<String>) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: format.into(), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

/// Matches text that an expression of RE2 takes whole.
pub(super) fn regex(regex: impl Into<String>) -> RegexMatcher {
    RegexMatcher { regex: regex.into(), ..RegexMatcher::default() }
}

pub(super) fn pattern(match_pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(match_pattern), ..StringMatcher::default() }
}

/// Requests with such a header. One without the header never matches.
pub(super) fn has(name: &str, value: MatchPattern) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(pattern(value))),
        ..HeaderMatcher::default()
    }
}

/// Requests without such a header.
pub(super) fn has_not(name: &str, value: MatchPattern) -> HeaderMatcher {
    HeaderMatcher { invert_match: true, ..has(name, value) }
}
