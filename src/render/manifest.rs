//! What the agent must know of a release besides its files.

use std::collections::BTreeSet;

use super::Base;
use super::site::Site;
use crate::model::{Action, ProxyConfig, SlotId};
use crate::value::number::Count;
use crate::volume::{Manifest, ProxyKind};

/// What these sites name in `live/`, and how the proxy is to be run.
pub(super) fn manifest(
    config: &ProxyConfig,
    proxy: ProxyKind,
    sites: &[Site<'_>],
    base: Option<&Base<'_>>,
) -> Manifest {
    let (mut upstreams, mut files) = (BTreeSet::new(), BTreeSet::new());
    let mut slots = BTreeSet::from([SlotId::default_slot()]);
    for site in sites {
        slots.extend(site.host.tls.clone());
        for route in &site.routes {
            match &route.action {
                Action::Forward(upstream) => drop(upstreams.insert(upstream.as_str())),
                Action::Files(content) => files.extend(content.files.values().map(|file| file.sha256.as_str())),
                Action::Respond(_) => {}
            }
        }
    }
    let owned = |names: BTreeSet<&str>| names.into_iter().map(str::to_owned).collect();
    Manifest {
        proxy,
        base: base.map(|base| base.digest.clone()),
        upstreams: owned(upstreams),
        slots: slots.iter().map(SlotId::to_string).collect(),
        files: owned(files),
        error_log_level: config.globals.logging.error_level,
        worker_shutdown_timeout: config.globals.process.shutdown_timeout.get().into(),
        access_log: config.globals.logging.access_path.as_ref().map(|path| path.as_str().to_owned()),
        workers: config.globals.process.workers.map(Count::get),
    }
}
