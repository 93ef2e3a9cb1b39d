//! Upstreams: names that the agent's DNS server answers, and the shared zones that keep what it answered.

use std::collections::BTreeMap;

use askama::Template;

use super::Common;
use crate::annotations::load_balance::LoadBalance;
use crate::model::{Action, Upstream, UpstreamId};
use crate::problem::Subject;
use crate::render::page::Page;
use crate::render::site::Site;
use crate::render::{Doublings, RenderError};
use crate::volume::Endpoints;

/// How many zones there are. An upstream never changes its zone, because nginx hands resolved addresses over to the
/// next generation by zone and name; within one zone that costs the square of the upstreams, so there are many.
const ZONES: usize = 64;

/// What nginx needs in a zone for an upstream and for each of its endpoints, in bytes.
const UPSTREAM_BYTES: u64 = 1700;
const PEER_BYTES: u64 = 850;

/// What a name of somebody else's may resolve to.
const PEERS_OF_A_NAME: u64 = 16;

/// The most places for idle connections in all upstreams of a worker together (200 bytes each, used or not), and the
/// least that each upstream gets all the same.
const KEEPALIVE_PLACES: u32 = 32_768;
const KEEPALIVE_LEAST: u32 = 32;

/// How large each zone is, in MiB.
pub(super) struct Zones([u64; ZONES]);

impl Zones {
    /// Powers of two, four times what the endpoints need, so that few changes of endpoints ever change a size.
    /// What has proved to be too small all the same is larger.
    pub fn of(upstreams: &BTreeMap<UpstreamId, Upstream>, doublings: &Doublings) -> Self {
        let mut bytes = [0; ZONES];
        for (id, upstream) in upstreams {
            let peers = match &upstream.endpoints {
                Endpoints::Addresses(addresses) => addresses.len() as u64,
                Endpoints::Name { .. } => PEERS_OF_A_NAME,
            };
            bytes[zone(id)] += UPSTREAM_BYTES + PEER_BYTES * peers;
        }
        let size = |zone: usize| (4 * bytes[zone]).div_ceil(1 << 20).next_power_of_two() << doublings.of(&name(zone));
        Self(std::array::from_fn(size))
    }
}

fn name(zone: usize) -> String {
    format!("u{zone:02}")
}

/// The zone of an upstream, for ever.
fn zone(id: &UpstreamId) -> usize {
    // An id begins with hexadecimal digits of a hash.
    id.as_str().bytes().take(2).fold(0, |n, b| n * 16 + char::from(b).to_digit(16).unwrap_or(0) as usize) % ZONES
}

#[derive(Template)]
#[template(path = "nginx/upstream.conf")]
struct View<'a> {
    id: &'a str,
    label: &'a str,
    zone: &'a str,
    megabytes: u64,
    least_busy: bool,
    keepalive: u32,
    /// Where they are not nginx's own defaults: every byte is read at every reload.
    keepalive_time: Option<u32>,
    keepalive_timeout: Option<u32>,
    keepalive_requests: Option<u32>,
}

/// Writes the upstreams that these sites send requests to.
pub(super) fn write(page: &mut Page, common: &Common<'_>, sites: &[Site<'_>]) -> Result<(), RenderError> {
    let connections = &common.config.globals.connections;
    let keepalive = keepalive(connections.upstream_connections.get(), common.config.upstreams.len());
    // Both are in the order of the ids.
    let mut upstreams = common.config.upstreams.iter().peekable();
    for (id, source) in sources(sites) {
        while upstreams.next_if(|(known, _)| *known < id).is_some() {}
        let Some((_, upstream)) = upstreams.next_if(|(known, _)| *known == id) else { continue };
        let Upstream { service: _, protocol: _, load_balance, endpoints: _ } = upstream;
        let zone = zone(id);
        let view = View {
            id: id.as_str(),
            label: id.label(),
            zone: &name(zone),
            megabytes: common.zones.0[zone],
            least_busy: match load_balance {
                LoadBalance::RoundRobin => false,
                LoadBalance::Ewma => true,
            },
            keepalive,
            keepalive_time: Some(connections.upstream_time.get()).filter(|n| keepalive != 0 && *n != 3600),
            keepalive_timeout: Some(connections.upstream_timeout.get()).filter(|n| keepalive != 0 && *n != 60),
            keepalive_requests: Some(connections.upstream_requests.get()).filter(|n| keepalive != 0 && *n != 1000),
        };
        page.part(source, &view)?;
    }
    Ok(())
}

