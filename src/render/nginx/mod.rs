//! nginx: one `nginx.conf`, laid out as measured to be cheap at ten thousand hosts.
//!
//! What decides about the cost of a reload: certificates are named by a variable and only in the default server;
//! upstreams have names that begin with a hash; no variable names an upstream; what most routes agree on is said once
//! for all ([`baseline`]). What decides about lost requests: `keepalive_min_timeout`, no `reuseport`, no
//! `worker_shutdown_timeout`, and zones of upstreams that keep their names for ever ([`upstream`]).
//!
//! [`super::site`] decides which hosts and routes a file has, [`http`] what holds for all, [`server`] writes a host,
//! [`location`] turns paths into what nginx matches, [`content`] says what becomes of a request, and [`transfer`] how it
//! goes to an upstream.

mod baseline;
mod content;
mod http;
mod location;
mod log;
mod server;
mod transfer;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};

use super::manifest::manifest;
use super::page::Page;
use super::release::{File, RelativePath, Release};
use super::site::{self, Site};
use super::{Doublings, History, RenderError, Rendering, SourceMap};
use crate::model::ProxyConfig;
use crate::problem::Subject;
use crate::volume::ProxyKind;

/// Renders all of a configuration.
pub(super) fn render(config: &ProxyConfig, history: &History<'_>) -> Result<Rendering, RenderError> {
    let History { base, doublings } = history;
    let base = base.as_ref();
    let common = Common::new(config, doublings);
    let mut source_map = SourceMap::default();
    let sites = site::all(config);
    let main = common.write(&sites, RelativePath::MAIN, &mut source_map)?;
    let changed = match base {
        Some(base) => {
            Some(common.write(&site::changed(config, base.config), RelativePath::CHANGED, &mut source_map)?)
        }
        None => None,
    };
    let manifest = manifest(config, ProxyKind::Nginx, &sites, base);
    let release = Release::new(BTreeMap::from([(RelativePath::MAIN, main)]), changed, manifest);
    Ok(Rendering { release, problems: Vec::new(), source_map })
}

/// Renders what holds for all and what these objects bring.
pub(super) fn render_trial(
    config: &ProxyConfig,
    suspects: &BTreeSet<Subject>,
    doublings: &Doublings,
) -> Result<Rendering, RenderError> {
    let mut source_map = SourceMap::default();
    let sites = site::of(config, suspects);
    let main = Common::new(config, doublings).write(&sites, RelativePath::MAIN, &mut source_map)?;
    let manifest = manifest(config, ProxyKind::Nginx, &sites, None);
    let release = Release::new(BTreeMap::from([(RelativePath::MAIN, main)]), None, manifest);
    Ok(Rendering { release, problems: Vec::new(), source_map })
}

/// What the files of one configuration have in common, whichever hosts they hold.
struct Common<'a> {
    config: &'a ProxyConfig,
    baseline: baseline::Baseline,
    zones: upstream::Zones,
    log: log::Log<'a>,
}

impl<'a> Common<'a> {
    fn new(config: &'a ProxyConfig, doublings: &Doublings) -> Self {
        Self {
            config,
            baseline: baseline::Baseline::of(&config.hosts),
            zones: upstream::Zones::of(&config.upstreams, doublings),
            log: log::Log::new(&config.globals.logging),
        }
    }

    fn write(&self, sites: &[Site<'a>], path: RelativePath, map: &mut SourceMap) -> Result<File, RenderError> {
        // About what a host with two routes and an upstream comes to: no growing of a text of megabytes.
        let mut page = Page::with_capacity(8192 + 1200 * sites.len());
        http::write(&mut page, self, sites)?;
        upstream::write(&mut page, self, sites)?;
        for site in sites {
            server::write(&mut page, self, site)?;
        }
        page.line(None, "}");
        let (text, stretches) = page.finish();
        map.insert(path.as_str(), stretches);
        Ok(File::public(text))
    }
}
