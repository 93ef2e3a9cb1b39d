//! Which server names a TLS client may ask for, and which filter chain it then gets.
//!
//! Envoy asks the agent for the certificate of whatever name a client sends, and some names mean more to it than a name:
//! `*` would ask for every certificate there is, after which Envoy refuses those of all others; `xdstp:` begins a name
//! of another kind. So a name that no host can have ends the connection before its certificate is looked for.

use envoy_types::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch};
use envoy_types::pb::envoy::extensions::matching::common_inputs::network::v3::{DirectSourceIpInput, ServerNameInput};
use envoy_types::pb::envoy::extensions::matching::input_matchers::ip::v3::Ip;
use envoy_types::pb::google::protobuf::StringValue;
use envoy_types::pb::xds::core::v3::TypedExtensionConfig;
use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_list::predicate::{
    MatchType, PredicateList, SinglePredicate, single_predicate,
};
use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_list::{FieldMatcher, Predicate};
use envoy_types::pb::xds::r#type::matcher::v3::matcher::{MatcherList, MatcherType, OnMatch, on_match};
use envoy_types::pb::xds::r#type::matcher::v3::regex_matcher::{EngineType, GoogleRe2};
use envoy_types::pb::xds::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::xds::r#type::matcher::v3::{Matcher, RegexMatcher, StringMatcher};
use prost::Name;

use super::make::any;

/// What a host name is made of.
const GOOD: &str = "[A-Za-z0-9._-]+";

/// Whatever bytes, but some.
const SOME: &str = r"\C+";

/// A chain that does not exist: the connection is closed.
const NOBODYS: &str = "nobody";

/// Closes for names that no host can have, and chooses by who connects for all others.
pub(super) fn matcher(believed: Option<&FilterChain>, all: &FilterChain) -> Matcher {
    let strange = and(vec![name(SOME), not(name(GOOD))]);
    let mut matchers = vec![FieldMatcher { predicate: Some(strange), on_match: Some(chain(NOBODYS)) }];
    if let Some(FilterChain { name, filter_chain_match: Some(from), .. }) = believed {
        matchers.push(FieldMatcher { predicate: Some(source(from)), on_match: Some(chain(name)) });
    }
    Matcher {
        on_no_match: Some(Box::new(chain(&all.name))),
        matcher_type: Some(MatcherType::MatcherList(MatcherList { matchers })),
    }
}

fn chain(name: &str) -> OnMatch {
    let action = extension("chain", StringValue { value: name.to_owned() });
    OnMatch { on_match: Some(on_match::OnMatch::Action(action)), ..OnMatch::default() }
}

/// The name that the client asks for, as a whole.
fn name(regex: &str) -> Predicate {
    let engine_type = Some(EngineType::GoogleRe2(GoogleRe2::default()));
    let regex = RegexMatcher { regex: regex.to_owned(), engine_type };
    let pattern = StringMatcher { match_pattern: Some(MatchPattern::SafeRegex(regex)), ..StringMatcher::default() };
    single(extension("name", ServerNameInput {}), single_predicate::Matcher::ValueMatch(pattern))
}

/// Who connects.
fn source(from: &FilterChainMatch) -> Predicate {
    let ip = Ip { cidr_ranges: from.direct_source_prefix_ranges.clone(), stat_prefix: "believed".to_owned() };
    single(extension("source", DirectSourceIpInput {}), single_predicate::Matcher::CustomMatch(extension("ip", ip)))
}

fn single(input: TypedExtensionConfig, matcher: single_predicate::Matcher) -> Predicate {
    let single = SinglePredicate { input: Some(input), matcher: Some(matcher) };
    Predicate { match_type: Some(MatchType::SinglePredicate(single)) }
}

fn and(predicate: Vec<Predicate>) -> Predicate {
    Predicate { match_type: Some(MatchType::AndMatcher(PredicateList { predicate })) }
}

fn not(predicate: Predicate) -> Predicate {
    Predicate { match_type: Some(MatchType::NotMatcher(Box::new(predicate))) }
}

fn extension<T: Name>(name: &str, config: T) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(any(config)) }
}
