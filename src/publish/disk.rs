//! How files come onto the volume: complete or not at all, with the right mode and owner.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::unistd::{Gid, Uid, User, chown, geteuid};

use crate::volume::Volume;

/// The user that the proxy's workers run as, where that is another than ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner {
    uid: Uid,
    gid: Gid,
}

impl Owner {
    /// The owner of what workers read at run time: `user` when we are root, else we ourselves (`None`).
    pub fn of_workers(user: &str) -> anyhow::Result<Option<Self>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let found = User::from_name(user).with_context(|| format!("looking up the user {user:?}"))?;
        let user = found.with_context(|| format!("there is no user {user:?}; --proxy-user must name one"))?;
        Ok(Some(Self { uid: user.uid, gid: user.gid }))
    }
}

/// The volume for writing.
#[derive(Clone, Debug)]
pub struct Disk {
    volume: Volume,
    owner: Option<Owner>,
}

/// How names of things begin that are being written. No name that the agent reads begins so.
const REMAINS: &str = ".new-";

impl Disk {
    /// The volume; files of workers will belong to `owner`.
    pub fn new(volume: Volume, owner: Option<Owner>) -> Self {
        Self { volume, owner }
    }

    /// Where things lie.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Replaces a file at once. Everybody may read it.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        self.replace_with(path, bytes, 0o644, None)
    }

    /// Replaces a file at once that nobody may read but the proxy's workers.
    pub fn replace_private(&self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        self.replace_with(path, bytes, 0o600, self.owner)
    }

    /// Replaces whatever is there by a symlink.
    pub fn link(&self, target: &Path, link: &Path) -> anyhow::Result<()> {
        let new = self.beside(link);
        symlink(target, &new)
            .and_then(|()| fs::rename(&new, link))
            .with_context(|| format!("making {}", link.display()))
    }

    /// Writes a file that nobody looks at yet.
    pub fn write_new(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)
    }

    /// A name in the same folder that nobody reads, free to be written.
    pub fn beside(&self, path: &Path) -> PathBuf {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let new = path.with_file_name(format!("{REMAINS}{name}"));
        // What an earlier attempt left there is of no use to anybody.
        let _ = fs::remove_dir_all(&new);
        let _ = fs::remove_file(&new);
        new
    }

    /// Removes what was being written when somebody died.
    pub fn remove_remains(&self) -> io::Result<()> {
        let volume = &self.volume;
        let folders =
            [volume.input(), volume.releases(), volume.trials(), volume.endpoints(), volume.tls(), volume.files()];
        for folder in folders {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if !entry.file_name().as_encoded_bytes().starts_with(REMAINS.as_bytes()) {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                } else {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }

    fn replace_with(&self, path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> anyhow::Result<()> {
        let new = self.beside(path);
        let written = self.write_new(&new, bytes, mode).map_err(anyhow::Error::from).and_then(|()| {
            if let Some(owner) = owner {
                chown(&new, Some(owner.uid), Some(owner.gid))?;
            }
            crate::fault::point("live-written");
            Ok(fs::rename(&new, path)?)
        });
        written.with_context(|| format!("writing {}", path.display()))
    }
}
