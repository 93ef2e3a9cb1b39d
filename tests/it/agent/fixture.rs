//! A volume with hand-written releases, an agent that serves it, and clients that count what they lose.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use coxswain::volume::{
    Digest, EndpointSet, Endpoints, LogLevel, Manifest, Outcome, Protocol, ProxyInfo, ProxyKind, Report, Volume,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::SemaphorePermit;
use tokio::task::JoinHandle;

use crate::support::run::{SLOTS, processes_of};
use crate::support::wait::check;
use crate::support::{Client, Request, eventually, net, parts};

/// A volume, and how to serve it.
pub struct Sidecar {
    folder: TempDir,
    pub volume: Volume,
    /// What follows `--`.
    pub command: Vec<String>,
    pub flags: Vec<String>,
    pub port: u16,
    pub ready: u16,
    said: Arc<Mutex<String>>,
    child: Option<Child>,
    _slot: SemaphorePermit<'static>,
}

/// Whatever can be written as a release or a trial.
pub trait Written {
    /// Its files besides `release.json`, for a proxy that shall listen on this port.
    fn files(&self, port: u16) -> BTreeMap<String, Vec<u8>>;

    /// What it says of itself.
    fn manifest(&self) -> &Manifest;
}

/// A release to be written, for nginx.
#[derive(Clone)]
pub struct Release {
    /// Beside `http`.
    pub main: String,
    /// Within `http`.
    pub http: String,
    /// Within the server on `Sidecar::port`.
    pub server: String,
    /// `changed.conf`, if there is one.
    pub changed: Option<String>,
    pub manifest: Manifest,
}

impl Release {
    /// Every path answers 200 with this text.
    pub fn saying(text: &str) -> Self {
        Self::server(&format!("location / {{ return 200 \"{text}\"; }}"))
    }

    pub fn server(text: &str) -> Self {
        let manifest = Manifest {
            proxy: ProxyKind::Nginx,
            base: None,
            upstreams: vec![],
            slots: vec![],
            files: vec![],
            error_log_level: LogLevel::Notice,
            worker_shutdown_timeout: 240,
            workers: None,
            access_log: None,
        };
        Self { main: String::new(), http: String::new(), server: text.to_owned(), changed: None, manifest }
    }

    pub fn http(mut self, text: &str) -> Self {
        self.http.push_str(text);
        self
    }

    pub fn changed(mut self, base: Option<&Digest>, conf: &str) -> Self {
        self.changed = Some(conf.to_owned());
        self.manifest.base = base.cloned();
        self
    }

    fn conf(&self, port: u16) -> String {
        format!(
            "include ../../../out/local-main.conf;\ninclude ../../../out/local-workers.conf;\n\
             {}\nevents {{ worker_connections 512; }}\nhttp {{\n\
             include ../../../out/local-http.conf;\nlog_format upstreaminfo '$request';\n\
             include ../../../out/local-access-log.conf;\nkeepalive_min_timeout 10s;\n{}\n\
             server {{\n    listen 127.0.0.1:{port};\n    {}\n}}\n}}\n",
            self.main, self.http, self.server
        )
    }
}

impl Written for Release {
    fn files(&self, port: u16) -> BTreeMap<String, Vec<u8>> {
        let changed = self.changed.as_deref().map(|changed| changed.replace("PORT", &port.to_string()).into_bytes());
        let changed = changed.map(|changed| ("changed.conf".to_owned(), changed));
        changed.into_iter().chain([("nginx.conf".to_owned(), self.conf(port).into_bytes())]).collect()
    }

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

impl Sidecar {
    /// A volume with nothing on it; `None` (and the reason printed) where there is no nginx.
    pub async fn new() -> Option<Self> {
        Some(Self::of(parts::nginx()?, vec![]).await)
    }

    /// The same with Envoy.
    pub async fn envoy() -> Option<Self> {
        Some(Self::of(parts::part("envoy", "envoy")?, vec!["--proxy=envoy".to_owned()]).await)
    }

    async fn of(proxy: PathBuf, flags: Vec<String>) -> Self {
        let folder = tempfile::Builder::new().prefix("coxswain-").tempdir().unwrap();
        // Workers may run as another user, who must be able to walk through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let volume = Volume::new(folder.path().join("volume"));
        for part in [volume.releases(), volume.trials(), volume.endpoints(), folder.path().join("faults")] {
            fs::create_dir_all(part).unwrap();
        }
        Self {
            folder,
            volume,
            command: vec![proxy.display().to_string()],
            flags,
            port: net::port(),
            ready: net::port(),
            said: Arc::default(),
            child: None,
            _slot: SLOTS.acquire().await.unwrap(),
        }
    }

