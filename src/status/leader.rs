//! Leadership: one replica writes to Ingresses, chosen by a Lease. Losing it never disturbs traffic.
//!
//! `kube-lease-manager` does the locking. What is added: a leader that cannot renew stops being one at once (the crate
//! would go on believing), and renewals are so early that clocks may differ by a third of the lease's duration.

use std::time::Duration;

use kube::{Client, Config};
use kube_lease_manager::LeaseManagerBuilder;
use tokio::sync::watch;
use tokio::task::JoinSet;

use anyhow::Context as _;

/// Who competes for what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespace of the Lease.
    pub namespace: String,
    /// Its name (`--election-id`).
    pub lease: String,
    /// Who we are: the name of the Pod.
    pub identity: String,
    /// How long a leader that fell silent stays one for the others (`--election-ttl`).
    pub ttl: Duration,
}

/// A candidate. Dropping it keeps the Lease until it expires; [`Self::release`] hands it over at once.
pub struct Leadership {
    state: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    /// One task, which ends with us.
    task: JoinSet<()>,
}

impl Leadership {
    /// Begins to compete.
    ///
    /// # Errors
    /// No client can be made of `config`.
    pub fn compete(config: Config, options: Options) -> anyhow::Result<Self> {
        let (sender, state) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        // A renewal that hangs must end before the lease does: kube's own default waits for ever.
        let bound = Some(options.ttl / 6);
        let mut config = config;
        (config.connect_timeout, config.read_timeout, config.write_timeout) = (bound, bound, bound);
        let client = Client::try_from(config).context("connecting to the API server for the election")?;
        let mut task = JoinSet::new();
        task.spawn(compete(client, options, sender, stopped));
        Ok(Self { state, stop, task })
    }

    /// Leads whatever others do (`--disable-leader-election`).
    pub fn unopposed() -> Self {
        let (sender, state) = watch::channel(true);
        let (stop, mut stopped) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(async move {
            told(&mut stopped).await;
            drop(sender);
        });
        Self { state, stop, task }
    }

    /// Whether we lead, as it changes.
    pub fn state(&self) -> watch::Receiver<bool> {
        self.state.clone()
    }

    /// Stops competing and hands the Lease over, so that another replica need not wait for its end.
    pub async fn release(mut self) {
        let _ = self.stop.send(true);
        self.task.join_next().await;
    }
}

async fn compete(client: Client, options: Options, state: watch::Sender<bool>, mut stopped: watch::Receiver<bool>) {
    let seconds = options.ttl.as_secs().max(6);
    loop {
        let manager = LeaseManagerBuilder::new(client.clone(), &options.lease)
            .with_namespace(&options.namespace)
            .with_identity(&options.identity)
            .with_duration(seconds)
            // Renewed after a third of its life.
            .with_grace(seconds * 2 / 3)
            .build()
            .await;
        let manager = match manager {
            Ok(manager) => manager,
            Err(error) => {
                tracing::warn!(%error, lease = %options.lease, "the Lease for leader election cannot be used; trying again");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(5)) => continue,
                    () = told(&mut stopped) => return,
                }
            }
        };
        loop {
            tokio::select! {
                changed = manager.changed() => match changed {
                    Ok(leads) => {
                        tracing::info!(lease = %options.lease, leads, "leadership changed");
                        state.send_replace(leads);
                    }
                    Err(error) => {
                        // Whether the Lease is still ours cannot be known: a fresh manager finds out.
                        tracing::warn!(%error, lease = %options.lease, "the Lease could not be read or renewed");
                        state.send_replace(false);
                        break;
                    }
                },
                () = told(&mut stopped) => {
                    state.send_replace(false);
                    if let Err(error) = manager.release().await {
                        tracing::warn!(%error, lease = %options.lease, "the Lease was not released; it ends by itself");
                    }
                    return;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = told(&mut stopped) => return,
        }
    }
}

/// Resolves when we are told to stop, or when nobody is left to tell us.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
