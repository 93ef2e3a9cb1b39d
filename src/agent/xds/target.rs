//! What Envoy shall hold: the resources of one release, read from the volume.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, address};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use prost::Message;

use super::kind::Kind;
use crate::volume::{Certificates, release};

/// The kinds that lie in a release, and in which file.
const FILES: [(Kind, &str); 3] =
    [(Kind::Cluster, release::CLUSTERS), (Kind::Listener, release::LISTENERS), (Kind::Routes, release::ROUTES)];

/// The resources of one release. Nothing at all by default.
#[derive(Clone, Debug, Default)]
pub struct Target {
    resources: BTreeMap<Kind, BTreeMap<String, Arc<Resource>>>,
    /// By cluster: under which name Envoy asks for its endpoints.
    services: BTreeMap<String, String>,
    /// Which certificate is shown for which server name.
    pub certificates: Certificates,
}

impl Target {
    /// Reads the release in `folder`. What `former` holds as well is shared with it.
    pub fn read(folder: &Path, former: &Self) -> anyhow::Result<Self> {
        let mut target = Self::default();
        for (kind, file) in FILES {
            let what = || format!("reading {}", folder.join(file).display());
            let bytes = fs::read(folder.join(file)).with_context(what)?;
            let response = DeltaDiscoveryResponse::decode(bytes.as_slice()).with_context(what)?;
            let (is, shall) = (&response.type_url, kind.type_url());
            ensure!(is == shall, "reading {}: it holds {is:?} and not {shall:?}", folder.join(file).display());
            for resource in response.resources {
                target.add(kind, resource, former).with_context(what)?;
            }
        }
        let path = folder.join(release::CERTIFICATES);
        let what = || format!("reading {}", path.display());
        target.certificates = serde_json::from_slice(&fs::read(&path).with_context(what)?).with_context(what)?;
        Ok(target)
    }

    fn add(&mut self, kind: Kind, resource: Resource, former: &Self) -> anyhow::Result<()> {
        let name = resource.name.clone();
        let same = former.resource(kind, &name).filter(|same| same.version == resource.version);
        if kind == Kind::Cluster {
            let service = match same {
                Some(_) => former.services.get(&name).cloned(),
                None => service(&resource)?,
            };
            self.services.extend(service.map(|service| (name.clone(), service)));
        }
        let resource = same.cloned().unwrap_or_else(|| Arc::new(resource));
        self.resources.entry(kind).or_default().insert(name, resource);
        Ok(())
    }

    /// The resource of this kind and name.
    pub fn resource(&self, kind: Kind, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&kind)?.get(name)
    }

    /// The names of all resources of this kind, in order.
    pub fn names(&self, kind: Kind) -> impl Iterator<Item = &String> {
        self.resources.get(&kind).into_iter().flat_map(BTreeMap::keys)
    }

    /// The names under which Envoy asks for endpoints.
    pub fn services(&self) -> impl Iterator<Item = &String> {
        self.services.values()
    }

    /// The name under which it asks for the endpoints of one cluster.
    pub fn service(&self, kind: Kind, name: &str) -> Option<&String> {
        if kind == Kind::Cluster { self.services.get(name) } else { None }
    }

    /// Where the listeners listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let listeners = self.resources.get(&Kind::Listener).into_iter().flat_map(BTreeMap::values);
        listeners.flat_map(|listener| addresses(listener)).collect()
    }

    /// What `old` has not or has otherwise, and what only `old` has.
    pub fn differences(&self, old: &Self, kind: Kind) -> Vec<String> {
        let version = |target: &Self, name: &str| target.resource(kind, name).map(|resource| resource.version.clone());
        let changed = self.names(kind).filter(|name| version(self, name) != version(old, name));
        let gone = old.names(kind).filter(|name| self.resource(kind, name).is_none());
        changed.chain(gone).cloned().collect()
    }
}

/// The name under which Envoy asks for the endpoints of a cluster; `None` if it does not ask.
fn service(resource: &Resource) -> anyhow::Result<Option<String>> {
    let any = resource.resource.as_ref().with_context(|| format!("cluster {} is empty", resource.name))?;
    let cluster = Cluster::decode(any.value.as_slice()).with_context(|| format!("cluster {}", resource.name))?;
    if cluster.cluster_discovery_type != Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())) {
        return Ok(None);
    }
    let named = cluster.eds_cluster_config.map(|config| config.service_name).filter(|name| !name.is_empty());
    Ok(Some(named.unwrap_or(cluster.name)))
}

/// Where a listener listens, as far as these are ports.
fn addresses(resource: &Resource) -> Vec<SocketAddr> {
    let listener = resource.resource.as_ref().and_then(|any| Listener::decode(any.value.as_slice()).ok());
    let Some(listener) = listener else { return vec![] };
    let further = listener.additional_addresses.into_iter().filter_map(|additional| additional.address);
    listener.address.into_iter().chain(further).filter_map(socket).collect()
}

fn socket(address: Address) -> Option<SocketAddr> {
    let address::Address::SocketAddress(at) = address.address? else { return None };
    let PortSpecifier::PortValue(port) = at.port_specifier? else { return None };
    Some(SocketAddr::new(at.address.parse().ok()?, u16::try_from(port).ok()?))
}

#[cfg(test)]
impl Target {
    /// One that holds these, each with this version; a cluster asks for endpoints under its own name.
    pub fn of(resources: &[(Kind, &str, &str)]) -> Self {
        let mut target = Self::default();
        for (kind, name, version) in resources {
            let (name, version) = ((*name).to_owned(), (*version).to_owned());
            if *kind == Kind::Cluster {
                target.services.insert(name.clone(), name.clone());
            }
            let resource = Resource { name: name.clone(), version, ..Resource::default() };
            target.resources.entry(*kind).or_default().insert(name, Arc::new(resource));
        }
        target
    }
}
