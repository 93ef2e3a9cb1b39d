//! The objects of the API server: one kube `watcher` per kind and scope, kept in sorted tables.
//!
//! kube's own `Store` is not used, because three things must happen on arrival and not at every snapshot: Secrets are
//! parsed once per resourceVersion and their bytes dropped, managedFields and the like are cut, and an update that
//! changes nothing we read (a status, a heartbeat) wakes nobody. What stays as in kube's reflector: a relist replaces
//! the table at its end and never before, so an expired watch or an API server that is gone removes nothing.
//!
//! Nothing here decides what an object means.

mod follow;
mod kinds;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::tables::Tables;
use crate::problem::Kind;
use crate::snapshot::Snapshot;
use crate::value::reference::{Name, ObjectName};

/// The field manager of everything we write; an Ingress keeps, of its managedFields, only ours of the status.
pub const FIELD_MANAGER: &str = "coxswain";

/// A connection on which nothing came for this long is dead, whatever the kernel thinks: longer than a watch lasts.
const SILENCE: Duration = Duration::from_secs(330);

/// What is watched.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only these namespaces; empty: all.
    pub namespaces: BTreeSet<Name>,
    /// Only namespaces with these labels (a label selector).
    pub namespace_selector: Option<String>,
    /// Objects that are read wherever they lie: the ConfigMap of `--configmap`, the Secret of
    /// `--default-ssl-certificate`, the Services of `--default-backend-service` and `--publish-service`.
    pub always: Vec<(Kind, ObjectName)>,
}

/// The watched objects. Dropping it ends all watches.
pub struct Cluster {
    shared: Arc<Shared>,
    _watches: JoinSet<()>,
}

impl Cluster {
    /// Starts to watch. Returns at once; [`Self::snapshot`] answers when everything was listed.
    pub fn start(client: &Client, options: Options) -> Self {
        let shared = Arc::new(Shared {
            tables: Mutex::default(),
            changed: watch::Sender::new(0),
            touched: watch::Sender::new(0),
            namespaced: !options.namespaces.is_empty(),
            selects: options.namespace_selector.is_some(),
        });
        let set = follow::everything(client, &shared, &options);
        Self { shared, _watches: set }
    }

    /// All objects at this moment; `None` until every scope in force has been listed (invariant 4).
    pub fn snapshot(&self) -> Option<Snapshot> {
        let tables = self.shared.tables();
        let now = Instant::now();
        if tables.scopes.values().any(|listing| listing.blocks(now)) {
            return None;
        }
        Some(tables.snapshot(self.shared.selects, now))
    }

    /// What is still missing before the first snapshot, one sentence each; for readiness and the log.
    pub fn missing(&self) -> Vec<String> {
        let tables = self.shared.tables();
        let now = Instant::now();
        let waiting = tables.scopes.iter().filter(|(_, listing)| listing.blocks(now));
        waiting.map(|(scope, listing)| listing.sentence(scope)).collect()
    }

    /// A receiver that changes whenever something changed that translation may read.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// A receiver that changes whenever an Ingress or a Service changed in any way, its status included.
    pub fn touched(&self) -> watch::Receiver<u64> {
        self.shared.touched.subscribe()
    }

    /// All Ingresses as last seen, with their status.
    pub fn ingresses(&self) -> BTreeMap<ObjectName, Arc<Ingress>> {
        self.shared.tables().ingresses.view(|_| true)
    }

    /// The Service as last seen, with its status.
    pub fn service(&self, name: &ObjectName) -> Option<Arc<Service>> {
        self.shared.tables().services.objects.get(name).map(|entry| Arc::clone(&entry.object))
    }
}

/// What all watches write to.
struct Shared {
    tables: Mutex<Tables>,
    changed: watch::Sender<u64>,
    touched: watch::Sender<u64>,
    /// Only some namespaces are watched: cluster-scoped kinds may then be out of reach without harm.
    namespaced: bool,
    /// Namespaces are chosen by their labels.
    selects: bool,
}

impl Shared {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        // A panic while the lock was held left at worst one table half-updated; the next relist mends it.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.changed.send_modify(|n| *n += 1);
    }
}

/// How to reach the cluster: by this kubeconfig, else as kubectl would, else by the Pod's own account.
///
/// # Errors
/// Neither is there, or what is there cannot be used.
pub async fn config(kubeconfig: Option<&Path>) -> anyhow::Result<Config> {
    let mut config = match kubeconfig {
        None => {
            Config::infer().await.context("looking for a cluster: there is neither a kubeconfig nor a Pod's account")?
        }
        Some(path) => {
            let read =
                Kubeconfig::read_from(path).with_context(|| format!("reading the kubeconfig {}", path.display()))?;
            let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
            config.with_context(|| format!("using the kubeconfig {}", path.display()))?
        }
    };
    config.read_timeout = Some(SILENCE);
    Ok(config)
}
