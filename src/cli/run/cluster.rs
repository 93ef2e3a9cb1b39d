//! What `run` does besides with a cluster: watching, competing for leadership, writing statuses and Events, answering
//! admission reviews.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::networking::v1::Ingress;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::admission::{self, Basis, certificate};
use crate::cli::flags::Common;
use crate::metrics::{Identity, Metrics};
use crate::model::ProxyConfig;
use crate::reconcile::View;
use crate::snapshot::Snapshot;
use crate::status::address::{self, Address, Source};
use crate::status::events::{self, PodVoice};
use crate::status::leader::{self, Leadership};
use crate::status::{Outcome, Version, ingress};
use crate::value::reference::ObjectName;
use crate::watch::cluster::{self, Cluster};

/// The farewell to the API server may take this long; whatever is not said by then is left as it is.
const FAREWELL: Duration = Duration::from_secs(10);

/// Everything that is told to the API server.
pub struct Teller {
    client: Client,
    cluster: Arc<Cluster>,
    pod: Option<ObjectName>,
    addresses: Option<Source>,
    clears: bool,
    leadership: Leadership,
    outcomes: watch::Sender<Option<Arc<Outcome>>>,
    basis: watch::Sender<Option<Basis>>,
    faults: watch::Sender<Vec<String>>,
    last: Option<Arc<View>>,
    /// The digest of each Ingress as it was last seen: most are the same from one pass to the next.
    contents: BTreeMap<ObjectName, (Arc<Ingress>, u64)>,
    tasks: JoinSet<()>,
}

impl Teller {
    /// Connects, watches and competes. Nothing is written before there is something to tell.
    pub async fn start(common: &Common, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let options = &common.cluster;
        let config = cluster::config(options.kubeconfig.as_deref()).await?;
        info!(server = %config.cluster_url, "watching the cluster");
        let client = Client::try_from(config.clone()).context("connecting to the API server")?;
        let publish = options.publish_service.as_ref().and_then(|service| service.0.clone());
        let watched = Arc::new(Cluster::start(&client, common.watched()));
        let pod = pod(common);
        let addresses = source(common, publish, pod.as_ref())?;
        let leadership = match (&pod, options.disable_leader_election) {
            (Some(pod), false) => Leadership::compete(config, election(common, pod))?,
            (None, false) => {
                warn!("POD_NAME and POD_NAMESPACE are not set: there is no election, and this replica leads");
                Leadership::unopposed()
            }
            (_, true) => Leadership::unopposed(),
        };
        let mut teller = Self {
            client,
            cluster: watched,
            pod,
            addresses: addresses.filter(|_| options.update_status),
            clears: options.update_status && options.update_status_on_shutdown,
            leadership,
            outcomes: watch::Sender::new(None),
            basis: watch::Sender::new(None),
            faults: watch::Sender::new(Vec::new()),
            last: None,
            contents: BTreeMap::new(),
            tasks: JoinSet::new(),
        };
        teller.write(common);
        teller.count(metrics, options.election_id.clone());
        if let Some(listen) = &options.validating_webhook {
            teller.answer(common, listen).await?;
        }
        Ok(teller)
    }

