//! The shared volume: every path on it, and the type of every document that one side writes and the other reads.
//!
//! A leaf module, used by the controller (`publish`, `reports`, `live`) and by the agent, so that both mean the same
//! thing. It owns names and shapes only; writing, renaming, watching and trusting are the callers' business: the
//! agent may trust `in/` (it is mounted read-only there), the controller trusts nothing below `out/`.
//!
//! ```text
//! bin/                             init writes
//! in/                              controller writes, the proxy's container mounts it read-only
//!   releases/<digest>/             immutable: nginx.conf, changed.conf, release.json, …
//!   desired                        symlink `releases/<digest>`, flipped by rename(2)
//!   trials/<digest>/               only tested, never put in force
//!   live/endpoints/<upstream>.json one `EndpointSet`, replaced by rename(2)
//!   live/tls/<slot>.pem            chain and key of one slot, replaced by rename(2)
//!   live/files/<sha256>            what workers open at request time
//! out/                             agent writes, the controller mounts it read-only
//!   current                        symlink `../in/releases/<digest>` to the release in force
//!   local-*.conf                   the agent's own includes, see `local`
//!   reports/<digest>.json          one `Report`
//!   proxy.json                     one `ProxyInfo`
//! tmp/                             the proxy's temporary files
//! ```
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The largest document the controller reads from `out/`, in bytes. Whatever is larger is not ours.
pub const MAX_DOCUMENT: u64 = 64 * 1024;

/// Names of the files in `out/` that a release includes (relative to the release: `../../../out/<name>`).
///
/// They hold what only the proxy's side knows. The agent writes all of them before it tests or starts anything.
pub mod local {
    /// Main context: user, pid and lock file, error log.
    pub const MAIN: &str = "local-main.conf";
    /// Main context: `worker_processes`. Included only by releases whose ConfigMap does not set it.
    pub const WORKERS: &str = "local-workers.conf";
    /// `http` context, before everything else of a release: resolver, temporary paths, the status server with the
    /// stamp, and the responders that answer 503 for an upstream without endpoints.
    pub const HTTP: &str = "local-http.conf";
    /// `http` context, after `log_format upstreaminfo`: where the access log goes.
    pub const ACCESS_LOG: &str = "local-access-log.conf";
    /// For Envoy: the symlink to the file of the access log, or to nowhere if that cannot be opened, which would cost the
    /// listeners. Another file has another name, so that Envoy opens it.
    pub fn access_log(path: &str) -> String {
        path.replace('/', "~")
    }

    /// For Envoy, where `render -o` writes it: all of a configuration as one bootstrap, which Envoy's own test takes.
    pub const STANDALONE: &str = "standalone.json";
}

/// Names of the sockets in `out/` between the agent and Envoy, which runs in that folder.
pub mod socket {
    /// Where the agent serves Envoy's resources.
    pub const XDS: &str = "xds.sock";
    /// Where Envoy can be asked and drained.
    pub const ADMIN: &str = "admin.sock";
}

/// Names of the files in a release that both sides know.
pub mod release {
    /// What the proxy is started with.
    pub const MAIN: &str = "nginx.conf";
    /// The global part and what differs from the base: enough to test while that is in force. Outside the digest.
    pub const CHANGED: &str = "changed.conf";
    /// One [`super::Manifest`].
    pub const MANIFEST: &str = "release.json";
    /// What Envoy is started with. Paths in it are relative to `out/`, where Envoy runs: `xds.sock`, `admin.sock`.
    /// No user's text is in it: it changes with this program alone, because a change needs a new Envoy.
    pub const BOOTSTRAP: &str = "bootstrap.json";
    /// One [`super::Certificates`], for Envoy.
    pub const CERTIFICATES: &str = "certificates.json";
    /// The resources of a release for Envoy. Each file is one serialised `DeltaDiscoveryResponse`: its `type_url`, and
    /// its `resources`, sorted by name, each with a version that is a digest of its content. In the order in which they
    /// are pushed. (Endpoints and certificates are live data.)
    pub const RESOURCES: [&str; 3] = [CLUSTERS, LISTENERS, ROUTES];
    /// `envoy.config.cluster.v3.Cluster`: one for each upstream, by its id, all of them with endpoints from the agent.
    pub const CLUSTERS: &str = "clusters.pb";
    /// `envoy.config.listener.v3.Listener`: `http` and `https`.
    pub const LISTENERS: &str = "listeners.pb";
    /// `envoy.config.route.v3.RouteConfiguration`: `hosts`, for both listeners.
    pub const ROUTES: &str = "routes.pb";
}

/// The volume as it is mounted here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Volume {
    root: PathBuf,
}

impl Volume {
    /// The volume below `root` (`--proxy-dir`). Nothing is touched.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder given as `--proxy-dir`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the init container puts the executable.
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// All that the controller writes.
    pub fn input(&self) -> PathBuf {
        self.root.join("in")
    }

