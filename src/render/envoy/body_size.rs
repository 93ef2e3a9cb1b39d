//! The largest body of a request. Envoy's filter for it has one limit for a whole listener, so each route has a filter of
//! its own: the listener has an empty place, and routes say what is put there.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::common::matching::v3::{ExtensionWithMatcher, ExtensionWithMatcherPerRoute};
use envoy_types::pb::envoy::extensions::filters::common::matcher::action::v3::SkipFilter;
use envoy_types::pb::envoy::extensions::filters::http::body_size_limit::v3::BodySizeLimit;
use envoy_types::pb::envoy::extensions::filters::http::composite::v3::{Composite, ExecuteFilterAction};
use envoy_types::pb::google::protobuf::{Any, UInt64Value};
use envoy_types::pb::xds::core::v3::TypedExtensionConfig as Extension;
use envoy_types::pb::xds::r#type::matcher::v3::Matcher;
use envoy_types::pb::xds::r#type::matcher::v3::matcher::{OnMatch, on_match};

use super::make::any;
use crate::annotations::body_size::BodySize;

/// The name of the place.
pub(super) const NAME: &str = "coxswain.body_size";

/// The empty place.
pub(super) fn place() -> ExtensionWithMatcher {
    ExtensionWithMatcher {
        extension_config: Some(TypedExtensionConfig {
            name: "composite".to_owned(),
            typed_config: Some(any(Composite::default())),
        }),
        xds_matcher: Some(always(any(SkipFilter {}))),
        ..ExtensionWithMatcher::default()
    }
}

/// What a route puts there; for 0, no limit, nothing.
pub(super) fn limit(limit: BodySize) -> Any {
    let action = match limit.0.as_bytes() {
        0 => any(SkipFilter {}),
        value => any(ExecuteFilterAction {
            typed_config: Some(TypedExtensionConfig {
                name: "envoy.filters.http.body_size_limit".to_owned(),
                typed_config: Some(any(BodySizeLimit { max_request_bytes: Some(UInt64Value { value }) })),
            }),
            ..ExecuteFilterAction::default()
        }),
    };
    any(ExtensionWithMatcherPerRoute { xds_matcher: Some(always(action)) })
}

fn always(action: Any) -> Matcher {
    let action = Extension { name: "always".to_owned(), typed_config: Some(action) };
    Matcher {
        on_no_match: Some(Box::new(OnMatch {
            on_match: Some(on_match::OnMatch::Action(action)),
            ..OnMatch::default()
        })),
        ..Matcher::default()
    }
}
