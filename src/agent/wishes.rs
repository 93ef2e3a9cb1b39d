//! What the controller wants: `in/desired` and `in/trials`, and when to look at them again.

use std::fs;
use std::path::Path;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::hint::Hint;
pub use crate::hint::LOOK;
use crate::volume::{Digest, Volume};

/// The release that the controller wants in force.
pub fn desired(volume: &Volume) -> Option<Digest> {
    release_of(&volume.desired())
}

/// The release in force, or being put in force.
pub fn current(volume: &Volume) -> Option<Digest> {
    release_of(&volume.current())
}

/// The configurations that shall only be tested, in order.
pub fn trials(volume: &Volume) -> Vec<Digest> {
    let entries = fs::read_dir(volume.trials()).into_iter().flatten().flatten();
    let mut trials: Vec<_> = entries.filter_map(|entry| Digest::parse(entry.file_name().to_str()?)).collect();
    trials.sort();
    trials
}

fn release_of(link: &Path) -> Option<Digest> {
    Digest::parse(fs::read_link(link).ok()?.file_name()?.to_str()?)
}

/// Says when it is worth while to look.
pub struct Wishes {
    hint: Hint,
    hangup: Signal,
}

impl Wishes {
    /// Watches what there is to watch by now.
    pub fn new(volume: &Volume) -> anyhow::Result<Self> {
        let hangup = signal(SignalKind::hangup()).context("listening for signals")?;
        Ok(Self { hint: Hint::new("what the controller wants", vec![volume.input(), volume.trials()]), hangup })
    }

    /// Resolves when something may have changed, at the latest after [`LOOK`]. True when somebody (SIGHUP) wants
    /// whatever waits for its time to be tried now.
    pub async fn changed(&mut self) -> bool {
        tokio::select! {
            () = self.hint.wait() => false,
            _ = self.hangup.recv() => true,
        }
    }
}
