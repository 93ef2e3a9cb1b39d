//! What one Envoy holds and what it must be told next: the delta protocol, without sockets, files or a clock.
//!
//! A session lives as long as one stream. It knows what Envoy asked for, what it holds (after a reconnect Envoy says so
//! itself) and what is on its way; everything else follows from comparing that with what it shall hold. What is new goes
//! out in the order of [`Kind::ALL`], each step after the one before has been acknowledged; what is no longer wanted
//! goes afterwards, the other way round. So no route ever leads to a cluster that is not there.
//!
//! One push of a kind is on its way at a time. What changes meanwhile is told in the next one, once: an Envoy that does
//! not listen costs no memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};

use super::channel::{Channel, Held, Push, Version};
use super::kind::Kind;
use super::target::Target;

/// How many server names that are no host's own may be subscribed to: those of wildcards, and those that nobody serves.
/// Clients choose them, and each costs Envoy some 50 kB. Whoever is let go is only asked for again.
const STRANGERS: usize = 1000;

/// Where resources come from that change without a release.
pub trait Live {
    /// The resource of this kind and name. There always is one: an upstream nobody knows has no endpoints, a server name
    /// nobody knows has the default certificate. `None` only while that is not known yet.
    fn resource(&self, kind: Kind, name: &str) -> Option<Arc<Resource>>;
}

/// What one Envoy was told.
#[derive(Debug, Default)]
pub struct Session {
    channels: BTreeMap<Kind, Channel>,
    last_nonce: u64,
    /// How often Envoy was given something to hold.
    aim: u64,
    settled: bool,
    /// Server names that are no host's own, oldest first.
    strangers: VecDeque<String>,
    /// Envoy has refused a part of what it shall hold: nothing more of that is told until it shall hold something else.
    halted: bool,
}

/// Envoy did not take a push.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// Of which kind.
    pub kind: Kind,
    /// What it says.
    pub words: String,
    /// What was in the push, by name. One of them or several are to blame.
    pub names: Vec<String>,
    /// It shall hold something else by now.
    pub superseded: bool,
}

impl Session {
    /// Takes a message of Envoy. What it says about a push, if it refuses it.
    pub fn hear(&mut self, request: DeltaDiscoveryRequest, target: &Target) -> Option<Refusal> {
        let kind = Kind::of(&request.type_url)?;
        let channel = self.channels.entry(kind).or_default();
        let first = !std::mem::replace(&mut channel.open, true);
        if first {
            channel.begin(kind, &request, target);
        }
        for name in request.resource_names_unsubscribe {
            channel.forget(&name);
            self.strangers.retain(|stranger| kind != Kind::Secret || *stranger != name);
        }
        for name in request.resource_names_subscribe {
            if kind == Kind::Secret && !target.certificates.exact.contains_key(&name) && !channel.names.contains(&name)
            {
                self.strangers.push_back(name.clone());
            }
            channel.subscribe(name, first);
        }
        while self.strangers.len() > STRANGERS {
            let Some(oldest) = self.strangers.pop_front() else { break };
            channel.forget(&oldest);
            channel.evicted.insert(oldest);
        }
        let words = request.error_detail.map(|status| status.message);
        let (words, push) = channel.answered(&request.response_nonce, words)?;
        let superseded = push.aim != self.aim;
        if superseded {
            // Whatever it made of them, they may not be what it shall hold now.
            channel.dirty.extend(push.names.iter().cloned());
        } else {
            self.halted |= kind.is_of_release();
        }
        Some(Refusal { kind, words, names: push.names, superseded })
    }

