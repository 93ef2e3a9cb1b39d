//! The objects of the API server: one kube `watcher` per kind and scope, kept in sorted tables.
//!
//! kube's own `Store` is not used, because three things must happen on arrival and not at every snapshot: Secrets are
//! parsed once per resourceVersion and their bytes dropped, managedFields and the like are cut, and an update that
//! changes nothing we read (a status, a heartbeat) wakes nobody. What stays as in kube's reflector: a relist replaces
//! the table at its end and never before, so an expired watch or an API server that is gone removes nothing.
//!
//! Nothing here decides what an object means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{Api, Resource};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Config, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::problem::{Kind, Problem, Reason, Severity, Subject};
use crate::snapshot::{Origin, Snapshot, TlsSecret};
use crate::value::Value as _;
use crate::value::reference::{Name, ObjectName};

/// The field manager of everything we write; an Ingress keeps, of its managedFields, only ours of the status.
pub const FIELD_MANAGER: &str = "coxswain";

/// How long a watched namespace may refuse us before the others are served without it.
const OUT_OF_FORCE_AFTER: Duration = Duration::from_secs(30);

/// Types of Secret that no Ingress can use: they are not even sent to us.
const USELESS_SECRETS: [&str; 5] = [
    "helm.sh/release.v1",
    "kubernetes.io/service-account-token",
    "kubernetes.io/dockerconfigjson",
    "kubernetes.io/dockercfg",
    "bootstrap.kubernetes.io/token",
];

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
        let mut watches = Watches { client, shared: &shared, set: JoinSet::new() };
        watches.whole::<IngressClass>(Api::all(client.clone()), watcher::Config::default());
        if let Some(selector) = &options.namespace_selector {
            watches.whole::<Namespace>(Api::all(client.clone()), watcher::Config::default().labels(selector));
        }
        watches.everywhere::<Ingress>(&options, "");
        watches.everywhere::<Service>(&options, "");
        watches.everywhere::<EndpointSlice>(&options, "");
        watches.everywhere::<ConfigMap>(&options, "");
        let useful: Vec<String> = USELESS_SECRETS.iter().map(|kind| format!("type!={kind}")).collect();
        watches.everywhere::<Secret>(&options, &useful.join(","));
        for (kind, object) in &options.always {
            watches.one(&options, *kind, object);
        }
        let set = watches.set;
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

/// Everything that is known.
#[derive(Default)]
struct Tables {
    scopes: BTreeMap<Scope, Listing>,
    config_maps: Table<ConfigMap>,
    endpoint_slices: Table<EndpointSlice>,
    ingress_classes: Table<IngressClass>,
    ingresses: Table<Ingress>,
    namespaces: Table<Namespace>,
    secrets: Table<TlsSecret>,
    services: Table<Service>,
}

impl Tables {
    fn snapshot(&self, selects: bool, now: Instant) -> Snapshot {
        let in_force = |name: &ObjectName| {
            !selects
                || name.namespace.as_ref().is_none_or(|namespace| {
                    self.namespaces.objects.contains_key(&ObjectName::cluster(namespace.clone()))
                })
        };
        let classes_unreadable = matches!(
            self.scopes.get(&Scope::whole(Kind::IngressClass)),
            Some(Listing::Refused { .. } | Listing::Failing { .. })
        );
        let mut problems = Vec::new();
        for table in [
            &self.config_maps.malformed,
            &self.endpoint_slices.malformed,
            &self.ingress_classes.malformed,
            &self.ingresses.malformed,
            &self.secrets.malformed,
            &self.services.malformed,
        ] {
            problems.extend(table.iter().filter(|(name, _)| in_force(name)).map(|(_, problem)| problem.clone()));
        }
        let refused = self.scopes.iter().filter_map(|(scope, listing)| listing.out_of_force(scope, now));
        problems.extend(refused);
        problems.sort();
        problems.dedup();
        Snapshot {
            ingresses: self.ingresses.view(in_force),
            ingress_classes: (!classes_unreadable).then(|| self.ingress_classes.view(|_| true)),
            services: self.services.view(in_force),
            endpoint_slices: self.endpoint_slices.view(in_force),
            secrets: self.secrets.view(in_force),
            config_maps: self.config_maps.view(in_force),
            origin: Origin::Cluster,
            problems,
            generated_certificate: None,
        }
    }
}

/// The objects of one kind, by name.
struct Table<V> {
    objects: BTreeMap<ObjectName, Entry<V>>,
    malformed: BTreeMap<ObjectName, Problem>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), malformed: BTreeMap::new() }
    }
}

