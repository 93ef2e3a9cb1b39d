//! Which change costs a reload: one row for each kind of change of each kind of object. What decides is
//! `Rendering::needs_release`; what goes live without is what `live` wrote.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use coxswain::live::{Live, Written};
use coxswain::model::Certificate;
use coxswain::publish::Publisher;
use coxswain::render::{History, render};
use coxswain::settings::{Flags, Settings};
use coxswain::translate::{HeldBack, translate};
use coxswain::value::Value as _;
use coxswain::value::reference::ObjectName;
use coxswain::volume::{Digest, ProxyKind, Volume};
use coxswain::watch::files;
use serde_json::{Value, json};

use crate::support::certificates::Authority;

/// What a change costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cost {
    /// Nothing at all.
    Nothing,
    /// A file in `live/`.
    Live,
    /// A release, and with it a reload.
    Release,
}

/// Objects by `Kind/name`.
type Objects = BTreeMap<&'static str, Value>;

const NOW: i64 = 1_800_000_000;

/// A controller without anything that waits.
struct Controller {
    folder: tempfile::TempDir,
    live: Live,
    _publisher: Publisher,
    generated: Arc<Certificate>,
    asked: Option<Digest>,
}

impl Controller {
    fn new(generated: &Arc<Certificate>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let publisher = Publisher::open(Volume::new(folder.path().join("volume")), None).unwrap();
        let live = Live::new(publisher.disk().clone());
        Self { folder, live, _publisher: publisher, generated: Arc::clone(generated), asked: None }
    }

    fn take_up(&mut self, objects: &Objects) -> Cost {
        let file = self.folder.path().join("objects.json");
        let items: Vec<_> = objects.values().collect();
        fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).unwrap();
        let mut snapshot = files::load(&[file]);
        snapshot.generated_certificate = Some(Arc::clone(&self.generated));
        let config_map = Some(ObjectName::parse("default/settings").unwrap());
        let (settings, _) = Settings::read(&Flags { config_map, ..Flags::default() }, &snapshot);
        let config = translate(&snapshot, &settings, &HeldBack::default(), NOW).config;
        let written = self.live.write(&config).unwrap();
        let rendering = render(&config, ProxyKind::Nginx, &History::default()).unwrap();
        let release = rendering.needs_release(self.asked.as_ref());
        self.asked = Some(rendering.release.digest);
        match (release, written == Written::default()) {
            (true, _) => Cost::Release,
            (false, false) => Cost::Live,
            (false, true) => Cost::Nothing,
        }
    }
}

/// One of everything: a host with a certificate, two paths to a Service and one to files.
fn objects(authority: &Authority) -> Objects {
    let backend = |port: Value| json!({"service": {"name": "web", "port": port}});
    Objects::from([
        (
            "IngressClass/coxswain",
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "coxswain"},
                "spec": {"controller": "coxswain.dev/ingress"}}),
        ),
        (
            "Ingress/app",
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "app", "annotations": {}, "labels": {}},
            "spec": {"ingressClassName": "coxswain", "tls": [{"hosts": ["app.test"], "secretName": "pair"}],
                "rules": [{"host": "app.test", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": backend(json!({"number": 80}))},
                    {"path": "/api", "pathType": "Prefix", "backend": backend(json!({"number": 80}))},
                    {"path": "/site", "pathType": "Prefix", "backend": {"resource": {"kind": "ConfigMap", "name": "site"}}},
                ]}}]}}),
        ),
        (
            "Service/web",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "annotations": {}, "labels": {}},
                "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}),
        ),
        ("EndpointSlice/web-a", slice("web-a", 3)),
        ("Secret/pair", secret("pair", authority, &["app.test"])),
        ("ConfigMap/settings", config_map("settings", json!({"proxy-body-size": "2m"}))),
        ("ConfigMap/site", config_map("site", json!({"index.html": "hello"}))),
    ])
}

fn slice(name: &str, endpoints: usize) -> Value {
    let address = |n: usize| format!("10.{}.{}.{}", n / 50_000, n / 250 % 200, n % 250 + 1);
    let endpoints: Vec<_> =
        (0..endpoints).map(|n| json!({"addresses": [address(n)], "conditions": {"ready": true}})).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints})
}

fn secret(name: &str, authority: &Authority, names: &[&str]) -> Value {
    let pair = authority.issue(names);
    json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name, "labels": {}},
        "stringData": {"tls.crt": pair.certificate, "tls.key": pair.key}})
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {}}, "data": data})
}

