//! Releases on the volume: what one says of itself, and which one `out/current` points to.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Context;

use crate::volume::{Digest, Manifest, Volume, release};

/// The largest `release.json` that is read, in bytes: twenty thousand hosts have a few.
const LARGEST_MANIFEST: u64 = 64 * 1024 * 1024;

/// Reads what a release says of itself.
pub fn read_manifest(volume: &Volume, digest: &Digest) -> anyhow::Result<Manifest> {
    let path = volume.release(digest).join(release::MANIFEST);
    let read = || {
        let mut json = vec![];
        fs::File::open(&path)?.take(LARGEST_MANIFEST).read_to_end(&mut json)?;
        anyhow::Ok(serde_json::from_slice(&json)?)
    };
    read().with_context(|| format!("reading {}", path.display()))
}

/// Points `out/current` at a release, by a rename.
pub fn flip(volume: &Volume, digest: &Digest) -> anyhow::Result<()> {
    let new = volume.output().join(".current.new");
    let point = || {
        remove(&new)?;
        symlink(Path::new("../in/releases").join(digest.as_str()), &new)?;
        fs::rename(&new, volume.current())
    };
    point().with_context(|| format!("pointing {} at release {}", volume.current().display(), digest.short()))
}

/// Points `out/current` where it pointed before.
pub fn restore(volume: &Volume, former: Option<&Digest>) -> anyhow::Result<()> {
    match former {
        Some(digest) => flip(volume, digest),
        None => remove(&volume.current()).context("removing the link to a release that did not start"),
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}
