//! Which files of one directory changed: told by inotify at once, found by looking within a second.
//!
//! inotify is a hint. Its queue overflows (16 384 events), its instances are few and shared by the whole node, and a
//! directory may not exist yet or be replaced by another; so the directory is looked at every second as well, and
//! without inotify that alone remains. What the files say is not looked at here.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tracing::{info, warn};

use crate::hint::Stamp;

/// How often the directory is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// A directory that is younger than this when it is listed may change once more without getting a new time (the
/// kernel's clock for files ticks every few milliseconds), so it is listed again.
const UNSETTLED: Duration = Duration::from_millis(50);

/// One directory of small files that are replaced by rename(2).
pub(in crate::agent) struct Directory {
    path: PathBuf,
    /// The files as they were when they were last reported.
    files: BTreeMap<String, Stamp>,
    /// The directory as it was when it was last listed; `None` if it must be listed again.
    listed: Option<Stamp>,
    next_look: Instant,
    /// Events were lost.
    overflowed: bool,
    watcher: Option<RecommendedWatcher>,
    /// The directory (device and inode) that the watcher watches.
    watched: Option<(u64, u64)>,
    events: Receiver<notify::Result<notify::Event>>,
    /// Whether it was said that there is no inotify.
    told: bool,
}

/// What happened to one file since it was last reported.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::agent) enum Change {
    /// It is new or another one; its name.
    Written(String),
    /// It is gone; its name.
    Removed(String),
}

impl Directory {
    /// Watches `path`, which need not exist yet. Nothing is read before the first [`look`](Self::look).
    pub(in crate::agent) fn new(path: impl Into<PathBuf>) -> Self {
        let (sender, events) = mpsc::channel();
        // The receiver lives as long as the watcher, and a lost event costs a second.
        let watcher = notify::recommended_watcher(move |event| drop(sender.send(event)));
        let mut directory = Self {
            path: path.into(),
            files: BTreeMap::new(),
            listed: None,
            next_look: Instant::now() + EVERY,
            overflowed: false,
            watcher: None,
            watched: None,
            events,
            told: false,
        };
        match watcher {
            Ok(watcher) => directory.watcher = Some(watcher),
            Err(error) => directory.tell_polling(&error),
        }
        directory
    }

    /// The file of a name.
    pub(in crate::agent) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Waits until something may have changed, a second at most, and says what did.
    pub(in crate::agent) fn wait(&mut self) -> Vec<Change> {
        let mut touched = BTreeSet::new();
        match self.events.recv_timeout(self.next_look.saturating_duration_since(Instant::now())) {
            Ok(event) => self.note(event, &mut touched),
            Err(RecvTimeoutError::Timeout) => {}
            // Only possible without a watcher: its end of the channel is gone.
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(self.next_look.saturating_duration_since(Instant::now()));
            }
        }
        while let Ok(event) = self.events.try_recv() {
            self.note(event, &mut touched);
        }
        let mut changes: Vec<_> = touched.into_iter().filter_map(|name| self.touched(name)).collect();
        if std::mem::take(&mut self.overflowed) {
            self.listed = None;
            changes.extend(self.look());
        } else if Instant::now() >= self.next_look {
            changes.extend(self.look());
        }
        changes
    }

    /// Compares the whole directory with what was last reported, unless it is plainly the same. A directory that is
    /// not there (yet) changes nothing.
    pub(in crate::agent) fn look(&mut self) -> Vec<Change> {
        self.next_look = Instant::now() + EVERY;
        let Ok(metadata) = std::fs::metadata(&self.path) else { return Vec::new() };
        // The watch comes before the listing, so that nothing falls between them.
        self.watch(&metadata);
        let stamp = Stamp::of(&metadata);
        if self.listed == Some(stamp) {
            return Vec::new();
        }
        let files = match list(&self.path) {
            Ok(files) => files,
            Err(error) => {
                warn!(directory = %self.path.display(), %error, "cannot list the directory; what it held stays in force");
                return Vec::new();
            }
        };
        let settled = SystemTime::now()
            .duration_since(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH))
            .is_ok_and(|age| age > UNSETTLED);
        self.listed = settled.then_some(stamp);
        let written = files.iter().filter(|(name, stamp)| self.files.get(*name) != Some(stamp));
        let removed = self.files.keys().filter(|name| !files.contains_key(*name));
        let changes = written
            .map(|(name, _)| Change::Written(name.clone()))
            .chain(removed.cloned().map(Change::Removed))
            .collect();
        self.files = files;
        changes
    }

    /// What happened to one file that an event named. It counts as written even if it looks the same as before:
    /// two quick replacements can.
    fn touched(&mut self, name: String) -> Option<Change> {
        if let Ok(metadata) = std::fs::metadata(self.file(&name)) {
            self.files.insert(name.clone(), Stamp::of(&metadata));
            Some(Change::Written(name))
        } else {
            self.files.remove(&name).map(|_| Change::Removed(name))
        }
    }

    fn note(&mut self, event: notify::Result<notify::Event>, touched: &mut BTreeSet<String>) {
        match event {
            Ok(event) if event.need_rescan() => self.overflowed = true,
            Ok(event) if is_change(event.kind) => {
                touched.extend(event.paths.iter().filter(|p| p.parent() == Some(&self.path)).filter_map(|p| name(p)));
            }
            Ok(_) => {}
            Err(error) => {
                warn!(directory = %self.path.display(), %error, "inotify failed; looking at the whole directory");
                self.overflowed = true;
            }
        }
    }

    /// Watches the directory that is there now, unless it is watched already.
    fn watch(&mut self, metadata: &std::fs::Metadata) {
        let identity = (metadata.dev(), metadata.ino());
        if self.watched == Some(identity) {
            return;
        }
        let Some(watcher) = &mut self.watcher else { return };
        if self.watched.take().is_some() {
            // The former directory is gone, and with it the kernel's side of its watch.
            let _ = watcher.unwatch(&self.path);
        }
        match watcher.watch(&self.path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                if self.told {
                    info!(directory = %self.path.display(), "inotify works again");
                    self.told = false;
                }
                self.watched = Some(identity);
            }
            Err(error) => self.tell_polling(&error),
        }
    }

    fn tell_polling(&mut self, error: &notify::Error) {
        if !self.told {
            self.told = true;
            warn!(directory = %self.path.display(), %error, "no inotify: changes are found by looking once a second");
        }
    }
}

