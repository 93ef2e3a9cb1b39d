//! The flags that `run`, `render` and `check` share: one vocabulary, each flag also an environment variable.
//!
//! Flags of ingress-nginx keep their names and habits (`--x=true`, an empty value is no value). What each means for
//! traffic is `settings`' and the model's business.

mod ignored;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap::builder::ArgAction;

use crate::model::Listeners;
use crate::problem::Kind;
use crate::settings::Flags;
use crate::value::Value;
use crate::value::reference::{Name, ObjectName};
use crate::volume::ProxyKind;
use crate::watch::cluster::Options;

pub use self::ignored::Ignored;

/// Everything that decides what is served and how.
#[derive(Debug, Args)]
pub struct Common {
    /// Objects from this file or directory instead of a cluster; may be given several times.
    ///
    /// As with kubectl: a file of YAML or JSON, a directory of them (not the directories below it), or - for standard
    /// input. Changes of the files take effect while coxswain runs.
    #[arg(short = 'f', long = "file", visible_alias = "filename", env = "COXSWAIN_FILE", value_name = "PATH")]
    #[arg(value_delimiter = ',', help_heading = SOURCE)]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    meaning: Meaning,

    /// What concerns the cluster only.
    #[command(flatten)]
    pub cluster: Cluster,

    /// What concerns the proxy and its volume.
    #[command(flatten)]
    pub proxy: Proxy,

    /// When changes are taken up.
    #[command(flatten)]
    pub timing: Timing,

    /// Flags of ingress-nginx that do nothing here.
    #[command(flatten)]
    pub ignored: Ignored,
}

const SOURCE: &str = "Where the objects come from";
const MEANING: &str = "What is served";
const PROXY: &str = "The proxy";
const STATUS: &str = "What the cluster is told";

/// The flags that change what an Ingress means.
#[derive(Debug, Args)]
#[command(next_help_heading = MEANING)]
struct Meaning {
    /// The ConfigMap with the global settings.
    #[arg(long, env = "COXSWAIN_CONFIGMAP", value_name = "NAMESPACE/NAME", value_parser = object)]
    configmap: Option<Maybe>,

    /// The class of the Ingresses that are ours: the value of the annotation kubernetes.io/ingress.class.
    #[arg(long, env = "COXSWAIN_INGRESS_CLASS", value_name = "CLASS", default_value = "coxswain")]
    ingress_class: String,

    /// The controller that an IngressClass must name to be ours.
    #[arg(long, env = "COXSWAIN_CONTROLLER_CLASS", value_name = "CONTROLLER")]
    #[arg(default_value = "coxswain.dev/ingress")]
    controller_class: String,

    /// Serve Ingresses without any class too.
    #[arg(long, env = "COXSWAIN_WATCH_INGRESS_WITHOUT_CLASS", value_name = "BOOL", value_parser = boolean)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    #[arg(action = ArgAction::Set)]
    watch_ingress_without_class: bool,

    /// An IngressClass with the name of --ingress-class is ours whatever controller it names.
    #[arg(long, env = "COXSWAIN_INGRESS_CLASS_BY_NAME", value_name = "BOOL", value_parser = boolean)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    #[arg(action = ArgAction::Set)]
    ingress_class_by_name: bool,

    /// The Service that answers what no rule takes; without one that is a 404.
    #[arg(long, env = "COXSWAIN_DEFAULT_BACKEND_SERVICE", value_name = "NAMESPACE/NAME", value_parser = object)]
    default_backend_service: Option<Maybe>,

    /// The Secret with the certificate for hosts that have none of their own; without one it is self-signed.
    #[arg(long, env = "COXSWAIN_DEFAULT_SSL_CERTIFICATE", value_name = "NAMESPACE/NAME", value_parser = object)]
    default_ssl_certificate: Option<Maybe>,

    /// The prefix of the annotations that are read.
    #[arg(long, env = "COXSWAIN_ANNOTATIONS_PREFIX", value_name = "PREFIX", value_parser = prefix)]
    #[arg(default_value = "nginx.ingress.kubernetes.io")]
    annotations_prefix: String,

    /// Do not serve Ingresses that have a spec.defaultBackend.
    #[arg(long, env = "COXSWAIN_DISABLE_CATCH_ALL", value_name = "BOOL", value_parser = boolean)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    #[arg(action = ArgAction::Set)]
    disable_catch_all: bool,

