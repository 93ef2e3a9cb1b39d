//! `coxswain run`: the controller, with the proxy's side as its child where objects come from files.

mod cluster;
mod debug;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::Args;
use clap::builder::ArgAction;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Stop, SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use self::cluster::Teller;
use self::debug::Answers;
use super::flags::{Common, Proxy, boolean};
use super::render::Render;
use super::{summary, told};
use crate::agent::init;
use crate::hint::Hint;
use crate::metrics::Metrics;
use crate::publish::{Owner, Publisher};
use crate::reconcile::{Reconciler, Setup, View};
use crate::reports;
use crate::server::{self, Health};
use crate::telemetry::Log;
use crate::volume::Volume;
use crate::watch::files::Files;
use crate::watch::trigger::Trigger;
use crate::watch::{Source, generated_certificate};

/// Flags of `coxswain run`.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    common: Common,

    /// Print what would be published and change nothing, as `coxswain render` does.
    #[arg(long, env = "COXSWAIN_DRY_RUN", value_name = "BOOL", value_parser = boolean, action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    dry_run: bool,
}

impl Run {
    /// Runs until it is told to stop.
    pub fn run(self, log: &Log) -> ExitCode {
        if self.dry_run {
            return Render::from(self.common).run();
        }
        for flag in &self.common.ignored.given {
            warn!("--{} does nothing here: {}", flag.name, flag.why);
        }
        told(self.start(log))
    }

    fn start(self, log: &Log) -> anyhow::Result<()> {
        // Workers run as somebody else and must be able to read what is not secret.
        umask(Mode::S_IWGRP | Mode::S_IWOTH);
        let common = self.common;
        common.check_paths()?;
        let folder = Folder::of(&common)?;
        let publisher = Publisher::open(Volume::new(&folder.path), Owner::of_workers(&common.proxy.proxy_user)?)?;
        // The first thread starts the agent and lives as long as the process: the agent is told of its end.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(serve(common, log, publisher, &folder.path))
    }
}

async fn serve(common: Common, log: &Log, publisher: Publisher, folder: &Path) -> anyhow::Result<()> {
    let health = Arc::new(Health::default());
    let metrics = Arc::new(Metrics::new(&cluster::identity(&common)));
    tokio::spawn(server::serve(health_listener(common.cluster.healthz_port).await?, health.clone(), metrics.clone()));
    let volume = publisher.disk().volume().clone();
    let setup = Setup {
        flags: common.flags(),
        proxy: common.proxy.proxy,
        generated: Arc::new(generated_certificate()?),
        publisher,
    };
    let mut reconciler = Reconciler::new(setup);
    // From files, all of it runs here; in a cluster the proxy's side is another container, and others are told.
    let (source, mut agent, mut teller) = if common.files.is_empty() {
        let teller = Teller::start(&common, &metrics).await?;
        (Source::Cluster(teller.cluster()), None, Some(teller))
    } else {
        let agent = Agent::start(&common.proxy, log, folder)?;
        (Source::files(Files::new(common.files.clone())), Some(agent), None)
    };
    let views = watch::Sender::new(reconciler.view());
    if let Some(path) = common.cluster.debug_socket.clone() {
        let answers = Arc::new(Answers(views.subscribe()));
        tokio::spawn(async move {
            if let Err(error) = server::serve_debug(&path, answers).await {
                warn!("nobody can ask on --debug-socket: {error:#}");
            }
        });
    }
    let mut stops = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()].map(signal);
    let [Ok(interrupt), Ok(terminate), Ok(quit)] = &mut stops else { bail!("listening to signals") };
    let mut changes = source.changes();
    let mut trigger = Trigger::new(common.timing.quiet_time, common.timing.maximum_delay);
    let mut hint = Hint::new("reports of the proxy's side", vec![volume.output(), volume.reports()]);
    let mut numbers = Numbers::new(metrics, volume);
    let mut served = false;
    loop {
        tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => {
                    numbers.arrived();
                    trigger.touch();
                }
                Err(_) => bail!("nobody reads the objects any more"),
            },
            () = trigger.fire() => if let Some(snapshot) = source.snapshot() {
                reconciler.take_up(snapshot);
            },
            () = hint.wait() => reconciler.look(),
            status = ended(&mut agent) => {
                let Some(agent) = &agent else { continue };
                return agent.ended(status?);
            }
            // Asked twice means at once: the agent ends with us, and the proxy with it.
            () = stopped(interrupt, terminate, quit) => match &mut agent {
                Some(agent) => if agent.stop().is_break() {
                    return Ok(());
                },
                None => break,
            },
        }
        let view = reconciler.view();
        health.beat();
        health.say(view.faults.iter().cloned().chain(source.missing()).collect());
        numbers.count(&view, source.missing().is_empty());
        if let Some(teller) = &mut teller {
            teller.tell(&view);
        }
        if let Some(config) = view.in_force.as_ref().filter(|_| !std::mem::replace(&mut served, true)) {
            health.latch();
            if agent.is_some() {
                print!("{}", summary::of(config, &common));
            }
        }
        views.send_if_modified(|last| !Arc::ptr_eq(&std::mem::replace(last, view.clone()), &view));
    }
    info!("stopping; the proxy serves on by itself");
    if let Some(teller) = teller {
        teller.stop().await;
    }
    Ok(())
}

