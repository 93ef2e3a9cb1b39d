//! When to look at files again: told by inotify at once, and once a second anyway.
//!
//! inotify is a hint and nothing more: its instances are few and shared by the whole node, its queue overflows, and a
//! folder may come into being later. So whoever waits here looks at what is there, and never believes an event.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::{info, warn};

/// How long a change stays unseen at most, whatever inotify does.
pub const LOOK: Duration = Duration::from_secs(1);

/// Wakes whoever waits when something happens in some folders or to some files.
pub struct Hint {
    what: &'static str,
    paths: Vec<PathBuf>,
    touched: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    /// The paths that are being watched, with what identified each: a folder made anew must be watched anew.
    watched: Vec<(PathBuf, Identity)>,
    told: bool,
}

/// Device and inode.
type Identity = Option<(u64, u64)>;

impl Hint {
    /// Watches folders (what lies directly in them) and files. They need not exist yet. `what` names them in the log.
    pub fn new(what: &'static str, paths: Vec<PathBuf>) -> Self {
        let touched = Arc::new(Notify::new());
        let mut this = Self { what, paths, touched, watcher: None, watched: Vec::new(), told: false };
        this.watch();
        this
    }

    /// Returns when something may have changed: soon after it did, and in any case after [`LOOK`].
    pub async fn wait(&mut self) {
        self.watch();
        // Whether it was an event or the time makes no difference to what must be done: look.
        let _ = tokio::time::timeout(LOOK, self.touched.notified()).await;
    }

    /// As [`Self::wait`], but after an event goes on waiting until there is none for `quiet`, though not for `longest`.
    pub async fn wait_until_quiet(&mut self, quiet: Duration, longest: Duration) {
        self.watch();
        if tokio::time::timeout(LOOK, self.touched.notified()).await.is_ok() {
            let settled = async { while tokio::time::timeout(quiet, self.touched.notified()).await.is_ok() {} };
            // Either way it is time to look.
            let _ = tokio::time::timeout(longest, settled).await;
        }
    }

    fn watch(&mut self) {
        if self.watcher.is_none() {
            let touched = self.touched.clone();
            let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Reading is no change; an error (an overflow) may hide one.
                if event.is_err()
                    || event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_)) || closed(&event))
                {
                    touched.notify_one();
                }
            });
            match watcher {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => return self.tell(&error),
            }
        }
        let Some(watcher) = &mut self.watcher else { return };
        let mut failed = None;
        for path in &self.paths {
            let now = identity(path);
            let then = self.watched.iter_mut().find(|(watched, _)| watched == path);
            if now.is_none() || then.as_ref().is_some_and(|(_, then)| *then == now) {
                continue;
            }
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => match then {
                    Some((_, then)) => *then = now,
                    None => self.watched.push((path.clone(), now)),
                },
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => self.tell(&error),
            None if self.told => {
                self.told = false;
                info!("{}: inotify works again", self.what);
            }
            None => {}
        }
    }

    fn tell(&mut self, error: &notify::Error) {
        if !std::mem::replace(&mut self.told, true) {
            warn!("{}: no inotify ({error}); changes are found by looking once a second", self.what);
        }
    }
}

fn closed(event: &notify::Event) -> bool {
    use notify::event::{AccessKind, AccessMode};
    matches!(event.kind, EventKind::Access(AccessKind::Close(AccessMode::Write)))
}

fn identity(path: &Path) -> Identity {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Tells a file or directory from its successor: it cannot have changed while this stays equal, unless it is very young.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// What tells this one.
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_change_wakes_at_once_and_time_wakes_without_one() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("made-later");
        let mut hint = Hint::new("test", vec![inside.clone()]);
        hint.wait().await;
        std::fs::create_dir(&inside).unwrap();
        hint.wait().await;
        // Watched from here on. An event ends the wait at once: ten of them take less than two looks.
        let begin = Instant::now();
        for n in 0..10 {
            std::fs::write(inside.join("file"), n.to_string()).unwrap();
            hint.wait().await;
        }
        assert!(begin.elapsed() < LOOK * 5, "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn reading_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let mut hint = Hint::new("test", vec![folder.path().to_owned()]);
        let begin = Instant::now();
        for _ in 0..3 {
            let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
            std::fs::read(names[0].as_ref().unwrap().path()).unwrap();
            hint.wait().await;
        }
        assert!(begin.elapsed() >= LOOK * 3, "whoever looks when woken would never sleep: {:?}", begin.elapsed());
    }
}
