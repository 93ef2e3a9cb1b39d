//! `log-format-upstream`, `access-log-path`, `error-log-level`: what is logged, and where to.

use serde::Serialize;

use super::spec::{Case, Key, Spec};
use super::{GlobalPolicies, Reader};
use crate::problem::{Problem, Reason, Subject};
use crate::value::Invalid;
use crate::value::log::{LogFormat, LogPath};
use crate::volume::LogLevel;

/// What is logged, and where to.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Logging {
    /// One line per request; `None`: ingress-nginx's default format.
    pub format: Option<LogFormat>,
    /// Where access is logged; `None`: the standard output of the proxy's container.
    pub access_path: Option<LogPath>,
    /// How much goes into the error log.
    pub error_level: LogLevel,
}

static FORMAT: Key = Key {
    name: "log-format-upstream",
    grammar: "text on one line, of at most 4000 bytes, with variables that the proxy has as `$name` or `${name}`",
    doc: "One line of the access log. Without it: nginx's `combined` format, followed by `$request_length \
          $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr \
          $upstream_response_length $upstream_response_time $upstream_status $req_id`.",
    ..Key::GLOBAL
};

static ACCESS_PATH: Key = Key {
    name: "access-log-path",
    grammar: "an absolute path of letters, digits, `/`, `.`, `_` and `-`, without `..`",
    doc: "The file of the access log. Without it, and as long as the proxy cannot open it: the standard output of the \
          proxy's container.",
    ..Key::GLOBAL
};

static ERROR_LEVEL: Key = Key {
    name: "error-log-level",
    grammar: "`debug`, `info`, `notice`, `warn`, `error`, `crit`, `alert` or `emerg`",
    default: "notice",
    doc: "How much goes into the proxy's error log, which is part of the standard error of its container. What is less \
          than a warning also needs the agent's flag `--log-level=info,nginx=debug`.",
    ..Key::GLOBAL
};

static SPEC: Spec = Spec {
    title: "Logs",
    keys: &[&FORMAT, &ACCESS_PATH, &ERROR_LEVEL],
    cases: &[
        Case::good("short lines", &[("log-format-upstream", "$remote_addr \"$request\" $status ${service_name}")]),
        Case::good("JSON", &[("log-format-upstream", r#"{"time":"$time_iso8601","host":"$host","status":$status}"#)]),
        Case::bad("a variable that is none", &[("log-format-upstream", "$remote_adr")], Reason::InvalidValue),
        Case::bad("two lines", &[("log-format-upstream", "$status\n$request")], Reason::InvalidValue),
        Case::good("no log at all", &[("access-log-path", "/dev/null")]),
        Case::bad("no absolute path", &[("access-log-path", "access.log")], Reason::InvalidValue),
        Case::good("errors alone", &[("error-log-level", "error")]),
        Case::bad("a level that is none", &[("error-log-level", "verbose")], Reason::InvalidValue),
    ],
};

/// What is told on the ConfigMap when the proxy cannot open the file of its access log, for this reason.
pub fn cannot_open(config_map: &Subject, path: &LogPath, why: &str) -> Problem {
    let path = path.as_str();
    let message = format!(
        "access-log-path: the proxy cannot open {path:?}: {why}; it must be a file that can be written in the proxy's \
         container, in a folder that exists there"
    );
    let effect = "access is logged to the standard output of the proxy's container until it can be opened";
    config_map.degraded(Reason::InvalidValue, format!("data[{}]", ACCESS_PATH.name), message, effect)
}

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read_globals(&self, from: &mut Reader<'_>, into: &mut GlobalPolicies) {
        let logging = &mut into.globals.logging;
        if let Some(format) = from.value(&FORMAT, "the default format") {
            logging.format = Some(format);
        }
        if let Some(path) = from.value(&ACCESS_PATH, "the standard output of the proxy's container") {
            logging.access_path = Some(path);
        }
        if let Some(level) = from.parse(&ERROR_LEVEL, logging.error_level.as_str(), level) {
            logging.error_level = level;
        }
    }
}

fn level(text: &str) -> Result<LogLevel, Invalid> {
    let known = LogLevel::ALL.into_iter().find(|level| level.as_str() == text);
    known.ok_or_else(|| Invalid::new("is no level", ERROR_LEVEL.grammar))
}
