//! Process 1 of the proxy's container: it reaps, forwards signals, and restarts the agent proper.
//!
//! Everything clever is in the agent proper, which is this executable once more (with `--proper`) and may crash: the
//! proxy is then a child of this process, serves on, and the next agent adopts it. So this file knows no runtime, no
//! volume and no proxy, and does nothing that can fail for long.
//!
//! Outside a container it is a child subreaper, so that it inherits what its descendants leave behind just as process
//! 1 does, and it ends all of that before it ends itself. As a child of `run` (`--with-parent`) it ends with it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, alarm, getpid, getppid};

use super::processes;

/// How the agent proper says that it ended on purpose: done, wrong use, could not do it. Anything else is a crash.
const ON_PURPOSE: [i32; 3] = [0, 2, 3];

/// Who lived this long before it crashed has its earlier crashes forgotten.
const HEALTHY: Duration = Duration::from_secs(10);

/// The longest pause before a restart, in seconds.
const LONGEST_PAUSE: u32 = 15;

/// How long the proxy may take to end by itself once everything ends.
const PATIENCE: Duration = Duration::from_secs(2);

/// The signal that the kernel sends when the parent dies. Not one of those that people send.
pub const PARENT_DIED: Signal = Signal::SIGUSR1;

/// Is process 1 until the agent proper ends on purpose or the parent, if one is given, dies.
///
/// Must be called by the first thread, before any other exists: who is spawned here learns of the death of a thread,
/// and signals are blocked for the calling thread only.
pub fn run(parent: Option<i32>) -> ExitCode {
    let mut init = match Init::new(parent.map(Pid::from_raw)) {
        Ok(init) => init,
        Err(err) => {
            eprintln!("error: cannot be process 1 of the proxy: {err}");
            return ExitCode::from(3);
        }
    };
    let code = init.run();
    end_all_children(init.agent);
    ExitCode::from(code)
}

/// Undoes for the agent proper what it has inherited: process 1 blocks the signals that it waits for.
pub fn unblock_signals() -> nix::Result<()> {
    SigSet::all().thread_unblock()
}

struct Init {
    parent: Option<Pid>,
    signals: SigSet,
    agent: Option<Pid>,
    started: Instant,
    /// Seconds of the next pause. The first crash costs none.
    pause: u32,
    /// Somebody has asked us to stop: a crash is then an end.
    stopping: bool,
}

impl Init {
    fn new(parent: Option<Pid>) -> nix::Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGALRM,
            Signal::SIGTERM,
            Signal::SIGQUIT,
            Signal::SIGINT,
            Signal::SIGHUP,
            PARENT_DIED,
        ] {
            signals.add(signal);
        }
        signals.thread_block()?;
        prctl::set_child_subreaper(true)?;
        if parent.is_some() {
            prctl::set_pdeathsig(PARENT_DIED)?;
        }
        Ok(Self { parent, signals, agent: None, started: Instant::now(), pause: 0, stopping: false })
    }

    fn run(&mut self) -> u8 {
        // The parent may have died before the kernel knew that we want to hear of it.
        if self.orphaned() {
            return 3;
        }
        self.start();
        loop {
            match self.signals.wait() {
                Ok(Signal::SIGCHLD) => {
                    if let Some(code) = self.reap() {
                        return code;
                    }
                }
                Ok(Signal::SIGALRM) if self.agent.is_none() => self.start(),
                // Also sent when only the thread ended that started us.
                Ok(PARENT_DIED) if self.orphaned() => return 3,
                Ok(signal @ (Signal::SIGTERM | Signal::SIGQUIT | Signal::SIGINT)) => {
                    self.stopping = true;
                    match self.agent {
                        Some(agent) => drop(kill(agent, signal)),
                        None => return 0,
                    }
                }
                Ok(Signal::SIGHUP) => drop(self.agent.map(|agent| kill(agent, Signal::SIGHUP))),
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn orphaned(&self) -> bool {
        self.parent.is_some_and(|parent| getppid() != parent)
    }

    /// Starts the agent proper: the same executable, also if its file has been replaced, with the same arguments.
    fn start(&mut self) {
        let mut arguments: Vec<OsString> = std::env::args_os().collect();
        let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
        arguments.insert(end, format!("--proper={}", getpid()).into());
        let mut arguments = arguments.into_iter();
        let mut command = Command::new("/proc/self/exe");
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        // A process group of its own: Ctrl-C reaches it once, from here, and not from the terminal as well.
        let started = command.args(arguments).process_group(0).spawn();
        self.started = Instant::now();
        match started {
            Ok(child) => self.agent = i32::try_from(child.id()).ok().map(Pid::from_raw),
            Err(err) => {
                self.pause = self.pause.max(1);
                eprintln!("error: cannot start the agent, trying again in {} s: {err}", self.pause);
                self.start_later();
            }
        }
    }

    fn start_later(&mut self) {
        alarm::set(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Buries every child that has ended. The exit code, if the agent proper ended for good.
    fn reap(&mut self) -> Option<u8> {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
                Ok(status) => status,
                Err(_) => return None,
            };
            if status.pid().is_none() || status.pid() != self.agent {
                continue;
            }
            self.agent = None;
            if let WaitStatus::Exited(_, code) = status
                && ON_PURPOSE.contains(&code)
                // A proxy that serves is not ended because an agent cannot start beside it (a full disk, for example).
                && (code == 0 || self.stopping || processes::children(getpid().as_raw()).is_empty())
            {
                return u8::try_from(code).ok();
            }
            if self.stopping {
                return Some(3);
            }
            self.restart(status);
        }
    }

    fn restart(&mut self, status: WaitStatus) {
        let how = match status {
            WaitStatus::Exited(_, code) => format!("with exit code {code}"),
            WaitStatus::Signaled(_, signal, _) => format!("by {signal}"),
            other => format!("as {other:?}"),
        };
        if self.started.elapsed() >= HEALTHY {
            self.pause = 0;
        }
        if self.pause == 0 {
            self.pause = 1;
            eprintln!("warning: the agent ended {how}; the proxy serves on, starting another agent");
            self.start();
        } else {
            eprintln!("warning: the agent ended {how}; starting another agent in {} s", self.pause);
            self.start_later();
        }
    }
}

/// Ends whatever this process has started or inherited: asked first, so that the proxy cleans up, then by force. For
/// process 1, and for `run -f`, which inherits (as a subreaper) what a killed process 1 leaves.
pub fn end_all_children(agent: Option<Pid>) {
    // The agent would only start the proxy again.
    if let Some(agent) = agent {
        let _ = kill(agent, Signal::SIGKILL);
    }
    let begun = Instant::now();
    while reap_some() && begun.elapsed() < 2 * PATIENCE {
        let signal = if begun.elapsed() < PATIENCE { Signal::SIGTERM } else { Signal::SIGKILL };
        for child in processes::children(getpid().as_raw()) {
            let _ = kill(Pid::from_raw(child), signal);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether any child is left after burying those that have ended.
fn reap_some() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
