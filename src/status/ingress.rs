//! The addresses in the status of Ingresses: written where they differ, removed where an Ingress is no longer ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::value::reference::ObjectName;
use crate::watch::cluster::{Cluster, FIELD_MANAGER};

use super::address::{self, Address, Source};
use super::{Outcome, PATIENCE};

/// How many statuses are written at the same time.
const AT_ONCE: usize = 8;
/// How often another writer may flip a status back before we leave it alone for a while.
const FLIPS: u32 = 3;
/// For how long.
const TRUCE: Duration = Duration::from_secs(300);

/// How soon something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Writes statuses while we lead.
pub struct Writer {
    /// The API server.
    pub client: Client,
    /// The Ingresses as they are there.
    pub cluster: Arc<Cluster>,
    /// Where the addresses come from.
    pub source: Source,
    /// How often they are looked up anew where nobody tells (`--status-update-interval`).
    pub interval: Duration,
}

impl Writer {
    /// Runs for ever: after every outcome, every foreign change of a status and every interval, writes what differs.
    pub async fn run(self, mut outcomes: watch::Receiver<Option<Arc<Outcome>>>, mut leads: watch::Receiver<bool>) {
        let mut touched = self.cluster.touched();
        let mut fights = BTreeMap::new();
        let mut nodes = None;
        loop {
            let outcome = outcomes.borrow_and_update().clone();
            touched.mark_unchanged();
            let mut again = self.interval;
            if *leads.borrow_and_update() {
                // Before the first outcome nobody knows whose an Ingress is.
                if let Some(outcome) = outcome {
                    let failed = tokio::select! {
                        failed = self.look(&outcome, &mut nodes, &mut fights) => failed,
                        // Thousands may wait to be written: they are another replica's from now on.
                        () = lost(leads.clone()) => continue,
                    };
                    if failed {
                        again = again.min(AGAIN);
                    }
                }
            } else {
                fights.clear();
            }
            let end = tokio::select! {
                changed = outcomes.changed() => changed.is_err(),
                changed = leads.changed() => changed.is_err(),
                changed = touched.changed() => changed.is_err(),
                () = tokio::time::sleep(again) => false,
            };
            if end {
                return;
            }
        }
    }

    /// Looks which addresses there are and writes them. Returns whether something is worth another try soon.
    async fn look(
        &self,
        outcome: &Outcome,
        nodes: &mut Option<(Instant, BTreeSet<Address>)>,
        fights: &mut BTreeMap<ObjectName, Fight>,
    ) -> bool {
        match self.addresses(nodes).await {
            Some(wanted) => self.write(outcome, &wanted, fights).await,
            // A Service that is not there yet tells by itself when it is.
            None => matches!(self.source, Source::Nodes { .. }),
        }
    }

    /// Removes our addresses from all Ingresses: the last replica stops.
    pub async fn clear(&self) {
        let ours: Vec<_> =
            self.cluster.ingresses().into_iter().filter(|(_, ingress)| status_is_ours(ingress)).collect();
        self.patch_all(ours.into_iter().map(|(name, _)| (name, None)).collect()).await;
    }

