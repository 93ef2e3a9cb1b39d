//! `coxswain run`: the controller, with the proxy's side as its child where objects come from files.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use clap::builder::ArgAction;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Stop, SignalKind, signal};
use tracing::{info, warn};

use super::flags::{Common, Proxy, boolean};
use super::render::Render;
use super::{summary, told};
use crate::hint::Hint;
use crate::metrics::{Identity, Metrics};
use crate::publish::{Owner, Publisher};
use crate::reconcile::{Reconciler, Setup};
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
        ensure!(
            !common.files.is_empty(),
            "a cluster cannot be watched yet; name files or folders with objects: coxswain run -f PATH"
        );
        common.check_paths()?;
        let folder = Folder::of(&common.proxy)?;
        let publisher = Publisher::open(Volume::new(&folder.path), Owner::of_workers(&common.proxy.proxy_user)?)?;
        // The first thread starts the agent and lives as long as the process: the agent is told of its end.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(serve(common, log, publisher, &folder.path))
    }
}

async fn serve(common: Common, log: &Log, publisher: Publisher, folder: &Path) -> anyhow::Result<()> {
    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::new(&Identity::default())));
    let port = common.cluster.healthz_port;
    let listener = TcpListener::bind(("::", port)).await;
    let listener = match listener {
        Ok(listener) => listener,
        // No IPv6 on this machine, or the port is taken, which the second attempt tells.
        Err(_) => {
            TcpListener::bind(("0.0.0.0", port)).await.with_context(|| format!("listening on --healthz-port {port}"))?
        }
    };
    tokio::spawn(server::serve(listener, health.clone(), metrics.clone()));
    let volume = publisher.disk().volume().clone();
    let setup = Setup {
        flags: common.flags(),
        proxy: common.proxy.proxy,
        generated: Arc::new(generated_certificate()?),
        publisher,
    };
    let mut reconciler = Reconciler::new(setup);
    let source = Source::files(Files::new(common.files.clone()));
    let mut agent = Agent::start(&common.proxy, log, folder)?;
    let mut stops = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()].map(signal);
    let [Ok(interrupt), Ok(terminate), Ok(quit)] = &mut stops else { bail!("listening to signals") };
    let mut changes = source.changes();
    let mut trigger = Trigger::new(common.timing.quiet_time, common.timing.maximum_delay);
    let mut hint = Hint::new("reports of the proxy's side", vec![volume.output(), volume.reports()]);
    let mut served = false;
    loop {
        tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => trigger.touch(),
                Err(_) => bail!("nobody reads the files any more"),
            },
            () = trigger.fire() => if let Some(snapshot) = source.snapshot() {
                reconciler.take_up(snapshot);
            },
            () = hint.wait() => reconciler.look(),
            status = agent.child.wait() => return agent.ended(status?),
            // Asked twice means at once: the agent ends with us, and the proxy with it.
            _ = stopped(interrupt, terminate, quit) => if agent.stop().is_break() {
                return Ok(());
            },
        }
        let view = reconciler.view();
        health.beat();
        health.say(view.faults.iter().cloned().chain(source.missing()).collect());
        if let Some(config) = &view.config {
            metrics.state(config, &view.problems, view.held.len());
        }
        if let Some(config) = view.in_force.as_ref().filter(|_| !std::mem::replace(&mut served, true)) {
            health.latch();
            print!("{}", summary::of(config, &common));
        }
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
            .arg(format!("--proxy-dir={}", folder.display()))
            .arg(format!("--ready-port={}", proxy.ready_port))
            .arg(format!("--proxy-user={}", proxy.proxy_user))
            .arg(format!("--shutdown-grace-period={}", proxy.shutdown_grace_period))
            .arg(format!("--drain-timeout={}", proxy.drain_timeout))
            .args(proxy.accept_proxy_version.iter().map(|version| format!("--accept-proxy-version={version}")))
            .args(log.arguments())
            .arg("--")
            .arg(proxy.proxy_bin.as_deref().unwrap_or(Path::new("nginx")));
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
    fn of(proxy: &Proxy) -> anyhow::Result<Self> {
        if let Some(path) = &proxy.proxy_dir {
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
