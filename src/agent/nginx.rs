//! nginx as a process: which version it is, whether it takes a configuration, how it starts, reloads and ends.
//!
//! Verbs only. When each of them is due is the loop's business (`steering`).

use std::ffi::OsString;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::unistd::{Gid, Group, Uid, geteuid};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Command;

use self::version::Version;
use super::process::{self, Process, executable_of};
use super::processes;
use super::rejection::{Rejection, printable};
use crate::volume::{LogLevel, Volume};

pub mod generations;
pub mod includes;
pub mod log;
pub mod observe;
pub mod proxy;
pub mod rejection;
pub mod status;
pub mod version;

mod room;
mod starting;
mod take_up;

/// How long a test may take. Ten thousand hosts need a second or two, on a busy machine many times that.
const TEST_PATIENCE: Duration = Duration::from_secs(120);

/// How much of what a test says is read, in bytes.
const LONGEST_ANSWER: u64 = 256 * 1024;

/// Arguments that the agent gives, or that would make nginx do something else than serve.
const OUR_ARGUMENTS: [&str; 11] = ["-p", "-c", "-e", "-t", "-T", "-s", "-q", "-v", "-V", "-h", "-?"];

/// The account that workers run as.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// The name of its primary group.
    pub group: String,
    /// Its number.
    pub uid: Uid,
    /// The number of its primary group.
    pub gid: Gid,
}

impl User {
    /// Finds the account; `None` when this process is not root and cannot choose.
    pub fn of_workers(name: &str) -> anyhow::Result<Option<Self>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let user = nix::unistd::User::from_name(name).context("reading the list of users")?;
        let user = user.with_context(|| format!("--proxy-user: there is no user {name:?} on this machine"))?;
        let group = Group::from_gid(user.gid).context("reading the list of groups")?;
        let group = group.with_context(|| format!("--proxy-user: the primary group of {name:?} has no name"))?;
        Ok(Some(Self { name: user.name, group: group.name, uid: user.uid, gid: user.gid }))
    }
}

/// The proxy's executable, and where it runs.
#[derive(Clone, Debug)]
pub struct Nginx {
    executable: PathBuf,
    arguments: Vec<OsString>,
    volume: Volume,
}

/// A running master process.
#[derive(Debug)]
pub struct Master {
    process: Process,
    /// What it wrote before it had an error log.
    words: Arc<Mutex<Vec<String>>>,
}

/// A worker process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Worker {
    /// Its process id.
    pub pid: i32,
    /// It finishes its requests and takes no new ones.
    pub draining: bool,
}

impl Nginx {
    /// The proxy that `command` names, serving `volume`.
    pub fn new(command: &[OsString], volume: &Volume) -> anyhow::Result<Self> {
        let (executable, arguments) = executable_of(command)?;
        for argument in arguments {
            let text = argument.to_string_lossy();
            if OUR_ARGUMENTS.iter().any(|ours| text.starts_with(ours)) || text.contains("daemon") {
                bail!(
                    "the agent itself tells nginx where its configuration is and not to be a daemon: leave out {text:?}"
                );
            }
        }
        Ok(Self { executable, arguments: arguments.to_vec(), volume: volume.clone() })
    }