impl<V> Table<V> {
    fn view(&self, in_force: impl Fn(&ObjectName) -> bool) -> BTreeMap<ObjectName, Arc<V>> {
        let entries = self.objects.iter().filter(|(name, _)| in_force(name));
        entries.map(|(name, entry)| (name.clone(), Arc::clone(&entry.object))).collect()
    }
}

struct Entry<V> {
    version: Option<String>,
    object: Arc<V>,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self { version: self.version.clone(), object: Arc::clone(&self.object) }
    }
}

/// One watch: a kind, in one namespace or in all, perhaps one object of it (for EndpointSlices: those of one Service).
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Scope {
    kind: Kind,
    namespace: Option<Name>,
    object: Option<Name>,
}

impl Scope {
    fn whole(kind: Kind) -> Self {
        Self { kind, namespace: None, object: None }
    }
}

/// How far a watch got.
enum Listing {
    /// Not answered yet.
    Pending,
    /// Listed completely at least once; later failures remove nothing.
    Listed,
    /// Never listed, and refused (403 or 404), which the others may be served without after a while.
    Refused { since: Instant, why: String, tolerable: bool },
    /// Never listed, and failing in another way.
    Failing { why: String },
}

impl Listing {
    /// Whether nothing may be rendered yet because of this.
    fn blocks(&self, now: Instant) -> bool {
        match self {
            Self::Listed => false,
            Self::Refused { since, tolerable, .. } => !tolerable || now.duration_since(*since) < OUT_OF_FORCE_AFTER,
            Self::Pending | Self::Failing { .. } => true,
        }
    }

    fn sentence(&self, scope: &Scope) -> String {
        let place = scope.namespace.as_ref().map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
        match self {
            Self::Pending | Self::Listed => format!("{}s{place} are being listed", scope.kind),
            Self::Refused { why, .. } | Self::Failing { why } => {
                format!("{}s{place} cannot be listed: {why}", scope.kind)
            }
        }
    }

    fn out_of_force(&self, scope: &Scope, now: Instant) -> Option<Problem> {
        let Self::Refused { why, .. } = self else { return None };
        let namespace = scope.namespace.clone().filter(|_| !self.blocks(now))?;
        Some(Problem {
            subject: Subject { kind: Kind::Namespace, object: ObjectName::cluster(namespace), uid: None },
            field: String::new(),
            severity: Severity::Degraded,
            reason: Reason::NamespaceUnreadable,
            message: format!(
                "{}s of this namespace cannot be listed ({why}), although it is to be watched",
                scope.kind
            ),
            effect: "its Ingresses are not served until that works; all other namespaces are".to_owned(),
        })
    }
}

/// A kind that is watched: what is kept of an object, and when an update matters.
trait Watched: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {
    const KIND: Kind;
    type Kept: Send + Sync + 'static;

    /// What is kept. Called once per resourceVersion.
    fn keep(self) -> Self::Kept;

    /// Whether translation cannot tell the two apart.
    fn same(old: &Self::Kept, new: &Self::Kept) -> bool;

    fn table(tables: &mut Tables) -> &mut Table<Self::Kept>;
}

impl Watched for Ingress {
    const KIND: Kind = Kind::Ingress;
    type Kept = Self;

    fn keep(mut self) -> Self {
        // Whether the status is ours decides if it must be removed one day; nothing else of managedFields is read.
        let ours = self.metadata.managed_fields.take().into_iter().flatten().filter(|entry| {
            entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.subresource.as_deref() == Some("status")
        });
        let ours: Vec<_> = ours.map(|mut entry| (entry.fields_v1.take(), entry).1).collect();
        self.metadata.managed_fields = (!ours.is_empty()).then_some(ours);
        self
    }

    fn same(old: &Self, new: &Self) -> bool {
        let meta = |ingress: &Self| {
            let m = &ingress.metadata;
            (m.uid.clone(), m.creation_timestamp.clone(), m.annotations.clone(), m.deletion_timestamp.is_some())
        };
        old.spec == new.spec && meta(old) == meta(new)
    }

    fn table(tables: &mut Tables) -> &mut Table<Self> {
        &mut tables.ingresses
    }
}

impl Watched for IngressClass {
    const KIND: Kind = Kind::IngressClass;
    type Kept = Self;

    fn keep(mut self) -> Self {
        self.metadata.managed_fields = None;
        self
    }