    /// The addresses that should stand everywhere; `None` while they are unknown.
    async fn addresses(&self, nodes: &mut Option<(Instant, BTreeSet<Address>)>) -> Option<BTreeSet<Address>> {
        match &self.source {
            Source::Given(addresses) => Some(addresses.clone()),
            Source::Service(name) => self.cluster.service(name).map(|service| address::of_service(&service)),
            Source::Nodes { pod, internal } => {
                if let Some((at, known)) = nodes
                    && at.elapsed() < self.interval
                {
                    return Some(known.clone());
                }
                let asked = tokio::time::timeout(PATIENCE, address::of_nodes(&self.client, pod, *internal)).await;
                match asked.unwrap_or_else(|_| Err(anyhow::anyhow!("the API server does not answer"))) {
                    // Nobody is ready, not even we: statuses stay as they are until somebody is.
                    Ok(found) if found.is_empty() => None,
                    Ok(found) => {
                        *nodes = Some((Instant::now(), found.clone()));
                        Some(found)
                    }
                    Err(error) => {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "the addresses of the nodes are unknown; statuses stay as they are"
                        );
                        None
                    }
                }
            }
        }
    }

    /// Writes what differs. Returns whether something failed that is worth another try.
    async fn write(
        &self,
        outcome: &Outcome,
        wanted: &BTreeSet<Address>,
        fights: &mut BTreeMap<ObjectName, Fight>,
    ) -> bool {
        let mut patches = Vec::new();
        for (name, ingress) in self.cluster.ingresses() {
            let ours = outcome.ours.contains_key(&name);
            let current = current(&ingress);
            if ours && !wanted.is_empty() && current != entries(wanted) {
                if fights.entry(name.clone()).or_default().may_write(&name, ingress.resource_version()) {
                    patches.push((name, Some(wanted)));
                }
            } else if (!ours || wanted.is_empty()) && !current.is_empty() && status_is_ours(&ingress) {
                patches.push((name, None));
            }
        }
        fights.retain(|name, _| outcome.ours.contains_key(name));
        self.patch_all(patches).await
    }

    async fn patch_all(&self, patches: Vec<(ObjectName, Option<&BTreeSet<Address>>)>) -> bool {
        let writes: Vec<_> = patches.into_iter().map(|(name, wanted)| self.patch(name, wanted)).collect();
        let results = futures::stream::iter(writes).buffer_unordered(AT_ONCE);
        results.fold(false, |failed, retry| async move { failed | retry }).await
    }

    /// Writes one status. Returns whether it should be tried again.
    async fn patch(&self, name: ObjectName, wanted: Option<&BTreeSet<Address>>) -> bool {
        let Some(namespace) = &name.namespace else { return false };
        let api: Api<Ingress> = Api::namespaced(self.client.clone(), namespace.as_str());
        let written = async {
            match wanted {
                Some(addresses) => {
                    // Server-side apply by force: the field is atomic, and ingress-nginx owned it by Update.
                    let patch = json!({
                        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name.name},
                        "status": {"loadBalancer": {"ingress": entries(addresses)}},
                    });
                    let params = PatchParams::apply(FIELD_MANAGER).force();
                    api.patch_status(name.name.as_str(), &params, &Patch::Apply(patch)).await
                }
                None => {
                    let patch = json!({"status": {"loadBalancer": null}});
                    api.patch_status(name.name.as_str(), &PatchParams::default(), &Patch::Merge(patch)).await
                }
            }
        };
        let Ok(done) = tokio::time::timeout(PATIENCE, written).await else {
            tracing::warn!(ingress = %name, "the API server does not answer the writing of a status; trying again");
            return true;
        };
        match done {
            Ok(_) => false,
            // Gone meanwhile: nothing is left to tell.
            Err(kube::Error::Api(status)) if status.is_not_found() => false,
            Err(error) => {
                tracing::warn!(ingress = %name, %error, "a status could not be written; trying again");
                true
            }
        }
    }
}

/// Resolves when we no longer lead.
async fn lost(mut leads: watch::Receiver<bool>) {
    if leads.wait_for(|leads| !*leads).await.is_err() {
        // Nobody is left to tell us: whoever runs us ends us.
        std::future::pending().await
    }
}

/// How often another writer undid what we wrote.
#[derive(Debug, Default)]
struct Fight {
    written: Option<String>,
    lost: u32,
    truce: Option<Instant>,
}

impl Fight {
    /// Called when the status of the Ingress, at this resourceVersion, is not what we want.
    fn may_write(&mut self, name: &ObjectName, version: Option<String>) -> bool {
        if self.truce.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        if self.truce.take().is_some() {
            self.lost = 0;
        } else if self.written.is_some() && self.written != version {
            self.lost += 1;
        }
        if self.lost > FLIPS {
            tracing::warn!(ingress = %name, "another writer keeps replacing the address in the status; leaving it alone for five minutes");
            self.truce = Some(Instant::now() + TRUCE);
            return false;
        }
        self.written = version;
        true
    }
}

fn entries(addresses: &BTreeSet<Address>) -> Vec<k8s_openapi::api::networking::v1::IngressLoadBalancerIngress> {
    addresses.iter().map(Address::entry).collect()
}

fn current(ingress: &Ingress) -> Vec<k8s_openapi::api::networking::v1::IngressLoadBalancerIngress> {
    let status = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let mut entries = status.and_then(|status| status.ingress.clone()).unwrap_or_default();
    for entry in &mut entries {
        entry.ports = None;
    }
    entries
}

/// Whether the status was written by us (of managedFields only this is kept on arrival).
pub fn status_is_ours(ingress: &Ingress) -> bool {
    ingress.metadata.managed_fields.as_ref().is_some_and(|entries| !entries.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value as _;

    #[tokio::test(start_paused = true)]
    async fn another_writer_is_left_alone_after_three_flips_and_tried_again_later() {
        let name = ObjectName::parse("a/b").unwrap();
        let mut fight = Fight::default();
        let version = |n: u32| Some(n.to_string());
        let allowed: Vec<bool> = (0..6).map(|n| fight.may_write(&name, version(n))).collect();
        assert_eq!(allowed, [true, true, true, true, false, false]);
        tokio::time::advance(TRUCE + Duration::from_secs(1)).await;
        assert!(fight.may_write(&name, version(9)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_failed_is_no_flip() {
        let name = ObjectName::parse("a/b").unwrap();
        let mut fight = Fight::default();
        assert!((0..10).all(|_| fight.may_write(&name, Some("7".to_owned()))));
    }
}
