//! What is known of all upstreams: what their files say, what their names stand for, and what follows from both.
//!
//! Nothing is read or looked up here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;

use super::{IDLE, Upstream, label_of};
use crate::volume::{EndpointSet, Endpoints};

/// Everything known.
#[derive(Default)]
pub(super) struct State {
    upstreams: BTreeMap<String, Entry>,
    hosts: BTreeMap<String, Host>,
    version: u64,
    /// How many upstreams have an IPv6 endpoint.
    with_ipv6: usize,
}

struct Entry {
    /// What its file said when it could last be read.
    set: EndpointSet,
    /// What is known now; `None` while its name has never been looked up.
    current: Option<Arc<Upstream>>,
    asked: Instant,
    /// Its file is gone.
    gone: bool,
}

/// One name of ExternalName Services that is kept looked up.
struct Host {
    /// The last good answer.
    addresses: Option<Vec<IpAddr>>,
    asked: Instant,
}

impl State {
    /// Somebody asks for an upstream. Also gives the name that must be looked up from now on, if it is not yet.
    pub(super) fn ask(&mut self, id: &str) -> (Option<Arc<Upstream>>, Option<String>) {
        let now = Instant::now();
        let Some(entry) = self.upstreams.get_mut(id) else { return (None, None) };
        entry.asked = now;
        let current = entry.current.clone();
        let Endpoints::Name { host, .. } = &entry.set.endpoints else { return (current, None) };
        if let Some(known) = self.hosts.get_mut(host) {
            known.asked = now;
            return (current, None);
        }
        self.hosts.insert(host.clone(), Host { addresses: None, asked: now });
        (current, Some(host.clone()))
    }

    /// The id of the upstream with this label.
    pub(super) fn labelled(&self, label: &str) -> Option<String> {
        // `-` sorts before whatever else an id may hold, so nothing lies between the label and its ids.
        let (id, _) = self.upstreams.range::<str, _>((Bound::Included(label), Bound::Unbounded)).next()?;
        (label_of(id) == label).then(|| id.clone())
    }

    /// Whether the upstream has or had a file.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.upstreams.contains_key(id)
    }

    /// Whether some upstream has an IPv6 endpoint.
    pub(super) fn has_ipv6(&self) -> bool {
        self.with_ipv6 > 0
    }

    /// What the file of an upstream says from now on.
    pub(super) fn set(&mut self, id: &str, set: EndpointSet, changed: &mut Vec<String>) {
        let new = || Entry { set: set.clone(), current: None, asked: Instant::now(), gone: false };
        let entry = self.upstreams.entry(id.to_owned()).or_insert_with(new);
        entry.gone = false;
        entry.set = set;
        self.renew(id, changed);
    }

    /// The file of an upstream is gone. What it said stays until nobody asks any more.
    pub(super) fn gone(&mut self, id: &str) {
        if let Some(entry) = self.upstreams.get_mut(id) {
            entry.gone = true;
        }
    }

    /// What a name stands for from now on.
    pub(super) fn answered(&mut self, host: &str, addresses: Vec<IpAddr>, changed: &mut Vec<String>) {
        let Some(known) = self.hosts.get_mut(host) else { return };
        if known.addresses.as_ref() == Some(&addresses) {
            return;
        }
        known.addresses = Some(addresses);
        let named = |entry: &Entry| matches!(&entry.set.endpoints, Endpoints::Name { host: h, .. } if h == host);
        let ids: Vec<_> = self.upstreams.iter().filter(|(_, e)| named(e)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.renew(&id, changed);
        }
    }

    /// If a name was never answered, it stands for nothing, so that requests get a 503 instead of waiting.
    pub(super) fn nothing_yet(&mut self, host: &str, changed: &mut Vec<String>) {
        if self.hosts.get(host).is_some_and(|known| known.addresses.is_none()) {
            self.answered(host, Vec::new(), changed);
        }
    }

    /// Whether somebody still asks for a name; if not, it is forgotten, but not what its upstreams had from it.
    pub(super) fn is_wanted(&mut self, host: &str) -> bool {
        let wanted = self.hosts.get(host).is_some_and(|known| known.asked.elapsed() < IDLE);
        if !wanted {
            self.hosts.remove(host);
        }
        wanted
    }

    /// Makes what is known of an upstream from its file and the answer to its name.
    fn renew(&mut self, id: &str, changed: &mut Vec<String>) {
        let Some(entry) = self.upstreams.get_mut(id) else { return };
        let addresses = match &entry.set.endpoints {
            Endpoints::Addresses(addresses) => addresses.clone(),
            Endpoints::Name { host, port } => {
                // What was known before (under another name perhaps) serves until there is an answer.
                let Some(found) = self.hosts.get(host).and_then(|h| h.addresses.as_ref()) else { return };
                found.iter().map(|&ip| SocketAddr::new(ip, *port)).collect()
            }
        };
        let protocol = entry.set.protocol;
        let before = entry.current.as_deref();
        if before.is_some_and(|b| b.protocol == protocol && b.addresses == addresses) {
            return;
        }
        self.version += 1;
        let now = Upstream { id: id.to_owned(), version: self.version, protocol, addresses };
        self.with_ipv6 -= usize::from(before.is_some_and(Upstream::has_ipv6));
        self.with_ipv6 += usize::from(now.has_ipv6());
        entry.current = Some(Arc::new(now));
        changed.push(id.to_owned());
    }

    /// Drops upstreams that have neither a file nor anybody who asks.
    pub(super) fn forget(&mut self) {
        let now = Instant::now();
        let with_ipv6 = &mut self.with_ipv6;
        self.upstreams.retain(|_, entry| {
            let stays = !entry.gone || now - entry.asked < IDLE;
            if !stays && entry.current.as_deref().is_some_and(Upstream::has_ipv6) {
                *with_ipv6 -= 1;
            }
            stays
        });
    }
}