    /// One that serves `text`.
    pub async fn serving(text: &str) -> Option<(Self, Digest)> {
        let mut sidecar = Self::new().await?;
        let first = sidecar.publish(&Release::saying(text));
        sidecar.start();
        sidecar.accepts(&first).await;
        sidecar.becomes_ready().await;
        Some((sidecar, first))
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    // ── the controller's side ──────────────────────────────────────────────────────────────────────────────────

    /// Writes a release and wants nothing of it yet.
    pub fn write(&self, release: &impl Written) -> Digest {
        self.write_below(&self.volume.releases(), release)
    }

    /// Writes a configuration that is only to be tested.
    pub fn try_out(&self, release: &impl Written) -> Digest {
        self.write_below(&self.volume.trials(), release)
    }

    /// Writes a release and wants it in force.
    pub fn publish(&self, release: &impl Written) -> Digest {
        let digest = self.write(release);
        self.desire(&digest);
        digest
    }

    /// Says where the requests of an upstream go.
    pub fn endpoints(&self, upstream: &str, to: &[SocketAddr]) {
        let set = EndpointSet { protocol: Protocol::Http, endpoints: Endpoints::Addresses(to.to_vec()) };
        let new = self.volume.input().join(".endpoints.new");
        fs::write(&new, serde_json::to_vec(&set).unwrap()).unwrap();
        fs::rename(new, self.volume.endpoint_set(upstream)).unwrap();
    }

    /// Flips `desired`.
    pub fn desire(&self, digest: &Digest) {
        let new = self.volume.input().join(".desired.new");
        let _ = fs::remove_file(&new);
        symlink(Path::new("releases").join(digest.as_str()), &new).unwrap();
        fs::rename(new, self.volume.desired()).unwrap();
    }

    fn write_below(&self, folder: &Path, release: &impl Written) -> Digest {
        let mut hash = Sha256::new();
        let new = folder.join(".new");
        fs::create_dir_all(&new).unwrap();
        for (name, content) in release.files(self.port) {
            hash.update(&content);
            fs::write(new.join(name), content).unwrap();
        }
        let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = Digest::parse(&hex).unwrap();
        fs::write(new.join("release.json"), serde_json::to_vec(release.manifest()).unwrap()).unwrap();
        fs::rename(new, folder.join(digest.as_str())).unwrap();
        digest
    }

    // ── the agent ──────────────────────────────────────────────────────────────────────────────────────────────

    pub fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coxswain"));
        command.args(self.arguments());
        self.start_as(command);
    }

