//! A running `coxswain run -f`: its own ports, its own volume, its own folder of manifests. It and everything it
//! started end with the value; what it said is shown when the test fails.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use coxswain::volume::{Digest, ProxyKind, Volume};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::wait::{check, eventually};
use super::{Client, net, proxies};

/// How many proxies run at once: the machine is small, and a test that starves proves nothing. A test has one at a time:
/// with two it might wait for itself.
pub static SLOTS: Semaphore = Semaphore::const_new(3);

/// How to start one.
pub struct Setup {
    proxy: ProxyKind,
    bin: PathBuf,
    dir: TempDir,
    flags: Vec<String>,
    env: Vec<(String, String)>,
    ports: Ports,
}

/// Where one listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// `--http-port`
    pub http: u16,
    /// `--https-port`
    pub https: u16,
    /// `--ready-port`
    pub ready: u16,
    /// `--healthz-port`
    pub healthz: u16,
}

/// A running one.
pub struct Run {
    setup: Setup,
    child: Child,
    said: Said,
    _slot: SemaphorePermit<'static>,
}

/// What it said: standard output (with the access log) and standard error (all else).
#[derive(Clone, Default)]
struct Said([Arc<Mutex<String>>; 2]);

impl Setup {
    /// With nothing but ports and a volume, and the proxy that this test runs through; `None` (and the reason printed)
    /// where there is none.
    pub fn new() -> Option<Self> {
        let proxy = proxies::of_this_test();
        let bin = proxies::executable(proxy)?;
        let dir = tempfile::Builder::new().prefix("coxswain-").tempdir().expect("a temporary folder");
        // Workers may run as another user, who must be able to walk through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("own folder");
        fs::create_dir(dir.path().join("manifests")).expect("own folder");
        let ports = Ports { http: net::port(), https: net::port(), ready: net::port(), healthz: net::port() };
        Some(Self { proxy, bin, dir, flags: Vec::new(), env: Vec::new(), ports })
    }

    /// A manifest to begin with.
    pub fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.manifests().join(name), text).expect("own folder");
        self
    }

    /// One more flag.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// One more environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another executable than the real proxy's: a wrapper around it.
    pub fn proxy_bin(mut self, path: impl Into<PathBuf>) -> Self {
        self.bin = path.into();
        self
    }

    /// The proxy's executable.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The ports it will listen on.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// The folder that holds everything of this one.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Where its manifests are.
    pub fn manifests(&self) -> PathBuf {
        self.dir.path().join("manifests")
    }

    /// Its volume.
    pub fn volume(&self) -> Volume {
        Volume::new(self.dir.path().join("volume"))
    }

    /// Starts it and waits for nothing.
    pub async fn start(self) -> Run {
        let slot = SLOTS.acquire().await.expect("never closed");
        let said = Said::default();
        let child = self.spawn(&said);
        Run { setup: self, child, said, _slot: slot }
    }

    /// Starts it and waits until it serves.
    pub async fn serve(self) -> Run {
        let mut run = self.start().await;
        run.ready().await;
        run
    }

    fn spawn(&self, said: &Said) -> Child {
        let Ports { http, https, ready, healthz } = self.ports;
        let mut child = Command::new(env!("CARGO_BIN_EXE_coxswain"))
            .arg("run")
            .arg("-f")
            .arg(self.manifests())
            .arg(format!("--http-port={http}"))
            .arg(format!("--https-port={https}"))
            .arg(format!("--ready-port={ready}"))
            .arg(format!("--healthz-port={healthz}"))
            .arg(format!("--proxy-dir={}", self.volume().root().display()))
            .arg(format!("--proxy={}", self.proxy))
            .arg(format!("--proxy-bin={}", self.bin.display()))
            .args(&self.flags)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starting coxswain");
        listen(child.stdout.take().expect("piped"), &said.0[0]);
        listen(child.stderr.take().expect("piped"), &said.0[1]);
        child
    }
}

impl Run {
    /// What [`Setup::new`] gives, for the usual beginning of a test.
    pub fn setup() -> Option<Setup> {
        Setup::new()
    }

    /// Which proxy it runs.
    pub fn proxy(&self) -> ProxyKind {
        self.setup.proxy
    }

    /// Waits until the readiness port says that a release is served.
    pub async fn ready(&mut self) {
        let client = Client::new(self.local(self.setup.ports.ready));
        let child = Mutex::new(&mut self.child);
        eventually("ready", async || {
            if let Some(status) = child.lock().expect("one user").try_wait().expect("own child") {
                panic!("coxswain ended by itself: {status}");
            }
            let answer = client.try_get("localhost", "/readyz").await?;
            check(answer.status == 200, || format!("{} {}", answer.status, answer.text()))
        })
        .await;
    }

