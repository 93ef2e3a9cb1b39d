//! The access log: nginx's variables as Envoy's commands.
//!
//! What clients write is escaped by the script at the edge, which leaves it in the metadata of the request: Envoy itself
//! would write a quote or a control character as it is. Times are in milliseconds, which cannot be helped.

use std::borrow::Cow;
use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, access_log};
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3::{StdoutAccessLog, stdout_access_log};

use super::make::{any, formatted, literal};
use super::route::{Draft, label};
use crate::annotations::logging::Logging;
use crate::model::Route;
use crate::render::escape::Piece;
use crate::render::log::{RouteVariable, pieces};
use crate::volume::local;

/// The access log.
pub(super) struct Log<'a> {
    format: String,
    path: Option<&'a str>,
    /// What the format asks for and only a route knows.
    variables: Vec<RouteVariable>,
    /// What the format asks for and clients say: the name in the metadata, and the header.
    said: BTreeMap<String, String>,
    /// What the format asks for and Envoy does not have.
    pub unknown: Vec<String>,
}

impl<'a> Log<'a> {
    pub fn new(logging: &'a Logging) -> Self {
        let Logging { format: _, access_path, error_level: _ } = logging;
        let (mut format, mut said, mut unknown) = (String::new(), BTreeMap::new(), Vec::new());
        let pieces = pieces(logging);
        for piece in &pieces {
            match piece {
                Piece::Text(text) => format.push_str(&literal(text)),
                Piece::Variable(name) => match command(name, &mut said) {
                    Some(command) => format.push_str(&command),
                    None => {
                        format.push('-');
                        unknown.push((*name).to_owned());
                    }
                },
                Piece::Group(_) => unreachable!("a log format has no groups"),
            }
        }
        format.push('\n');
        unknown.sort();
        unknown.dedup();
        let path = access_path.as_ref().map(|path| path.as_str());
        Self { format, path, variables: RouteVariable::asked_for(&pieces), said, unknown }
    }

    /// For the script at the edge: the headers that the log tells of. Names of variables and headers have letters, digits
    /// and a few signs only.
    pub fn names(&self) -> String {
        let entry = |(key, header): (&String, &String)| format!("{{ \"{key}\", \"{header}\" }}, ");
        format!("local LOGGED = {{ {}}}\n", self.said.iter().map(entry).collect::<String>())
    }

    /// Writes into the file that was asked for, to which the agent leads, else to the standard output of the proxy's
    /// container.
    pub fn logger(&self) -> AccessLog {
        let format = formatted(self.format.clone());
        let (name, config) = match self.path {
            Some(path) => (
                "envoy.access_loggers.file",
                any(FileAccessLog {
                    path: local::access_log(path),
                    access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(format)),
                }),
            ),
            None => (
                "envoy.access_loggers.stdout",
                any(StdoutAccessLog { access_log_format: Some(stdout_access_log::AccessLogFormat::LogFormat(format)) }),
            ),
        };
        AccessLog {
            name: name.to_owned(),
            config_type: Some(access_log::ConfigType::TypedConfig(config)),
            ..AccessLog::default()
        }
    }

    /// What the log may tell about a route.
    pub fn label(&self, route: &Route, drafts: &mut [Draft]) {
        for variable in &self.variables {
            let value = variable.value(route);
            for draft in drafts.iter_mut().filter(|_| !value.is_empty()) {
                match variable {
                    // Every route has this one by default, and metadata cost a table much of its size.
                    RouteVariable::ProxyUpstreamName => draft.name = value.clone().into_owned(),
                    _ => drop(draft.labels.insert(variable.name(), value.clone().into_owned())),
                }
            }
        }
    }
}

