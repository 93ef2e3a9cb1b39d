//! What one Envoy holds and what it must be told next: the delta protocol, without sockets, files or a clock.
//!
//! A session lives as long as one stream. It knows what Envoy asked for, what it holds (after a reconnect Envoy says so
//! itself) and what is on its way; everything else follows from comparing that with what it shall hold. What is new goes
//! out in the order of [`Kind::ALL`], each step after the one before has been acknowledged; what is no longer wanted
//! goes afterwards, the other way round. So no route ever leads to a cluster that is not there.
//!
//! One push of a kind is on its way at a time. What changes meanwhile is told in the next one, once: an Envoy that does
//! not listen costs no memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};

use super::kind::Kind;
use super::target::Target;

/// Subscribes to whatever there is.
const WILDCARD: &str = "*";

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

/// What Envoy was told of one kind.
#[derive(Debug, Default)]
struct Channel {
    /// Envoy has asked.
    open: bool,
    wildcard: bool,
    /// What it asked for by name.
    names: BTreeSet<String>,
    held: BTreeMap<String, Held>,
    /// What may differ from what it shall hold.
    dirty: BTreeSet<String>,
    /// What it asked for and is to let go.
    evicted: BTreeSet<String>,
    /// The push that has not been answered yet.
    on_its_way: Option<Push>,
    /// Envoy waits for an answer, even an empty one.
    owed: bool,
}

#[derive(Debug)]
struct Push {
    nonce: u64,
    /// How often Envoy had been given something to hold by then.
    aim: u64,
    names: Vec<String>,
}