    /// Envoy shall hold `new` instead of `old` from now on.
    pub fn aim(&mut self, old: &Target, new: &Target) {
        self.aim += 1;
        self.settled = false;
        self.halted = false;
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_of_release()) {
            let channel = self.channels.entry(kind).or_default();
            channel.dirty.extend(new.differences(old, kind));
        }
        if new.certificates != old.certificates {
            self.all_changed(Kind::Secret);
        }
    }

    /// These have changed without a release.
    pub fn changed<'a>(&mut self, kind: Kind, names: impl IntoIterator<Item = &'a String>) {
        let channel = self.channels.entry(kind).or_default();
        channel.dirty.extend(names.into_iter().filter(|name| channel.names.contains(*name)).cloned());
    }

    /// Any of this kind may have changed.
    pub fn all_changed(&mut self, kind: Kind) {
        let channel = self.channels.entry(kind).or_default();
        channel.dirty.extend(channel.names.iter().cloned());
    }

    /// What Envoy asked for by name.
    pub fn asked_for(&self, kind: Kind) -> impl Iterator<Item = &String> {
        self.channels.get(&kind).into_iter().flat_map(|channel| &channel.names)
    }

    /// What Envoy is to be told now.
    pub fn advance(&mut self, target: &Target, live: &impl Live) -> Vec<DeltaDiscoveryResponse> {
        let mut told = vec![];
        self.push(Kind::Secret, target, live, &mut told);
        if self.halted {
            self.push(Kind::Endpoints, target, live, &mut told);
            return told;
        }
        self.push(Kind::Cluster, target, live, &mut told);
        self.push(Kind::Endpoints, target, live, &mut told);
        if self.has_all(Kind::Cluster) && self.has_endpoints(target) {
            self.push(Kind::Listener, target, live, &mut told);
            if self.has_all(Kind::Listener) {
                self.push(Kind::Routes, target, live, &mut told);
                if self.has_routes(target) {
                    self.settled = self.take_away(&mut told);
                }
            }
        }
        told
    }

    /// Whether Envoy holds what it shall hold, and has said so.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// How many upstreams of the release have their endpoints, of how many.
    pub fn answered(&self, target: &Target) -> (usize, usize) {
        let answered = target.services().filter(|name| self.is_acknowledged(Kind::Endpoints, name)).count();
        (answered, target.services().count())
    }

    /// What Envoy has not acknowledged yet, in words.
    pub fn missing(&self, target: &Target) -> String {
        let open = |kind| self.channels.get(&kind).is_some_and(|channel: &Channel| channel.open);
        if !open(Kind::Cluster) {
            return "Envoy has not asked for its upstreams".to_owned();
        }
        if !self.has_all(Kind::Cluster) {
            return "Envoy has not taken its upstreams".to_owned();
        }
        let (answered, all) = self.answered(target);
        if answered < all {
            return format!("Envoy has not asked for the endpoints of {} of {all} upstreams", all - answered);
        }
        if !self.has_all(Kind::Listener) {
            return "Envoy has not taken its ports".to_owned();
        }
        let routes = target.names(Kind::Routes).filter(|name| !self.has_routes_named(name, target));
        let routes: Vec<_> = routes.map(String::as_str).collect();
        if !routes.is_empty() {
            return format!("Envoy has not taken its routes ({})", routes.join(", "));
        }
        "Envoy has not let go of what is no longer wanted".to_owned()
    }

    fn push(&mut self, kind: Kind, target: &Target, live: &impl Live, told: &mut Vec<DeltaDiscoveryResponse>) {
        let Some(channel) = self.channels.get_mut(&kind).filter(|channel| channel.may_push()) else { return };
        let mut resources = vec![];
        let mut services = vec![];
        // What is taken away waits for its own time, and what is not there yet until it is. Only of routes Envoy learns
        // that there are none: it asks for those that a listener names, and waits.
        let mut removed: Vec<_> = std::mem::take(&mut channel.evicted).into_iter().collect();
        for name in std::mem::take(&mut channel.dirty) {
            let resource = match kind.is_of_release() {
                true => target.resource(kind, &name).cloned(),
                false => live.resource(kind, &name),
            };
            match resource {
                Some(resource) if channel.wants(&name) && channel.differs(&name, &resource.version) => {
                    channel.hold(&name, &resource.version);
                    services.extend(target.service(kind, &name).cloned());
                    resources.push(Resource::clone(&resource));
                }
                Some(_) => {}
                None if kind != Kind::Routes => drop(channel.dirty.insert(name)),
                None if channel.wants(&name) && !channel.held.contains_key(&name) => removed.push(name),
                None => {}
            }
        }
        if resources.is_empty() && removed.is_empty() && !channel.owed {
            return;
        }
        told.push(self.response(kind, resources, removed));
        self.again(&services);
    }

    /// After a cluster has changed Envoy waits for its endpoints once more, without asking.
    fn again(&mut self, services: &[String]) {
        let channel = self.channels.entry(Kind::Endpoints).or_default();
        for service in services {
            if let Some(held) = channel.held.get_mut(service) {
                *held = Held { version: Version::Stale, acknowledged: false };
                channel.dirty.insert(service.clone());
            }
        }
    }

    /// Takes away what is no longer wanted, listeners first. Whether nothing is left to be taken away.
    fn take_away(&mut self, told: &mut Vec<DeltaDiscoveryResponse>) -> bool {
        for kind in [Kind::Listener, Kind::Cluster] {
            let Some(channel) = self.channels.get_mut(&kind).filter(|channel| channel.may_push()) else { return false };
            // What is wanted has been told before it comes to this.
            let dirty = std::mem::take(&mut channel.dirty);
            let gone: Vec<_> = dirty.into_iter().filter(|name| channel.held.remove(name).is_some()).collect();
            if !gone.is_empty() {
                told.push(self.response(kind, vec![], gone));
                return false;
            }
        }
        true
    }

    fn response(&mut self, kind: Kind, resources: Vec<Resource>, removed: Vec<String>) -> DeltaDiscoveryResponse {
        self.last_nonce += 1;
        let nonce = self.last_nonce;
        let channel = self.channels.entry(kind).or_default();
        channel.owed = false;
        let names = resources.iter().map(|resource| resource.name.clone()).chain(removed.iter().cloned()).collect();
        channel.on_its_way = Some(Push { nonce, aim: self.aim, names });
        DeltaDiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            nonce: nonce.to_string(),
            resources,
            removed_resources: removed,
            ..DeltaDiscoveryResponse::default()
        }
    }

    /// Whether nothing of this kind is left to be told, except what is to be taken away.
    fn has_all(&self, kind: Kind) -> bool {
        let clean = |channel: &Channel| channel.may_push() && !channel.owed;
        self.channels.get(&kind).is_some_and(clean)
    }

    fn has_endpoints(&self, target: &Target) -> bool {
        self.settled || target.services().all(|name| self.is_acknowledged(Kind::Endpoints, name))
    }

    fn has_routes(&self, target: &Target) -> bool {
        self.settled || target.names(Kind::Routes).all(|name| self.has_routes_named(name, target))
    }

    fn has_routes_named(&self, name: &str, target: &Target) -> bool {
        let wanted = target.resource(Kind::Routes, name).map(|resource| &resource.version);
        let held = self.channels.get(&Kind::Routes).and_then(|channel| channel.held.get(name));
        held.is_some_and(|held| held.acknowledged && matches!(&held.version, Version::Known(is) if Some(is) == wanted))
    }

    fn is_acknowledged(&self, kind: Kind, name: &str) -> bool {
        let held = self.channels.get(&kind).and_then(|channel| channel.held.get(name));
        held.is_some_and(|held| held.acknowledged)
    }
}

#[cfg(test)]
mod tests;
