//! Manifests, as short as a table wants them. Each gives a document that ends with `---`, so that they can be joined.
//! Everything is JSON (which is YAML), so that any text may stand in any field.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::Pod;

/// The class that a controller without flags serves.
pub const CLASS: &str = "coxswain";

/// One document.
pub fn document(object: &Value) -> String {
    format!("{object:#}\n---\n")
}

/// A Service with port 80 (named `http`) and a slice with these pods.
pub fn service(name: &str, pods: &[&Pod]) -> String {
    let addresses: Vec<SocketAddr> = pods.iter().map(|pod| pod.address).collect();
    service_at(name, &addresses)
}

/// A Service with port 80 (named `http`) and a slice with these endpoints, which share one port.
pub fn service_at(name: &str, endpoints: &[SocketAddr]) -> String {
    let ready: Vec<_> = endpoints.iter().map(|address| (*address, Some(true))).collect();
    service_with(name, &ready)
}

/// The same, with the readiness of each (`None`: not said).
pub fn service_with(name: &str, endpoints: &[(SocketAddr, Option<bool>)]) -> String {
    let port = endpoints.first().map_or(9, |(address, _)| address.port());
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": port}]},
    });
    document(&service) + &slice(name, "a", &[("http", port)], endpoints)
}

/// One EndpointSlice of a Service. All endpoints have all ports.
pub fn slice(service: &str, suffix: &str, ports: &[(&str, u16)], endpoints: &[(SocketAddr, Option<bool>)]) -> String {
    let ports: Vec<Value> =
        ports.iter().map(|(name, port)| json!({"name": name, "port": port, "protocol": "TCP"})).collect();
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, ready)| json!({"addresses": [address.ip()], "conditions": {"ready": ready}}))
        .collect();
    document(&json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-{suffix}"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    }))
}

/// A ConfigMap of the namespace `default`.
pub fn config_map(name: &str, data: &[(&str, &str)]) -> String {
    let data: serde_json::Map<String, Value> =
        data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    document(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}))
}

/// An Ingress in the making.
#[derive(Clone)]
pub struct Ingress(Value);

impl Ingress {
    /// One of the class [`CLASS`] without rules.
    pub fn new(name: &str) -> Self {
        Self(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": name, "annotations": {}},
            "spec": {"ingressClassName": CLASS},
        }))
    }

    /// In another namespace than `default`.
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.0["metadata"]["namespace"] = json!(namespace);
        self
    }

    /// With this uid.
    pub fn uid(mut self, uid: &str) -> Self {
        self.0["metadata"]["uid"] = json!(uid);
        self
    }

    /// Made at this time.
    pub fn created(mut self, time: &str) -> Self {
        self.0["metadata"]["creationTimestamp"] = json!(time);
        self
    }

    /// Of this class; `None`: without one.
    pub fn class(mut self, class: Option<&str>) -> Self {
        self.0["spec"]["ingressClassName"] = json!(class);
        self
    }

    /// One annotation, by its full name.
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.0["metadata"]["annotations"][name] = json!(value);
        self
    }

    /// One annotation with our prefix.
    pub fn ours(self, name: &str, value: &str) -> Self {
        self.annotation(&format!("nginx.ingress.kubernetes.io/{name}"), value)
    }

    /// A rule for a host; the empty text: for every host. Paths that follow belong to it.
    pub fn host(mut self, host: &str) -> Self {
        let rule = if host.is_empty() { json!({}) } else { json!({"host": host}) };
        self.push("rules", rule);
        self
    }

    /// A path to port 80 of a Service, in the last rule.
    pub fn path(self, kind: &str, path: &str, service: &str) -> Self {
        self.path_to(kind, path, json!({"service": {"name": service, "port": {"number": 80}}}))
    }

    /// A path to any backend, in the last rule. An empty `kind` or `path` is left out.
    pub fn path_to(mut self, kind: &str, path: &str, backend: Value) -> Self {
        let mut entry = json!({"backend": backend});
        if !kind.is_empty() {
            entry["pathType"] = json!(kind);
        }
        if !path.is_empty() {
            entry["path"] = json!(path);
        }
        let rules = self.0["spec"]["rules"].as_array_mut().expect("a host before a path");
        let rule = rules.last_mut().expect("a host before a path");
        if rule["http"].is_null() {
            rule["http"] = json!({"paths": []});
        }
        rule["http"]["paths"].as_array_mut().expect("paths").push(entry);
        self
    }

    /// What answers when no rule does: port 80 of a Service.
    pub fn default_backend(mut self, service: &str) -> Self {
        self.0["spec"]["defaultBackend"] = json!({"service": {"name": service, "port": {"number": 80}}});
        self
    }

    /// TLS for hosts with a Secret (the empty name: without one).
    pub fn tls(mut self, hosts: &[&str], secret: &str) -> Self {
        let mut entry = json!({"hosts": hosts});
        if !secret.is_empty() {
            entry["secretName"] = json!(secret);
        }
        self.push("tls", entry);
        self
    }

    /// The document.
    pub fn yaml(&self) -> String {
        document(&self.0)
    }

    fn push(&mut self, list: &str, entry: Value) {
        let spec = &mut self.0["spec"];
        if spec[list].is_null() {
            spec[list] = json!([]);
        }
        spec[list].as_array_mut().expect("a list").push(entry);
    }
}