impl Upstream {
    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(SocketAddr::is_ipv6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Protocol;

    #[test]
    fn an_upstream_is_forgotten_when_neither_its_file_nor_anybody_who_asks_is_left() {
        let mut state = State::default();
        let set = EndpointSet {
            protocol: Protocol::Http,
            endpoints: Endpoints::Addresses(vec!["[fd00::1]:80".parse().unwrap()]),
        };
        for id in ["asked", "idle", "there"] {
            state.set(id, set.clone(), &mut Vec::new());
        }
        let long_ago = Instant::now().checked_sub(2 * IDLE).unwrap();
        for (id, gone, asked) in [("asked", true, Instant::now()), ("idle", true, long_ago), ("there", false, long_ago)]
        {
            let entry = state.upstreams.get_mut(id).unwrap();
            (entry.gone, entry.asked) = (gone, asked);
        }
        state.forget();
        assert_eq!(state.upstreams.keys().collect::<Vec<_>>(), ["asked", "there"]);
        assert_eq!(state.with_ipv6, 2);
    }

    #[test]
    fn a_name_is_looked_up_once_and_what_was_known_serves_until_its_first_answer() {
        let mut state = State::default();
        let name = |host: &str| EndpointSet {
            protocol: Protocol::Http,
            endpoints: Endpoints::Name { host: host.to_owned(), port: 80 },
        };
        let addresses = |state: &mut State| state.ask("ab").0.map(|upstream| upstream.addresses.clone());
        let (first, second): (SocketAddr, SocketAddr) =
            ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let mut changed = Vec::new();
        state.set("ab", name("a.example"), &mut changed);
        assert_eq!(state.ask("ab"), (None, Some("a.example".to_owned())));
        assert_eq!(state.ask("ab"), (None, None));
        state.answered("a.example", vec![first.ip()], &mut changed);
        assert_eq!(addresses(&mut state), Some(vec![first]));

        state.set("ab", name("b.example"), &mut changed);
        assert_eq!(state.ask("ab").1, Some("b.example".to_owned()));
        assert_eq!(addresses(&mut state), Some(vec![first]));
        state.nothing_yet("b.example", &mut changed);
        assert_eq!(addresses(&mut state), Some(vec![]));
        state.answered("b.example", vec![second.ip()], &mut changed);
        state.nothing_yet("b.example", &mut changed);
        assert_eq!(addresses(&mut state), Some(vec![second]));
        assert_eq!(changed, ["ab"; 3]);
    }
}
