//! A proxy's process: started here or found, known for ever, signalled, awaited, ended.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{ChildStderr, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::processes;
use crate::volume::Volume;

/// How often a process that is not our child is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The standard input of every process of the volume's proxy, in `out/`: by it they are known.
const MARK: &str = "proxy.mark";

/// A running process.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    started: Option<u64>,
    since: Instant,
    gone: watch::Receiver<bool>,
}

impl Process {
    /// Starts `command`, marked as the proxy of this volume.
    pub fn start(command: &mut Command, volume: &Volume) -> anyhow::Result<Self> {
        Self::start_heard(command, volume, |_| tokio::spawn(std::future::ready(())))
    }

    /// The same. `listen` copies what it says on its standard error, which is piped; its last words come before its end
    /// is told.
    pub fn start_heard(
        command: &mut Command,
        volume: &Volume,
        listen: impl FnOnce(ChildStderr) -> JoinHandle<()>,
    ) -> anyhow::Result<Self> {
        let mark = File::options().read(true).append(true).create(true).open(mark_of(volume));
        let mark = mark.context("opening the standard input of the proxy")?;
        let what = format!("starting {}", Path::new(command.as_std().get_program()).display());
        let mut child = command.stdin(mark).process_group(0).spawn().context(what)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).context("the proxy has no process id")?;
        let (tell, gone) = watch::channel(false);
        let listener = child.stderr.take().map(listen);
        tokio::spawn(async move {
            let status = child.wait().await;
            // Its last words first. A child of its own may hold the pipe open for longer than it lives.
            if let Some(listener) = listener {
                let _ = tokio::time::timeout(Duration::from_millis(500), listener).await;
            }
            tracing::debug!(pid, ?status, "the proxy's process ended");
            tell.send_replace(true);
        });
        Ok(Self { pid, started: processes::started(pid), since: Instant::now(), gone })
    }

    /// One that somebody else started.
    pub fn found(pid: i32) -> Self {
        let started = processes::started(pid);
        let (tell, gone) = watch::channel(false);
        tokio::spawn(async move {
            while processes::alive(pid) && processes::started(pid) == started && !tell.is_closed() {
                tokio::time::sleep(LOOK).await;
            }
            tell.send_replace(true);
        });
        Self { pid, started, since: Instant::now(), gone }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// For how long it has been ours.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether it has ended.
    pub fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Resolves when it has ended.
    pub async fn ended(&mut self) {
        // The sender goes only after it has told.
        let _ = self.gone.wait_for(|gone| *gone).await;
    }

    /// Waits for its end, for a while. Whether it came.
    pub async fn ended_within(&mut self, bound: Duration) -> bool {
        tokio::time::timeout(bound, self.ended()).await.is_ok()
    }

    /// Sends it a signal; never to somebody else who has its pid by now.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        ensure!(!self.is_gone() && processes::started(self.pid) == self.started, "the proxy has ended");
        kill(Pid::from_raw(self.pid), signal).with_context(|| format!("sending {signal} to process {}", self.pid))
    }
}

/// Splits a command line. A path with a slash is relative to where we were started, and the proxy runs elsewhere.
pub fn executable_of(command: &[OsString]) -> anyhow::Result<(PathBuf, &[OsString])> {
    let (executable, arguments) = command.split_first().context("no proxy given: say `-- nginx` or `-- envoy`")?;
    let path = Path::new(executable);
    let executable = if path.components().count() > 1 { std::path::absolute(path)? } else { path.to_owned() };
    Ok((executable, arguments))
}

/// Every living process of this volume's proxy: what holds the mark, and what process 1 has inherited and `is_ours` (a
/// worker of another user does not show us what it holds, unless we are allowed to trace it).
pub fn all_of(volume: &Volume, is_ours: impl Fn(&str) -> bool) -> Vec<i32> {
    let me = std::process::id().cast_signed();
    let mut pids = processes::with_standard_input(&mark_of(volume));
    let inherited = processes::children(nix::unistd::getppid().as_raw());
    pids.extend(inherited.into_iter().filter(|pid| is_ours(&processes::title(*pid))));
    pids.retain(|pid| *pid != me && processes::alive(*pid));
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Ends, by force where asking does not help, all that `left` names, until it names none.
pub async fn end_all(left: impl Fn() -> Vec<i32>) {
    let begun = Instant::now();
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        let signal = if begun.elapsed() < Duration::from_secs(1) { Signal::SIGTERM } else { Signal::SIGKILL };
        for pid in &left {
            let _ = kill(Pid::from_raw(*pid), signal);
        }
        if begun.elapsed() > Duration::from_secs(20) {
            tracing::error!(?left, "processes of a former proxy do not end");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn mark_of(volume: &Volume) -> PathBuf {
    volume.output().join(MARK)
}