    /// The objects.
    pub fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.cluster)
    }

    /// Hands on how things stand.
    pub fn tell(&mut self, view: &Arc<View>) {
        self.faults.send_if_modified(|faults| {
            let changed = *faults != view.faults;
            faults.clone_from(&view.faults);
            changed
        });
        let (Some(snapshot), Some(settings), Some(_)) = (&view.snapshot, &view.settings, &view.in_force) else {
            return;
        };
        if self.last.as_ref().is_some_and(|last| same(last, view)) {
            return;
        }
        self.last = Some(Arc::clone(view));
        let outcome = self.outcome(snapshot, view);
        let problems = Arc::new(outcome.problems.clone());
        let basis = Basis { snapshot: Arc::clone(snapshot), settings: Arc::clone(settings), problems };
        self.basis.send_replace(Some(basis));
        self.outcomes.send_replace(Some(Arc::new(outcome)));
    }

    /// Says farewell: leadership goes to another replica, and our addresses go where there is none.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        let farewell = async {
            if self.clears
                && let Some(pod) = &self.pod
            {
                match address::others(&self.client, pod).await {
                    Ok(0) => {
                        info!("the last replica stops: its addresses are taken out of all statuses");
                        self.writer(Source::Given(BTreeSet::new()), Duration::MAX).clear().await;
                    }
                    Ok(others) => info!(others, "other replicas serve on; statuses stay"),
                    Err(error) => {
                        warn!(error = format!("{error:#}"), "whether others serve on is unknown; statuses stay")
                    }
                }
            }
            self.leadership.release().await;
        };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            warn!("the API server did not hear our farewell in time");
        }
    }

    fn outcome(&mut self, snapshot: &Snapshot, view: &View) -> Outcome {
        let current = view.config == view.in_force;
        let mut outcome = Outcome { problems: view.problems.clone(), ..Outcome::default() };
        let mut former = std::mem::take(&mut self.contents);
        let ours = snapshot.ingresses.iter().filter(|(name, _)| view.ours.contains(*name));
        for (name, ingress) in ours {
            let uid = ingress.metadata.uid.clone();
            let known = former.remove(name).filter(|(known, _)| Arc::ptr_eq(known, ingress));
            let (seen, content) = known.unwrap_or_else(|| (Arc::clone(ingress), content(ingress)));
            self.contents.insert(name.clone(), (seen, content));
            outcome.ours.insert(name.clone(), Version { uid, content });
            if !current || view.held.contains(name) {
                outcome.pending.insert(name.clone());
            }
            if self.addresses.is_some() && !ingress::status_is_ours(ingress) {
                outcome.unaddressed.insert(name.clone());
            }
        }
        outcome
    }

    /// Starts what writes statuses and Events.
    fn write(&mut self, common: &Common) {
        let leads = self.leadership.state();
        if let Some(source) = self.addresses.clone() {
            let writer = self.writer(source, common.cluster.status_update_interval);
            self.tasks.spawn(writer.run(self.outcomes.subscribe(), leads.clone()));
        }
        let identity = self.pod.as_ref().map_or("coxswain", |pod| pod.name.as_str());
        let writer = events::Writer::new(self.client.clone(), identity, !common.cluster.disable_sync_events);
        self.tasks.spawn(writer.run(self.outcomes.subscribe(), leads));
        if let Some(pod) = &self.pod {
            let mut voice = PodVoice::new(self.client.clone(), pod);
            let mut faults = self.faults.subscribe();
            self.tasks.spawn(async move {
                while faults.changed().await.is_ok() {
                    let now = faults.borrow_and_update().clone();
                    voice.say(&now).await;
                }
            });
        }
    }

    fn writer(&self, source: Source, interval: Duration) -> ingress::Writer {
        ingress::Writer { client: self.client.clone(), cluster: self.cluster(), source, interval }
    }

    fn count(&mut self, metrics: &Arc<Metrics>, lease: String) {
        let (metrics, mut leads) = (Arc::clone(metrics), self.leadership.state());
        self.tasks.spawn(async move {
            loop {
                metrics.leads(&lease, *leads.borrow_and_update());
                if leads.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Starts the webhook.
    async fn answer(&mut self, common: &Common, listen: &str) -> anyhow::Result<()> {
        let options = &common.cluster;
        let address = if listen.starts_with(':') { format!("[::]{listen}") } else { listen.to_owned() };
        let listener = match TcpListener::bind(&address).await {
            Ok(listener) => listener,
            // No IPv6 here, or the port is taken, which the second attempt tells.
            Err(_) => TcpListener::bind(address.replace("[::]", "0.0.0.0"))
                .await
                .with_context(|| format!("listening on --validating-webhook {listen}"))?,
        };
        let source = match (&options.validating_webhook_certificate, &options.validating_webhook_key, &self.pod) {
            (Some(chain), Some(key), _) => certificate::Source::Files { chain: chain.clone(), key: key.clone() },
            (_, _, Some(ObjectName { namespace: Some(namespace), .. })) => certificate::Source::Secret {
                namespace: namespace.to_string(),
                secret: options.validating_webhook_name.clone(),
                service: options.validating_webhook_name.clone(),
                configuration: options.validating_webhook_name.clone(),
            },
            _ => {
                bail!("--validating-webhook needs a certificate and a key, or POD_NAME and POD_NAMESPACE to make them")
            }
        };
        let served = Arc::new(certificate::Served::default());
        let tls = served.config()?;
        self.tasks.spawn(certificate::keep(source, self.client.clone(), served, self.leadership.state()));
        let basis = self.basis.subscribe();
        self.tasks.spawn(async move {
            if let Err(error) = admission::server::serve(listener, tls, basis).await {
                warn!("the webhook has ended: {error:#}");
            }
        });
        Ok(())
    }
}

/// Who we are, for metrics.
pub fn identity(common: &Common) -> Identity {
    let pod = pod(common);
    Identity {
        namespace: pod.as_ref().and_then(|pod| pod.namespace.as_ref()).map(ToString::to_string).unwrap_or_default(),
        class: common.flags().controller_class,
        pod: pod.map(|pod| pod.name.to_string()).unwrap_or_default(),
    }
}

fn pod(common: &Common) -> Option<ObjectName> {
    use crate::value::Value as _;
    let name = crate::value::reference::Name::parse(common.cluster.pod_name.as_deref()?).ok()?;
    Some(ObjectName::new(common.cluster.pod_namespace.clone()?, name))
}

fn source(common: &Common, publish: Option<ObjectName>, pod: Option<&ObjectName>) -> anyhow::Result<Option<Source>> {
    let given: Vec<&String> = common.cluster.publish_status_address.iter().filter(|text| !text.is_empty()).collect();
    if !given.is_empty() {
        let parsed = given.into_iter().map(|text| {
            let wrong = || {
                format!("--publish-status-address {}: this is neither an address nor a name", crate::value::shown(text))
            };
            Address::parse(text).with_context(wrong)
        });
        return parsed.collect::<anyhow::Result<_>>().map(|addresses| Some(Source::Given(addresses)));
    }
    if let Some(service) = publish {
        return Ok(Some(Source::Service(service)));
    }
    if let Some(pod) = pod {
        return Ok(Some(Source::Nodes { pod: pod.clone(), internal: common.cluster.report_node_internal_ip_address }));
    }
    warn!(
        "no status is written: name addresses by --publish-service or --publish-status-address, or set POD_NAME and POD_NAMESPACE"
    );
    Ok(None)
}

fn election(common: &Common, pod: &ObjectName) -> leader::Options {
    leader::Options {
        namespace: pod.namespace.as_ref().map(ToString::to_string).unwrap_or_default(),
        lease: common.cluster.election_id.clone(),
        identity: pod.name.to_string(),
        ttl: common.cluster.election_ttl,
    }
}

/// Whether nothing is to be told that was not told before.
fn same(last: &View, now: &View) -> bool {
    let shared = |a: &Option<Arc<ProxyConfig>>, b: &Option<Arc<ProxyConfig>>| match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => a.is_none() && b.is_none(),
    };
    let snapshots = last.snapshot.as_ref().zip(now.snapshot.as_ref());
    snapshots.is_some_and(|(a, b)| Arc::ptr_eq(a, b))
        && shared(&last.config, &now.config)
        && shared(&last.in_force, &now.in_force)
        && last.held == now.held
        && last.problems == now.problems
}

/// A digest of what translation reads of an Ingress.
fn content(ingress: &Ingress) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&ingress.spec).unwrap_or_default().hash(&mut hasher);
    ingress.metadata.annotations.hash(&mut hasher);
    hasher.finish()
}
