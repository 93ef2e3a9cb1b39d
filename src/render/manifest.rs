//! What the agent must know of a release besides its files.

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
    let default = SlotId::default_slot();
    let (mut upstreams, mut files, mut slots) = (Vec::new(), Vec::new(), vec![default.as_str()]);
    for site in sites {
        slots.extend(site.host.tls.as_ref().map(SlotId::as_str));
        for route in &site.routes {
            match &route.action {
                Action::Forward(upstream) => upstreams.push(upstream.as_str()),
                Action::Files(content) => files.extend(content.files.values().map(|file| file.sha256.as_str())),
                Action::Respond(_) => {}
            }
        }
    }
    Manifest {
        proxy,
        base: base.map(|base| base.digest.clone()),
        upstreams: owned(upstreams),
        slots: owned(slots),
        files: owned(files),
        error_log_level: config.globals.logging.error_level,
        worker_shutdown_timeout: config.globals.process.shutdown_timeout.get().into(),
        access_log: config.globals.logging.access_path.as_ref().map(|path| path.as_str().to_owned()),
        workers: config.globals.process.workers.map(Count::get),
    }
}

/// The names, each once, in order.
fn owned(mut names: Vec<&str>) -> Vec<String> {
    // The routes of a host mostly lead to the same upstream.
    names.dedup();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(str::to_owned).collect()
}