    fn same(old: &Self, new: &Self) -> bool {
        old.spec == new.spec && old.metadata.annotations == new.metadata.annotations
    }

    fn table(tables: &mut Tables) -> &mut Table<Self> {
        &mut tables.ingress_classes
    }
}

impl Watched for Service {
    const KIND: Kind = Kind::Service;
    type Kept = Self;

    fn keep(mut self) -> Self {
        self.metadata.managed_fields = None;
        self
    }

    /// The status counts: `--publish-service` publishes it.
    fn same(old: &Self, new: &Self) -> bool {
        old.spec == new.spec && old.status == new.status && old.metadata.annotations == new.metadata.annotations
    }

    fn table(tables: &mut Tables) -> &mut Table<Self> {
        &mut tables.services
    }
}

impl Watched for EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;
    type Kept = Self;

    fn keep(mut self) -> Self {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
        for endpoint in &mut self.endpoints {
            endpoint.target_ref = None;
            endpoint.node_name = None;
        }
        self
    }

    fn same(old: &Self, new: &Self) -> bool {
        old.endpoints == new.endpoints
            && old.ports == new.ports
            && old.address_type == new.address_type
            && old.metadata.labels == new.metadata.labels
    }

    fn table(tables: &mut Tables) -> &mut Table<Self> {
        &mut tables.endpoint_slices
    }
}

impl Watched for ConfigMap {
    const KIND: Kind = Kind::ConfigMap;
    type Kept = Self;

    fn keep(mut self) -> Self {
        self.metadata.managed_fields = None;
        self
    }

    fn same(old: &Self, new: &Self) -> bool {
        old.data == new.data && old.binary_data == new.binary_data
    }

    fn table(tables: &mut Tables) -> &mut Table<Self> {
        &mut tables.config_maps
    }
}

impl Watched for Secret {
    const KIND: Kind = Kind::Secret;
    type Kept = TlsSecret;

    fn keep(self) -> TlsSecret {
        TlsSecret::parse(&self)
    }

    fn same(old: &TlsSecret, new: &TlsSecret) -> bool {
        old == new
    }

    fn table(tables: &mut Tables) -> &mut Table<TlsSecret> {
        &mut tables.secrets
    }
}

impl Watched for Namespace {
    const KIND: Kind = Kind::Namespace;
    type Kept = Self;

    /// Only its existence matters.
    fn keep(self) -> Self {
        Self::default()
    }

    fn same(_: &Self, _: &Self) -> bool {
        true
    }

    fn table(tables: &mut Tables) -> &mut Table<Self> {
        &mut tables.namespaces
    }
}

/// Starts the watches of a [`Cluster`].
struct Watches<'a> {
    client: &'a Client,
    shared: &'a Arc<Shared>,
    set: JoinSet<()>,
}

impl Watches<'_> {
    /// All objects of a kind, whatever their namespace.
    fn whole<K: Watched>(&mut self, api: Api<DeserializeGuard<K>>, config: watcher::Config) {
        self.spawn(Scope::whole(K::KIND), api, config);
    }

    /// All objects of a namespaced kind, in the namespaces in force.
    fn everywhere<K: Watched + Resource<Scope = NamespaceResourceScope>>(&mut self, options: &Options, fields: &str) {
        let config = watcher::Config::default().fields(fields);
        if options.namespaces.is_empty() {
            self.whole::<K>(Api::all(self.client.clone()), config);
            return;
        }
        for namespace in &options.namespaces {
            let api = Api::namespaced(self.client.clone(), namespace.as_str());
            let scope = Scope { kind: K::KIND, namespace: Some(namespace.clone()), object: None };
            self.spawn::<K>(scope, api, config.clone());
        }
    }

    /// One object, unless its namespace is watched anyway.
    fn one(&mut self, options: &Options, kind: Kind, object: &ObjectName) {
        let Some(namespace) = &object.namespace else { return };
        if options.namespaces.is_empty() || options.namespaces.contains(namespace) {
            return;
        }
        match kind {
            Kind::ConfigMap => self.named::<ConfigMap>(namespace, &object.name),
            Kind::Secret => self.named::<Secret>(namespace, &object.name),
            Kind::Service => {
                self.named::<Service>(namespace, &object.name);
                let scope = Scope {
                    kind: Kind::EndpointSlice,
                    namespace: Some(namespace.clone()),
                    object: Some(object.name.clone()),
                };
                let labels = format!("kubernetes.io/service-name={}", object.name);
                let api = Api::namespaced(self.client.clone(), namespace.as_str());
                self.spawn::<EndpointSlice>(scope, api, watcher::Config::default().labels(&labels));
            }
            _ => {}
        }
    }

    fn named<K: Watched + Resource<Scope = NamespaceResourceScope>>(&mut self, namespace: &Name, name: &Name) {
        let scope = Scope { kind: K::KIND, namespace: Some(namespace.clone()), object: Some(name.clone()) };
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        self.spawn::<K>(scope, Api::namespaced(self.client.clone(), namespace.as_str()), config);
    }

    fn spawn<K: Watched>(&mut self, scope: Scope, api: Api<DeserializeGuard<K>>, config: watcher::Config) {
        if self.shared.tables().scopes.insert(scope.clone(), Listing::Pending).is_some() {
            return;
        }
        self.set.spawn(follow::<K>(Arc::clone(self.shared), scope, api, config));
    }
}