    /// Services of type ExternalName have no endpoints: they answer 503.
    #[arg(long, env = "COXSWAIN_DISABLE_SVC_EXTERNAL_NAME", value_name = "BOOL", value_parser = boolean)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    #[arg(action = ArgAction::Set)]
    disable_svc_external_name: bool,
}

/// The flags that concern the proxy and its volume.
#[derive(Debug, Args)]
#[command(next_help_heading = PROXY)]
pub struct Proxy {
    /// Port for HTTP.
    #[arg(long, env = "COXSWAIN_HTTP_PORT", value_name = "PORT", default_value_t = 8080)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub http_port: u16,

    /// Port for HTTPS.
    #[arg(long, env = "COXSWAIN_HTTPS_PORT", value_name = "PORT", default_value_t = 8443)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub https_port: u16,

    /// The port that clients see for HTTP.
    #[arg(long, env = "COXSWAIN_PUBLIC_HTTP_PORT", value_name = "PORT", default_value_t = 80)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    public_http_port: u16,

    /// The port that clients see for HTTPS: redirects lead there.
    #[arg(long, env = "COXSWAIN_PUBLIC_HTTPS_PORT", value_name = "PORT", default_value_t = 443)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    public_https_port: u16,

    /// Listen on IPv6 too; the default is to do so where this machine has it.
    #[arg(long, env = "COXSWAIN_IPV6", value_name = "BOOL", value_parser = boolean)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    ipv6: Option<bool>,

    /// Port of the proxy's own /readyz: 200 while a release is served and its names are answered.
    #[arg(long, env = "COXSWAIN_READY_PORT", value_name = "PORT", default_value_t = 8090)]
    pub ready_port: u16,

    /// Which proxy.
    #[arg(long, env = "COXSWAIN_PROXY", value_name = "PROXY", default_value_t, value_parser = proxy_kind)]
    pub proxy: ProxyKind,

    /// The proxy's executable; searched for in PATH by default.
    #[arg(long, env = "COXSWAIN_PROXY_BIN", value_name = "FILE")]
    pub proxy_bin: Option<PathBuf>,

    /// The volume that is shared with the proxy: /proxy in a Pod; with -f a folder that goes when coxswain ends.
    #[arg(long, env = "COXSWAIN_PROXY_DIR", value_name = "DIR")]
    pub proxy_dir: Option<PathBuf>,

    /// Who the proxy's workers run as when coxswain runs as root.
    #[arg(long, env = "COXSWAIN_PROXY_USER", value_name = "USER", default_value = "nobody")]
    pub proxy_user: String,

    /// A version of the proxy with known vulnerabilities that is used all the same (with -f).
    #[arg(long, env = "COXSWAIN_ACCEPT_PROXY_VERSION", value_name = "VERSION")]
    pub accept_proxy_version: Option<String>,

    /// Seconds from a stop signal during which new connections are still accepted.
    #[arg(long, env = "COXSWAIN_SHUTDOWN_GRACE_PERIOD", value_name = "SECONDS", default_value_t = 0)]
    pub shutdown_grace_period: u64,

    /// Seconds that requests may then take to finish before they are cut.
    #[arg(long, env = "COXSWAIN_DRAIN_TIMEOUT", value_name = "SECONDS", default_value_t = 5)]
    pub drain_timeout: u64,
}

/// When changes are taken up.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = PROXY)]
pub struct Timing {
    /// Changes that follow each other within this time are taken up together.
    #[arg(long, env = "COXSWAIN_QUIET_TIME", value_name = "TIME", default_value = "100ms", value_parser = duration)]
    pub quiet_time: Duration,

    /// The longest that a change waits for others.
    #[arg(long, env = "COXSWAIN_MAXIMUM_DELAY", value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub maximum_delay: Duration,
}

/// The flags that have no meaning without a cluster.
#[derive(Debug, Args)]
#[command(next_help_heading = STATUS)]
pub struct Cluster {
    /// How to reach the cluster; by default as kubectl does, or as a Pod does.
    #[arg(long, env = "COXSWAIN_KUBECONFIG", value_name = "FILE", help_heading = SOURCE)]
    pub kubeconfig: Option<PathBuf>,

    /// The namespaces to watch, with commas between them; all by default.
    #[arg(long, env = "COXSWAIN_WATCH_NAMESPACE", value_name = "NAMESPACES", value_parser = names)]
    #[arg(default_value = "", hide_default_value = true, help_heading = SOURCE)]
    pub watch_namespace: Names,