    /// All releases.
    pub fn releases(&self) -> PathBuf {
        self.input().join("releases")
    }

    /// One release.
    pub fn release(&self, digest: &Digest) -> PathBuf {
        self.releases().join(digest.as_str())
    }

    /// The symlink to the release that the controller wants in force.
    pub fn desired(&self) -> PathBuf {
        self.input().join("desired")
    }

    /// All configurations that are only to be tested.
    pub fn trials(&self) -> PathBuf {
        self.input().join("trials")
    }

    /// One configuration that is only to be tested.
    pub fn trial(&self, digest: &Digest) -> PathBuf {
        self.trials().join(digest.as_str())
    }

    /// Endpoints of all upstreams.
    pub fn endpoints(&self) -> PathBuf {
        self.input().join("live/endpoints")
    }

    /// Endpoints of one upstream. `upstream` is the text of an `UpstreamId`, which is a file name by construction.
    pub fn endpoint_set(&self, upstream: &str) -> PathBuf {
        self.endpoints().join(format!("{upstream}.json"))
    }

    /// Chain and key of every certificate slot.
    pub fn tls(&self) -> PathBuf {
        self.input().join("live/tls")
    }

    /// Chain and key of one slot. `slot` is the text of a `SlotId`, which is a file name by construction.
    pub fn tls_slot(&self, slot: &str) -> PathBuf {
        self.tls().join(format!("{slot}.pem"))
    }

    /// Files that workers open at request time, named by the SHA-256 of their content.
    pub fn files(&self) -> PathBuf {
        self.input().join("live/files")
    }

    /// All that the agent writes.
    pub fn output(&self) -> PathBuf {
        self.root.join("out")
    }

    /// The symlink to the release in force.
    pub fn current(&self) -> PathBuf {
        self.output().join("current")
    }

    /// One of the agent's includes, by its name in [`local`].
    pub fn local(&self, name: &str) -> PathBuf {
        self.output().join(name)
    }

    /// All reports.
    pub fn reports(&self) -> PathBuf {
        self.output().join("reports")
    }

    /// The report on one release or trial.
    pub fn report(&self, digest: &Digest) -> PathBuf {
        self.reports().join(format!("{digest}.json"))
    }

    /// What the proxy is.
    pub fn proxy_info(&self) -> PathBuf {
        self.output().join("proxy.json")
    }

    /// The proxy's temporary files.
    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }
}

/// The name of a release or trial: the SHA-256 of its content, 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Takes exactly 64 lower-case hexadecimal digits, so that a digest is always one safe path element.
    pub fn parse(text: &str) -> Option<Self> {
        let good = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        good.then(|| Self(text.to_owned()))
    }

    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits: enough for a log line and for a person.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| "a digest has 64 lower-case hexadecimal digits".to_owned())
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// The proxies that can be steered.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyKind {
    /// nginx open source, the stock build.
    #[default]
    Nginx,
    /// Envoy, the stock build.
    Envoy,
}

impl fmt::Display for ProxyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        })
    }
}

/// `release.json`: what the agent must know of a release besides its files. Of what is neither history nor said by
/// those files (the last four), the digest is taken too.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The proxy the release is for; an agent of another proxy rejects it.
    pub proxy: ProxyKind,
    /// The accepted release that `changed.conf` was derived from: while it is in force, testing `changed.conf` is enough.
    pub base: Option<Digest>,
    /// The upstreams whose endpoints the proxy asks for. The release is live when each was answered.
    pub upstreams: Vec<String>,
    /// The certificate slots that the release names.
    pub slots: Vec<String>,
    /// The files in `live/files` that the release names.
    pub files: Vec<String>,
    /// How much the proxy writes into its error log.
    pub error_log_level: LogLevel,
    /// Seconds after which old workers may be ended when too many generations of them are alive
    /// (ConfigMap `worker-shutdown-timeout`).
    pub worker_shutdown_timeout: u64,
    /// How many workers; `None`: as many as there are CPUs. nginx reads it from its configuration, Envoy is started with
    /// it (ConfigMap `worker-processes`).
    #[serde(default)]
    pub workers: Option<u32>,
    /// The file of the access log (ConfigMap `access-log-path`); `None`: the standard output of the proxy's container.
    /// The agent opens it before the proxy is told to: a folder that does not exist there costs the log, not the release.
    pub access_log: Option<String>,
}

#[cfg(test)]
impl Manifest {
    /// A release for nginx that names nothing.
    pub(crate) fn empty() -> Self {
        Self {
            proxy: ProxyKind::Nginx,
            base: None,
            upstreams: Vec::new(),
            slots: Vec::new(),
            files: Vec::new(),
            error_log_level: LogLevel::Notice,
            worker_shutdown_timeout: 240,
            workers: None,
            access_log: None,
        }
    }
}

