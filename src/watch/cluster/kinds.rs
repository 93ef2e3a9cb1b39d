//! The kinds that are watched: what is kept of an object, and which of its updates matter.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::Resource;
use serde::de::DeserializeOwned;

use super::FIELD_MANAGER;
use super::tables::{Table, Tables};
use crate::problem::Kind;
use crate::snapshot::TlsSecret;

/// A kind that is watched: what is kept of an object, and when an update matters.
pub(super) trait Watched:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
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
