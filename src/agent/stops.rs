//! The signals by which the agent is told to end.

use anyhow::Context;
use nix::sys::prctl;
use nix::unistd::{Pid, getppid};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::init::PARENT_DIED;

/// How to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// Let requests finish.
    Drain,
    /// Process 1 has died: whoever started it wants the ports back.
    AtOnce,
}

/// Listens for signals.
pub struct Stops {
    init: Pid,
    term: Signal,
    quit: Signal,
    int: Signal,
    parent: Signal,
}

impl Stops {
    /// From here on signals are ours, and the death of process 1 (`init`) is one of them.
    pub fn listen(init: i32) -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("listening for signals");
        let stops = Self {
            init: Pid::from_raw(init),
            term: on(SignalKind::terminate())?,
            quit: on(SignalKind::quit())?,
            int: on(SignalKind::interrupt())?,
            parent: on(SignalKind::user_defined1())?,
        };
        prctl::set_pdeathsig(PARENT_DIED).context("asking to be told of the death of process 1")?;
        Ok(stops)
    }

    /// Whether process 1 has died; it may have done so before the kernel knew that we want to be told.
    pub fn orphaned(&self) -> bool {
        getppid() != self.init
    }

    /// The next reason to end.
    pub async fn next(&mut self) -> Stop {
        loop {
            tokio::select! {
                _ = self.term.recv() => return Stop::Drain,
                _ = self.quit.recv() => return Stop::Drain,
                _ = self.int.recv() => return Stop::Drain,
                _ = self.parent.recv() => if self.orphaned() { return Stop::AtOnce },
            }
        }
    }

    /// Resolves when there is no time left to be gentle.
    pub async fn at_once(&mut self) {
        while self.next().await != Stop::AtOnce {}
    }
}