/// What Envoy holds under one name.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Held {
    version: Version,
    acknowledged: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Version {
    /// This one.
    Known(String),
    /// It refused this one; it may have taken it all the same, in part.
    Refused(String),
    /// It must be told again.
    Stale,
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

impl Channel {
    /// The first message about a kind says what Envoy holds from a former stream.
    fn begin(&mut self, kind: Kind, request: &DeltaDiscoveryRequest, target: &Target) {
        let versions = request.initial_resource_versions.iter();
        self.held = versions
            .map(|(name, version)| {
                (name.clone(), Held { version: Version::Known(version.clone()), acknowledged: true })
            })
            .collect();
        self.wildcard = kind.is_wildcard() && request.resource_names_subscribe.is_empty();
        self.owed = self.held.is_empty() && kind.is_wildcard();
        self.dirty.extend(self.held.keys().cloned());
        self.dirty.extend(target.names(kind).cloned());
    }

    fn subscribe(&mut self, name: String, first: bool) {
        if name == WILDCARD {
            self.wildcard = true;
            return;
        }
        self.evicted.remove(&name);
        if !first {
            // It may have forgotten what it held: whoever asks is answered.
            self.held.remove(&name);
        }
        self.dirty.insert(name.clone());
        self.names.insert(name);
    }

    fn forget(&mut self, name: &str) {
        if name == WILDCARD {
            self.wildcard = false;
        }
        self.names.remove(name);
        self.held.remove(name);
        self.dirty.remove(name);
    }

    /// An answer to a push. Envoy's words and the push, if it refuses it.
    fn answered(&mut self, nonce: &str, words: Option<String>) -> Option<(String, Push)> {
        let push = self.on_its_way.take_if(|push| push.nonce.to_string() == nonce)?;
        for name in &push.names {
            let Some(held) = self.held.get_mut(name) else { continue };
            match (&words, &held.version) {
                (Some(_), Version::Known(version)) => held.version = Version::Refused(version.clone()),
                (_, Version::Known(_) | Version::Refused(_)) => {}
                // It is to be told again, and that is what will be acknowledged.
                (_, Version::Stale) => continue,
            }
            held.acknowledged = true;
        }
        words.map(|words| (words, push))
    }

    fn may_push(&self) -> bool {
        self.open && self.on_its_way.is_none()
    }

    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn differs(&self, name: &str, version: &str) -> bool {
        match self.held.get(name).map(|held| &held.version) {
            Some(Version::Known(held) | Version::Refused(held)) => held != version,
            Some(Version::Stale) | None => true,
        }
    }

    fn hold(&mut self, name: &str, version: &str) {
        self.held.insert(name.to_owned(), Held { version: Version::Known(version.to_owned()), acknowledged: false });
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::rpc::Status;

    use super::*;

    /// Everything has endpoints and a certificate, in version 1 unless said otherwise.
    #[derive(Default)]
    struct World(BTreeMap<String, String>);

    impl Live for World {
        fn resource(&self, _: Kind, name: &str) -> Option<Arc<Resource>> {
            let version = self.0.get(name).map_or("1", String::as_str).to_owned();
            Some(Arc::new(Resource { name: name.to_owned(), version, ..Resource::default() }))
        }
    }

    /// An Envoy that takes everything and asks for what it learns of.
    struct Envoy {
        session: Session,
        target: Target,
        live: World,
        /// What it was told, in order: kind, names with their versions, names that were taken away.
        told: Vec<String>,
        /// It refuses pushes of this kind.
        refuses: Option<Kind>,
        refused: Vec<Refusal>,
    }

    fn ask(kind: Kind, names: &[&str]) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    impl Envoy {
        fn new(target: Target) -> Self {
            let (session, live) = (Session::default(), World::default());
            Self { session, target, live, told: vec![], refuses: None, refused: vec![] }
        }

        /// One that has just been started with this.
        fn holding(target: Target) -> Self {
            let mut envoy = Self::new(target);
            envoy.hear(ask(Kind::Cluster, &[]));
            envoy.run();
            assert!(envoy.session.is_settled(), "{}", envoy.session.missing(&envoy.target));
            envoy.told.clear();
            envoy
        }

        fn hear(&mut self, request: DeltaDiscoveryRequest) {
            let refusal = self.session.hear(request, &self.target);
            self.refused.extend(refusal);
        }

        fn aim(&mut self, target: Target) {
            self.session.aim(&self.target, &target);
            self.target = target;
            self.run();
        }

        /// Goes on until there is nothing more to be said.
        fn run(&mut self) {
            loop {
                let pushes = self.session.advance(&self.target, &self.live);
                if pushes.is_empty() {
                    return;
                }
                for push in pushes {
                    self.take(push);
                }
            }
        }

        fn take(&mut self, push: DeltaDiscoveryResponse) {
            let kind = Kind::of(&push.type_url).unwrap();
            let has = push.resources.iter().map(|resource| format!(" {}={}", resource.name, resource.version));
            let gone = push.removed_resources.iter().map(|name| format!(" -{name}"));
            self.told.push(format!("{kind:?}{}", has.chain(gone).collect::<String>()));
            let error_detail =
                (self.refuses == Some(kind)).then(|| Status { message: "no".to_owned(), ..Status::default() });
            let asked: Vec<_> = self.session.asked_for(Kind::Endpoints).cloned().collect();
            self.hear(DeltaDiscoveryRequest { response_nonce: push.nonce, error_detail, ..ask(kind, &[]) });
            let new = push
                .resources
                .iter()
                .map(|resource| resource.name.as_str())
                .filter(|name| !asked.iter().any(|a| a == name));
            match kind {
                Kind::Cluster => {
                    let new: Vec<_> = new.collect();
                    if !new.is_empty() {
                        self.hear(ask(Kind::Endpoints, &new));
                    }
                    self.hear(DeltaDiscoveryRequest {
                        resource_names_unsubscribe: push.removed_resources,
                        ..ask(Kind::Endpoints, &[])
                    });
                    if self.told.len() == 1 {
                        self.hear(ask(Kind::Listener, &[]));
                    }
                }
                Kind::Listener if self.session.asked_for(Kind::Routes).next().is_none() => {
                    self.hear(ask(Kind::Routes, &["r"]));
                }
                _ => {}
            }
        }
    }

    fn release(clusters: &[(&str, &str)], listener: &str, routes: &str) -> Target {
        let mut all: Vec<_> = clusters.iter().map(|(name, version)| (Kind::Cluster, *name, *version)).collect();
        all.extend([(Kind::Listener, "l", listener), (Kind::Routes, "r", routes)]);
        Target::of(&all)
    }

    #[test]
    fn a_new_envoy_is_told_everything_each_after_what_it_needs() {
        let mut envoy = Envoy::new(release(&[("a", "1"), ("b", "1")], "1", "1"));
        assert!(!envoy.session.is_settled());
        envoy.hear(ask(Kind::Cluster, &[]));
        envoy.run();
        assert_eq!(envoy.told, ["Cluster a=1 b=1", "Endpoints a=1 b=1", "Listener l=1", "Routes r=1"]);
        assert!(envoy.session.is_settled());
        assert_eq!(envoy.session.answered(&envoy.target), (2, 2));
    }

    #[test]
    fn nothing_at_all_is_an_answer_too() {
        let mut envoy = Envoy::new(Target::default());
        envoy.hear(ask(Kind::Cluster, &[]));
        envoy.run();
        assert_eq!(envoy.told, ["Cluster", "Listener", "Routes -r"]);
    }

    #[test]
    fn only_what_differs_is_told_and_what_is_not_wanted_goes_last() {
        let mut envoy = Envoy::holding(release(&[("a", "1"), ("b", "1")], "1", "1"));
        envoy.aim(release(&[("a", "1"), ("c", "1")], "1", "2"));
        assert_eq!(envoy.told, ["Cluster c=1", "Endpoints c=1", "Routes r=2", "Cluster -b"]);
        assert!(envoy.session.is_settled());
        let asked: Vec<_> = envoy.session.asked_for(Kind::Endpoints).collect();
        assert_eq!(asked, ["a", "c"]);
    }

    #[test]
    fn listeners_go_before_the_clusters_they_lead_to() {
        let mut envoy = Envoy::holding(Target::of(&[
            (Kind::Cluster, "a", "1"),
            (Kind::Listener, "l", "1"),
            (Kind::Listener, "m", "1"),
            (Kind::Routes, "r", "1"),
        ]));
        envoy.aim(Target::of(&[(Kind::Listener, "l", "1"), (Kind::Routes, "r", "1")]));
        assert_eq!(envoy.told, ["Listener -m", "Cluster -a"]);
    }

    #[test]
    fn a_changed_cluster_gets_its_endpoints_again() {
        let mut envoy = Envoy::holding(release(&[("a", "1"), ("b", "1")], "1", "1"));
        envoy.aim(release(&[("a", "2"), ("b", "1")], "1", "1"));
        assert_eq!(envoy.told, ["Cluster a=2", "Endpoints a=1"]);
        assert!(envoy.session.is_settled());
    }

    #[test]
    fn changed_endpoints_are_told_and_nothing_else() {
        let mut envoy = Envoy::holding(release(&[("a", "1"), ("b", "1")], "1", "1"));
        envoy.live.0.insert("b".to_owned(), "2".to_owned());
        envoy.session.changed(Kind::Endpoints, &["b".to_owned(), "nobody asked".to_owned()]);
        envoy.run();
        assert_eq!(envoy.told, ["Endpoints b=2"]);
        assert!(envoy.session.is_settled());
        envoy.session.all_changed(Kind::Endpoints);
        envoy.run();
        assert_eq!(envoy.told.len(), 1);
    }

    #[test]
    fn while_a_push_is_on_its_way_changes_are_gathered() {
        let mut envoy = Envoy::holding(release(&[("a", "1")], "1", "1"));
        let change = |version: &str, envoy: &mut Envoy| {
            envoy.live.0.insert("a".to_owned(), version.to_owned());
            envoy.session.changed(Kind::Endpoints, &["a".to_owned()]);
            envoy.session.advance(&envoy.target, &envoy.live)
        };
        let first = change("2", &mut envoy).remove(0);
        assert!(change("3", &mut envoy).is_empty() && change("4", &mut envoy).is_empty());
        envoy.take(first);
        envoy.run();
        assert_eq!(envoy.told, ["Endpoints a=2", "Endpoints a=4"]);
    }

    #[test]
    fn a_secret_is_told_when_asked_for_whatever_else_goes_on() {
        let mut envoy = Envoy::new(release(&[("a", "1")], "1", "1"));
        envoy.hear(ask(Kind::Secret, &["shop.example"]));
        envoy.run();
        assert_eq!(envoy.told, ["Secret shop.example=1"]);
    }

    #[test]
    fn names_that_clients_make_up_are_let_go_oldest_first_and_those_of_hosts_never() {
        let mut target = release(&[("a", "1")], "1", "1");
        target.certificates.exact.insert("shop.example".to_owned(), "slot".to_owned());
        let mut envoy = Envoy::holding(target);
        envoy.hear(ask(Kind::Secret, &["shop.example", "old.example", "new.example"]));
        envoy.run();
        let made_up: Vec<_> = (0..STRANGERS - 1).map(|n| format!("n{n}.example")).collect();
        envoy.hear(ask(Kind::Secret, &made_up.iter().map(String::as_str).collect::<Vec<_>>()));
        envoy.told.clear();
        envoy.run();
        assert!(envoy.told[0].ends_with(" -old.example"), "{:?}", envoy.told);
        let asked: Vec<_> = envoy.session.asked_for(Kind::Secret).collect();
        assert_eq!(asked.len(), STRANGERS + 1);
        assert!(asked.contains(&&"shop.example".to_owned()) && asked.contains(&&"new.example".to_owned()));
        // One that is asked for again is answered.
        envoy.told.clear();
        envoy.hear(ask(Kind::Secret, &["old.example"]));
        envoy.run();
        assert_eq!(envoy.told, ["Secret old.example=1 -new.example"]);
    }

    #[test]
    fn whoever_asks_again_is_answered_again() {
        let mut envoy = Envoy::holding(release(&[("a", "1")], "1", "1"));
        envoy.hear(ask(Kind::Endpoints, &["a"]));
        envoy.run();
        assert_eq!(envoy.told, ["Endpoints a=1"]);
        envoy.hear(ask(Kind::Routes, &["no such"]));
        envoy.run();
        assert_eq!(envoy.told[1..], ["Routes -no such"]);
    }

    #[test]
    fn an_envoy_that_comes_back_is_told_the_differences() {
        let had = |versions: &[(&str, &str)]| {
            versions.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
        };
        let first = |kind, names: &[&str], versions: &[(&str, &str)]| DeltaDiscoveryRequest {
            initial_resource_versions: had(versions),
            ..ask(kind, names)
        };
        let mut envoy = Envoy::new(release(&[("a", "1"), ("b", "2")], "1", "2"));
        envoy.told.push("not the first".to_owned());
        envoy.hear(first(Kind::Cluster, &[], &[("a", "1"), ("b", "1"), ("c", "1")]));
        envoy.hear(first(Kind::Endpoints, &["a", "b", "c"], &[("a", "1"), ("b", "1"), ("c", "1")]));
        envoy.hear(first(Kind::Listener, &["*"], &[("l", "1")]));
        envoy.hear(first(Kind::Routes, &["r"], &[("r", "1")]));
        envoy.run();
        assert_eq!(envoy.told[1..], ["Cluster b=2", "Endpoints b=1", "Routes r=2", "Cluster -c"]);
        assert!(envoy.session.is_settled());
    }

    #[test]
    fn what_is_refused_goes_no_further_and_the_former_state_comes_back_whole() {
        for (refuses, told, back) in [
            (Kind::Cluster, vec!["Cluster a=2 c=1"], vec!["Cluster a=1", "Endpoints a=1", "Cluster -c"]),
            (
                Kind::Listener,
                vec!["Cluster a=2 c=1", "Endpoints a=1", "Endpoints c=1", "Listener l=2 m=1"],
                vec!["Cluster a=1", "Endpoints a=1", "Listener l=1", "Listener -m", "Cluster -c"],
            ),
            (
                Kind::Routes,
                vec!["Cluster a=2 c=1", "Endpoints a=1", "Endpoints c=1", "Listener l=2 m=1", "Routes r=2"],
                vec!["Cluster a=1", "Endpoints a=1", "Listener l=1", "Routes r=1", "Listener -m", "Cluster -c"],
            ),
        ] {
            let good = release(&[("a", "1"), ("b", "1")], "1", "1");
            let mut envoy = Envoy::holding(good.clone());
            envoy.refuses = Some(refuses);
            envoy.aim(Target::of(&[
                (Kind::Cluster, "a", "2"),
                (Kind::Cluster, "b", "1"),
                (Kind::Cluster, "c", "1"),
                (Kind::Listener, "l", "2"),
                (Kind::Listener, "m", "1"),
                (Kind::Routes, "r", "2"),
            ]));
            let told: Vec<_> = told.into_iter().map(str::to_owned).collect();
            // A cluster of a refused push may have come into being all the same, and asks.
            let seen: Vec<_> = envoy.told.iter().filter(|push| told.contains(push)).cloned().collect();
            assert_eq!(seen, told);
            assert!(!envoy.told.iter().any(|push| push.starts_with("Routes")) || refuses == Kind::Routes);
            assert!(!envoy.session.is_settled());
            let refusal = envoy.refused.remove(0);
            assert_eq!((refusal.kind, refusal.words.as_str()), (refuses, "no"));

            envoy.refuses = None;
            envoy.told.clear();
            envoy.aim(good);
            assert_eq!(envoy.told, back, "{refuses:?}");
            assert!(envoy.session.is_settled());
        }
    }

    #[test]
    fn a_refusal_that_comes_too_late_does_not_stop_what_is_wanted_since() {
        let good = release(&[("a", "1")], "1", "1");
        let mut envoy = Envoy::holding(good.clone());
        envoy.session.aim(&envoy.target, &release(&[("a", "2")], "1", "1"));
        envoy.target = release(&[("a", "2")], "1", "1");
        let late = envoy.session.advance(&envoy.target, &envoy.live);
        envoy.aim(good);
        assert!(!envoy.session.is_settled());
        envoy.refuses = Some(Kind::Cluster);
        late.into_iter().for_each(|push| envoy.take(push));
        envoy.refuses = None;
        envoy.run();
        assert!(envoy.refused.remove(0).superseded);
        assert!(envoy.told.contains(&"Cluster a=1".to_owned()), "{:?}", envoy.told);
        assert!(envoy.session.is_settled());
    }

    #[test]
    fn refused_endpoints_are_told_and_stop_nobody() {
        let mut envoy = Envoy::holding(release(&[("a", "1")], "1", "1"));
        envoy.refuses = Some(Kind::Endpoints);
        envoy.aim(release(&[("a", "1"), ("b", "1")], "1", "2"));
        assert_eq!(envoy.told, ["Cluster b=1", "Endpoints b=1", "Routes r=2"]);
        assert_eq!(envoy.refused.remove(0).names, ["b"]);
        assert!(envoy.session.is_settled());
    }
}