/// The upstreams of these sites in order, each with the first object that sends requests to it.
fn sources<'a>(sites: &[Site<'a>]) -> Vec<(&'a UpstreamId, Option<&'a Subject>)> {
    let routes = sites.iter().flat_map(|site| &site.routes);
    let named = routes.filter_map(|route| match &route.action {
        Action::Forward(id) => Some((id, route.source.as_ref())),
        Action::Files(_) | Action::Respond(_) => None,
    });
    let mut sources: Vec<_> = named.collect();
    // Before sorting too: the routes of a host mostly lead to the same upstream. Stable, so that the first one stays.
    sources.dedup_by_key(|(id, _)| *id);
    sources.sort_by_key(|(id, _)| *id);
    sources.dedup_by_key(|(id, _)| *id);
    sources
}

/// How many idle connections a worker keeps to one upstream. ingress-nginx has one number for all of them together;
/// here each has its own places, which cost memory in every worker, so with many upstreams each gets fewer. In powers
/// of two, so that one more upstream hardly ever changes the others.
fn keepalive(wanted: u32, upstreams: usize) -> u32 {
    let fair = KEEPALIVE_PLACES / u32::try_from(upstreams.max(1).next_power_of_two()).unwrap_or(u32::MAX);
    wanted.min(fair.max(KEEPALIVE_LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PortId;
    use crate::value::Value;
    use crate::value::reference::ObjectName;
    use crate::volume::Protocol;

    fn upstreams(count: u16, endpoints: usize) -> BTreeMap<UpstreamId, Upstream> {
        let service = ObjectName::parse("shop/web").unwrap();
        let address = std::net::SocketAddr::from(([10, 0, 0, 1], 80));
        (1..=count)
            .map(|port| {
                let (protocol, load_balance) = (Protocol::Http, LoadBalance::RoundRobin);
                let id = UpstreamId::new(&service, &PortId::number(port), protocol, load_balance);
                let endpoints = Endpoints::Addresses(vec![address; endpoints]);
                (id, Upstream { service: service.clone(), protocol, load_balance, endpoints })
            })
            .collect()
    }

    #[test]
    fn zones_grow_in_powers_of_two_with_room_to_spare() {
        let none = Doublings::default();
        assert!(Zones::of(&upstreams(100, 3), &none).0.iter().all(|size| *size == 1));
        let sizes = Zones::of(&upstreams(64, 1000), &none).0;
        assert!(sizes.iter().all(|size| size.is_power_of_two()), "{sizes:?}");
        let most = *sizes.iter().max().unwrap();
        assert!((4..=32).contains(&most), "{most}");
    }

    #[test]
    fn a_zone_that_was_too_small_is_doubled_once_for_each_time() {
        let (none, mut doublings) = (Doublings::default(), Doublings::default());
        assert!(doublings.grow("u05", &none));
        assert!(!doublings.grow("u05", &none), "that was about the former size");
        let once = doublings.clone();
        assert!(doublings.grow("u05", &once));
        let sizes = Zones::of(&upstreams(100, 3), &doublings).0;
        assert_eq!((sizes[5], sizes.iter().filter(|size| **size == 1).count()), (4, ZONES - 1));
    }

    #[test]
    fn upstreams_are_spread_over_all_zones() {
        let used: std::collections::BTreeSet<_> = upstreams(2000, 1).keys().map(zone).collect();
        assert_eq!(used.len(), ZONES);
    }

    #[test]
    fn many_upstreams_keep_fewer_connections_each() {
        assert_eq!([1, 100, 200, 10_000].map(|n| keepalive(320, n)), [320, 256, 128, 32]);
        assert_eq!([keepalive(0, 1), keepalive(16, 10_000)], [0, 16]);
    }
}