/// What Envoy has for a variable of nginx. `said` takes what clients say.
fn command(name: &str, said: &mut BTreeMap<String, String>) -> Option<Cow<'static, str>> {
    let mut client = |key: &str, header: String| {
        said.insert(key.to_owned(), header);
        format!("%DYNAMIC_METADATA(coxswain:log:{key})%")
    };
    match name {
        "http_host" | "host" => return Some(Cow::Owned(client("authority", ":authority".to_owned()))),
        "request" => {
            let target = client("target", ":path".to_owned());
            return Some(Cow::Owned(format!("%REQ(:METHOD)% {target} %PROTOCOL%")));
        }
        "request_uri" => return Some(Cow::Owned(client("target", ":path".to_owned()))),
        "content_type" => return Some(Cow::Owned(client(name, "content-type".to_owned()))),
        _ => {}
    }
    if let Some(header) = name.strip_prefix("http_") {
        return Some(Cow::Owned(client(name, header.replace('_', "-"))));
    }
    if let Some(header) = name.strip_prefix("sent_http_").or_else(|| name.strip_prefix("upstream_http_")) {
        return Some(Cow::Owned(format!("%RESP({})%", header.replace('_', "-"))));
    }
    if let Some(trailer) = name.strip_prefix("sent_trailer_").or_else(|| name.strip_prefix("upstream_trailer_")) {
        return Some(Cow::Owned(format!("%TRAILER({})%", trailer.replace('_', "-"))));
    }
    if name == RouteVariable::ProxyUpstreamName.name() {
        return Some(Cow::Borrowed("%ROUTE_NAME%"));
    }
    if RouteVariable::ALL.iter().any(|variable| variable.name() == name) {
        return Some(Cow::Owned(format!("%METADATA(ROUTE:{}:value)%", label(name))));
    }
    Some(Cow::Borrowed(match name {
        "best_http_host" => "%REQ(X-FORWARDED-HOST?:AUTHORITY)%",
        "body_bytes_sent" => "%BYTES_SENT%",
        "bytes_sent" => "%DOWNSTREAM_WIRE_BYTES_SENT%",
        "connection" => "%CONNECTION_ID%",
        "content_length" => "%REQ(CONTENT-LENGTH)%",
        "hostname" => "%HOSTNAME%",
        "msec" => "%START_TIME(%s.%3f)%",
        "pass_access_scheme" => "%REQ(X-FORWARDED-PROTO)%",
        "pass_port" => "%REQ(X-FORWARDED-PORT)%",
        "proxy_alternative_upstream_name" => "",
        "realip_remote_addr" => "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
        "remote_addr" | "the_real_ip" => "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "remote_port" => "%DOWNSTREAM_REMOTE_PORT%",
        // Who that is stands in a header, encoded; it is nobody where nobody asks for it.
        "remote_user" => "-",
        "req_id" | "request_id" => "%REQ(X-REQUEST-ID)%",
        "request_length" => "%DOWNSTREAM_WIRE_BYTES_RECEIVED%",
        "request_method" => "%REQ(:METHOD)%",
        "request_time" => "%DURATION%",
        "scheme" => "%REQ(:SCHEME)%",
        "server_addr" => "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
        "server_port" => "%DOWNSTREAM_LOCAL_PORT%",
        "server_protocol" => "%PROTOCOL%",
        "ssl_cipher" => "%DOWNSTREAM_TLS_CIPHER%",
        "ssl_protocol" => "%DOWNSTREAM_TLS_VERSION%",
        "ssl_server_name" => "%REQUESTED_SERVER_NAME%",
        "status" | "upstream_status" => "%RESPONSE_CODE%",
        "time_iso8601" => "%START_TIME(%Y-%m-%dT%H:%M:%S%Ez)%",
        "time_local" => "%START_TIME(%d/%b/%Y:%H:%M:%S %z)%",
        "upstream_addr" => "%UPSTREAM_HOST%",
        "upstream_bytes_received" | "upstream_response_length" => "%UPSTREAM_WIRE_BYTES_RECEIVED%",
        "upstream_bytes_sent" => "%UPSTREAM_WIRE_BYTES_SENT%",
        "upstream_header_time" => "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:ms)%",
        "upstream_response_time" => "%COMMON_DURATION(US_TX_BEG:US_RX_END:ms)%",
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;
    use crate::value::log::LogFormat;

    #[test]
    fn a_percent_sign_of_a_users_is_no_command() {
        let format = Some(LogFormat::parse("%REQ(X)% $status $pid $namespace").unwrap());
        let logging = Logging { format, ..Logging::default() };
        let log = Log::new(&logging);
        assert_eq!(log.format, "%%REQ(X)%% %RESPONSE_CODE% - %METADATA(ROUTE:coxswain.namespace:value)%\n");
        assert_eq!(log.unknown, ["pid"]);
    }

    #[test]
    fn the_script_knows_what_clients_say() {
        let format = Some(LogFormat::parse("$request $http_user_agent $http_host").unwrap());
        let logging = Logging { format, ..Logging::default() };
        let names = Log::new(&logging).names();
        let entries = r#"{ "authority", ":authority" }, { "http_user_agent", "user-agent" }, { "target", ":path" }, "#;
        assert_eq!(names, format!("local LOGGED = {{ {entries}}}\n"));
    }

    #[test]
    fn the_usual_format_has_something_for_every_variable() {
        assert!(Log::new(&Logging::default()).unknown.is_empty());
    }
}