    /// A client of its HTTP port.
    pub fn http(&self) -> Client {
        Client::new(self.local(self.setup.ports.http))
    }

    /// A client of its HTTPS port that asks for `sni`.
    pub fn https(&self, sni: &str) -> Client {
        Client::new(self.local(self.setup.ports.https)).tls(sni)
    }

    /// The address of one of its ports.
    pub fn local(&self, port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// Its ports.
    pub fn ports(&self) -> Ports {
        self.setup.ports
    }

    /// Its volume.
    pub fn volume(&self) -> Volume {
        self.setup.volume()
    }

    /// The folder that holds everything of this one.
    pub fn folder(&self) -> &Path {
        self.setup.folder()
    }

    /// Where its manifests are.
    pub fn manifests(&self) -> PathBuf {
        self.setup.manifests()
    }

    /// Writes a manifest as an editor does: whole, by rename.
    pub fn write(&self, name: &str, text: &str) {
        let hidden = self.folder().join(format!(".{name}"));
        fs::write(&hidden, text).expect("own folder");
        fs::rename(&hidden, self.manifests().join(name)).expect("own folder");
    }

    /// Removes a manifest.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.manifests().join(name)).expect("a manifest of that name");
    }

    /// The release in force.
    pub fn current(&self) -> Digest {
        let target = fs::read_link(self.volume().current()).expect("a release in force");
        let name = target.file_name().expect("the name of a release").to_string_lossy().into_owned();
        Digest::parse(&name).expect("a digest")
    }

    /// The release in force, and how often it has been loaded: what stays equal as long as there is neither a release nor
    /// a reload.
    pub fn loaded(&self) -> (Digest, u64) {
        let current = self.current();
        let report = fs::read(self.volume().report(&current)).expect("a report on the release in force");
        let report: coxswain::volume::Report = serde_json::from_slice(&report).expect("a report");
        (current, report.attempt)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("a pid"))
    }

    /// Everything it said so far.
    pub fn said(&self) -> String {
        self.said.0.iter().map(|said| said.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()).collect()
    }

    /// Waits until it says `text`.
    pub async fn says(&self, text: &str) {
        eventually(&format!("saying {text:?}"), async || check(self.said().contains(text), || self.said())).await;
    }

    /// The ids of the processes that it started and that live, directly or not, and its own.
    pub fn processes(&self) -> Vec<Pid> {
        processes_of(self.folder())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("own child");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = Mutex::new(&mut self.child);
        eventually("the end of coxswain", async || {
            child.lock().expect("one user").try_wait().expect("own child").ok_or_else(|| "it runs on".to_owned())
        })
        .await
    }

    /// Ends everything that is left, at once.
    pub fn kill_all(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What is started while we look is found by the next look.
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            for pid in left {
                let _ = kill(pid, Signal::SIGKILL);
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Starts it again on the same volume and manifests.
    pub fn restart(&mut self) {
        self.child = self.setup.spawn(&self.said);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.kill_all();
        if std::thread::panicking() {
            for (said, (what, lines)) in
                self.said.0.iter().zip([("to standard output", 20), ("to standard error", 100)])
            {
                let said = said.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let skipped = said.lines().count().saturating_sub(lines);
                let last: Vec<&str> = said.lines().skip(skipped).collect();
                eprintln!("--- the last of what coxswain said {what} ---\n{}\n--- end ---", last.join("\n"));
            }
        }
    }
}

/// Copies what a stream says, for ever.
fn listen(stream: impl Read + Send + 'static, said: &Arc<Mutex<String>>) {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            said.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
}

/// All living processes that work below `folder`: by command line, working folder or open file.
pub fn processes_of(folder: &Path) -> Vec<Pid> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|&pid| pid != std::process::id() as i32 && works_below(pid, folder)).map(Pid::from_raw).collect()
}

fn works_below(pid: i32, folder: &Path) -> bool {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let text = folder.to_string_lossy().into_owned();
    let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
    if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')) {
        return false;
    }
    let command = fs::read(proc.join("cmdline")).unwrap_or_default();
    let links = fs::read_dir(proc.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    String::from_utf8_lossy(&command).contains(&text)
        || links.chain([proc.join("cwd")]).any(|link| fs::read_link(link).is_ok_and(|to| to.starts_with(folder)))
}
