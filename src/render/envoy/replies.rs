//! Answers that are nobody's but the proxy's: which status, and which page.

use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::comparison_filter::Op;
use envoy_types::pb::envoy::config::accesslog::v3::{
    AccessLogFilter, ComparisonFilter, ExtensionFilter, ResponseFlagFilter, StatusCodeFilter, extension_filter,
};
use envoy_types::pb::envoy::config::core::v3::{RuntimeUInt32, SubstitutionFormatString};
use envoy_types::pb::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    LocalReplyConfig, ResponseMapper,
};

use super::make::{self, formatted, number};

/// A page for a person.
const PAGE: &str = "<html>\n<head><title>%RESPONSE_CODE%</title></head>\n<body>\n<center><h1>%RESPONSE_CODE%</h1></center>\n</body>\n</html>\n";

/// Envoy says 503 where the endpoint failed; clients of ingress-nginx know that as 502, and 503 as nobody there.
const FAILED: [&str; 5] = ["UF", "UC", "UPE", "UR", "LR"];

/// A connection that did not come about in time: Envoy has no flag for that.
const LATE: &str = "response.code_details.contains('connection_timeout')";

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
    let late = FilterSpecifier::ExtensionFilter(ExtensionFilter {
        name: "envoy.access_loggers.extension_filters.cel".to_owned(),
        config_type: Some(extension_filter::ConfigType::TypedConfig(make::any(ExpressionFilter {
            expression: LATE.to_owned(),
            ..ExpressionFilter::default()
        }))),
    });
    let with = |status, filter| ResponseMapper { status_code: number(status), ..mapper(filter) };
    // The first that fits.
    let mappers = vec![with(504, late), with(502, failed), mapper(any)];
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
