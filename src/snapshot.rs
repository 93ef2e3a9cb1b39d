//! The input of translation: every watched object at one moment, sorted and immutable.
//!
//! `watch` fills it, from the API server or from files; nothing here asks where an object came from, except that the
//! rules for loopback endpoints differ ([`Origin`]).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use crate::model::Certificate;
use crate::problem::Problem;
use crate::value::reference::ObjectName;

/// Every watched object at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// All Ingresses, also those of other controllers.
    pub ingresses: BTreeMap<ObjectName, Arc<Ingress>>,
    /// All IngressClasses; `None` where they may not be read (then Ingresses are matched by the name of their class).
    pub ingress_classes: Option<BTreeMap<ObjectName, Arc<IngressClass>>>,
    /// All Services.
    pub services: BTreeMap<ObjectName, Arc<Service>>,
    /// All EndpointSlices.
    pub endpoint_slices: BTreeMap<ObjectName, Arc<EndpointSlice>>,
    /// Secrets that an Ingress could use, parsed once on arrival.
    pub secrets: BTreeMap<ObjectName, Arc<TlsSecret>>,
    /// All ConfigMaps.
    pub config_maps: BTreeMap<ObjectName, Arc<ConfigMap>>,
    /// Where the objects came from.
    pub origin: Origin,
    /// What was found wrong on arrival: malformed objects, unreadable files.
    pub problems: Vec<Problem>,
    /// The certificate made at start-up, served until `--default-ssl-certificate` names a usable one.
    pub generated_certificate: Option<Arc<Certificate>>,
}

/// Where the objects came from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Origin {
    /// The API server: endpoints on loopback, link-local and multicast addresses are refused.
    #[default]
    Cluster,
    /// Files: endpoints on loopback are allowed, except on our own ports.
    Files,
}

/// A Secret as far as it matters here: a certificate with its key, or why it holds none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsSecret {
    /// The uid, for Events; `None` from files.
    pub uid: Option<String>,
    /// The pair, or the end of a sentence that begins with the Secret's name: "has no `tls.key`".
    pub certificate: Result<Arc<Certificate>, String>,
}

impl TlsSecret {
    /// Parses what a Secret holds. Called once per resourceVersion, because parsing is dear.
    pub fn parse(secret: &k8s_openapi::api::core::v1::Secret) -> Self {
        let data = secret.data.as_ref();
        let entry = |key: &str| {
            data.and_then(|data| data.get(key)).map(|value| value.0.as_slice()).ok_or_else(|| format!("has no `{key}`"))
        };
        let certificate = entry("tls.crt").and_then(|chain| {
            let certificate = Certificate::parse(chain, entry("tls.key")?);
            certificate.map(Arc::new).map_err(|why| format!("cannot be used: {why}"))
        });
        Self { uid: secret.metadata.uid.clone(), certificate }
    }
}
