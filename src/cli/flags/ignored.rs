//! The flags of ingress-nginx that do nothing here: they parse, so that a command line can stay as it is, and are
//! named once at start with the reason.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// The flags of this kind that were given.
#[derive(Debug)]
pub struct Ignored {
    /// In the order of the table.
    pub given: Vec<&'static Flag>,
}

/// A flag of ingress-nginx that does nothing here.
#[derive(Debug)]
pub struct Flag {
    /// Its name without the dashes.
    pub name: &'static str,
    /// Whether it may stand without a value.
    switch: bool,
    /// Why it does nothing, as the end of a sentence.
    pub why: &'static str,
}

const fn value(name: &'static str, why: &'static str) -> Flag {
    Flag { name, switch: false, why }
}

const fn switch(name: &'static str, why: &'static str) -> Flag {
    Flag { name, switch: true, why }
}

const NOT_YET: &str = "it is not supported yet";
const NO_LUA: &str = "nothing is pushed into the proxy over HTTP";
const PROFILER: &str = "there is no profiler";
const KLOG: &str = "the log is set up by --log-level and --log-format";
const VALUES: &str = "every value is parsed, always";
const GEOIP: &str = "GeoIP databases are not supported";

/// All of them.
pub const FLAGS: &[Flag] = &[
    value("apiserver-host", "the address comes from the kubeconfig"),
    value("certificate-authority", "it comes from the kubeconfig"),
    value("bucket-factor", NOT_YET),
    switch("deep-inspect", VALUES),
    value("default-server-port", "what no host takes is answered without a server of its own"),
    switch("disable-full-test", "only what changed is tested"),
    value("dynamic-configuration-retries", NO_LUA),
    switch("enable-annotation-validation", VALUES),
    switch("enable-metrics", NOT_YET),
    switch("enable-ssl-chain-completion", NOT_YET),
    switch("enable-ssl-passthrough", NOT_YET),
    switch("enable-topology-aware-routing", NOT_YET),
    value("exclude-socket-metrics", NOT_YET),
    value("health-check-path", "health is at /healthz"),
    value("health-check-timeout", "health is answered at once"),
    value("healthz-host", "health is answered on all addresses"),
    value("internal-logger-address", "the proxy's log comes through a socket of its own"),
    value("length-buckets", NOT_YET),
    value("max-buckets", NOT_YET),
    value("maxmind-edition-ids", GEOIP),
    value("maxmind-license-key", GEOIP),
    value("maxmind-mirror", GEOIP),
    value("maxmind-retries-count", GEOIP),
    value("maxmind-retries-timeout", GEOIP),
    switch("metrics-per-host", NOT_YET),
    switch("metrics-per-undefined-host", NOT_YET),
    value("monitor-max-batch-size", NO_LUA),
    value("post-shutdown-grace-period", "coxswain ends when the proxy has"),
    value("profiler-address", PROFILER),
    value("profiler-port", PROFILER),
    switch("profiling", PROFILER),
    switch("report-status-classes", NOT_YET),
    value("size-buckets", NOT_YET),
    value("ssl-passthrough-proxy-port", NOT_YET),
    value("status-port", "the proxy's status is at a socket of its own"),
    value("stream-port", NO_LUA),
    value("sync-period", "changes are watched"),
    value("sync-rate-limit", "changes are gathered by --quiet-time and --maximum-delay"),
    value("tcp-services-configmap", NOT_YET),
    value("time-buckets", NOT_YET),
    value("udp-services-configmap", NOT_YET),
    switch("add_dir_header", KLOG),
    switch("alsologtostderr", KLOG),
    value("log_backtrace_at", KLOG),
    value("log_dir", KLOG),
    value("log_file", KLOG),
    value("log_file_max_size", KLOG),
    switch("logtostderr", KLOG),
    switch("one_output", KLOG),
    switch("skip_headers", KLOG),
    switch("skip_log_headers", KLOG),
    value("stderrthreshold", KLOG),
    value("v", KLOG),
    value("vmodule", KLOG),
];

impl Args for Ignored {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, flag| {
            let arg = Arg::new(flag.name).long(flag.name).hide(true).action(ArgAction::Append);
            let arg = if flag.name == "v" { arg.short('v') } else { arg };
            let arg = if flag.switch {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else {
                arg.num_args(1)
            };
            command.arg(arg)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Ignored {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |flag: &&Flag| matches.value_source(flag.name) == Some(ValueSource::CommandLine);
        Ok(Self { given: FLAGS.iter().filter(given).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