    /// Everything after `coxswain`.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "agent".to_owned(),
            format!("--proxy-dir={}", self.volume.root().display()),
            format!("--ready-port={}", self.ready),
        ];
        arguments.extend(self.flags.iter().cloned());
        arguments.push("--".to_owned());
        arguments.extend(self.command.iter().cloned());
        arguments
    }

    pub fn start_as(&mut self, mut command: Command) {
        // nginx's notices, too.
        command.env("COXSWAIN_LOG_LEVEL", "info,nginx=debug");
        command.env("COXSWAIN_FAULTS", self.folder().join("faults"));
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("an agent");
        copy(child.stdout.take().unwrap(), &self.said);
        copy(child.stderr.take().unwrap(), &self.said);
        self.child = Some(child);
    }

    /// Process 1.
    pub fn init(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().expect("started").id().cast_signed())
    }

    /// The agent proper, as soon as there is one.
    pub async fn proper(&self) -> Pid {
        eventually("an agent proper", async || {
            let own = processes_of(self.folder()).into_iter().find(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(&format!("--proper={}", self.init()))
            });
            own.ok_or_else(|| "none".to_owned())
        })
        .await
    }

    /// nginx's master, as the agent says.
    pub async fn master(&self) -> Pid {
        eventually("a master", async || {
            let pid = self.proxy_info().and_then(|info| info.pid).ok_or("none in proxy.json")?;
            let pid = Pid::from_raw(pid.cast_signed());
            kill(pid, None).map_err(|err| format!("{pid}: {err}"))?;
            Ok(pid)
        })
        .await
    }

    pub fn proxy_info(&self) -> Option<ProxyInfo> {
        serde_json::from_slice(&fs::read(self.volume.proxy_info()).ok()?).ok()
    }

    /// Arms a fault point.
    pub fn arm(&self, point: &str) -> PathBuf {
        let file = self.folder().join("faults").join(point);
        fs::write(&file, "").unwrap();
        file
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.init(), signal).expect("own child");
    }

    pub async fn ended(&mut self) -> ExitStatus {
        let child = Mutex::new(self.child.as_mut().expect("started"));
        eventually("the end of the agent", async || {
            child.lock().unwrap().try_wait().unwrap().ok_or_else(|| "it runs on".to_owned())
        })
        .await
    }

    /// Waits until nothing runs that has to do with this volume.
    pub async fn leaves_nothing(&self) {
        eventually("nothing left", async || {
            let left = processes_of(self.folder());
            check(left.is_empty(), || format!("{left:?}"))
        })
        .await;
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).expect("the port is free");
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub async fn says(&self, text: &str) {
        eventually(&format!("saying {text:?}"), async || check(self.said().contains(text), || self.said())).await;
    }

    // ── what it tells ──────────────────────────────────────────────────────────────────────────────────────────

    /// The report on a release or trial.
    pub fn report(&self, digest: &Digest) -> Option<Report> {
        serde_json::from_slice(&fs::read(self.volume.report(digest)).ok()?).ok()
    }

    /// Waits for a report with this outcome.
    pub async fn reports(&self, digest: &Digest, outcome: Outcome) -> Report {
        eventually(&format!("{outcome:?} of {}", digest.short()), async || {
            let report = self.report(digest).ok_or("no report")?;
            check(report.outcome == outcome, || format!("{report:?}"))?;
            Ok(report)
        })
        .await
    }

    pub async fn accepts(&self, digest: &Digest) -> Report {
        let report = self.reports(digest, Outcome::Accepted).await;
        assert_eq!(self.current().as_ref(), Some(digest));
        report
    }

    pub fn current(&self) -> Option<Digest> {
        Digest::parse(fs::read_link(self.volume.current()).ok()?.file_name()?.to_str()?)
    }

    /// What `/readyz` says.
    pub async fn readiness(&self) -> Result<(u16, String), String> {
        let answer = client(self.ready).try_get("localhost", "/readyz").await?;
        Ok((answer.status, answer.text()))
    }

    pub async fn becomes_ready(&self) {
        self.readiness_is(200, "ok").await;
    }

    pub async fn readiness_is(&self, status: u16, text: &str) {
        eventually(&format!("readiness {status} {text:?}"), async || {
            let (is, says) = self.readiness().await?;
            check(is == status && says.contains(text), || format!("{is} {says}"))
        })
        .await;
    }

    // ── traffic ────────────────────────────────────────────────────────────────────────────────────────────────

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// What the proxy answers.
    pub async fn get(&self) -> Result<String, String> {
        let answer = client(self.port).try_get("localhost", "/").await?;
        check(answer.status == 200, || format!("{} {}", answer.status, answer.text()))?;
        Ok(answer.text())
    }

    pub async fn serves(&self, text: &str) {
        eventually(&format!("serving {text:?}"), async || {
            let got = self.get().await?;
            check(got == text, || got)
        })
        .await;
    }

    /// Clients that go on asking, on connections of their own and on one that is kept, until they are told to stop.
    pub fn traffic(&self) -> Traffic {
        let running = Arc::new(AtomicBool::new(true));
        let asked = Arc::new(AtomicUsize::new(0));
        let lost = Arc::<Mutex<Vec<String>>>::default();
        let tasks = (0..3).map(|kept| {
            let (running, asked, lost) = (running.clone(), asked.clone(), lost.clone());
            tokio::spawn(ask(client(self.port), kept == 0, running, asked, lost))
        });
        let tasks = tasks.collect();
        Traffic { running, asked, lost, tasks }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the agent said ---\n{}--- end ---", self.said());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // What is started while we look is found by the next look.
        for _ in 0..100 {
            let left = processes_of(self.folder());
            if left.is_empty() {
                return;
            }
            for pid in left {
                let _ = kill(pid, Signal::SIGKILL);
            }
            std::thread::yield_now();
        }
    }
}

/// Clients at work.
pub struct Traffic {
    running: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    lost: Arc<Mutex<Vec<String>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Waits until this many more requests have been made.
    pub async fn goes_on(&self, requests: usize) {
        let until = self.asked.load(Ordering::SeqCst) + requests;
        eventually("traffic", async || {
            let asked = self.asked.load(Ordering::SeqCst);
            check(asked >= until, || format!("{asked} of {until}"))
        })
        .await;
    }

    /// Ends it; every request must have been answered.
    pub async fn lost_nothing(self) {
        self.goes_on(20).await;
        self.running.store(false, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        let lost = self.lost.lock().unwrap();
        assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), self.asked.load(Ordering::SeqCst));
    }
}

async fn ask(
    client: Client,
    kept: bool,
    running: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    lost: Arc<Mutex<Vec<String>>>,
) {
    let request = Request::get("localhost", "/");
    let mut connection = None;
    while running.load(Ordering::SeqCst) {
        let answer = async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => client.connect().await?,
            };
            let answer = open.send(&request).await?;
            if kept && answer.headers.get("connection").is_none_or(|value| value != "close") {
                connection = Some(open);
            }
            check(answer.status == 200, || format!("status {}", answer.status))
        };
        if let Err(why) = answer.await {
            lost.lock().unwrap().push(why);
        }
        asked.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
}

fn client(port: u16) -> Client {
    Client::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn copy(stream: impl Read + Send + 'static, said: &Arc<Mutex<String>>) {
    let said = said.clone();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = vec![];
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            said.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
}
