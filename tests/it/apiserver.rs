//! Watching a real API server, and what is written back to it.

mod admission;
mod faults;
mod leading;
mod replica;
mod rights;
mod running;
mod telling;
mod watching;

use coxswain::value::Value as _;
use coxswain::value::reference::{Name, ObjectName};

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn object(text: &str) -> ObjectName {
    ObjectName::parse(text).expect("namespace/name")
}

/// A namespace.
fn namespace(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{name: {name}}}}}\n")
}

/// An Ingress for `host` with one Service as backend.
fn ingress(namespace: &str, name: &str, host: &str) -> String {
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  ingressClassName: coxswain
  rules:
    - host: {host}
      http:
        paths:
          - {{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}
"
    )
}
