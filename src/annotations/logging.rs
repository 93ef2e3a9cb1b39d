//! `log-format-upstream`, `access-log-path`, `error-log-level`: what is logged, and where to.

use serde::Serialize;

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