    /// Watch the namespaces with these labels only.
    #[arg(long, env = "COXSWAIN_WATCH_NAMESPACE_SELECTOR", value_name = "SELECTOR", help_heading = SOURCE)]
    pub watch_namespace_selector: Option<String>,

    /// The Service whose addresses the status of Ingresses names.
    #[arg(long, env = "COXSWAIN_PUBLISH_SERVICE", value_name = "NAMESPACE/NAME", value_parser = object)]
    pub publish_service: Option<Maybe>,

    /// The addresses that the status of Ingresses names, with commas between them.
    #[arg(long, env = "COXSWAIN_PUBLISH_STATUS_ADDRESS", value_name = "ADDRESSES", value_delimiter = ',')]
    pub publish_status_address: Vec<String>,

    /// Name the internal addresses of nodes in the status, not their external ones.
    #[arg(long, env = "COXSWAIN_REPORT_NODE_INTERNAL_IP_ADDRESS", value_name = "BOOL", value_parser = boolean)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    #[arg(action = ArgAction::Set)]
    pub report_node_internal_ip_address: bool,

    /// Write the status of Ingresses.
    #[arg(long, env = "COXSWAIN_UPDATE_STATUS", value_name = "BOOL", value_parser = boolean)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true")]
    #[arg(action = ArgAction::Set)]
    pub update_status: bool,

    /// Take our addresses out of the status when the last replica ends.
    #[arg(long, env = "COXSWAIN_UPDATE_STATUS_ON_SHUTDOWN", value_name = "BOOL", value_parser = boolean)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true")]
    #[arg(action = ArgAction::Set)]
    pub update_status_on_shutdown: bool,

    /// The Lease by which replicas agree who writes the status.
    #[arg(long, env = "COXSWAIN_ELECTION_ID", value_name = "NAME", default_value = "coxswain-leader")]
    pub election_id: String,

    /// How long a leader that is silent stays the leader.
    #[arg(long, env = "COXSWAIN_ELECTION_TTL", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub election_ttl: Duration,

    /// Every replica writes the status.
    #[arg(long, env = "COXSWAIN_DISABLE_LEADER_ELECTION", value_name = "BOOL", value_parser = boolean)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    #[arg(action = ArgAction::Set)]
    pub disable_leader_election: bool,

    /// Write no Event when an Ingress has gone live.
    #[arg(long, env = "COXSWAIN_DISABLE_SYNC_EVENTS", value_name = "BOOL", value_parser = boolean)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    #[arg(action = ArgAction::Set)]
    pub disable_sync_events: bool,

    /// How often the addresses of nodes are looked up.
    #[arg(long, env = "COXSWAIN_STATUS_UPDATE_INTERVAL", value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub status_update_interval: Duration,

    /// Answer the API server's admission reviews on this address, for example :9443.
    #[arg(long, env = "COXSWAIN_VALIDATING_WEBHOOK", value_name = "ADDRESS")]
    pub validating_webhook: Option<String>,

    /// The webhook's certificate (PEM); read again when it changes.
    #[arg(
        long,
        env = "COXSWAIN_VALIDATING_WEBHOOK_CERTIFICATE",
        value_name = "FILE",
        requires = "validating_webhook_key"
    )]
    pub validating_webhook_certificate: Option<PathBuf>,

    /// The webhook's key (PEM).
    #[arg(
        long,
        env = "COXSWAIN_VALIDATING_WEBHOOK_KEY",
        value_name = "FILE",
        requires = "validating_webhook_certificate"
    )]
    pub validating_webhook_key: Option<PathBuf>,

    /// Without files: the name of the webhook's Service, of its ValidatingWebhookConfiguration, and of the Secret in which
    /// the leader keeps the certificate that it makes.
    #[arg(long, env = "COXSWAIN_VALIDATING_WEBHOOK_NAME", value_name = "NAME", default_value = "coxswain-admission")]
    pub validating_webhook_name: String,

    /// Answer questions of an operator (snapshot, configuration, problems) on this unix socket: curl --unix-socket
    /// SOCKET http://localhost/debug
    #[arg(long, env = "COXSWAIN_DEBUG_SOCKET", value_name = "SOCKET")]
    pub debug_socket: Option<PathBuf>,

    /// Port for health and metrics.
    #[arg(long, env = "COXSWAIN_HEALTHZ_PORT", value_name = "PORT", default_value_t = 10254)]
    pub healthz_port: u16,

    /// The Pod this runs in.
    #[arg(long, env = "POD_NAME", value_name = "NAME", hide = true)]
    pub pod_name: Option<String>,

    /// The namespace of the Pod this runs in.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", value_parser = name, hide = true)]
    pub pod_namespace: Option<Name>,

    /// The addresses of the Pod this runs in: no endpoint may be one of them.
    #[arg(long, env = "POD_IPS", value_name = "ADDRESSES", value_delimiter = ',', hide = true)]
    pub pod_ips: Vec<IpAddr>,
}

