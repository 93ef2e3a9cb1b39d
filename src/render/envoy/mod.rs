//! Envoy: resources that the agent serves it, so that a change is a push and never a reload.
//!
//! [`bootstrap`] is what Envoy is started with, [`cluster`] an upstream. Endpoints and certificates are told by the agent
//! from `live/`. Resources are typed values all the way; what is text in them that Envoy looks into (formats, expressions)
//! is made in one place each.
//!
//! Equal models give equal bytes: no map in a resource has more than one entry, because prost has no order for them.

mod bootstrap;
mod cluster;
mod resources;

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::{AggregatedConfigSource, ApiVersion, ConfigSource};
use envoy_types::pb::google::protobuf::{Duration, UInt32Value};

use super::manifest::manifest;
use super::release::{File, RelativePath, Release};
use super::site::{self, Site};
use super::{RenderError, Rendering, SourceMap};
use crate::model::{ProxyConfig, SlotId};
use crate::problem::Subject;
use crate::value::host::HostMatch;
use crate::value::number::Seconds;
use crate::volume::{Certificates, ProxyKind};
use resources::Resources;

/// Renders all of a configuration.
pub(super) fn render(config: &ProxyConfig) -> Result<Rendering, RenderError> {
    whole(config, &site::all(config))
}

/// Renders what holds for all and what these objects bring.
pub(super) fn render_trial(config: &ProxyConfig, suspects: &BTreeSet<Subject>) -> Result<Rendering, RenderError> {
    whole(config, &site::of(config, suspects))
}

fn whole(config: &ProxyConfig, sites: &[Site<'_>]) -> Result<Rendering, RenderError> {
    let mut source_map = SourceMap::default();
    let clusters = Resources::new::<Cluster>(cluster::all(config, &cluster::uses(sites)));
    let files = BTreeMap::from([
        (RelativePath::BOOTSTRAP, File::public(bootstrap::text()?)),
        (RelativePath::CERTIFICATES, File::public(certificates(sites))),
        (RelativePath::CLUSTERS, clusters.file(&RelativePath::CLUSTERS, &mut source_map)),
    ]);
    let release = Release::new(files, None, manifest(config, ProxyKind::Envoy, sites, None));
    Ok(Rendering { release, problems: Vec::new(), source_map })
}

/// The slot of each name.
fn certificates(sites: &[Site<'_>]) -> Vec<u8> {
    let mut certificates = Certificates { default: SlotId::default_slot().to_string(), ..Certificates::default() };
    for site in sites {
        let Some(slot) = &site.host.tls else { continue };
        match &site.host.host {
            HostMatch::Exact(name) => drop(certificates.exact.insert(name.to_string(), slot.to_string())),
            HostMatch::Wildcard(parent) => drop(certificates.wildcard.insert(parent.to_string(), slot.to_string())),
            HostMatch::Any => {}
        }
    }
    serde_json::json!(certificates).to_string().into_bytes()
}

/// The agent, over the stream of all resources.
fn from_agent() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource::default())),
        // Without an answer nothing is served, rather than something else.
        initial_fetch_timeout: Some(Duration::default()),
        ..ConfigSource::default()
    }
}

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn seconds(seconds: Seconds) -> Duration {
    Duration { seconds: seconds.get().into(), nanos: 0 }
}
