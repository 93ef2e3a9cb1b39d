//! Where the requests of each upstream go at this moment, for whichever proxy: `live/endpoints`, kept loaded, and the
//! names of ExternalName Services, kept looked up while somebody asks.
//!
//! What was good once stays until something better comes: a file that is cut off, garbage or gone and a resolver that
//! fails change nothing. How a proxy hears of it (DNS for nginx) lies elsewhere.

pub(in crate::agent) mod directory;
mod names;
mod state;

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::broadcast;
use tracing::{info, warn};

use self::directory::{Change, Directory};
use self::names::Answer;
pub use self::names::Names;
use self::state::State;
use crate::volume::{EndpointSet, Endpoints, Protocol, Volume};

/// A file that is larger than this is not a set of endpoints: 100 000 of them fit.
const LARGEST_FILE: u64 = 4 * 1024 * 1024;
/// A name that nobody asked for within this time is not looked up any more, and an upstream whose file is gone is
/// forgotten. Longer than any proxy waits between two questions.
const IDLE: Duration = Duration::from_secs(180);
/// How long a name may take to be looked up for the first time before its upstream counts as one without endpoints.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest wait between two attempts while the resolver fails.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Changes that a slow listener may leave unread before it is told to look at everything.
const BACKLOG: usize = 1024;

/// All upstreams of the volume. Cheap to clone; its thread ends with the last clone.
#[derive(Clone)]
pub struct Source(Arc<Inner>);

/// Where the requests of one upstream go, as of one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upstream {
    /// Its id.
    pub id: String,
    /// Another number for every change, of whatever upstream.
    pub version: u64,
    /// What the proxy speaks to the addresses.
    pub protocol: Protocol,
    /// Where requests go, sorted and without duplicates. None at all: 503.
    pub addresses: Vec<SocketAddr>,
}

/// The ids of upstreams that changed together.
pub type Changed = Arc<[String]>;

struct Inner {
    state: Mutex<State>,
    names: Names,
    changes: broadcast::Sender<Changed>,
    runtime: tokio::runtime::Handle,
}

impl Source {
    /// Loads `live/endpoints` and keeps up with it from now on. `names` looks up ExternalName Services.
    pub async fn start(volume: &Volume, names: Names) -> anyhow::Result<Self> {
        let mut directory = Directory::new(volume.endpoints());
        let inner = Arc::new(Inner {
            state: Mutex::default(),
            names,
            changes: broadcast::channel(BACKLOG).0,
            runtime: tokio::runtime::Handle::current(),
        });
        let weak = Arc::downgrade(&inner);
        let (loaded, first) = tokio::sync::oneshot::channel();
        let keep_up = move || {
            let changes = directory.look();
            weak.apply(&directory, changes);
            // Nobody waits any more if start was given up; the next upgrade ends the thread then.
            let _ = loaded.send(());
            while weak.strong_count() > 0 {
                let changes = directory.wait();
                weak.apply(&directory, changes);
            }
        };
        let what = || format!("watching {}", volume.endpoints().display());
        std::thread::Builder::new().name("endpoints".to_owned()).spawn(keep_up).with_context(what)?;
        first.await.with_context(what)?;
        Ok(Self(inner))
    }

    /// The upstream of this id; `None` if it is unknown or its name has not been looked up yet. Whoever goes on
    /// asking keeps its name looked up.
    pub fn upstream(&self, id: &str) -> Option<Arc<Upstream>> {
        self.0.ask(&mut self.0.lock(), id)
    }

    /// The upstream whose id begins with `label`, up to its first `-`.
    pub fn labelled(&self, label: &str) -> Option<Arc<Upstream>> {
        let mut state = self.0.lock();
        let id = state.labelled(label)?;
        self.0.ask(&mut state, &id)
    }

    /// Tells of every change from now on. A listener that lags must look at everything again.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.0.changes.subscribe()
    }

    /// Whether some upstream has an IPv6 endpoint at this moment.
    pub fn has_ipv6(&self) -> bool {
        self.0.lock().has_ipv6()
    }
}

/// The part of an upstream's id before its first `-`: unique too, and one label of a DNS name.
pub fn label_of(id: &str) -> &str {
    id.split('-').next().unwrap_or(id)
}

trait Apply {
    fn apply(&self, directory: &Directory, changes: Vec<Change>);
}

impl Apply for Weak<Inner> {
    fn apply(&self, directory: &Directory, changes: Vec<Change>) {
        let Some(inner) = self.upgrade() else { return };
        let read = changes.into_iter().filter_map(|change| match change {
            Change::Written(name) => Some((id(&name)?, Some(read(directory, &name)))),
            Change::Removed(name) => Some((id(&name)?, None)),
        });
        // Files are read without the lock: whoever answers a proxy must not wait for a disk.
        let read: Vec<_> = read.collect();
        inner.take_up(read);
    }
}

/// The upstream whose file has this name.
fn id(file: &str) -> Option<String> {
    file.strip_suffix(".json").map(str::to_owned)
}

