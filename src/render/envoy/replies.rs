//! Answers that are nobody's but the proxy's: which status, and which page.

use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::comparison_filter::Op;
use envoy_types::pb::envoy::config::accesslog::v3::{
    AccessLogFilter, ComparisonFilter, ResponseFlagFilter, StatusCodeFilter,
};
use envoy_types::pb::envoy::config::core::v3::{RuntimeUInt32, SubstitutionFormatString};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    LocalReplyConfig, ResponseMapper,
};

use super::make::{formatted, number};

/// A page for a person.
const PAGE: &str = "<html>\n<head><title>%RESPONSE_CODE%</title></head>\n<body>\n<center><h1>%RESPONSE_CODE%</h1></center>\n</body>\n</html>\n";

/// Envoy says 503 where the endpoint failed; clients of ingress-nginx know that as 502, and 503 as nobody there.
const FAILED: [&str; 5] = ["UF", "UC", "UPE", "UR", "LR"];

/// Statuses and pages.
pub(super) fn config() -> LocalReplyConfig {
    let flags = FAILED.map(str::to_owned).into();
    let failed = FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter { flags });
    let any = FilterSpecifier::StatusCodeFilter(StatusCodeFilter {
        comparison: Some(ComparisonFilter {
            op: Op::Ge.into(),
            value: Some(RuntimeUInt32 { default_value: 400, runtime_key: "coxswain.pages".to_owned() }),
        }),
    });
    let mappers = vec![ResponseMapper { status_code: number(502), ..mapper(failed) }, mapper(any)];
    LocalReplyConfig { mappers, ..LocalReplyConfig::default() }
}

fn mapper(filter: FilterSpecifier) -> ResponseMapper {
    ResponseMapper {
        filter: Some(AccessLogFilter { filter_specifier: Some(filter) }),
        body_format_override: Some(SubstitutionFormatString {
            content_type: "text/html".to_owned(),
            ..formatted(PAGE.to_owned())
        }),
        ..ResponseMapper::default()
    }
}
