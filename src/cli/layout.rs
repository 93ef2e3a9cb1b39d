//! A configuration as it would lie on the volume, in any folder, so that the proxy can be asked about it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::agent::nginx::Nginx;
use crate::live::Live;
use crate::model::ProxyConfig;
use crate::problem::{Problem, Reason};
use crate::publish::Publisher;
use crate::render::{History, RelativePath, Release, render};
use crate::volume::{FaultClass, ProxyKind, Volume, local};

/// Writes everything, and returns the folder of the release.
pub fn write(folder: &Path, release: &Release, config: &ProxyConfig) -> anyhow::Result<PathBuf> {
    let volume = Volume::new(std::path::absolute(folder)?);
    // What lies there belongs to whoever asks, so that the same person can have it tested.
    let publisher = Publisher::open(volume.clone(), None)?;
    Live::new(publisher.disk().clone()).write(config)?;
    publisher.publish(release)?;
    for folder in [volume.output(), volume.temporary()] {
        fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    }
    for (name, text) in stand_ins(&volume) {
        let path = volume.local(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(volume.release(&release.digest))
}

/// Asks the proxy itself, by its own test; returns what it refuses, if anything.
pub fn refused_by(bin: &Path, config: &ProxyConfig, kind: ProxyKind) -> anyhow::Result<Option<Problem>> {
    let rendering = render(config, kind, &History::default())?;
    let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("coxswain-check-XXXXXX"))?;
    let asked = write(&folder, &rendering.release, config).and_then(|release| {
        let nginx = Nginx::new(&[bin.into()], &Volume::new(&folder))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Says what is wrong with the executable itself, if anything.
        runtime.block_on(nginx.version())?;
        Ok(runtime.block_on(nginx.validate(&release, RelativePath::MAIN.as_str())))
    });
    fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    let Err(refused) = asked? else { return Ok(None) };
    let place = refused.file.as_deref().zip(refused.line);
    match place.and_then(|(file, line)| rendering.source_map.blame(file, line)) {
        Some(blamed) if refused.class == FaultClass::Content => {
            let message = format!("brings what the proxy refuses: {refused}");
            Ok(Some(blamed.rejected(Reason::HeldBack, "", message, "it would be held back")))
        }
        _ => bail!("the proxy does not take the configuration: {refused}"),
    }
}

/// What the agent would write, as far as a test needs it: nothing that listens or leaves the folder.
fn stand_ins(volume: &Volume) -> [(&'static str, String); 4] {
    let (out, temporary) = (volume.output(), volume.temporary());
    let (out, temporary) = (out.display(), temporary.display());
    let main = format!("pid \"{out}/nginx.pid\";\nlock_file \"{out}/nginx.lock\";\nerror_log stderr notice;\n");
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths = kinds.map(|kind| format!("{kind}_temp_path \"{temporary}/{kind}\";\n")).concat();
    [
        (local::MAIN, main),
        (local::WORKERS, "worker_processes 1;\n".to_owned()),
        (local::HTTP, format!("resolver 127.0.0.1:53 ipv6=off;\nresolver_timeout 60s;\n{paths}")),
        (local::ACCESS_LOG, "access_log off;\n".to_owned()),
    ]
}
