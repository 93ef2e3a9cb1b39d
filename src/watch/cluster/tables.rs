//! What is known: the objects of each kind, and how far each listing got.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use tokio::time::Instant;

use crate::problem::{Kind, Problem, Reason, Severity, Subject};
use crate::snapshot::{Origin, Snapshot, TlsSecret};
use crate::value::reference::{Name, ObjectName};

/// How long a watched namespace may refuse us before the others are served without it.
pub(super) const OUT_OF_FORCE_AFTER: Duration = Duration::from_secs(30);

/// Everything that is known.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) scopes: BTreeMap<Scope, Listing>,
    pub(super) config_maps: Table<ConfigMap>,
    pub(super) endpoint_slices: Table<EndpointSlice>,
    pub(super) ingress_classes: Table<IngressClass>,
    pub(super) ingresses: Table<Ingress>,
    pub(super) namespaces: Table<Namespace>,
    pub(super) secrets: Table<TlsSecret>,
    pub(super) services: Table<Service>,
}

impl Tables {
    pub(super) fn snapshot(&self, selects: bool, now: Instant) -> Snapshot {
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
pub(super) struct Table<V> {
    pub(super) objects: BTreeMap<ObjectName, Entry<V>>,
    pub(super) malformed: BTreeMap<ObjectName, Problem>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), malformed: BTreeMap::new() }
    }
}

impl<V> Table<V> {
    pub(super) fn view(&self, in_force: impl Fn(&ObjectName) -> bool) -> BTreeMap<ObjectName, Arc<V>> {
        let entries = self.objects.iter().filter(|(name, _)| in_force(name));
        entries.map(|(name, entry)| (name.clone(), Arc::clone(&entry.object))).collect()
    }
}

pub(super) struct Entry<V> {
    pub(super) version: Option<String>,
    pub(super) object: Arc<V>,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self { version: self.version.clone(), object: Arc::clone(&self.object) }
    }
}

/// One watch: a kind, in one namespace or in all, perhaps one object of it (for EndpointSlices: those of one Service).
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Scope {
    pub(super) kind: Kind,
    pub(super) namespace: Option<Name>,
    pub(super) object: Option<Name>,
}

impl Scope {
    pub(super) fn whole(kind: Kind) -> Self {
        Self { kind, namespace: None, object: None }
    }

    /// What is listed, in words.
    fn plural(&self) -> String {
        let kind = self.kind.to_string();
        if kind.ends_with('s') { kind + "es" } else { kind + "s" }
    }
}

/// How far a watch got.
pub(super) enum Listing {
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
    pub(super) fn blocks(&self, now: Instant) -> bool {
        match self {
            Self::Listed => false,
            Self::Refused { since, tolerable, .. } => !tolerable || now.duration_since(*since) < OUT_OF_FORCE_AFTER,
            Self::Pending | Self::Failing { .. } => true,
        }
    }

    pub(super) fn sentence(&self, scope: &Scope) -> String {
        let place = scope.namespace.as_ref().map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
        match self {
            Self::Pending | Self::Listed => format!("{}{place} are being listed", scope.plural()),
            Self::Refused { why, .. } | Self::Failing { why } => {
                format!("{}{place} cannot be listed: {why}", scope.plural())
            }
        }
    }

    pub(super) fn out_of_force(&self, scope: &Scope, now: Instant) -> Option<Problem> {
        let Self::Refused { why, .. } = self else { return None };
        let namespace = scope.namespace.clone().filter(|_| !self.blocks(now))?;
        Some(Problem {
            subject: Subject { kind: Kind::Namespace, object: ObjectName::cluster(namespace), uid: None },
            field: String::new(),
            severity: Severity::Degraded,
            reason: Reason::NamespaceUnreadable,
            message: format!(
                "{} of this namespace cannot be listed ({why}), although it is to be watched",
                scope.plural()
            ),
            effect: "its Ingresses are not served until that works; all other namespaces are".to_owned(),
        })
    }
}
