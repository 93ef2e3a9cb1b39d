//! Envoy as a process: which version it is, whether it takes a configuration, how it starts and ends.
//!
//! Verbs only. It runs in `out/`, from a bootstrap that says no more than where the agent serves (`xds`).

pub mod proxy;

mod admin;
mod log;
mod rejection;
mod take_up;
mod version;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use self::log::Log;
use self::version::Version;
use super::process::{self, Process, executable_of};
use super::rejection::{Rejection, printable};
use crate::volume::{LogLevel, Volume, release};

/// How long a test may take. Ten thousand hosts need some seconds, on a busy machine many times that.
const TEST_PATIENCE: Duration = Duration::from_secs(120);

/// How much of what a test says is read, in bytes.
const LONGEST_ANSWER: u64 = 256 * 1024;

/// Seconds that the connections of a listener that has changed are kept: a day, as good as for ever. Ports change with
/// settings, rarely, and nothing is gained by cutting a WebSocket.
const DRAIN_TIME: &str = "86400";

/// Arguments that the agent gives, or that would make Envoy do something else than serve.
const OUR_ARGUMENTS: [&str; 13] = [
    "-c",
    "--config-path",
    "--config-yaml",
    "--mode",
    "--admin-address-path",
    "--restart-epoch",
    "--drain-time-s",
    "--drain-strategy",
    "--log-path",
    "--log-format",
    "--concurrency",
    "--version",
    "--help",
];

/// The proxy's executable, and where it runs.
#[derive(Clone, Debug)]
pub struct Envoy {
    executable: PathBuf,
    arguments: Vec<OsString>,
    volume: Volume,
}

impl Envoy {
    /// The proxy that `command` names, serving `volume`.
    pub fn new(command: &[OsString], volume: &Volume) -> anyhow::Result<Self> {
        let (executable, arguments) = executable_of(command)?;
        for argument in arguments {
            let text = argument.to_string_lossy();
            let ours = |ours: &&str| text == **ours || text.starts_with(&format!("{ours}="));
            if OUR_ARGUMENTS.iter().any(ours) {
                bail!("the agent itself tells Envoy what to serve and how to end: leave out {text:?}");
            }
        }
        Ok(Self { executable, arguments: arguments.to_vec(), volume: volume.clone() })
    }

    /// Asks for its version, and judges it.
    pub async fn version(&self) -> anyhow::Result<Version> {
        let name = self.executable.display();
        let asked = Command::new(&self.executable).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
        let answer = match tokio::time::timeout(TEST_PATIENCE, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(err)) if err.kind() == std::io::ErrorKind::NotFound => bail!(
                "there is no {name} here: install Envoy 1.40 or later, or name its executable after `--` (`run`: --proxy-bin)"
            ),
            Ok(Err(err)) => return Err(err).with_context(|| format!("running {name} --version")),
            Err(_) => bail!("{name} --version does not end"),
        };
        let banner = String::from_utf8_lossy(&answer.stdout);
        let version = Version::from_banner(&banner).with_context(|| {
            format!("{name} is not Envoy: asked for its version (--version), it says {:?}", printable(&banner))
        })?;
        version.judge().map_err(|refusal| anyhow!(refusal))?;
        Ok(version)
    }

    /// Has Envoy test the bootstrap in `folder`, which holds everything.
    pub async fn validate(&self, folder: &Path) -> Result<Duration, Rejection> {
        let begun = Instant::now();
        let mut command = Command::new(&self.executable);
        command.args(["--mode", "validate", "--log-level", "warning", "--log-format-escaped", "--concurrency", "1"]);
        command.arg("-c").arg(folder.join(release::BOOTSTRAP)).stdin(Stdio::null()).stdout(Stdio::null());
        let tested = async {
            let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
            let mut said = Vec::new();
            if let Some(stderr) = child.stderr.take() {
                stderr.take(LONGEST_ANSWER).read_to_end(&mut said).await?;
            }
            Ok::<_, std::io::Error>((child.wait().await?, said))
        };
        match tokio::time::timeout(TEST_PATIENCE, tested).await {
            Ok(Ok((status, _))) if status.success() => Ok(begun.elapsed()),
            Ok(Ok((status, said))) => {
                let said = String::from_utf8_lossy(&said);
                // Whoever was killed has not finished what it had to say.
                let words = status.code().and_then(|_| log::severe(&said));
                let killed = || Rejection::environment(format!("Envoy's test ended with {status}: {said}"));
                Err(words.map_or_else(killed, rejection::of_words))
            }
            Ok(Err(err)) => Err(Rejection::environment(format!("Envoy's test cannot run: {err}"))),
            Err(_) => {
                Err(Rejection::environment(format!("Envoy's test did not end within {} s", TEST_PATIENCE.as_secs())))
            }
        }
    }

    /// Starts it from the bootstrap in `out/`. No hot restart: two of them would share more than the volume has, and
    /// nothing that changes needs one.
    pub fn start(&self, workers: u32, level: LogLevel, log: &Log) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.executable);
        command.args(&self.arguments).args(["-c", release::BOOTSTRAP]);
        command.args(["--disable-hot-restart", "--reject-unknown-dynamic-fields", "--log-format-escaped"]);
        command.args(["--drain-time-s", DRAIN_TIME, "--drain-strategy", "immediate"]);
        command.arg("--concurrency").arg(workers.to_string()).arg("--log-level").arg(admin::level_of(level));
        command.stderr(log.writer(Path::new("."))?);
        Process::start(&mut command, &self.volume)
    }

    /// The one that a former agent left running on this volume, if there is one. Several are ended.
    pub async fn adopt(&self) -> Option<Process> {
        match self.processes()[..] {
            [pid] => Some(Process::found(pid)),
            _ => {
                self.end_all().await;
                None
            }
        }
    }

    /// Ends, by force where asking does not help, every Envoy of this volume. Afterwards the ports are free.
    pub async fn end_all(&self) {
        process::end_all(|| self.processes()).await;
    }

    fn processes(&self) -> Vec<i32> {
        process::all_of(&self.volume, |_| false)
    }
}
