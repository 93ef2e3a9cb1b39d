//! The settings in force: the command line's pure part, the global ConfigMap, and the parameters of every class.
//!
//! Which keys exist, what they mean and what is told about them lies in `annotations`; which objects they come from
//! lies here.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::networking::v1::{IngressClass, IngressClassParametersReference};

use crate::annotations::{self, GlobalPolicies, Globals, IngressPolicies};
use crate::model::Listeners;
use crate::problem::{Kind, Problem, Reason, Severity, Subject};
use crate::snapshot::Snapshot;
use crate::value::reference::{Name, ObjectName};
use crate::value::{Value as _, shown};

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

impl Flags {
    /// The global ConfigMap, as it is told something.
    pub fn config_map_of(&self, snapshot: &Snapshot) -> Option<Subject> {
        let object = self.config_map.as_ref()?;
        Some(subject_of(object, snapshot.config_maps.get(object)?))
    }

    /// Whether an IngressClass is ours, and with it the Ingresses that name it.
    pub fn owns(&self, name: &ObjectName, class: &IngressClass) -> bool {
        let controller = class.spec.as_ref().and_then(|spec| spec.controller.as_deref());
        controller == Some(&self.controller_class)
            || (self.ingress_class_by_name && name.name.as_str() == self.ingress_class)
    }
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
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// The command line.
    pub flags: Flags,
    /// What holds for the whole proxy.
    pub globals: Globals,
    /// The ConfigMap that says so; `None` where there is none.
    pub globals_source: Option<Subject>,
    /// Exact and Prefix paths that look like regular expressions are not served (`strict-validate-path-type`).
    pub strict_validate_path_type: bool,
    /// What holds for every route unless its Ingress, its class or its Service says otherwise.
    base: IngressPolicies,
    /// The same for the Ingresses of an IngressClass of ours that has parameters, by the name of the class.
    classes: BTreeMap<Name, IngressPolicies>,
}

impl Settings {
    /// Reads the global ConfigMap and the parameters of every IngressClass of ours, and tells what is wrong with them.
    pub fn read(flags: &Flags, snapshot: &Snapshot) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let (GlobalPolicies { globals, strict_validate_path_type }, base) = global(flags, snapshot, &mut problems);
        let mut classes = BTreeMap::new();
        for (name, class) in snapshot.ingress_classes.iter().flatten().filter(|(name, class)| flags.owns(name, class)) {
            if let Some(policies) = of_class(flags, snapshot, &base, name, class, &mut problems) {
                classes.insert(name.name.clone(), policies);
            }
        }
        let map = flags.config_map.as_ref().and_then(|object| snapshot.config_maps.get_key_value(object));
        let globals_source = map.map(|(object, map)| subject_of(object, map));
        (Self { flags: flags.clone(), globals, globals_source, strict_validate_path_type, base, classes }, problems)
    }

    /// What holds for an Ingress that says nothing itself: of this class, or (`None`) of a class without an
    /// IngressClass. Routes that no Ingress asks for (the default backend) take `None` too, including its `denied`.
    pub fn base(&self, class: Option<&Name>) -> &IngressPolicies {
        class.and_then(|class| self.classes.get(class)).unwrap_or(&self.base)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::read(&Flags::default(), &Snapshot::default()).0
    }
}

fn global(flags: &Flags, snapshot: &Snapshot, problems: &mut Vec<Problem>) -> (GlobalPolicies, IngressPolicies) {
    let Some(object) = &flags.config_map else { return Default::default() };
    match snapshot.config_maps.get(object) {
        Some(map) => {
            let subject = subject_of(object, map);
            tell_binary(&subject, map, problems);
            annotations::read_config_map(&subject, map.data.as_ref(), problems)
        }
        None => {
            problems.push(Problem {
                subject: Subject { kind: Kind::ConfigMap, object: object.clone(), uid: None },
                field: String::new(),
                severity: Severity::Degraded,
                reason: Reason::ConfigMapNotFound,
                message: "the ConfigMap of the settings does not exist; it must be the one that `--configmap` names"
                    .to_owned(),
                effect: "every setting has its default".to_owned(),
            });
            Default::default()
        }
    }
}

/// What the parameters of a class say; `None` where it has none, or none that can be read.
fn of_class(
    flags: &Flags,
    snapshot: &Snapshot,
    base: &IngressPolicies,
    name: &ObjectName,
    class: &IngressClass,
    problems: &mut Vec<Problem>,
) -> Option<IngressPolicies> {
    let reference = class.spec.as_ref()?.parameters.as_ref()?;
    let found = config_map_of(flags, reference).and_then(|object| match snapshot.config_maps.get(&object) {
        Some(map) => Ok((object, map)),
        None => Err(("spec.parameters.name", format!("the ConfigMap {object} does not exist"))),
    });
    match found {
        Ok((object, map)) => {
            let subject = subject_of(&object, map);
            tell_binary(&subject, map, problems);
            Some(annotations::read_parameters(base, &subject, map.data.as_ref(), problems))
        }
        Err((field, message)) => {
            problems.push(Problem {
                subject: Subject { kind: Kind::IngressClass, object: name.clone(), uid: class.metadata.uid.clone() },
                field: field.to_owned(),
                severity: Severity::Degraded,
                reason: Reason::ParametersNotFound,
                message,
                effect: "the Ingresses of the class are served without its parameters".to_owned(),
            });
            None
        }
    }
}

