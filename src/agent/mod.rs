//! The proxy's side of the shared volume: the process that stands beside the proxy and never in a request's way.
//!
//! ```text
//! init         process 1: reaps, forwards signals, restarts ──► the agent proper, all the rest
//! steering     the loop: what is wanted, what runs, what is due
//!   starting     take over a running nginx, or start one
//!   take_up      from one release to the next, or back      room     whether there is any for it
//!   telling      what is said of it all                     ending   how it ends
//!   pulse        whether the agent itself stood still
//! nginx        the proxy as a process: test, start, signal, observe, its error log
//! generations  which workers live, and what they serve
//! wishes       what the controller wants        reports, readiness   what it and the kubelet are told
//! dns          endpoints, as answers to nginx   endpoints            where they come from
//! ```
//!
//! The agent proper may die at any moment: nginx serves on, and the next one finds everything it needs on the volume
//! and in `/proc`. It keeps nothing else.

pub mod dns;
pub mod endpoints;
pub mod init;

mod backoff;
mod ending;
mod generations;
mod lock;
mod memory;
pub(crate) mod nginx;
mod processes;
mod pulse;
mod readiness;
mod reports;
mod room;
mod starting;
mod steering;
mod stops;
mod take_up;
mod telling;
mod wishes;
pub mod xds;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::watch;

use self::dns::Responders;
use self::nginx::access_log::AccessLog;
use self::nginx::includes::Surroundings;
use self::nginx::log::Log;
use self::nginx::version::Version;
use self::nginx::{Nginx, User};
use self::readiness::Readiness;
use self::steering::Steering;
use self::stops::Stops;
use self::wishes::Wishes;
use crate::volume::Volume;

/// Where the responders listen. Not 127.0.0.1, whose ports are the source of everybody's connections.
const RESPONDERS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 80);

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Settings {
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

/// Every connection is a file or two, for nginx, which inherits this limit: as many as we may have instead of as many as
/// an interactive program usually needs.
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
    let nginx = Nginx::new(&settings.command, &volume)?;
    // nginx's sockets and ours have names of this folder: a path to a socket holds 107 bytes, the volume's may be longer.
    let folder = volume.output();
    std::env::set_current_dir(&folder).with_context(|| format!("entering {}", folder.display()))?;

    let version = judged_version(&nginx, settings.accept_proxy_version.as_deref()).await?;
    let user = User::of_workers(&settings.proxy_user)?;
    if let Some(user) = &user {
        warn_of_closed_folders(&folder, user);
    }
    let responders = pick_responders().context("finding free ports for the responders")?;
    let dns = dns::Server::start(&volume, responders).await.context("starting the DNS server")?;
    let log = Log::listen(Path::new("."), user.as_ref())?;
    let (tell, readiness) = watch::channel(Readiness::Waiting("starting".to_owned()));
    readiness::serve(settings.ready_port, readiness);
    if AccessLog::of(None).file.is_none() {
        tracing::warn!(
            "standard output has no name that nginx could open: there is no access log, unless the ConfigMap says \
             where (access-log-path)"
        );
    }
    let surroundings =
        Surroundings { user, workers: std::thread::available_parallelism().map_or(1, usize::from), responders };
    tracing::info!(%version, proxy_dir = %volume.root().display(), "the agent is here");
    let wishes = Wishes::new(&volume)?;
    Steering::new(settings, volume, nginx, version, surroundings, dns, log, tell).run(wishes, stops).await
}

/// The agent makes its own two folders. `in/` is the controller's, which may come later.
fn make_folders(volume: &Volume) -> anyhow::Result<()> {
    for folder in [volume.output(), volume.reports(), volume.temporary()] {
        std::fs::create_dir_all(&folder).with_context(|| format!("making {} (--proxy-dir)", folder.display()))?;
    }
    Ok(())
}

async fn judged_version(nginx: &Nginx, accepted: Option<&str>) -> anyhow::Result<Version> {
    let accepted = match accepted {
        Some(text) => Some(Version::parse(text).with_context(|| {
            format!("--accept-proxy-version: {text:?} is not a version of nginx; say it as 1.30.3")
        })?),
        None => None,
    };
    let version = nginx.version().await?;
    if let Some(warning) = version.judge(accepted).map_err(|refusal| anyhow!(refusal))? {
        tracing::warn!("{warning}");
    }
    Ok(version)
}

/// Workers log, write temporary files and read certificates below the volume.
fn warn_of_closed_folders(folder: &Path, user: &User) {
    let closed = |folder: &&Path| {
        folder.metadata().is_ok_and(|meta| {
            let mode = meta.permissions().mode();
            let needed = match (meta.uid() == user.uid.as_raw(), meta.gid() == user.gid.as_raw()) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            mode & needed == 0
        })
    };
    if let Some(closed) = folder.ancestors().find(closed) {
        tracing::warn!(
            "nginx's workers run as {} (--proxy-user), who may not enter {}: they will fail; give them the way (chmod \
             a+x), or another --proxy-dir",
            user.name,
            closed.display()
        );
    }
}

/// Two free ports: nginx tells HTTP/1.1 from HTTP/2 on one port by itself.
fn pick_responders() -> std::io::Result<Responders> {
    let bind = || TcpListener::bind(SocketAddr::from((RESPONDERS, 0)));
    let (plain, tls) = (bind()?, bind()?);
    let (plain, tls) = (plain.local_addr()?, tls.local_addr()?);
    Ok(Responders { plain, tls, h2c: plain, h2_tls: tls })
}
