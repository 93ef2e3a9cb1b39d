//! Where objects come from, the same for whoever reconciles.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

use super::cluster::Cluster;
use super::files::Files;
use crate::hint::Hint;
use crate::snapshot::Snapshot;

/// A file that is being written is left alone until it is quiet for this long, because half of a file may be a good
/// file, without the objects of the other half.
const QUIET: Duration = Duration::from_millis(50);
/// But for no longer than this.
const LONGEST: Duration = Duration::from_secs(1);

/// Where objects come from. Dropping it ends all watches.
pub enum Source {
    /// Files (`-f`).
    Files(watch::Receiver<Option<Snapshot>>, watch::Receiver<u64>),
    /// The API server.
    Cluster(Arc<Cluster>),
}

impl Source {
    /// Reads files, and again whenever they change.
    pub fn files(mut files: Files) -> Self {
        let (snapshots, snapshot) = watch::channel(None);
        let (changes, changed) = watch::channel(0);
        tokio::spawn(async move {
            let mut hint = Hint::new("the files of -f", files.paths().to_vec());
            let mut first = true;
            loop {
                // Reading and parsing block, so they do it where they may.
                let looked = tokio::task::spawn_blocking(move || {
                    // An empty folder is a snapshot too.
                    let changed = files.look() || first;
                    (changed.then(|| files.snapshot()), files)
                });
                let Ok((snapshot, back)) = looked.await else { return };
                (files, first) = (back, false);
                if let Some(snapshot) = snapshot {
                    snapshots.send_replace(Some(snapshot));
                    changes.send_modify(|n| *n += 1);
                }
                tokio::select! {
                    () = hint.wait_until_quiet(QUIET, LONGEST) => {}
                    () = changes.closed() => return,
                }
            }
        });
        Self::Files(snapshot, changed)
    }

    /// All objects at this moment; `None` until everything has been listed once.
    pub fn snapshot(&self) -> Option<Snapshot> {
        match self {
            Self::Files(snapshot, _) => snapshot.borrow().clone(),
            Self::Cluster(cluster) => cluster.snapshot(),
        }
    }

    /// What is still missing before the first snapshot, one sentence each.
    pub fn missing(&self) -> Vec<String> {
        match self {
            Self::Files(snapshot, _) if snapshot.borrow().is_none() => vec!["the files are being read".to_owned()],
            Self::Files(..) => Vec::new(),
            Self::Cluster(cluster) => cluster.missing(),
        }
    }

    /// A receiver that changes whenever the snapshot may have.
    pub fn changes(&self) -> watch::Receiver<u64> {
        match self {
            Self::Files(_, changed) => changed.clone(),
            Self::Cluster(cluster) => cluster.changes(),
        }
    }
}

/// The certificate that is served until somebody gives a better one.
pub fn generated_certificate() -> anyhow::Result<crate::model::Certificate> {
    let made = || {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new(vec!["ingress.local".to_owned()])?;
        params.distinguished_name.push(rcgen::DnType::CommonName, "coxswain default certificate");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "coxswain");
        let certificate = params.self_signed(&key)?;
        anyhow::Ok((certificate.pem(), key.serialize_pem()))
    };
    let (chain, key) = made().context("making the default certificate")?;
    crate::model::Certificate::parse(chain.as_bytes(), key.as_bytes())
        .map_err(|why| anyhow::anyhow!("the default certificate that was made cannot be used: {why}"))
}