    /// Asks for its version.
    pub async fn version(&self) -> anyhow::Result<Version> {
        let name = self.executable.display();
        let asked = Command::new(&self.executable).arg("-v").stdin(Stdio::null()).kill_on_drop(true).output();
        let answer = match tokio::time::timeout(TEST_PATIENCE, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(err)) if err.kind() == std::io::ErrorKind::NotFound => bail!(
                "there is no {name} here: install nginx 1.30 or later, or name its executable after `--` (`run`: --proxy-bin)"
            ),
            Ok(Err(err)) => return Err(err).with_context(|| format!("running {name} -v")),
            Err(_) => bail!("{name} -v does not end"),
        };
        let banner = String::from_utf8_lossy(&answer.stderr);
        Version::from_banner(&banner).with_context(|| {
            format!("{name} is not nginx: asked for its version (-v), it says {:?}", printable(&banner))
        })
    }

    /// Has nginx test `file` of a release or trial.
    pub async fn validate(&self, folder: &Path, file: &str) -> Result<Duration, Rejection> {
        let begun = Instant::now();
        let mut command = self.command(folder);
        command.args(["-t", "-q", "-c", file]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let tested = async {
            let mut child = command.kill_on_drop(true).spawn()?;
            let mut said = Vec::new();
            if let Some(stderr) = child.stderr.take() {
                stderr.take(LONGEST_ANSWER).read_to_end(&mut said).await?;
            }
            Ok::<_, std::io::Error>((child.wait().await?, said))
        };
        match tokio::time::timeout(TEST_PATIENCE, tested).await {
            Ok(Ok((status, _))) if status.success() => Ok(begun.elapsed()),
            Ok(Ok((status, said))) => Err(rejection_of(status, &String::from_utf8_lossy(&said), &[folder])),
            Ok(Err(err)) => Err(Rejection::environment(format!("nginx -t cannot run: {err}"))),
            Err(_) => Err(Rejection::environment(format!("nginx -t did not end within {} s", TEST_PATIENCE.as_secs()))),
        }
    }

    /// Starts the master on `out/current`.
    pub fn start(&self) -> anyhow::Result<Master> {
        // A trailing slash, or nginx would name its files wrongly.
        let mut command = self.command(&self.volume.current());
        command.args(["-c", "nginx.conf"]).stderr(Stdio::piped());
        let words = Arc::<Mutex<Vec<String>>>::default();
        let kept = words.clone();
        let process = Process::start_heard(&mut command, &self.volume, |stderr| tokio::spawn(listen(stderr, kept)))?;
        Ok(Master { process, words })
    }

    /// The master that a former agent left running on this volume, if there is one. Whatever else that one left is
    /// ended: workers without a master hold the ports, and nobody could reload them.
    pub async fn adopt(&self) -> Option<Master> {
        let masters: Vec<_> = self
            .processes()
            .into_iter()
            .filter(|pid| processes::title(*pid).starts_with("nginx: master process"))
            .collect();
        let adopted = match masters[..] {
            [pid] => Some(pid),
            _ => None,
        };
        self.end_all_but(adopted).await;
        let pid = adopted.filter(|pid| processes::alive(*pid))?;
        Some(Master { process: Process::found(pid), words: Arc::default() })
    }

    /// Ends, by force where asking does not help, every nginx of this volume. Afterwards the ports are free.
    pub async fn end_all(&self) {
        self.end_all_but(None).await;
    }

    async fn end_all_but(&self, spared: Option<i32>) {
        let spared = |pid: &i32| Some(*pid) == spared || (spared.is_some() && processes::parent(*pid) == spared);
        process::end_all(|| self.processes().into_iter().filter(|pid| !spared(pid)).collect()).await;
    }

    /// Every living nginx of this volume.
    fn processes(&self) -> Vec<i32> {
        process::all_of(&self.volume, |title| title.starts_with("nginx: "))
    }

    /// nginx with the user's arguments, for the configuration in `folder`. `-e stderr`: until it has read the error
    /// log's place, it tells us.
    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.executable);
        let mut prefix = folder.as_os_str().to_owned();
        prefix.push("/");
        command.args(&self.arguments).args(["-e", "stderr"]).arg("-p").arg(prefix);
        command
    }
}

impl Master {
    /// Its workers of all generations.
    pub fn workers(&self) -> Vec<Worker> {
        let workers = processes::children(self.pid()).into_iter().filter_map(|pid| {
            let title = processes::title(pid);
            let rest = title.strip_prefix("nginx: worker process")?;
            Some(Worker { pid, draining: rest.contains("shutting down") })
        });
        workers.collect()
    }

    /// Why it did not start, from what it said.
    pub fn rejection(&self, folders: &[&Path]) -> Rejection {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        Rejection::from_words(&words, folders)
            .unwrap_or_else(|| Rejection::environment(format!("nginx ended: {}", words.join(" "))))
    }
}

impl Deref for Master {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Master {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Passes on what nginx says on its standard error, and keeps the beginning.
async fn listen(stderr: impl AsyncRead + Unpin, words: Arc<Mutex<Vec<String>>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line without an end must not take all memory.
        match (&mut reader).take(LONGEST_ANSWER).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let level = LogLevel::ALL.into_iter().find(|level| text.contains(&format!("[{}]", level.as_str())));
        // What has no level (the dynamic linker, for example) is no part of nginx's normal life.
        log::write(level.unwrap_or(LogLevel::Warn), &text);
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() < 64 {
            words.push(text);
        }
    }
}

fn rejection_of(status: ExitStatus, said: &str, folders: &[&Path]) -> Rejection {
    let lines: Vec<_> = said.lines().collect();
    // Whoever was killed has not finished what it had to say.
    let words = status.code().and_then(|_| Rejection::from_words(&lines, folders));
    words.unwrap_or_else(|| Rejection::environment(format!("nginx -t ended with {status}: {said}")))
}