impl Common {
    /// Whether all of `-f` is there: a path with a typing error would otherwise serve nothing without a word.
    pub fn check_paths(&self) -> anyhow::Result<()> {
        for path in self.files.iter().filter(|path| path.as_os_str() != "-") {
            std::fs::metadata(path).with_context(|| format!("-f {}", path.display()))?;
        }
        Ok(())
    }

    /// What is watched in a cluster.
    pub fn watched(&self) -> Options {
        let (meaning, cluster) = (&self.meaning, &self.cluster);
        let always = [
            (Kind::ConfigMap, given(&meaning.configmap)),
            (Kind::Secret, given(&meaning.default_ssl_certificate)),
            (Kind::Service, given(&meaning.default_backend_service)),
            (Kind::Service, given(&cluster.publish_service)),
        ];
        Options {
            namespaces: cluster.watch_namespace.0.clone(),
            namespace_selector: cluster.watch_namespace_selector.clone().filter(|selector| !selector.is_empty()),
            always: always.into_iter().filter_map(|(kind, name)| Some((kind, name?))).collect(),
        }
    }

    /// The part that decides what an Ingress means.
    pub fn flags(&self) -> Flags {
        let (meaning, proxy, cluster) = (&self.meaning, &self.proxy, &self.cluster);
        Flags {
            listeners: Listeners {
                http: proxy.http_port,
                https: proxy.https_port,
                public_http: proxy.public_http_port,
                public_https: proxy.public_https_port,
                ipv6: proxy.ipv6.unwrap_or_else(has_ipv6),
            },
            annotations_prefix: meaning.annotations_prefix.clone(),
            ingress_class: meaning.ingress_class.clone(),
            controller_class: meaning.controller_class.clone(),
            config_map: given(&meaning.configmap),
            default_backend_service: given(&meaning.default_backend_service),
            default_ssl_certificate: given(&meaning.default_ssl_certificate),
            watch_ingress_without_class: meaning.watch_ingress_without_class,
            ingress_class_by_name: meaning.ingress_class_by_name,
            disable_catch_all: meaning.disable_catch_all,
            disable_svc_external_name: meaning.disable_svc_external_name,
            own_ports: BTreeSet::from([proxy.http_port, proxy.https_port, proxy.ready_port, cluster.healthz_port]),
            pod_addresses: cluster.pod_ips.iter().copied().collect(),
            namespace: cluster.pod_namespace.clone(),
        }
    }
}

/// A name of an object that may be empty, as in ingress-nginx: then it is as if the flag were not there.
#[derive(Clone, Debug)]
pub struct Maybe(pub Option<ObjectName>);

/// Names with commas between them; none at all means all.
#[derive(Clone, Debug)]
pub struct Names(pub BTreeSet<Name>);

fn given(object: &Option<Maybe>) -> Option<ObjectName> {
    object.as_ref().and_then(|maybe| maybe.0.clone())
}

fn object(text: &str) -> Result<Maybe, String> {
    if text.is_empty() {
        return Ok(Maybe(None));
    }
    ObjectName::parse(text).map(|name| Maybe(Some(name))).map_err(|invalid| invalid.to_string())
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|invalid| invalid.to_string())
}

fn names(text: &str) -> Result<Names, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(name).collect::<Result<_, _>>().map(Names)
}

/// A boolean as Go writes it.
pub fn boolean(text: &str) -> Result<bool, String> {
    bool::parse(text).map_err(|invalid| invalid.to_string())
}

fn prefix(text: &str) -> Result<String, String> {
    let wrong = |_| format!("is no prefix of annotations; it must be {}", Name::GRAMMAR);
    Name::parse(text).map(|name| name.to_string()).map_err(wrong)
}