type Row = (&'static str, Cost, fn(&mut Objects, &Authority));

const ROWS: &[Row] = &[
    // Services
    ("its selector", Cost::Nothing, |o, _| o.at("Service/web")["spec"]["selector"]["app"] = json!("other")),
    ("its labels", Cost::Nothing, |o, _| o.at("Service/web")["metadata"]["labels"]["a"] = json!("b")),
    ("a foreign annotation of it", Cost::Nothing, |o, _| {
        o.at("Service/web")["metadata"]["annotations"]["example.com/a"] = json!("b");
    }),
    ("its type", Cost::Nothing, |o, _| o.at("Service/web")["spec"]["type"] = json!("NodePort")),
    ("a port that nobody names", Cost::Nothing, |o, _| {
        let ports = o.at("Service/web")["spec"]["ports"].as_array_mut().unwrap();
        ports.push(json!({"name": "metrics", "port": 9100}));
    }),
    ("another target port, in the slices too", Cost::Live, |o, _| {
        o.at("Service/web")["spec"]["ports"][0]["targetPort"] = json!(9090);
        o.at("EndpointSlice/web-a")["ports"][0]["port"] = json!(9090);
    }),
    ("a port renamed that is named by its number", Cost::Nothing, |o, _| {
        o.at("Service/web")["spec"]["ports"][0]["name"] = json!("www");
        o.at("EndpointSlice/web-a")["ports"][0]["name"] = json!("www");
    }),
    ("a port named by its name instead of its number", Cost::Release, |o, _| {
        o.at("Ingress/app")["spec"]["rules"][0]["http"]["paths"][1]["backend"]["service"]["port"] =
            json!({"name": "http"});
    }),
    ("an ExternalName instead", Cost::Live, |o, _| {
        o.at("Service/web")["spec"] = json!({"type": "ExternalName", "externalName": "elsewhere.example.com", "ports": [{"name": "http", "port": 80}]});
    }),
    ("another Service that nobody names", Cost::Nothing, |o, _| {
        let mut other = o.at("Service/web").clone();
        other["metadata"]["name"] = json!("other");
        o.insert("Service/other", other);
    }),
    ("a Service that goes: its routes answer 503 as they do without endpoints", Cost::Live, |o, _| {
        o.remove("Service/web");
    }),
    // EndpointSlices
    ("an endpoint more", Cost::Live, |o, _| o.set("EndpointSlice/web-a", slice("web-a", 4))),
    ("a hundred endpoints", Cost::Live, |o, _| o.set("EndpointSlice/web-a", slice("web-a", 100))),
    ("no endpoints", Cost::Live, |o, _| o.set("EndpointSlice/web-a", slice("web-a", 0))),
    ("no slice", Cost::Live, |o, _| drop(o.remove("EndpointSlice/web-a"))),
    ("two thousand endpoints: their zone has to grow", Cost::Release, |o, _| {
        o.set("EndpointSlice/web-a", slice("web-a", 2000));
    }),
    ("an endpoint that is not ready any more", Cost::Live, |o, _| {
        o.at("EndpointSlice/web-a")["endpoints"][0]["conditions"]["ready"] = json!(false);
    }),
    ("an endpoint that is serving while it terminates, but was ready", Cost::Live, |o, _| {
        o.at("EndpointSlice/web-a")["endpoints"][0]["conditions"] =
            json!({"ready": false, "serving": true, "terminating": true});
    }),
    ("the same endpoints in two slices", Cost::Nothing, |o, _| o.set("EndpointSlice/web-b", slice("web-b", 3))),
    ("the order of the endpoints", Cost::Nothing, |o, _| {
        o.at("EndpointSlice/web-a")["endpoints"].as_array_mut().unwrap().reverse();
    }),
    ("zones and hints", Cost::Nothing, |o, _| {
        o.at("EndpointSlice/web-a")["endpoints"][0]["zone"] = json!("a");
        o.at("EndpointSlice/web-a")["endpoints"][0]["hints"] = json!({"forZones": [{"name": "a"}]});
    }),
    ("a slice of a Service that nobody names", Cost::Nothing, |o, _| {
        let mut other = slice("other-a", 3);
        other["metadata"]["labels"]["kubernetes.io/service-name"] = json!("other");
        o.set("EndpointSlice/other-a", other);
    }),
    // Secrets
    ("a renewed certificate", Cost::Live, |o, a| o.set("Secret/pair", secret("pair", a, &["app.test"]))),
    ("a renewed certificate with a name more", Cost::Live, |o, a| {
        o.set("Secret/pair", secret("pair", a, &["app.test", "other.test"]));
    }),
    ("a certificate that does not fit the host any more", Cost::Release, |o, a| {
        o.set("Secret/pair", secret("pair", a, &["other.test"]));
    }),
    ("a broken certificate: the last good one stays", Cost::Nothing, |o, _| {
        o.at("Secret/pair")["stringData"]["tls.crt"] = json!("garbage");
    }),
    ("a Secret that goes: the default certificate is served", Cost::Live, |o, _| drop(o.remove("Secret/pair"))),
    ("its labels", Cost::Nothing, |o, _| o.at("Secret/pair")["metadata"]["labels"]["a"] = json!("b")),
    ("a Secret that nobody names", Cost::Nothing, |o, a| o.set("Secret/other", secret("other", a, &["other.test"]))),
    // ConfigMaps
    ("a setting", Cost::Release, |o, _| o.at("ConfigMap/settings")["data"]["proxy-body-size"] = json!("3m")),
    ("a setting in other words", Cost::Nothing, |o, _| {
        o.at("ConfigMap/settings")["data"]["proxy-body-size"] = json!("2048k");
    }),
    ("a setting that says the default", Cost::Nothing, |o, _| {
        o.at("ConfigMap/settings")["data"]["proxy-connect-timeout"] = json!("5");
    }),
    ("a key that nobody knows", Cost::Nothing, |o, _| o.at("ConfigMap/settings")["data"]["no-such-key"] = json!("1")),
    ("files that are served", Cost::Release, |o, _| o.at("ConfigMap/site")["data"]["index.html"] = json!("good bye")),
    ("its labels", Cost::Nothing, |o, _| o.at("ConfigMap/site")["metadata"]["labels"]["a"] = json!("b")),
    ("a ConfigMap that nobody names", Cost::Nothing, |o, _| {
        o.set("ConfigMap/other", config_map("other", json!({"a": "b"})))
    }),
    // Ingresses
    ("a path more", Cost::Release, |o, _| {
        let paths = o.at("Ingress/app")["spec"]["rules"][0]["http"]["paths"].as_array_mut().unwrap();
        let mut more = paths[0].clone();
        more["path"] = json!("/more");
        paths.push(more);
    }),
    ("an annotation with effect", Cost::Release, |o, _| {
        o.at("Ingress/app")["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"] = json!("9m");
    }),
    ("an annotation that says what holds anyway", Cost::Nothing, |o, _| {
        o.at("Ingress/app")["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"] = json!("2m");
    }),
    ("a foreign annotation", Cost::Nothing, |o, _| {
        o.at("Ingress/app")["metadata"]["annotations"]["example.com/a"] = json!("b");
    }),
    ("its labels", Cost::Nothing, |o, _| o.at("Ingress/app")["metadata"]["labels"]["a"] = json!("b")),
    ("its status", Cost::Nothing, |o, _| {
        o.at("Ingress/app")["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    }),
    ("the order of its paths", Cost::Nothing, |o, _| {
        o.at("Ingress/app")["spec"]["rules"][0]["http"]["paths"].as_array_mut().unwrap().reverse();
    }),
    ("an Ingress of another class", Cost::Nothing, |o, _| {
        let mut other = o.at("Ingress/app").clone();
        other["metadata"]["name"] = json!("other");
        other["spec"]["ingressClassName"] = json!("other");
        o.insert("Ingress/other", other);
    }),
    ("an Ingress that wins nothing, being younger", Cost::Nothing, |o, _| {
        o.at("Ingress/app")["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
        let mut other = o.at("Ingress/app").clone();
        other["metadata"]["name"] = json!("other");
        other["metadata"]["creationTimestamp"] = json!("2021-01-01T00:00:00Z");
        o.insert("Ingress/other", other);
    }),
    ("an Ingress that goes", Cost::Release, |o, _| drop(o.remove("Ingress/app"))),
    // IngressClasses
    ("a class that is not ours", Cost::Nothing, |o, _| {
        let mut other = o.at("IngressClass/coxswain").clone();
        other["metadata"]["name"] = json!("other");
        other["spec"]["controller"] = json!("example.com/other");
        o.insert("IngressClass/other", other);
    }),
];

trait Edit {
    fn at(&mut self, name: &str) -> &mut Value;
    fn set(&mut self, name: &'static str, object: Value);
}

impl Edit for Objects {
    fn at(&mut self, name: &str) -> &mut Value {
        self.get_mut(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    fn set(&mut self, name: &'static str, object: Value) {
        self.insert(name, object);
    }
}

#[test]
fn each_kind_of_change_costs_what_it_must_and_no_more() {
    let authority = Authority::new();
    let generated = Arc::new(coxswain::watch::generated_certificate().unwrap());
    let wrong: Vec<String> = ROWS
        .iter()
        .filter_map(|(change, expected, make)| {
            let mut controller = Controller::new(&generated);
            let mut objects = objects(&authority);
            assert_eq!(controller.take_up(&objects), Cost::Release, "the first of all");
            assert_eq!(controller.take_up(&objects), Cost::Nothing, "the same again");
            let before = objects.clone();
            make(&mut objects, &authority);
            assert_ne!(objects, before, "{change}: nothing was changed");
            let cost = controller.take_up(&objects);
            (cost != *expected).then(|| format!("{change}: {cost:?}, not {expected:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