fn read(directory: &Directory, name: &str) -> anyhow::Result<EndpointSet> {
    let path = directory.file(name);
    let size = std::fs::metadata(&path)?.len();
    anyhow::ensure!(size <= LARGEST_FILE, "{size} bytes are too many; {LARGEST_FILE} may be");
    let mut set: EndpointSet = serde_json::from_slice(&std::fs::read(&path)?)?;
    if let Endpoints::Addresses(addresses) = &mut set.endpoints {
        addresses.sort_unstable();
        addresses.dedup();
    }
    Ok(set)
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What files say from now on; `None`: the file is gone.
    fn take_up(self: &Arc<Self>, files: Vec<(String, Option<anyhow::Result<EndpointSet>>)>) {
        let mut changed = Vec::new();
        let mut state = self.lock();
        for (id, file) in files {
            match file {
                Some(Ok(set)) => {
                    state.set(&id, set, &mut changed);
                    // A name is looked up before anybody asks.
                    self.ask(&mut state, &id);
                }
                Some(Err(error)) => {
                    let error = format!("{error:#}");
                    if state.knows(&id) {
                        warn!(
                            upstream = id,
                            error, "the file of its endpoints cannot be read; the last good ones stay"
                        );
                    } else {
                        warn!(
                            upstream = id,
                            error, "the file of its endpoints cannot be read; it answers 503 until it can"
                        );
                        let nothing = Endpoints::Addresses(Vec::new());
                        state.set(&id, EndpointSet { protocol: Protocol::Http, endpoints: nothing }, &mut changed);
                    }
                }
                None => state.gone(&id),
            }
        }
        state.forget();
        self.tell(changed);
    }

    fn ask(self: &Arc<Self>, state: &mut State, id: &str) -> Option<Arc<Upstream>> {
        let (current, host) = state.ask(id);
        if let Some(host) = host {
            self.runtime.spawn(keep_fresh(Arc::downgrade(self), host));
        }
        current
    }

    /// What `host` stands for from now on.
    fn answered(&self, host: &str, addresses: Vec<IpAddr>) {
        let mut changed = Vec::new();
        self.lock().answered(host, addresses, &mut changed);
        self.tell(changed);
    }

    /// If nothing is known of `host`, there is nothing for the time being.
    fn nothing_yet(&self, host: &str) {
        let mut changed = Vec::new();
        self.lock().nothing_yet(host, &mut changed);
        self.tell(changed);
    }

    fn tell(&self, changed: Vec<String>) {
        if !changed.is_empty() {
            // Nobody listens: nobody need be told.
            let _ = self.changes.send(changed.into());
        }
    }
}

/// Looks `host` up again whenever its answer has run out, as long as somebody asks.
async fn keep_fresh(source: Weak<Inner>, host: String) {
    let mut failures = 0;
    let mut told = Vec::new();
    while let Some(inner) = source.upgrade() {
        let wait = match look_up(&inner, &host).await {
            Answer::Found { addresses, refused, fresh_for } => {
                if refused != told {
                    if !refused.is_empty() {
                        warn!(
                            host,
                            ?refused,
                            "an ExternalName may not lead to this Pod or its link; these addresses are left out"
                        );
                    }
                    told = refused;
                }
                recovered(&host, &mut failures);
                inner.answered(&host, addresses);
                fresh_for
            }
            Answer::Nothing { fresh_for } => {
                recovered(&host, &mut failures);
                inner.answered(&host, Vec::new());
                fresh_for
            }
            Answer::Failed(error) => {
                if failures == 0 {
                    warn!(host, error, "an ExternalName cannot be looked up; its last answer stays");
                }
                inner.nothing_yet(&host);
                let wait = Duration::from_secs(1 << failures.min(5));
                failures += 1;
                wait.min(LONGEST_RETRY)
            }
        };
        drop(inner);
        tokio::time::sleep(wait).await;
        if !source.upgrade().is_some_and(|inner| inner.lock().is_wanted(&host)) {
            return;
        }
    }
}

fn recovered(host: &str, failures: &mut u32) {
    if std::mem::take(failures) > 0 {
        info!(host, "the ExternalName can be looked up again");
    }
}

