//! `coxswain agent`: process 1 of the proxy's container, and the agent proper that it starts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::flags::proxy_kind;
use crate::agent::{self, Settings, init};
use crate::volume::ProxyKind;

/// Flags of `coxswain agent`.
#[derive(Debug, clap::Args)]
pub struct Agent {
    /// The volume that is shared with the controller.
    #[arg(long, env = "COXSWAIN_PROXY_DIR", value_name = "DIR", default_value = "/proxy")]
    proxy_dir: PathBuf,

    /// Which proxy CMD is.
    #[arg(long, env = "COXSWAIN_PROXY", value_name = "PROXY", default_value_t, value_parser = proxy_kind)]
    proxy: ProxyKind,

    /// Port of /readyz: 200 while a release is served and its names are answered.
    #[arg(long, env = "COXSWAIN_READY_PORT", value_name = "PORT", default_value_t = 8090)]
    ready_port: u16,

    /// Who nginx's workers run as when the agent runs as root.
    #[arg(long, env = "COXSWAIN_PROXY_USER", value_name = "USER", default_value = "nobody")]
    proxy_user: String,

    /// Seconds from a stop signal during which new connections are still accepted.
    #[arg(long, env = "COXSWAIN_SHUTDOWN_GRACE_PERIOD", value_name = "SECONDS", default_value_t = 0)]
    shutdown_grace_period: u64,

    /// Seconds that requests may then take to finish before they are cut.
    #[arg(long, env = "COXSWAIN_DRAIN_TIMEOUT", value_name = "SECONDS", default_value_t = 5)]
    drain_timeout: u64,

    /// Seconds that the proxy may take to take up a release, besides three times the longest so far. Then the former one is
    /// put in force again.
    #[arg(long, env = "COXSWAIN_RELOAD_TIMEOUT", value_name = "SECONDS", default_value_t = 60)]
    reload_timeout: u64,

    /// A version of the proxy with known vulnerabilities that is used all the same (because the distribution has
    /// backported the fixes).
    #[arg(long, env = "COXSWAIN_ACCEPT_PROXY_VERSION", value_name = "VERSION")]
    accept_proxy_version: Option<String>,

    /// The process that this one ends with (`run -f`).
    #[arg(long, value_name = "PID", hide = true)]
    with_parent: Option<i32>,

    /// Be the agent proper of this process 1.
    #[arg(long, value_name = "PID", hide = true)]
    proper: Option<i32>,

    /// The proxy's executable and further arguments for it. The agent adds its own (-p, -c, -e).
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Agent {
    /// Runs until it is told to stop.
    pub fn run(self) -> ExitCode {
        let Some(init) = self.proper else { return init::run(self.with_parent) };
        agent::run(Settings {
            proxy: self.proxy,
            proxy_dir: self.proxy_dir,
            ready_port: self.ready_port,
            proxy_user: self.proxy_user,
            shutdown_grace_period: Duration::from_secs(self.shutdown_grace_period),
            drain_timeout: Duration::from_secs(self.drain_timeout),
            reload_timeout: Duration::from_secs(self.reload_timeout),
            accept_proxy_version: self.accept_proxy_version,
            command: self.command,
            init,
        })
    }
}
