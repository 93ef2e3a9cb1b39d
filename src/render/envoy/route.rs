//! Routes of Envoy: what a request must be like, and what becomes of it.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, HeaderMatcher, RedirectAction, RetryPolicy, Route, RouteAction, RouteMatch, redirect_action,
    route,
};
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, Duration, Struct, Value};
use prost::Message as _;

use super::make::{header, inline, literal, regex};

/// Where the script at the edge looks for its words.
const WORDS: &str = "envoy.filters.http.lua";

/// A route in the making. Its maps are sorted, as prost's are not.
#[derive(Clone, Default)]
pub(super) struct Draft {
    /// What the log calls it.
    pub name: String,
    path: Option<PathSpecifier>,
    headers: Vec<HeaderMatcher>,
    action: Option<route::Action>,
    answer_headers: Vec<(String, String)>,
    no_headers: Vec<String>,
    words: Vec<String>,
    /// What a log may ask for.
    pub labels: BTreeMap<&'static str, String>,
    /// What filters do otherwise here.
    pub filters: BTreeMap<&'static str, Any>,
}

/// How requests go to an upstream.
pub(super) struct Forward {
    pub cluster: String,
    pub idle: Duration,
    pub retry: RetryPolicy,
    pub rewrite: Option<RegexMatchAndSubstitute>,
    /// What the script at the edge is told.
    pub words: Vec<String>,
}

impl Draft {
    /// For requests with such a path.
    pub fn new(path: PathSpecifier) -> Self {
        Self { path: Some(path), ..Self::default() }
    }

    /// Of them, only those with such a header.
    pub fn only(mut self, matcher: HeaderMatcher) -> Self {
        self.headers.push(matcher);
        self
    }

    /// Answered with a status; from 400 on with a page of our own, else with this content.
    pub fn answers(mut self, status: u16, content: Option<&[u8]>) -> Self {
        let body = content.map(inline);
        self.action = Some(route::Action::DirectResponse(DirectResponseAction {
            status: status.into(),
            body,
            body_format: None,
        }));
        self
    }

    /// The answer has this header. Nothing is looked for in the value.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.answer_headers.push((name.to_owned(), literal(value)));
        self
    }

    /// The answer has no such header: Envoy adds one to some.
    pub fn without(mut self, name: &str) -> Self {
        self.no_headers.push(name.to_owned());
        self
    }

    /// Sent to https.
    pub fn redirects(mut self, code: u16, port: u16) -> Self {
        use envoy_types::pb::envoy::config::route::v3::redirect_action::RedirectResponseCode as Code;
        let code = match code {
            301 => Code::MovedPermanently,
            302 => Code::Found,
            307 => Code::TemporaryRedirect,
            _ => Code::PermanentRedirect,
        };
        self.words.push("redirect".to_owned());
        self.action = Some(route::Action::Redirect(RedirectAction {
            scheme_rewrite_specifier: Some(redirect_action::SchemeRewriteSpecifier::HttpsRedirect(true)),
            // 0: none is written, which is right for the usual one.
            port_redirect: if port == 443 { 0 } else { port.into() },
            response_code: code.into(),
            ..RedirectAction::default()
        }));
        self
    }

    /// Sent to an upstream.
    pub fn forwards(mut self, forward: Forward) -> Self {
        let Forward { cluster, idle, retry, rewrite, words } = forward;
        self.words.extend(rewrite.is_some().then(|| "rewrite".to_owned()));
        self.words.extend(words);
        self.action = Some(route::Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
            // No limit for an answer as a whole: a download may take its time.
            timeout: Some(Duration::default()),
            idle_timeout: Some(idle),
            retry_policy: Some(retry),
            regex_rewrite: rewrite,
            ..RouteAction::default()
        }));
        self
    }

    /// The bytes of the route.
    pub fn encode(self) -> Vec<u8> {
        let Self { name, path, headers, action, answer_headers, no_headers, words, labels, filters } = self;
        let add = |(name, value): (String, String)| header(&name, value);
        let route = Route {
            name,
            r#match: Some(RouteMatch { headers, path_specifier: path, ..RouteMatch::default() }),
            action,
            response_headers_to_add: answer_headers.into_iter().map(add).collect(),
            response_headers_to_remove: no_headers,
            ..Route::default()
        };
        let mut bytes = route.encode_to_vec();
        let words = (!words.is_empty()).then(|| (WORDS.to_owned(), one("words", words.join(" "))));
        let labels = labels.into_iter().map(|(name, value)| (label(name), one("value", value)));
        let metadata: BTreeMap<String, Struct> = words.into_iter().chain(labels).collect();
        for (name, value) in metadata {
            let metadata = Metadata { filter_metadata: [(name, value)].into(), ..Metadata::default() };
            bytes.extend(Route { metadata: Some(metadata), ..Route::default() }.encode_to_vec());
        }
        for (name, config) in filters {
            let typed_per_filter_config = [(name.to_owned(), config)].into();
            bytes.extend(Route { typed_per_filter_config, ..Route::default() }.encode_to_vec());
        }
        bytes
    }
}

/// The name space of what a log may ask for.
pub(super) fn label(name: &str) -> String {
    format!("coxswain.{name}")
}

/// Puts what a pattern takes, to the end of the path, in the place of the path.
pub(super) fn rewrite(pattern: &str, substitution: String) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute { pattern: Some(regex(format!("(?is)^(?:{pattern}).*"))), substitution }
}

fn one(key: &str, text: String) -> Struct {
    Struct { fields: [(key.to_owned(), Value { kind: Some(Kind::StringValue(text)) })].into() }
}