/// Opening a file is no change; otherwise our own reading would wake us.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Any | EventKind::Other => true,
    }
}

/// The name of a file that counts: hidden ones are somebody's unfinished work.
fn name(path: &Path) -> Option<String> {
    path.file_name()?.to_str().filter(|name| !name.starts_with('.')).map(str::to_owned)
}

fn list(path: &Path) -> std::io::Result<BTreeMap<String, Stamp>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        // What vanished since is not there.
        if let (Some(name), Ok(metadata)) = (name(&path), std::fs::metadata(&path)) {
            files.insert(name, Stamp::of(&metadata));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(directory: &Path, name: &str, content: &str) {
        let new = directory.join(format!(".{name}"));
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, directory.join(name)).unwrap();
    }

    /// Everything reported until `wanted` was.
    fn wait_for(directory: &mut Directory, wanted: &Change) -> Vec<Change> {
        let mut all = Vec::new();
        let end = Instant::now() + Duration::from_secs(60);
        while !all.contains(wanted) {
            assert!(Instant::now() < end, "{wanted:?} was never reported, only {all:?}");
            all.extend(directory.wait());
        }
        all
    }

    fn written(name: &str) -> Change {
        Change::Written(name.into())
    }

    #[test]
    fn files_are_reported_when_they_come_change_and_go() {
        let folder = tempfile::tempdir().unwrap();
        replace(folder.path(), "a", "1");
        let mut directory = Directory::new(folder.path());
        assert_eq!(directory.look(), [written("a")]);
        replace(folder.path(), "a", "2");
        wait_for(&mut directory, &written("a"));
        replace(folder.path(), "b", "1");
        wait_for(&mut directory, &written("b"));
        std::fs::remove_file(folder.path().join("a")).unwrap();
        wait_for(&mut directory, &Change::Removed("a".into()));
    }

    #[test]
    fn without_inotify_the_look_finds_what_changed() {
        let folder = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(folder.path());
        directory.watcher = None;
        assert_eq!(directory.look(), []);
        replace(folder.path(), "a", "1");
        assert_eq!(wait_for(&mut directory, &written("a")), [written("a")]);
        replace(folder.path(), "a", "2");
        assert_eq!(wait_for(&mut directory, &written("a")), [written("a")]);
        std::fs::remove_file(folder.path().join("a")).unwrap();
        wait_for(&mut directory, &Change::Removed("a".into()));
    }

    #[test]
    fn a_directory_that_comes_later_or_is_replaced_is_watched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("live");
        let mut directory = Directory::new(&path);
        assert_eq!(directory.look(), []);
        std::fs::create_dir(&path).unwrap();
        replace(&path, "a", "1");
        wait_for(&mut directory, &written("a"));

        std::fs::rename(&path, folder.path().join("old")).unwrap();
        std::fs::create_dir(&path).unwrap();
        replace(&path, "b", "1");
        let changes = wait_for(&mut directory, &written("b"));
        assert!(changes.contains(&Change::Removed("a".into())), "{changes:?}");
        assert_eq!(directory.watched, std::fs::metadata(&path).ok().map(|m| (m.dev(), m.ino())));
    }

    #[test]
    fn an_overflow_of_the_queue_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(folder.path());
        directory.look();
        // Each replacement is several events; nobody reads them meanwhile.
        for n in 0..8_000 {
            replace(folder.path(), &format!("{n}"), "1");
        }
        let changes: BTreeSet<_> = wait_for(&mut directory, &written("7999")).into_iter().collect();
        let missing: Vec<_> = (0..8_000).filter(|n| !changes.contains(&written(&n.to_string()))).collect();
        let late: BTreeSet<_> = directory.look().into_iter().collect();
        assert!(missing.iter().all(|n| late.contains(&written(&n.to_string()))), "{missing:?}");
    }
}
