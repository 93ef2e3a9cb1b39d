//! What the tests of translation share: a snapshot from YAML, and a translation as text to compare with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::{HeldBack, Translation, translate};
use crate::model::certificate::PrivateBytes;
use crate::model::{Action, Certificate, PathMatch, Route, VirtualHost};
use crate::settings::{Flags, Settings};
use crate::snapshot::{Snapshot, TlsSecret};
use crate::value::Value as _;
use crate::value::reference::{Name, ObjectName};
use crate::volume::Endpoints;

/// The time of all tests, in seconds since 1970.
pub const NOW: i64 = 1_800_000_000;

/// What is translated.
pub struct Case {
    pub snapshot: Snapshot,
    pub flags: Flags,
    pub held: HeldBack,
}

/// Compares what becomes of `yaml` (Ingresses need no class) with the text of [`Case::shown`].
pub fn check(yaml: &str, expected: &str) {
    Case::of(yaml).shows(expected);
}

impl Case {
    /// The objects of a YAML text in flow style. A missing namespace is `shop`; `svc(web:80)` is short for a backend.
    pub fn of(yaml: &str) -> Self {
        let mut snapshot = Snapshot::default();
        for document in serde_saphyr::from_multiple::<Json>(&expanded(yaml)).unwrap() {
            let kind = document["kind"].as_str().unwrap().to_owned();
            match kind.as_str() {
                "Ingress" => enter(&mut snapshot.ingresses, document),
                "Service" => enter(&mut snapshot.services, document),
                "EndpointSlice" => enter(&mut snapshot.endpoint_slices, document),
                "ConfigMap" => enter(&mut snapshot.config_maps, document),
                _ => panic!("{kind} is not read here"),
            }
        }
        let flags = Flags { watch_ingress_without_class: true, ..Flags::default() };
        Self { snapshot, flags, held: HeldBack::default() }
    }

    /// Adds a Secret `shop/<name>` with a certificate for these names, or a broken one.
    pub fn secret(mut self, name: &str, certificate: Result<&[&str], &str>) -> Self {
        let certificate = certificate.map(|names| Arc::new(pair(names, NOW + 1))).map_err(str::to_owned);
        let object = ObjectName::parse(&format!("shop/{name}")).unwrap();
        self.snapshot.secrets.insert(object, Arc::new(TlsSecret { uid: None, certificate }));
        self
    }

    pub fn translated(&self) -> Translation {
        let (settings, problems) = Settings::read(&self.flags, &self.snapshot);
        assert_eq!(problems, []);
        translate(&self.snapshot, &settings, &self.held, NOW)
    }

    /// Compares with the hosts, their routes in order, and the problems, without regard to indentation.
    pub fn shows(&self, expected: &str) {
        let trimmed =
            |text: &str| text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
        assert_eq!(trimmed(&shown(&self.translated())), trimmed(expected));
    }

    /// Everything that is told, as people read it.
    pub fn told(&self) -> Vec<String> {
        self.translated().problems.iter().map(ToString::to_string).collect()
    }
}

/// A certificate that nobody checks.
pub fn pair(names: &[&str], not_after: i64) -> Certificate {
    Certificate {
        digest: names.concat(),
        // Sorted, as parsing leaves them.
        names: names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>().into_iter().collect(),
        not_before: NOW - 1,
        not_after,
        serial: String::new(),
        issuer: String::new(),
        pem: PrivateBytes::new(*b"pem"),
    }
}

fn expanded(yaml: &str) -> String {
    let yaml: Vec<_> = yaml.lines().map(str::trim_start).collect();
    let yaml = yaml.join("\n");
    let mut parts = yaml.split("svc(");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let (reference, rest) = part.split_once(')').unwrap();
        let (service, port) = reference.split_once(':').unwrap();
        let field = if port.parse::<u16>().is_ok() { "number" } else { "name" };
        write!(text, "{{service: {{name: {service}, port: {{{field}: {port}}}}}}}{rest}").unwrap();
    }
    text
}

fn enter<K>(table: &mut BTreeMap<ObjectName, Arc<K>>, mut document: Json)
where
    K: DeserializeOwned + Serialize + Metadata<Ty = ObjectMeta>,
{
    document.as_object_mut().unwrap().entry("apiVersion").or_insert_with(|| K::API_VERSION.into());
    document["metadata"].as_object_mut().unwrap().entry("namespace").or_insert_with(|| "shop".into());
    let object: K = serde_json::from_value(document.clone()).unwrap();
    // Unknown fields are ignored without a word otherwise, and a typo would make a test that tests nothing.
    covered(&document, &serde_json::to_value(&object).unwrap());
    let name = |text: &Option<String>| Name::parse(text.as_deref().unwrap()).unwrap();
    let key = ObjectName::new(name(&object.metadata().namespace), name(&object.metadata().name));
    assert!(table.insert(key, Arc::new(object)).is_none(), "two objects of one name");
}

fn covered(given: &Json, taken: &Json) {
    match (given, taken) {
        (Json::Object(given), Json::Object(taken)) => {
            for (key, value) in given {
                covered(value, taken.get(key).unwrap_or_else(|| panic!("no such field: {key}")));
            }
        }
        (Json::Array(given), Json::Array(taken)) => given.iter().zip(taken).for_each(|(g, t)| covered(g, t)),
        _ => {}
    }
}

/// A translation as text: what each host does, in order, and what was told.
pub fn shown(translation: &Translation) -> String {
    let mut text = String::new();
    for host in &translation.config.hosts {
        let VirtualHost { host: name, tls, routes, source: _ } = host;
        let slot = tls.as_ref().map(|slot| {
            let slot = &translation.config.slots[slot];
            format!(" tls {}", slot.secret.as_ref().map_or_else(|| "default".to_owned(), ToString::to_string))
        });
        writeln!(text, "{name}{}", slot.unwrap_or_default()).unwrap();
        for route in routes {
            writeln!(text, "{}", shown_route(translation, route)).unwrap();
        }
    }
    for problem in &translation.problems {
        let at = if problem.field.is_empty() { String::new() } else { format!(" {}", problem.field) };
        writeln!(text, "! {} {}{at} {problem}", problem.severity, problem.reason).unwrap();
    }
    text
}

fn shown_route(translation: &Translation, route: &Route) -> String {
    let path = match &route.path {
        PathMatch::Exact(path) => format!("= {path}"),
        PathMatch::Prefix(path) => format!("^ {path}"),
        PathMatch::Regex(regex) => format!("~ {regex}"),
    };
    let action = match &route.action {
        Action::Respond(code) => code.to_string(),
        Action::Files(files) => format!("files {}", files.object),
        Action::Forward(id) => {
            let upstream = &translation.config.upstreams[id];
            let port = id.as_str().rsplit('-').next().unwrap();
            let endpoints = match &upstream.endpoints {
                Endpoints::Addresses(addresses) if addresses.is_empty() => "none".to_owned(),
                Endpoints::Addresses(addresses) => {
                    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
                }
                Endpoints::Name { host, port } => format!("{host}:{port}"),
            };
            format!("{}:{port} [{endpoints}]", upstream.service)
        }
    };
    format!("{path} -> {action}{}", if route.redirect_to_https { " https" } else { "" })
}