pub(super) fn proxy_kind(text: &str) -> Result<ProxyKind, String> {
    match text {
        "nginx" => Ok(ProxyKind::Nginx),
        "envoy" => Ok(ProxyKind::Envoy),
        _ => Err("is no proxy that can be steered; it must be `nginx` or `envoy`".to_owned()),
    }
}

/// A time as Go writes it (`1m30s`, `100ms`, `1.5s`); a number alone is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "is no time; it must be a number of seconds, or like `100ms`, `30s` or `1m30s`".to_owned();
    let seconds = |text: &str| text.parse::<f64>().ok().filter(|s| s.is_finite() && (0.0..=1e9).contains(s));
    if let Some(seconds) = seconds(text) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let factor = match &tail[..unit] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        total += seconds(number).ok_or_else(wrong)? * factor;
        rest = &tail[unit..];
    }
    if text.is_empty() || total > 1e9 { Err(wrong()) } else { Ok(Duration::from_secs_f64(total)) }
}

/// Whether this machine can listen on IPv6 at all: a proxy that is told to where it cannot does not start.
fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        common: Common,
    }

    fn parse(flags: &[&str]) -> Result<Common, String> {
        let line = std::iter::once(&"coxswain").chain(flags);
        Line::try_parse_from(line).map(|line| line.common).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_of_the_command_line_are_those_of_the_settings() {
        let mut flags = parse(&["--ipv6=false"]).unwrap().flags();
        assert_eq!(std::mem::take(&mut flags.own_ports), BTreeSet::from([8080, 8443, 8090, 10254]));
        assert_eq!(flags, Flags::default());
    }

    #[test]
    fn booleans_are_written_as_in_go() {
        for (flag, expect) in [
            ("--watch-ingress-without-class", Some(true)),
            ("--watch-ingress-without-class=true", Some(true)),
            ("--watch-ingress-without-class=T", Some(true)),
            ("--watch-ingress-without-class=false", Some(false)),
            ("--watch-ingress-without-class=0", Some(false)),
            ("--watch-ingress-without-class=yes", None),
        ] {
            let flags = parse(&[flag]).map(|common| common.flags().watch_ingress_without_class);
            assert_eq!(flags.ok(), expect, "{flag}");
        }
        let next_is_no_value = parse(&["--watch-ingress-without-class", "false"]);
        assert!(next_is_no_value.is_err(), "Go takes no value after a space either");
    }

    #[test]
    fn an_empty_name_is_no_name_and_a_wrong_one_is_told() {
        assert_eq!(parse(&["--configmap="]).unwrap().flags().config_map, None);
        let name = parse(&["--configmap", "a/b"]).unwrap().flags().config_map.unwrap();
        assert_eq!(name.to_string(), "a/b");
        let error = parse(&["--configmap=b"]).unwrap_err();
        assert!(
            error.contains("'b' for '--configmap <NAMESPACE/NAME>': does not name an object; it must be"),
            "{error}"
        );
    }

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, milliseconds) in [
            ("100ms", Some(100)),
            ("1s", Some(1000)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1500)),
            ("0", Some(0)),
            ("2", Some(2000)),
            ("", None),
            ("s", None),
            ("1", Some(1000)),
            ("1x", None),
            ("1s2", None),
            ("-1s", None),
            ("inf", None),
            ("1e300s", None),
            ("99999999h", None),
        ] {
            assert_eq!(duration(text).ok().map(|d| d.as_millis()), milliseconds, "{text}");
        }
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        use clap::CommandFactory as _;
        for arg in Line::command().get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_id() != "help") {
            let long = arg.get_long().unwrap();
            let variable = arg.get_env().map(|env| env.to_string_lossy().into_owned());
            assert_eq!(variable, Some(format!("COXSWAIN_{}", long.replace('-', "_").to_uppercase())), "--{long}");
        }
    }

    #[test]
    fn flags_of_ingress_nginx_that_do_nothing_here_parse_and_are_named() {
        let line =
            ["--enable-ssl-passthrough", "--profiling=false", "-v=3", "--sync-rate-limit", "0.5", "--logtostderr"];
        let named = parse(&line).unwrap().ignored.given;
        let named: Vec<&str> = named.iter().map(|ignored| ignored.name).collect();
        assert_eq!(named, ["enable-ssl-passthrough", "profiling", "sync-rate-limit", "logtostderr", "v"]);
        assert!(parse(&[]).unwrap().ignored.given.is_empty());
        assert!(parse(&["--no-such-flag"]).is_err());
    }
}
