//! What a change costs those who are served meanwhile: nothing. Which changes need a release at all, reloads under every
//! kind of load, many changes at once, endpoints that come and go by the hundred, and a live channel with faults.

mod coalescing;
mod fleet;
mod generations;
mod live;
mod relay;
mod reloads;
mod rollout;
mod told_apart;

use std::collections::BTreeSet;
use std::fs;

use coxswain::volume::ProxyInfo;

use crate::support::Run;

/// Which processes of the proxy there are: the same before and after mean that nginx has not reloaded in between.
fn processes(run: &Run) -> BTreeSet<i32> {
    let info: ProxyInfo = serde_json::from_slice(&fs::read(run.volume().proxy_info()).unwrap()).unwrap();
    let pid: i32 = info.pid.expect("a proxy that runs").cast_signed();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|child| child.parse().unwrap()).chain([pid]).collect()
}