/// `certificates.json`: the slot whose certificate a name is served with. Names in lower case.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Certificates {
    /// By the whole name.
    pub exact: BTreeMap<String, String>,
    /// By the name without its first label: for `*.example.com` the key is `example.com`.
    pub wildcard: BTreeMap<String, String>,
    /// The slot of all other names, and of clients that ask for none.
    pub default: String,
}

impl Certificates {
    /// The slot of a name as a client asks for it, in either case: its own, else that of the wildcard for its first
    /// label, else the default one.
    pub fn slot(&self, name: &str) -> &str {
        let name = name.to_ascii_lowercase();
        let of_parent = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(&name).or_else(of_parent).unwrap_or(&self.default)
    }
}

/// Levels of the proxy's error log, most severe first.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// The proxy cannot be used.
    Emerg,
    /// Must be acted on at once.
    Alert,
    /// A critical fault.
    Crit,
    /// An error.
    Error,
    /// A warning.
    Warn,
    /// Normal but of note.
    #[default]
    Notice,
    /// Information.
    Info,
    /// Everything (nginx: only in a build with debugging).
    Debug,
}

impl LogLevel {
    /// All levels, most severe first.
    pub const ALL: [Self; 8] =
        [Self::Emerg, Self::Alert, Self::Crit, Self::Error, Self::Warn, Self::Notice, Self::Info, Self::Debug];

    /// The word nginx and Envoy's users know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Emerg => "emerg",
            Self::Alert => "alert",
            Self::Crit => "crit",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// `live/endpoints/<upstream>.json`: where the requests of one upstream go at this moment.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct EndpointSet {
    /// What the proxy speaks to them. Decides which responder answers 503 while there are none.
    pub protocol: Protocol,
    /// The endpoints.
    pub endpoints: Endpoints,
}

/// Where the endpoints of an upstream come from.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Endpoints {
    /// Known addresses, sorted and without duplicates. None at all: 503.
    Addresses(Vec<std::net::SocketAddr>),
    /// A name that the agent's resolver looks up (ExternalName Services).
    Name {
        /// A DNS name, absolute or relative to the search list of the Pod.
        host: String,
        /// The port to connect to.
        port: u16,
    },
}

/// What the proxy speaks to the endpoints of an upstream.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// HTTP/1.1 in plain text.
    #[default]
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// gRPC (HTTP/2) in plain text.
    Grpc,
    /// gRPC (HTTP/2) over TLS.
    Grpcs,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Grpc => "GRPC",
            Self::Grpcs => "GRPCS",
        })
    }
}

/// `reports/<digest>.json`: what became of a release or of a trial.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The release or trial this is about.
    pub digest: Digest,
    /// How often it has been tried, from 1.
    pub attempt: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// Who is at fault, unless it was accepted.
    pub class: Option<FaultClass>,
    /// The file the proxy named, relative to the release.
    pub file: Option<String>,
    /// The line the proxy named, from 1.
    pub line: Option<u64>,
    /// The proxy's own words, or the agent's.
    pub message: String,
    /// Why the file of the access log cannot be opened, although the release is in force; `None` if it can.
    pub access_log: Option<String>,
    /// How long the steps took.
    pub timings: Timings,
}

/// What became of a release or of a trial.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A release: every new connection is served by it. A trial: it passed the proxy's own test.
    Accepted,
    /// The former release serves on. The same release is not tried again.
    Rejected,
    /// The former release serves on; the agent tries again by itself.
    Retrying,
}

/// Who is at fault when a release is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultClass {
    /// What the release says: an object is to blame.
    Content,
    /// Where it runs: a port in use, a full disk, no memory, a time-out. Nobody is to blame.
    Environment,
}

/// How long the steps of taking up a release took, in milliseconds. What did not happen is 0.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// The proxy's own test.
    pub validate: u64,
    /// From the signal to the first answer with the new stamp.
    pub reload: u64,
    /// From the first to the last answer needed to be sure.
    pub observe: u64,
}

/// `proxy.json`: what the proxy is, as far as the controller may want to know.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ProxyInfo {
    /// Which proxy.
    pub kind: ProxyKind,
    /// Its version, as it says.
    pub version: String,
    /// Its process id, in the agent's own numbering; `None` while it does not run.
    pub pid: Option<u32>,
    /// The releases that some worker still serves, newest first: what they refer to in `live/` must stay.
    pub generations: Vec<Digest>,
    /// How many upstreams of the release in force have been answered, and how many it names.
    pub answered: (usize, usize),
    /// Shared memory that was found full: its name in the configuration, and the newest release with which it was.
    #[serde(default)]
    pub full: BTreeMap<String, Digest>,
    /// How many generations of old workers finish what they have begun.
    #[serde(default)]
    pub old_generations: usize,
    /// Milliseconds that reloads have waited for old workers to finish, since the agent began: what the bound of
    /// generations costs.
    #[serde(default)]
    pub waited: u64,
}