/// Looks `host` up. If that takes long and nothing is known yet, there is nothing for the time being.
async fn look_up(inner: &Inner, host: &str) -> Answer {
    let mut answer = pin!(inner.names.look_up(host));
    tokio::select! {
        answer = &mut answer => return answer,
        () = tokio::time::sleep(PATIENCE) => {}
    }
    inner.nothing_yet(host);
    answer.await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(volume: &Volume, id: &str, text: &str) {
        let new = volume.endpoints().join(format!(".{id}"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, volume.endpoint_set(id)).unwrap();
    }

    fn addresses(protocol: &str, addresses: &[&str]) -> String {
        serde_json::json!({ "protocol": protocol, "endpoints": { "addresses": addresses } }).to_string()
    }

    async fn start() -> (tempfile::TempDir, Volume, Source) {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        std::fs::create_dir_all(volume.endpoints()).unwrap();
        let source = Source::start(&volume, Names::system()).await.unwrap();
        (folder, volume, source)
    }

    /// The addresses of an upstream, as text.
    fn now(source: &Source, id: &str) -> Option<Vec<String>> {
        Some(source.upstream(id)?.addresses.iter().map(ToString::to_string).collect())
    }

    async fn until(source: &Source, id: &str, wanted: &[&str]) {
        let mut changes = source.changes();
        let wait = async {
            while now(source, id).is_none_or(|now| now != wanted) {
                changes.recv().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| {
            panic!("{id} is {:?} and not {wanted:?}", now(source, id));
        });
    }

    #[tokio::test]
    async fn what_is_written_is_taken_up_with_a_new_version() {
        let (_folder, volume, source) = start().await;
        assert_eq!(source.upstream("ab-shop"), None);
        write(&volume, "ab-shop", &addresses("HTTP", &["10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"]));
        until(&source, "ab-shop", &["10.0.0.1:80", "10.0.0.2:80"]).await;
        let before = source.upstream("ab-shop").unwrap();
        write(&volume, "ab-shop", &addresses("HTTPS", &[]));
        until(&source, "ab-shop", &[]).await;
        let after = source.upstream("ab-shop").unwrap();
        assert!(after.version > before.version);
        assert_eq!((before.protocol, after.protocol), (Protocol::Http, Protocol::Https));
    }

    #[tokio::test]
    async fn what_was_good_stays_when_its_file_is_garbage_or_gone() {
        let (_folder, volume, source) = start().await;
        write(&volume, "ab-shop", &addresses("HTTP", &["10.0.0.1:80"]));
        until(&source, "ab-shop", &["10.0.0.1:80"]).await;
        for (n, garbage) in
            ["", "{", "null", r#"{"protocol":"HTTP","endpoints":{"addresses":["x"]}}"#].iter().enumerate()
        {
            write(&volume, "ab-shop", garbage);
            // Changes are taken up in order: once the next one is there, the garbage was seen.
            write(&volume, "zz", &addresses("HTTP", &[&format!("10.0.0.9:{}", n + 1)]));
            until(&source, "zz", &[&format!("10.0.0.9:{}", n + 1)]).await;
            assert_eq!(now(&source, "ab-shop").unwrap(), ["10.0.0.1:80"], "{garbage:?}");
        }
        std::fs::remove_file(volume.endpoint_set("ab-shop")).unwrap();
        write(&volume, "zz", &addresses("HTTP", &[]));
        until(&source, "zz", &[]).await;
        assert_eq!(now(&source, "ab-shop").unwrap(), ["10.0.0.1:80"]);
    }

    #[tokio::test]
    async fn a_file_that_was_never_good_is_an_upstream_without_endpoints() {
        let (_folder, volume, source) = start().await;
        write(&volume, "ab-shop", "garbage");
        until(&source, "ab-shop", &[]).await;
        write(&volume, "ab-shop", &addresses("HTTP", &["10.0.0.1:80"]));
        until(&source, "ab-shop", &["10.0.0.1:80"]).await;
    }

    #[tokio::test]
    async fn an_upstream_is_found_by_its_label() {
        let (_folder, volume, source) = start().await;
        for id in ["ab-shop", "abc-shop", "ab0-shop", "a"] {
            write(&volume, id, &addresses("HTTP", &[]));
            until(&source, id, &[]).await;
        }
        for (label, id) in [
            ("ab", Some("ab-shop")),
            ("abc", Some("abc-shop")),
            ("ab0", Some("ab0-shop")),
            ("a", Some("a")),
            ("abcd", None),
            ("ab-", None),
        ] {
            assert_eq!(source.labelled(label).map(|u| u.id.clone()).as_deref(), id, "{label}");
        }
    }

    #[tokio::test]
    async fn ipv6_is_known_while_it_is_there() {
        let (_folder, volume, source) = start().await;
        write(&volume, "ab", &addresses("HTTP", &["10.0.0.1:80"]));
        until(&source, "ab", &["10.0.0.1:80"]).await;
        assert!(!source.has_ipv6());
        write(&volume, "ab", &addresses("HTTP", &["10.0.0.1:80", "[fd00::1]:80"]));
        until(&source, "ab", &["10.0.0.1:80", "[fd00::1]:80"]).await;
        assert!(source.has_ipv6());
        write(&volume, "ab", &addresses("HTTP", &["10.0.0.1:80"]));
        until(&source, "ab", &["10.0.0.1:80"]).await;
        assert!(!source.has_ipv6());
    }

    #[tokio::test]
    async fn a_name_is_looked_up_before_anybody_asks_and_so_is_the_next_one() {
        let (_folder, volume, source) = start().await;
        let mut changes = source.changes();
        for address in ["198.51.100.1", "198.51.100.2"] {
            let endpoints = serde_json::json!({ "name": { "host": address, "port": 80 } });
            write(&volume, "ab", &serde_json::json!({ "protocol": "HTTP", "endpoints": endpoints }).to_string());
            let change = tokio::time::timeout(Duration::from_secs(60), changes.recv()).await;
            assert_eq!(*change.unwrap().unwrap(), ["ab".to_owned()]);
            assert_eq!(now(&source, "ab").unwrap(), [format!("{address}:80")]);
        }
    }
}
