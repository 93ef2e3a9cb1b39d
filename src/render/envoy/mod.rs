//! Envoy: resources that the agent serves it, so that a change is a push and never a reload.
//!
//! [`bootstrap`] is what Envoy is started with. A [`listener`] reads requests ([`manager`]), lets them pass its filters
//! ([`filter`]: [`headers`], the script at the edge) and looks into the one table of routes ([`hosts`]), where
//! [`content`] says what becomes of each route of ours; a [`cluster`] is an upstream. Endpoints and certificates come from
//! the agent, out of `live/`. [`mod@fixed`] is all of it in one file, for Envoy's own test.
//!
//! Resources are typed values all the way. What Envoy looks into for commands or expressions is made in one place each:
//! [`make::literal`], [`path`], [`expression`]. What it cannot do is told by [`problems`].
//!
//! Equal models give equal bytes: no map in a message has more than one entry, because prost writes maps in an order of
//! chance; [`route`] writes larger ones entry by entry.
//!
//! What nginx does and Envoy does otherwise, by nature: bodies are never collected before they are sent on, idle
//! connections to an upstream are kept without a limit of their number, an upstream with one endpoint is asked again
//! there, request headers are limited together and not one by one, and gRPC clients get our answers as a `grpc-status`.

mod access;
mod body_size;
mod bootstrap;
mod ciphers;
mod cluster;
mod content;
mod expression;
mod filter;
mod fixed;
mod headers;
mod hosts;
mod listener;
mod log;
mod make;
mod manager;
mod names;
mod path;
mod problems;
mod replies;
mod resources;
mod route;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use prost::Message as _;

use super::baseline::most_frequent;
use super::manifest::manifest;
use super::release::{File, RelativePath, Release};
use super::site::{self, Site};
use super::{RenderError, Rendering, SourceMap};
use crate::annotations::body_size::BodySize;
use crate::model::{Action, ProxyConfig, SlotId, UpstreamId};
use crate::problem::Subject;
use crate::value::host::HostMatch;
use crate::volume::{Certificates, ProxyKind};
use resources::{Named, Resources};

/// What all resources have in common, whichever hosts they are for.
struct Common<'a> {
    config: &'a ProxyConfig,
    log: log::Log<'a>,
    /// What the routes of the sites say of each upstream.
    uses: BTreeMap<&'a UpstreamId, cluster::Use<'a>>,
    /// The largest body for most routes.
    body_size: BodySize,
}

impl<'a> Common<'a> {
    fn new(config: &'a ProxyConfig, sites: &[Site<'a>]) -> Self {
        let routes = config.hosts.iter().flat_map(|host| &host.routes);
        let forwarded = routes.filter(|route| matches!(route.action, Action::Forward(_)));
        let body_size = most_frequent(forwarded.map(|route| route.policies.body_size.0)).map(BodySize);
        let log = log::Log::new(&config.globals.logging);
        Self { config, log, uses: cluster::uses(sites), body_size: body_size.unwrap_or_default() }
    }
}

/// Renders all of a configuration.
pub(super) fn render(config: &ProxyConfig) -> Result<Rendering, RenderError> {
    let sites = site::all(config);
    let common = Common::new(config, &sites);
    let mut source_map = SourceMap::default();
    let clusters = Resources::new::<Cluster>(cluster::all(&common));
    let listeners = Resources::new::<Listener>(listener::all(&common, &listener::Sources::Agent).map(named).into());
    let routes = Resources::new::<RouteConfiguration>(vec![hosts::table(&common, &sites)]);
    let files = BTreeMap::from([
        (RelativePath::BOOTSTRAP, File::public(bootstrap::text()?)),
        (RelativePath::CERTIFICATES, File::public(certificates(&sites))),
        (RelativePath::CLUSTERS, clusters.file(&RelativePath::CLUSTERS, &mut source_map)),
        (RelativePath::LISTENERS, listeners.file(&RelativePath::LISTENERS, &mut source_map)),
        (RelativePath::ROUTES, routes.file(&RelativePath::ROUTES, &mut source_map)),
    ]);
    let release = Release::new(files, None, manifest(config, ProxyKind::Envoy, &sites, None));
    Ok(Rendering { release, problems: problems::all(&common, &sites), source_map })
}

/// Renders what holds for all and what these objects bring: for Envoy's own test, so as one bootstrap.
pub(super) fn render_trial(config: &ProxyConfig, suspects: &BTreeSet<Subject>) -> Result<Rendering, RenderError> {
    let sites = site::of(config, suspects);
    let files = BTreeMap::from([(RelativePath::BOOTSTRAP, File::public(fixed(config, &sites)?))]);
    let release = Release::new(files, None, manifest(config, ProxyKind::Envoy, &sites, None));
    Ok(Rendering { release, problems: Vec::new(), source_map: SourceMap::default() })
}

/// All of a configuration as one bootstrap that asks nobody.
pub(super) fn standalone(config: &ProxyConfig) -> Result<String, RenderError> {
    fixed(config, &site::all(config))
}

fn fixed(config: &ProxyConfig, sites: &[Site<'_>]) -> Result<String, RenderError> {
    let slots = manifest(config, ProxyKind::Envoy, sites, None).slots.into_iter().collect();
    fixed::text(&Common::new(config, sites), sites, &slots)
}

fn named(listener: Listener) -> Named {
    Named { name: listener.name.clone(), bytes: listener.encode_to_vec(), source: None }
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
