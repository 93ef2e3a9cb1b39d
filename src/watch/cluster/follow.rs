//! The watches: what arrives, goes, or is refused, as it changes the tables.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{Api, Resource};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Client, ResourceExt as _};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::kinds::Watched;
use super::tables::{Entry, Listing, OUT_OF_FORCE_AFTER, Scope, Table};
use super::{Options, Shared};
use crate::problem::{Kind, Problem, Reason, Severity, Subject};
use crate::value::Value as _;
use crate::value::reference::{Name, ObjectName};

/// Types of Secret that no Ingress can use: they are not even sent to us.
const USELESS_SECRETS: [&str; 5] = [
    "helm.sh/release.v1",
    "kubernetes.io/service-account-token",
    "kubernetes.io/dockerconfigjson",
    "kubernetes.io/dockercfg",
    "bootstrap.kubernetes.io/token",
];

/// Starts to watch all that a cluster is asked for.
pub(super) fn everything(client: &Client, shared: &Arc<Shared>, options: &Options) -> JoinSet<()> {
    let mut watches = Watches { client, shared, set: JoinSet::new() };
    watches.whole::<IngressClass>(Api::all(client.clone()), watcher::Config::default());
    if let Some(selector) = &options.namespace_selector {
        watches.whole::<Namespace>(Api::all(client.clone()), watcher::Config::default().labels(selector));
    }
    watches.everywhere::<Ingress>(options, "");
    watches.everywhere::<Service>(options, "");
    watches.everywhere::<EndpointSlice>(options, "");
    watches.everywhere::<ConfigMap>(options, "");
    let useful: Vec<String> = USELESS_SECRETS.iter().map(|kind| format!("type!={kind}")).collect();
    watches.everywhere::<Secret>(options, &useful.join(","));
    for (kind, object) in &options.always {
        watches.one(options, *kind, object);
    }
    watches.set
}

/// Starts the watches of a [`Cluster`](super::Cluster).
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
    let watch = || watcher(api.clone(), config.clone()).default_backoff().boxed();
    let mut events = watch();
    let mut pauses = DefaultBackoff::default();
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
            Err(error) => {
                fail(&shared, &scope, &error);
                // Who comes back may have been restored from a backup: a watch that goes on at the version it knows
                // would be told of nothing, and the objects that the backup lacks would stay for ever.
                if lost(&error) {
                    tokio::time::sleep(pauses.next().unwrap_or_default()).await;
                    events = watch();
                }
            }
        }
    }
}

/// Whether the API server could not be reached, or went away, rather than answered.
fn lost(error: &watcher::Error) -> bool {
    matches!(
        error,
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) if !matches!(error, kube::Error::Api(_))
    )
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
    if first && !tables.scopes.values().any(|listing| listing.blocks(Instant::now())) {
        let (ingresses, services, secrets) =
            (tables.ingresses.objects.len(), tables.services.objects.len(), tables.secrets.objects.len());
        tracing::info!(ingresses, services, secrets, "everything is listed");
    }
    drop(tables);
    if changed {
        shared.wake();
    }
}

/// Notes why a scope cannot be listed. A scope that was listed once keeps its objects, whatever happens, and one that is
/// out of force stays so.
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
        // Out of force it stays, until it is listed: an API server that is away must not hold up the others again.
        Listing::Refused { .. } if !refusal && !listing.blocks(Instant::now()) => return,
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
