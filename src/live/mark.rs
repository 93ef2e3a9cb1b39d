//! How a file that we wrote is told from one that was damaged since: another in its place, cut, or gone.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A file as it lay there right after it was written: inode, size and time; `None`: it did not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark(Option<(u64, u64, i64, i64)>);

impl Mark {
    /// The file of this name as it is now. Links are not followed: one has a mark of its own.
    pub fn of(path: &Path) -> Self {
        let found = fs::symlink_metadata(path).ok();
        Self(found.map(|found| (found.ino(), found.size(), found.mtime(), found.mtime_nsec())))
    }
}