/// Keeps one scope up to date, for ever.
async fn follow<K: Watched>(shared: Arc<Shared>, scope: Scope, api: Api<DeserializeGuard<K>>, config: watcher::Config) {
    let mut events = watcher(api, config).default_backoff().boxed();
    // What this watch brought: what a relist does not bring again is gone.
    let mut mine = BTreeSet::new();
    let mut listed: Table<K::Kept> = Table::default();
    loop {
        match events.try_next().await {
            Ok(Some(Event::Init)) => listed = Table::default(),
            Ok(Some(Event::InitApply(object))) => {
                let known = known::<K>(&shared, &object);
                arrive::<K>(&mut listed, object, known);
            }
            Ok(Some(Event::InitDone)) => {
                let listed = std::mem::take(&mut listed);
                let names = listed.objects.keys().chain(listed.malformed.keys()).cloned().collect();
                let before = std::mem::replace(&mut mine, names);
                replace::<K>(&shared, &scope, listed, &before, &mine);
            }
            Ok(Some(Event::Apply(object))) => {
                mine.extend(object_name(&object));
                apply::<K>(&shared, object);
            }
            Ok(Some(Event::Delete(object))) => {
                if let Some(name) = object_name(&object) {
                    mine.remove(&name);
                    delete::<K>(&shared, &name);
                }
            }
            Ok(None) => return,
            Err(error) => fail(&shared, &scope, &error),
        }
    }
}

/// The kept form of an object that has not changed since: a relist must not parse all Secrets again.
fn known<K: Watched>(shared: &Shared, object: &DeserializeGuard<K>) -> Option<Entry<K::Kept>> {
    let name = object_name(object)?;
    let mut tables = shared.tables();
    let entry = K::table(&mut tables).objects.get(&name)?;
    (entry.version.is_some() && entry.version == object.resource_version()).then(|| entry.clone())
}

/// Puts an object into a table. Returns whether translation can tell.
fn arrive<K: Watched>(table: &mut Table<K::Kept>, object: DeserializeGuard<K>, known: Option<Entry<K::Kept>>) -> bool {
    let Some(name) = object_name(&object) else { return false };
    let version = object.resource_version();
    let uid = object.uid();
    let entry = match (known, object.0) {
        (Some(entry), Ok(_)) => entry,
        (None, Ok(object)) => Entry { version, object: Arc::new(object.keep()) },
        (_, Err(invalid)) => {
            let problem = malformed(K::KIND, &name, uid, &invalid.error);
            table.objects.remove(&name);
            return table.malformed.insert(name, problem.clone()).as_ref() != Some(&problem);
        }
    };
    let mended = table.malformed.remove(&name).is_some();
    let new = Arc::clone(&entry.object);
    let old = table.objects.insert(name, entry);
    mended || old.is_none_or(|old| !K::same(&old.object, &new))
}

fn apply<K: Watched>(shared: &Shared, object: DeserializeGuard<K>) {
    let known = known::<K>(shared, &object);
    // Parsing (Secrets) happens under the lock only for the one object that changed.
    let changed = arrive::<K>(K::table(&mut shared.tables()), object, known);
    if changed {
        shared.wake();
    }
    if matches!(K::KIND, Kind::Ingress | Kind::Service) {
        shared.touched.send_modify(|n| *n += 1);
    }
}

fn delete<K: Watched>(shared: &Shared, name: &ObjectName) {
    let mut tables = shared.tables();
    let table = K::table(&mut tables);
    let gone = table.objects.remove(name).is_some() | table.malformed.remove(name).is_some();
    drop(tables);
    if gone {
        shared.wake();
    }
}

