//! A configuration as it would lie on the volume, in any folder, so that the proxy can be asked about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::agent::nginx::{Nginx, includes};
use crate::agent::rejection::Rejection;
use crate::live::Live;
use crate::model::ProxyConfig;
use crate::problem::{Problem, Reason};
use crate::publish::Publisher;
use crate::render::{History, RelativePath, Release, render, standalone};
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
    let stand_ins = match release.manifest.proxy {
        ProxyKind::Nginx => stand_ins(&volume)?,
        ProxyKind::Envoy => vec![(local::STANDALONE, standalone(config)?)],
    };
    for (name, text) in stand_ins {
        let path = volume.local(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(volume.release(&release.digest))
}

/// The command with which the proxy tests the release in this folder.
pub fn test(kind: ProxyKind, bin: &Path, release: &Path) -> String {
    match kind {
        ProxyKind::Nginx => format!("{} -t -p {}/ -c {}", bin.display(), release.display(), RelativePath::MAIN),
        ProxyKind::Envoy => {
            let out = release.ancestors().nth(3).unwrap_or(release).join("out");
            format!("cd {} && {} --mode validate -c {}", out.display(), bin.display(), local::STANDALONE)
        }
    }
}

/// Asks the proxy itself, by its own test; returns what it refuses, if anything.
pub fn refused_by(bin: &Path, config: &ProxyConfig, kind: ProxyKind) -> anyhow::Result<Option<Problem>> {
    let rendering = render(config, kind, &History::default())?;
    let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("coxswain-check-XXXXXX"))?;
    let asked = write(&folder, &rendering.release, config).and_then(|release| match kind {
        ProxyKind::Nginx => refused_by_nginx(bin, &Volume::new(&folder), &release),
        ProxyKind::Envoy => refused_by_envoy(bin, &Volume::new(&folder)),
    });
    fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    let Some(refused) = asked? else { return Ok(None) };
    let place = refused.file.as_deref().zip(refused.line);
    match place.and_then(|(file, line)| rendering.source_map.blame(file, line)) {
        Some(blamed) if refused.class == FaultClass::Content => {
            let message = format!("brings what the proxy refuses: {refused}");
            Ok(Some(blamed.rejected(Reason::HeldBack, "", message, "it would be held back")))
        }
        _ => bail!("the proxy does not take the configuration: {refused}"),
    }
}

fn refused_by_nginx(bin: &Path, volume: &Volume, release: &Path) -> anyhow::Result<Option<Rejection>> {
    let nginx = Nginx::new(&[bin.into()], volume)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Says what is wrong with the executable itself, if anything.
    runtime.block_on(nginx.version())?;
    Ok(runtime.block_on(nginx.validate(release, RelativePath::MAIN.as_str())).err())
}

fn refused_by_envoy(bin: &Path, volume: &Volume) -> anyhow::Result<Option<Rejection>> {
    let mut command = Command::new(bin);
    command.args(["--mode", "validate", "-l", "error", "-c", local::STANDALONE]).current_dir(volume.output());
    let output = command.output().with_context(|| format!("running {}", bin.display()))?;
    if output.status.success() {
        return Ok(None);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let message = words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing").trim().to_owned();
    Ok(Some(Rejection { class: FaultClass::Content, file: None, line: None, message }))
}

/// What the agent would write, as far as a test needs it: nothing that listens or leaves the folder.
fn stand_ins(volume: &Volume) -> anyhow::Result<Vec<(&'static str, String)>> {
    Ok(vec![
        (local::MAIN, includes::files_of_master(volume)? + "error_log stderr notice;\n"),
        (local::WORKERS, "worker_processes 1;\n".to_owned()),
        (local::HTTP, includes::resolving(volume, "127.0.0.1:53 ipv6=off")?),
        (local::ACCESS_LOG, "access_log off;\n".to_owned()),
    ])
}
