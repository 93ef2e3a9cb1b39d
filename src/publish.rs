//! Releases on the shared volume: written whole, put in force by one rename, kept as long as somebody needs them.
//!
//! The controller's side only. What the agent makes of a release is read in `reports`; what changes without a release
//! is written by `live`.

mod disk;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};

pub use self::disk::{Disk, Owner};
use crate::fault;
use crate::render::Release;
use crate::volume::release::{CHANGED, MANIFEST};
use crate::volume::{Digest, Manifest, Volume};

/// The controller's hold on `in/`: one controller, one volume.
pub struct Publisher {
    disk: Disk,
    _lock: Flock<fs::File>,
}

impl Publisher {
    /// Makes the folders, and takes away what an interrupted predecessor left half-written.
    pub fn open(volume: Volume, owner: Option<Owner>) -> anyhow::Result<Self> {
        let disk = Disk::new(volume, owner);
        let volume = disk.volume();
        let lock = volume.input().join(".lock");
        for folder in [volume.releases(), volume.trials(), volume.endpoints(), volume.tls(), volume.files()] {
            fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
        }
        let file = fs::File::create(&lock).with_context(|| format!("making {}", lock.display()))?;
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            bail!(
                "another coxswain publishes to {} already; each needs a --proxy-dir of its own",
                volume.root().display()
            );
        };
        disk.remove_remains().context("taking away what was left half-written")?;
        Ok(Self { disk, _lock: lock })
    }

    /// How files come onto the volume, for `live`.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The release that the agent is to put in force, whoever asked for it.
    pub fn desired(&self) -> Option<Digest> {
        linked(&self.disk.volume().desired())
    }

    /// Writes a release and asks the agent to put it in force. What it names in `live/` must be there already.
    pub fn publish(&self, release: &Release) -> anyhow::Result<()> {
        let volume = self.disk.volume();
        let (digest, target) = (&release.digest, volume.release(&release.digest));
        self.write(release, &target).with_context(|| format!("writing release {}", digest.short()))?;
        let link = Path::new("releases").join(digest.as_str());
        self.disk.link(&link, &volume.desired()).with_context(|| format!("asking for release {}", digest.short()))?;
        fault::point("publish-flipped");
        Ok(())
    }

    /// Writes a configuration that the agent only tests.
    pub fn publish_trial(&self, release: &Release) -> anyhow::Result<()> {
        let target = self.disk.volume().trial(&release.digest);
        self.write(release, &target).with_context(|| format!("writing trial {}", release.digest.short()))
    }

    /// What a release refers to; `None` if it is not there (any more).
    pub fn manifest(&self, digest: &Digest) -> Option<Manifest> {
        manifest_in(&self.disk.volume().release(digest))
    }

    /// Removes releases but for `keep`, `desired` and what the agent says is in force; and all trials but for `trials`.
    pub fn retain(&self, keep: &BTreeSet<Digest>, trials: &BTreeSet<Digest>) -> anyhow::Result<()> {
        let volume = self.disk.volume();
        let in_force = [self.desired(), linked(&volume.current())];
        let kept = |digest: &Digest| keep.contains(digest) || in_force.iter().flatten().any(|d| d == digest);
        remove_others(&volume.releases(), kept).context("removing old releases")?;
        remove_others(&volume.trials(), |digest| trials.contains(digest)).context("removing old trials")
    }

    /// Writes a folder beside its place and renames it there. One that is there already is complete, unless the machine
    /// lost power: then it is written anew.
    fn write(&self, release: &Release, target: &Path) -> anyhow::Result<()> {
        if holds(target, release) {
            return Ok(());
        }
        let new = self.disk.beside(target);
        fs::create_dir(&new)?;
        let manifest = serde_json::to_vec(&release.manifest)?;
        let changed = release.changed.iter().map(|file| (Path::new(CHANGED), file.mode, &file.bytes[..]));
        let files = release.files.iter().map(|(path, file)| (Path::new(path.as_str()), file.mode, &file.bytes[..]));
        for (path, mode, bytes) in files.chain(changed).chain([(Path::new(MANIFEST), 0o644, &manifest[..])]) {
            let path = new.join(path);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            self.disk.write_new(&path, bytes, mode).with_context(|| format!("writing {}", path.display()))?;
            fault::point("publish-file");
        }
        fault::point("publish-written");
        if target.exists() {
            // Not what it says it is: out of the way with it. `remove_remains` knows these names.
            let old = self.disk.beside(&target.with_extension("old"));
            fs::rename(target, &old)?;
            fs::remove_dir_all(&old)?;
        }
        fs::rename(&new, target)?;
        fault::point("publish-renamed");
        Ok(())
    }
}

fn manifest_in(folder: &Path) -> Option<Manifest> {
    serde_json::from_slice(&fs::read(folder.join(MANIFEST)).ok()?).ok()
}