/// The ConfigMap that a reference names, or the field that is wrong and why.
fn config_map_of(
    flags: &Flags,
    reference: &IngressClassParametersReference,
) -> Result<ObjectName, (&'static str, String)> {
    let IngressClassParametersReference { api_group, kind, name, namespace, scope } = reference;
    let group = api_group.as_deref().unwrap_or_default();
    if !group.is_empty() || kind != "ConfigMap" {
        let given = shown(&if group.is_empty() { kind.clone() } else { format!("{kind}.{group}") });
        return Err((
            "spec.parameters.kind",
            format!("{given} is no kind of parameters here; it must be a ConfigMap, of the core group"),
        ));
    }
    let name = Name::parse(name).map_err(|invalid| ("spec.parameters.name", format!("{} {invalid}", shown(name))))?;
    let namespace = match (scope.as_deref().unwrap_or("Cluster"), namespace.as_deref()) {
        ("Namespace", Some(namespace)) => Name::parse(namespace)
            .map_err(|invalid| ("spec.parameters.namespace", format!("{} {invalid}", shown(namespace))))?,
        ("Namespace", None) => {
            return Err(("spec.parameters.namespace", "scope `Namespace` needs a namespace; there is none".to_owned()));
        }
        ("Cluster", Some(_)) => {
            let message = "scope `Cluster` (also the default) takes no namespace; the scope must be `Namespace`";
            return Err(("spec.parameters.namespace", message.to_owned()));
        }
        ("Cluster", None) => {
            let own = flags.namespace.as_ref().or(flags.config_map.as_ref().and_then(|map| map.namespace.as_ref()));
            let message = "a ConfigMap of scope `Cluster` (also the default) is looked for in the namespace of the \
                           controller, which is not known here; the scope must be `Namespace`, with a namespace";
            own.cloned().ok_or_else(|| ("spec.parameters.scope", message.to_owned()))?
        }
        (scope, _) => {
            let message = format!("{} is no scope; it must be `Cluster` or `Namespace`", shown(scope));
            return Err(("spec.parameters.scope", message));
        }
    };
    Ok(ObjectName::new(namespace, name))
}

fn subject_of(object: &ObjectName, map: &ConfigMap) -> Subject {
    Subject { kind: Kind::ConfigMap, object: object.clone(), uid: map.metadata.uid.clone() }
}

