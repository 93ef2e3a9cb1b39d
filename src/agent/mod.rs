//! The proxy's side of the shared volume: the process that stands beside the proxy and never in a request's way.
//!
//! ```text
//! init         process 1: reaps, forwards signals, restarts ──► the agent proper, all the rest
//! steering     the loop: what is wanted, what runs, what is due
//!   starting     with which release     telling   what is said of it all     ending   how it ends
//! proxy        what the loop asks of a proxy, whichever it is
//!   nginx        as a process: test, start, signal, observe, its error log; starting, take_up: from one release to
//!                the next, or back; generations: which workers live, and what they serve; room: whether there is any;
//!                pulse: whether the agent itself stood still
//!   envoy        as a process; what it takes of a release
//! wishes       what the controller wants        reports, readiness   what it and the kubelet are told
//! endpoints    where requests go                dns, xds             as answers to nginx, and to Envoy
//! ```
//!
//! The agent proper may die at any moment: the proxy serves on, and the next one finds everything it needs on the volume
//! and in `/proc`. It keeps nothing else.

pub mod dns;
pub mod endpoints;
pub mod init;

mod access_log;
mod backoff;
mod ending;
pub(crate) mod envoy;
mod lock;
mod memory;
pub(crate) mod nginx;
mod process;
mod processes;
mod proxy;
mod pulse;
mod readiness;
pub(crate) mod rejection;
mod releases;
mod reports;
mod starting;
mod steering;
mod stops;
mod telling;
mod wishes;
pub mod xds;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;

use self::envoy::Envoy;
use self::envoy::proxy::EnvoyProxy;
use self::nginx::Nginx;
use self::nginx::proxy::NginxProxy;
use self::proxy::Proxy;
use self::readiness::Readiness;
use self::steering::Steering;
use self::stops::Stops;
use self::wishes::Wishes;
use crate::volume::{ProxyKind, Volume};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which proxy it is.
    pub proxy: ProxyKind,
    /// The volume.
    pub proxy_dir: PathBuf,
    /// The port of `/readyz`.
    pub ready_port: u16,
    /// Who workers run as when this process is root.
    pub proxy_user: String,
    /// How long connections are accepted after a stop signal.
    pub shutdown_grace_period: Duration,
    /// How long requests may then take to finish.
    pub drain_timeout: Duration,
    /// How long nginx may take to take up a release, besides three times the longest so far.
    pub reload_timeout: Duration,
    /// A vulnerable version that may be used all the same.
    pub accept_proxy_version: Option<String>,
    /// The proxy and its arguments.
    pub command: Vec<OsString>,
    /// Process 1, without which this one must not live.
    pub init: i32,
}

/// Is the agent proper until it is told to stop. Exit codes as process 1 understands them: 0 done, 3 could not do it.
pub fn run(settings: Settings) -> ExitCode {
    match try_to_run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::from(3)
        }
    }
}

fn try_to_run(settings: Settings) -> anyhow::Result<()> {
    // `/proc/self/exe`, by which we were started, is no name for a process.
    nix::sys::prctl::set_name(c"coxswain").context("naming this process")?;
    // Before there is any other thread, or process of ours: they inherit it.
    init::unblock_signals().context("listening for signals")?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("starting")?.block_on(serve(settings))
}

/// Every connection is a file or two, for the proxy, which inherits this limit: as many as we may have instead of as
/// many as an interactive program usually needs.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(err) = raised {
        tracing::warn!(%err, "the limit of open files stays as it is");
    }
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let stops = Stops::listen(settings.init)?;
    if stops.orphaned() {
        return Ok(());
    }
    let volume = Volume::new(std::path::absolute(&settings.proxy_dir).context("--proxy-dir")?);
    make_folders(&volume)?;
    let _lock = lock::claim(&volume).await?;
    match settings.proxy {
        ProxyKind::Nginx => {
            let nginx = Nginx::new(&settings.command, &volume)?;
            enter(&volume)?;
            let proxy = NginxProxy::prepare(&settings, &volume, nginx).await?;
            steer(settings, volume, proxy, stops).await
        }
        ProxyKind::Envoy => {
            let envoy = Envoy::new(&settings.command, &volume)?;
            enter(&volume)?;
            let proxy = EnvoyProxy::prepare(&settings, &volume, envoy).await?;
            steer(settings, volume, proxy, stops).await
        }
    }
}

/// The proxy's sockets and ours have names of this folder: a path to a socket holds 107 bytes, the volume's may be longer.
fn enter(volume: &Volume) -> anyhow::Result<()> {
    let folder = volume.output();
    std::env::set_current_dir(&folder).with_context(|| format!("entering {}", folder.display()))
}

async fn steer(settings: Settings, volume: Volume, proxy: impl Proxy, stops: Stops) -> anyhow::Result<()> {
    let (tell, readiness) = watch::channel(Readiness::Waiting("starting".to_owned()));
    readiness::serve(settings.ready_port, readiness);
    tracing::info!(version = proxy.info().version, proxy_dir = %volume.root().display(), "the agent is here");
    let wishes = Wishes::new(&volume)?;
    Steering::new(settings, volume, proxy, tell).run(wishes, stops).await
}

/// The agent makes its own two folders. `in/` is the controller's, which may come later.
fn make_folders(volume: &Volume) -> anyhow::Result<()> {
    for folder in [volume.output(), volume.reports(), volume.temporary()] {
        std::fs::create_dir_all(&folder).with_context(|| format!("making {} (--proxy-dir)", folder.display()))?;
    }
    Ok(())
}