/// Whether the folder holds exactly what the digest stands for.
fn holds(folder: &Path, release: &Release) -> bool {
    let files = release.files.iter();
    let same = files.map(|(path, file)| fs::read(folder.join(path.as_str())).is_ok_and(|bytes| bytes == *file.bytes));
    manifest_in(folder).is_some() && same.into_iter().all(|same| same)
}

/// The release that a symlink names. Only its text is believed, and only as a digest.
fn linked(link: &Path) -> Option<Digest> {
    Digest::parse(fs::read_link(link).ok()?.file_name()?.to_str()?)
}

fn remove_others(folder: &Path, kept: impl Fn(&Digest) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path: PathBuf = entry?.path();
        let digest = path.file_name().and_then(|name| Digest::parse(name.to_str()?));
        if digest.is_some_and(|digest| !kept(&digest)) {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::render::{File, RelativePath};

    fn release(of: &str) -> Release {
        let text = |text: &str| File { mode: 0o644, bytes: text.as_bytes().to_vec() };
        Release {
            files: BTreeMap::from([(RelativePath::MAIN, text(of))]),
            digest: Digest::parse(&of.repeat(64)).unwrap(),
            changed: Some(text("changed")),
            manifest: Manifest { upstreams: vec!["u".to_owned()], ..Manifest::empty() },
        }
    }

    fn publisher() -> (tempfile::TempDir, Volume, Publisher) {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        let publisher = Publisher::open(volume.clone(), None).unwrap();
        (folder, volume, publisher)
    }

    #[test]
    fn a_release_is_whole_where_desired_points() {
        let (_folder, volume, publisher) = publisher();
        assert_eq!(publisher.desired(), None);
        let a = release("a");
        publisher.publish(&a).unwrap();
        assert_eq!(publisher.desired(), Some(a.digest.clone()));
        assert_eq!(fs::read_link(volume.desired()).unwrap(), Path::new("releases").join(a.digest.as_str()));
        for (name, text) in [("nginx.conf", "a"), ("changed.conf", "changed")] {
            assert_eq!(fs::read_to_string(volume.desired().join(name)).unwrap(), text);
        }
        assert_eq!(publisher.manifest(&a.digest), Some(a.manifest));
        assert_eq!(fs::read_dir(volume.releases()).unwrap().count(), 1, "nothing half-written is left");
    }

    #[test]
    fn a_release_that_is_there_is_not_written_again_unless_it_is_not_what_it_says() {
        let (_folder, volume, publisher) = publisher();
        let a = release("a");
        publisher.publish(&a).unwrap();
        let file = volume.release(&a.digest).join("nginx.conf");
        let inode = fs::metadata(&file).unwrap().ino();
        publisher.publish(&a).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
        // As after a loss of power.
        fs::write(&file, "").unwrap();
        publisher.publish(&a).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "a");
    }

    #[test]
    fn what_a_predecessor_left_half_written_goes_and_the_rest_stays() {
        let (_folder, volume, publisher) = publisher();
        publisher.publish(&release("a")).unwrap();
        drop(publisher);
        fs::create_dir(volume.releases().join(".new-b")).unwrap();
        fs::write(volume.tls().join(".new-x.pem"), "half a key").unwrap();
        let publisher = Publisher::open(volume.clone(), None).unwrap();
        assert_eq!(publisher.desired(), Some(release("a").digest));
        assert_eq!(fs::read_dir(volume.releases()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(volume.tls()).unwrap().count(), 0);
    }

    #[test]
    fn only_one_controller_may_write() {
        let (_folder, volume, publisher) = publisher();
        let error = Publisher::open(volume.clone(), None).err().unwrap().to_string();
        assert!(error.contains("another coxswain publishes to") && error.contains("--proxy-dir"), "{error}");
        drop(publisher);
        assert!(Publisher::open(volume, None).is_ok());
    }

    #[test]
    fn what_is_desired_in_force_or_kept_is_never_removed() {
        let (_folder, volume, publisher) = publisher();
        for name in ["a", "b", "c", "d"] {
            publisher.publish(&release(name)).unwrap();
        }
        publisher.publish_trial(&release("e")).unwrap();
        publisher.publish_trial(&release("f")).unwrap();
        fs::create_dir(volume.output()).unwrap();
        std::os::unix::fs::symlink(volume.release(&release("b").digest), volume.current()).unwrap();
        let only = |name: &str| BTreeSet::from([release(name).digest]);
        publisher.retain(&only("a"), &only("e")).unwrap();
        let left = |folder: PathBuf| {
            let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.map(|name| name[..1].to_owned()).collect::<BTreeSet<_>>()
        };
        assert_eq!(left(volume.releases()), ["a", "b", "d"].map(str::to_owned).into());
        assert_eq!(left(volume.trials()), ["e"].map(str::to_owned).into());
    }
}