async fn health_listener(port: u16) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(("::", port)).await {
        Ok(listener) => Ok(listener),
        // No IPv6 on this machine, or the port is taken, which the second attempt tells.
        Err(_) => {
            TcpListener::bind(("0.0.0.0", port)).await.with_context(|| format!("listening on --healthz-port {port}"))
        }
    }
}

/// The end of the agent; where there is none, never.
async fn ended(agent: &mut Option<Agent>) -> std::io::Result<ExitStatus> {
    match agent {
        Some(agent) => agent.child.wait().await,
        None => std::future::pending().await,
    }
}

/// Puts into the metrics what changed since the last look.
struct Numbers {
    metrics: Arc<Metrics>,
    volume: Volume,
    arrived: Option<Instant>,
    seen: Arc<View>,
}

impl Numbers {
    fn new(metrics: Arc<Metrics>, volume: Volume) -> Self {
        Self { metrics, volume, arrived: None, seen: Arc::default() }
    }

    /// A change arrived.
    fn arrived(&mut self) {
        self.arrived.get_or_insert_with(Instant::now);
    }

    fn count(&mut self, view: &Arc<View>, listed: bool) {
        self.metrics.listed(listed);
        // What cannot be read is told where it is needed.
        if let Ok(Some(info)) = reports::proxy_info(&self.volume) {
            self.metrics.proxy(&info);
        }
        if Arc::ptr_eq(&self.seen, view) {
            return;
        }
        if let Some(report) = view.report.as_ref().filter(|report| self.seen.report.as_ref() != Some(report)) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
            self.metrics.report(report, now);
        }
        if let Some(config) = &view.config {
            let same = self.seen.config.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, config));
            if !same || self.seen.problems != view.problems || self.seen.held != view.held {
                self.metrics.state(config, &view.problems, view.held.len());
            }
        }
        if view.config.is_some()
            && view.config == view.in_force
            && let Some(arrived) = self.arrived.take()
        {
            self.metrics.live(arrived.elapsed());
        }
        self.seen = view.clone();
    }
}

async fn stopped(interrupt: &mut Stop, terminate: &mut Stop, quit: &mut Stop) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = quit.recv() => {}
    }
}

/// The proxy's side, as a child that ends with us, whatever ends us.
struct Agent {
    child: Child,
    stopping: bool,
}

impl Agent {
    fn start(proxy: &Proxy, log: &Log, folder: &Path) -> anyhow::Result<Self> {
        let executable = std::env::current_exe().context("finding our own executable")?;
        let mut command = Command::new(executable);
        command
            .arg("agent")
            .arg(format!("--with-parent={}", std::process::id()))
            .arg(format!("--proxy={}", proxy.proxy))
            .arg(format!("--proxy-dir={}", folder.display()))
            .arg(format!("--ready-port={}", proxy.ready_port))
            .arg(format!("--proxy-user={}", proxy.proxy_user))
            .arg(format!("--shutdown-grace-period={}", proxy.shutdown_grace_period))
            .arg(format!("--drain-timeout={}", proxy.drain_timeout))
            .args(proxy.accept_proxy_version.iter().map(|version| format!("--accept-proxy-version={version}")))
            .args(log.arguments())
            .arg("--")
            .arg(proxy.proxy_bin.clone().unwrap_or_else(|| proxy.proxy.to_string().into()));
        // What a killed process 1 leaves becomes ours to end.
        nix::sys::prctl::set_child_subreaper(true)?;
        // A group of its own: Ctrl-C is for us, who then stop it.
        let child = command.stdin(Stdio::null()).process_group(0).spawn().context("starting the proxy's side")?;
        Ok(Self { child, stopping: false })
    }

    /// Has the proxy drain. Asked a second time, there is nothing to wait for.
    fn stop(&mut self) -> ControlFlow<()> {
        if std::mem::replace(&mut self.stopping, true) {
            return ControlFlow::Break(());
        }
        info!("stopping; a second time stops at once");
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended by itself this very moment, which is what we want.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        ControlFlow::Continue(())
    }

    fn ended(&self, status: ExitStatus) -> anyhow::Result<()> {
        init::end_all_children(None);
        if self.stopping {
            return Ok(());
        }
        bail!("the proxy's side has ended ({status}); what it said is above");
    }
}

/// Where the volume lies: as the flag says, else a folder of our own that goes with us.
struct Folder {
    path: PathBuf,
    ours: bool,
}

impl Folder {
    fn of(common: &Common) -> anyhow::Result<Self> {
        // In a Pod the volume is mounted at one place.
        let mounted = common.files.is_empty().then(|| Path::new("/proxy"));
        if let Some(path) = common.proxy.proxy_dir.as_deref().or(mounted) {
            let path = std::path::absolute(path).context("--proxy-dir")?;
            return Ok(Self { path, ours: false });
        }
        let base = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = nix::unistd::mkdtemp(&base.join("coxswain-XXXXXX"))
            .with_context(|| format!("making a folder in {}", base.display()))?;
        // Workers that run as somebody else walk through it; keys in it are readable for them alone.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self { path, ours: true })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.ours {
            // Best effort: it lies where things that are left behind go sooner or later.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
