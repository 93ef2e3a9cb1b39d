//! An Envoy that takes everything, or refuses some, and is told what it is told.

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
