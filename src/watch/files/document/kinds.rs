//! The kinds that are read from files, and what the API server would have filled in.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::Object;
use super::typed::Typed;
use crate::snapshot::TlsSecret;

impl Typed for Ingress {
    fn fill_in(&mut self) {
        let rules = self.spec.iter_mut().flat_map(|spec| &mut spec.rules).flatten();
        for path in rules.flat_map(|rule| &mut rule.http).flat_map(|http| &mut http.paths) {
            if path.path_type.is_empty() {
                path.path_type = "ImplementationSpecific".to_owned();
            }
        }
    }

    fn into_object(self) -> Object {
        Object::Ingress(Arc::new(self))
    }
}

impl Typed for IngressClass {
    fn into_object(self) -> Object {
        Object::IngressClass(Arc::new(self))
    }
}

impl Typed for Service {
    fn fill_in(&mut self) {
        for port in self.spec.iter_mut().flat_map(|spec| &mut spec.ports).flatten() {
            port.protocol.get_or_insert_with(tcp);
        }
    }

    fn into_object(self) -> Object {
        Object::Service(Arc::new(self))
    }
}

impl Typed for EndpointSlice {
    fn fill_in(&mut self) {
        for port in self.ports.iter_mut().flatten() {
            port.protocol.get_or_insert_with(tcp);
        }
    }

    fn into_object(self) -> Object {
        Object::EndpointSlice(Arc::new(self))
    }
}

impl Typed for Secret {
    const SECRET: bool = true;

    fn fill_in(&mut self) {
        for (key, text) in self.string_data.take().unwrap_or_default() {
            self.data.get_or_insert_default().insert(key, ByteString(text.into_bytes()));
        }
    }

    /// Parsed here, once for each content of its file.
    fn into_object(self) -> Object {
        Object::Secret(Arc::new(TlsSecret::parse(&self)))
    }
}

impl Typed for ConfigMap {
    fn into_object(self) -> Object {
        Object::ConfigMap(Arc::new(self))
    }
}

fn tcp() -> String {
    "TCP".to_owned()
}
