//! What `render` and `check` begin with: the objects, the flags and the time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use kube::Client;

use super::flags::Common;
use crate::settings::Flags;
use crate::snapshot::Snapshot;
use crate::watch::cluster::{self, Cluster};
use crate::watch::{files, generated_certificate};

/// How long an API server may take to list everything.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `render` and `check` begin with.
pub struct Input {
    /// All objects, and the certificate made for now.
    pub snapshot: Snapshot,
    /// What decides what an Ingress means.
    pub flags: Flags,
    /// Seconds since 1970.
    pub now: i64,
}

impl Input {
    /// Reads the files of `-f`, else the cluster.
    pub fn read(common: &Common) -> anyhow::Result<Self> {
        let mut snapshot = if common.files.is_empty() {
            tokio::runtime::Runtime::new().context("starting to read")?.block_on(listed(common))?
        } else {
            common.check_paths()?;
            files::load(&common.files)
        };
        snapshot.generated_certificate = Some(Arc::new(generated_certificate()?));
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        Ok(Self { snapshot, flags: common.flags(), now })
    }
}

/// Everything in the cluster, as `run` would see it first.
async fn listed(common: &Common) -> anyhow::Result<Snapshot> {
    let config = cluster::config(common.cluster.kubeconfig.as_deref()).await;
    let config = config.context("name files or folders with -f PATH, or a cluster")?;
    let client = Client::try_from(config).context("connecting to the API server")?;
    let cluster = Cluster::start(&client, common.watched());
    let mut changes = cluster.changes();
    let complete = async {
        loop {
            if let Some(snapshot) = cluster.snapshot() {
                return Some(snapshot);
            }
            changes.changed().await.ok()?;
        }
    };
    match tokio::time::timeout(PATIENCE, complete).await {
        Ok(Some(snapshot)) => Ok(snapshot),
        _ => bail!("the cluster could not be read within {} s: {}", PATIENCE.as_secs(), cluster.missing().join("; ")),
    }
}