/// Ends a listing: what it did not bring again is gone, what is the same stays the same.
fn replace<K: Watched>(
    shared: &Shared,
    scope: &Scope,
    listed: Table<K::Kept>,
    before: &BTreeSet<ObjectName>,
    now: &BTreeSet<ObjectName>,
) {
    let mut tables = shared.tables();
    let first = !matches!(tables.scopes.insert(scope.clone(), Listing::Listed), Some(Listing::Listed));
    let table = K::table(&mut tables);
    let mut changed = first;
    for name in before.difference(now) {
        changed |= table.objects.remove(name).is_some() | table.malformed.remove(name).is_some();
    }
    for (name, entry) in listed.objects {
        changed |= table.malformed.remove(&name).is_some();
        let new = Arc::clone(&entry.object);
        let old = table.objects.insert(name, entry);
        changed |= old.is_none_or(|old| !K::same(&old.object, &new));
    }
    for (name, problem) in listed.malformed {
        changed |= table.objects.remove(&name).is_some();
        changed |= table.malformed.insert(name, problem.clone()).as_ref() != Some(&problem);
    }
    drop(tables);
    if changed {
        shared.wake();
    }
}

/// Notes why a scope cannot be listed. A scope that was listed once keeps its objects, whatever happens.
fn fail(shared: &Arc<Shared>, scope: &Scope, error: &watcher::Error) {
    let why = error.to_string();
    let refusal = refusal(error);
    let mut tables = shared.tables();
    let listing = tables.scopes.entry(scope.clone()).or_insert(Listing::Pending);
    let since = match listing {
        Listing::Listed => {
            tracing::warn!(kind = %scope.kind, error = %why, "a watch failed; the objects known so far stay in force");
            return;
        }
        Listing::Refused { since, .. } => Some(*since),
        Listing::Pending | Listing::Failing { .. } => None,
    };
    let new = since.is_none();
    // Cluster-scoped kinds are a matter of Roles: where only some namespaces are watched, one can do without.
    let tolerable = shared.namespaced;
    *listing = if refusal {
        // Without IngressClasses nobody need wait: Ingresses are matched by the name of their class.
        let patience = if scope.namespace.is_none() && tolerable { OUT_OF_FORCE_AFTER } else { Duration::ZERO };
        let start = since.or_else(|| Instant::now().checked_sub(patience)).unwrap_or_else(Instant::now);
        Listing::Refused { since: start, why: why.clone(), tolerable }
    } else {
        Listing::Failing { why: why.clone() }
    };
    let sentence = listing.sentence(scope);
    drop(tables);
    if new {
        tracing::warn!("{sentence}");
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            shared.wake();
            tokio::time::sleep(OUT_OF_FORCE_AFTER).await;
            shared.wake();
        });
    }
}

/// 403 and 404 are answers about us, not about the state of the API server.
fn refusal(error: &watcher::Error) -> bool {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        _ => return false,
    };
    status.is_forbidden() || status.is_not_found()
}

fn object_name<K: Watched>(object: &DeserializeGuard<K>) -> Option<ObjectName> {
    let name = Name::parse(object.meta().name.as_deref()?).ok()?;
    match object.meta().namespace.as_deref() {
        Some(namespace) => Some(ObjectName::new(Name::parse(namespace).ok()?, name)),
        None => Some(ObjectName::cluster(name)),
    }
}

fn malformed(kind: Kind, name: &ObjectName, uid: Option<String>, error: &str) -> Problem {
    Problem {
        subject: Subject { kind, object: name.clone(), uid },
        field: String::new(),
        severity: Severity::Rejected,
        reason: Reason::MalformedObject,
        message: format!("does not fit its kind: {}", crate::value::shown(error)),
        effect: "it is left out; everything else is served".to_owned(),
    }
}

/// How to reach the cluster: by this kubeconfig, else as kubectl would, else by the Pod's own account.
///
/// # Errors
/// Neither is there, or what is there cannot be used.
pub async fn config(kubeconfig: Option<&Path>) -> anyhow::Result<Config> {
    let Some(path) = kubeconfig else {
        return Config::infer()
            .await
            .context("looking for a cluster: there is neither a kubeconfig nor a Pod's account");
    };
    let read = Kubeconfig::read_from(path).with_context(|| format!("reading the kubeconfig {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    config.with_context(|| format!("using the kubeconfig {}", path.display()))
}
