//! What the controller wants: `in/desired` and `in/trials`, and when to look at them again.
//!
//! notify is a hint. Its watches may be lost, overflow or not be had at all, so we look each second besides.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::volume::{Digest, Volume};

/// How long a change that nobody told us of may lie.
pub const LOOK: Duration = Duration::from_secs(1);

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
    folders: Vec<PathBuf>,
    changed: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    watched: Vec<PathBuf>,
    told: bool,
    hangup: Signal,
}

impl Wishes {
    /// Watches what there is to watch by now.
    pub fn new(volume: &Volume) -> anyhow::Result<Self> {
        let folders = vec![volume.input(), volume.trials()];
        let hangup = signal(SignalKind::hangup()).context("listening for signals")?;
        let mut wishes = Self { folders, changed: Arc::default(), watcher: None, watched: vec![], told: false, hangup };
        wishes.watch();
        Ok(wishes)
    }

    /// Resolves when something may have changed, at the latest after [`LOOK`]. True when somebody (SIGHUP) wants
    /// whatever waits for its time to be tried now.
    pub async fn changed(&mut self) -> bool {
        self.watch();
        tokio::select! {
            () = self.changed.notified() => false,
            () = tokio::time::sleep(LOOK) => false,
            _ = self.hangup.recv() => true,
        }
    }

    /// Watches the folders that have come into being since.
    fn watch(&mut self) {
        self.watched.retain(|folder| folder.exists());
        let missing: Vec<_> =
            self.folders.iter().filter(|folder| !self.watched.contains(folder) && folder.exists()).cloned().collect();
        for folder in missing {
            match self.watch_folder(&folder) {
                Ok(()) => self.watched.push(folder),
                Err(err) if !self.told => {
                    self.told = true;
                    tracing::warn!(folder = %folder.display(), %err, "cannot watch for changes; looking each second instead");
                }
                Err(_) => {}
            }
        }
    }

    fn watch_folder(&mut self, folder: &Path) -> notify::Result<()> {
        if self.watcher.is_none() {
            let changed = self.changed.clone();
            self.watcher = Some(notify::recommended_watcher(move |_| changed.notify_one())?);
        }
        match &mut self.watcher {
            Some(watcher) => watcher.watch(folder, RecursiveMode::NonRecursive),
            None => Ok(()),
        }
    }
}