fn tell_binary(subject: &Subject, map: &ConfigMap, problems: &mut Vec<Problem>) {
    for key in map.binary_data.iter().flat_map(BTreeMap::keys) {
        problems.push(Problem {
            subject: subject.clone(),
            field: "binaryData".to_owned(),
            severity: Severity::Degraded,
            reason: Reason::OutOfPlace,
            message: format!("{} is not text; settings must stand in `data`", shown(key)),
            effect: "it has no effect".to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::networking::v1::IngressClassSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn name(text: &str) -> ObjectName {
        ObjectName::parse(text).unwrap()
    }

    fn map(entries: &[(&str, &str)]) -> Arc<ConfigMap> {
        let data = entries.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        Arc::new(ConfigMap { data: Some(data), ..ConfigMap::default() })
    }

    /// A class of ours, with parameters of this kind, scope and namespace, all named `edge`.
    fn class(kind: &str, scope: Option<&str>, namespace: Option<&str>) -> (ObjectName, Arc<IngressClass>) {
        let parameters = IngressClassParametersReference {
            api_group: None,
            kind: kind.to_owned(),
            name: "edge".to_owned(),
            namespace: namespace.map(str::to_owned),
            scope: scope.map(str::to_owned),
        };
        let spec =
            IngressClassSpec { controller: Some("coxswain.dev/ingress".to_owned()), parameters: Some(parameters) };
        let metadata = ObjectMeta { uid: Some("u".to_owned()), ..ObjectMeta::default() };
        (ObjectName::cluster(Name::parse("edge").unwrap()), Arc::new(IngressClass { metadata, spec: Some(spec) }))
    }

    fn read(flags: &Flags, snapshot: &Snapshot) -> (Settings, Vec<String>) {
        let (settings, problems) = Settings::read(flags, snapshot);
        (settings, problems.iter().map(|problem| format!("{} {problem}", problem.field)).collect())
    }

    #[test]
    fn the_global_config_map_is_read_and_its_own_mistakes_are_told_on_it() {
        let flags = Flags { config_map: Some(name("ops/settings")), ..Flags::default() };
        let entries = [("proxy-body-size", "8m"), ("hsts", "maybe"), ("worker-proceses", "2"), ("rewrite-target", "/")];
        let mut snapshot = Snapshot::default();
        snapshot.config_maps.insert(name("ops/settings"), map(&entries));
        let (settings, told) = read(&flags, &snapshot);
        assert_eq!(settings.base(None).policies.body_size.0.to_string(), "8m");
        assert_eq!(
            told,
            [
                "data[hsts] ConfigMap ops/settings: hsts: \"maybe\" is neither true nor false; it must be `true` or \
                 `false`; using true",
                "data[rewrite-target] ConfigMap ops/settings: rewrite-target is an annotation of Ingresses, not a key of the \
                 global ConfigMap; it has no effect",
                "data[worker-proceses] ConfigMap ops/settings: \"worker-proceses\" is no key of the global ConfigMap that is \
                 known here; did you mean `worker-processes`?; it has no effect",
            ]
        );
    }

    #[test]
    fn a_config_map_that_is_not_there_is_told_and_the_defaults_hold() {
        let flags = Flags { config_map: Some(name("ops/settings")), ..Flags::default() };
        let (settings, told) = read(&flags, &Snapshot::default());
        assert_eq!(settings, Settings { flags, ..Settings::default() });
        assert_eq!(
            told,
            [" ConfigMap ops/settings: the ConfigMap of the settings does not exist; it must be the one that \
                      `--configmap` names; every setting has its default"]
        );
    }

    #[test]
    fn the_parameters_of_a_class_hold_for_that_class_alone() {
        let flags = Flags { config_map: Some(name("ops/settings")), ..Flags::default() };
        let (edge, object) = class("ConfigMap", None, None);
        let mut snapshot = Snapshot::default();
        snapshot.config_maps.insert(name("ops/settings"), map(&[("proxy-body-size", "8m")]));
        // Scope Cluster: in the controller's own namespace.
        let entries =
            [("proxy-read-timeout", "9"), ("worker-processes", "2"), ("whitelist-source-range", "10.0.0.0/8")];
        snapshot.config_maps.insert(name("ops/edge"), map(&entries));
        snapshot.ingress_classes = Some([(edge.clone(), object)].into());
        let (settings, told) = read(&flags, &snapshot);
        let policies = &settings.base(Some(&edge.name)).policies;
        assert_eq!((policies.timeouts.read.get(), policies.body_size.0.to_string().as_str()), (9, "8m"));
        assert_eq!(policies.source_range.allow.len(), 1);
        let other = Name::parse("other").unwrap();
        assert_eq!(settings.base(Some(&other)).policies.timeouts.read.get(), 60);
        assert_eq!(
            told,
            [
                "data[worker-processes] ConfigMap ops/edge: worker-processes holds for the whole proxy, not for one class; it \
              belongs into the global ConfigMap; it has no effect"
            ]
        );
    }

    #[test]
    fn parameters_that_cannot_be_found_are_told_on_the_class() {
        for (kind, scope, namespace, want) in [
            (
                "Secret",
                None,
                None,
                "spec.parameters.kind IngressClass edge: \"Secret\" is no kind of parameters here; it must be a ConfigMap, of \
                 the core group",
            ),
            (
                "ConfigMap",
                Some("Namespace"),
                Some("x"),
                "spec.parameters.name IngressClass edge: the ConfigMap x/edge does not exist",
            ),
            (
                "ConfigMap",
                Some("Namespace"),
                None,
                "spec.parameters.namespace IngressClass edge: scope `Namespace` needs a namespace; there is none",
            ),
            (
                "ConfigMap",
                None,
                Some("x"),
                "spec.parameters.namespace IngressClass edge: scope `Cluster` (also the default) takes no namespace; the scope \
                 must be `Namespace`",
            ),
            (
                "ConfigMap",
                Some("Cluster"),
                None,
                "spec.parameters.scope IngressClass edge: a ConfigMap of scope `Cluster` (also the default) is looked for in \
                 the namespace of the controller, which is not known here; the scope must be `Namespace`, with a namespace",
            ),
            (
                "ConfigMap",
                Some("World"),
                None,
                "spec.parameters.scope IngressClass edge: \"World\" is no scope; it must be `Cluster` or `Namespace`",
            ),
            (
                "ConfigMap",
                Some("Namespace"),
                Some("No Name"),
                "spec.parameters.namespace IngressClass edge: \"No Name\" is not a name of an object; it must be a DNS name of \
                 lower-case letters, digits, `-` and `.`",
            ),
        ] {
            let classes = [class(kind, scope, namespace)].into();
            let (settings, told) =
                read(&Flags::default(), &Snapshot { ingress_classes: Some(classes), ..Snapshot::default() });
            assert_eq!(told, [format!("{want}; the Ingresses of the class are served without its parameters")]);
            assert_eq!(settings, Settings::default());
        }
    }

    #[test]
    fn classes_of_other_controllers_are_not_read() {
        let classes = [class("ConfigMap", Some("Namespace"), Some("x"))].into();
        let flags = Flags { controller_class: "else.example/ingress".to_owned(), ..Flags::default() };
        let snapshot = Snapshot { ingress_classes: Some(classes), ..Snapshot::default() };
        assert_eq!(read(&flags, &snapshot).1, [""; 0]);
        let by_name = Flags { ingress_class: "edge".to_owned(), ingress_class_by_name: true, ..flags };
        assert_eq!(read(&by_name, &snapshot).1.len(), 1);
    }
}
