//! From a Service and the port that somebody names to an upstream.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::endpoints::{Fence, Slices};
use super::external;
use crate::annotations::load_balance::LoadBalance;
use crate::annotations::{IngressPolicies, Source, read_service};
use crate::model::{PortId, Upstream, UpstreamId};
use crate::problem::{Kind, Problem, Reason, Subject};
use crate::settings::Flags;
use crate::snapshot::Snapshot;
use crate::value::reference::{ObjectName, PortName};
use crate::volume::{Endpoints, Protocol};

/// A port as a backend names it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Port {
    /// By number.
    Number(u16),
    /// By name.
    Name(PortName),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name.as_str()),
        }
    }
}

/// What those who name the Service and the port are told.
#[derive(Clone)]
pub struct Trouble {
    /// Why.
    pub reason: Reason,
    /// The field of the backend that is wrong.
    pub below: &'static str,
    /// What is wrong.
    pub message: String,
    /// How it is served nevertheless; `None`: it answers 503.
    pub served: Option<String>,
}

type Key = (ObjectName, Port, Protocol, LoadBalance);

/// The Services, and the upstreams made of them so far.
pub struct Services<'a> {
    snapshot: &'a Snapshot,
    flags: &'a Flags,
    slices: Slices<'a>,
    known: BTreeMap<Key, (UpstreamId, Option<Trouble>)>,
    upstreams: BTreeMap<UpstreamId, Upstream>,
}

impl<'a> Services<'a> {
    /// Indexes the EndpointSlices once.
    pub fn new(snapshot: &'a Snapshot, flags: &'a Flags) -> Self {
        let slices = Slices::new(snapshot);
        Self { snapshot, flags, slices, known: BTreeMap::new(), upstreams: BTreeMap::new() }
    }

    /// The Service as somebody to be told something.
    pub fn subject(&self, name: &ObjectName) -> Subject {
        let uid = self.snapshot.services.get(name).and_then(|service| service.metadata.uid.clone());
        Subject { kind: Kind::Service, object: name.clone(), uid }
    }

    /// What holds on the way to this Service: what its own annotations say comes first.
    pub fn policies<'p>(
        &self,
        prefix: &str,
        name: &ObjectName,
        policies: &'p IngressPolicies,
        problems: &mut Vec<Problem>,
    ) -> Cow<'p, IngressPolicies> {
        let annotations = self.snapshot.services.get(name).and_then(|service| service.metadata.annotations.as_ref());
        if annotations.is_none_or(BTreeMap::is_empty) {
            return Cow::Borrowed(policies);
        }
        read_service(prefix, policies, Source { subject: &self.subject(name), annotations }, problems)
    }

    /// The number of the first TCP port of a Service.
    pub fn first_port(&self, name: &ObjectName) -> Option<u16> {
        let ports = self.snapshot.services.get(name)?.spec.as_ref()?.ports.as_ref()?;
        ports.iter().filter(|port| is_tcp(port)).find_map(number)
    }

    /// The upstream for a port of a Service. There always is one: without endpoints it answers 503 until they come.
    pub fn resolve(
        &mut self,
        name: &ObjectName,
        port: &Port,
        policies: &IngressPolicies,
        problems: &mut Vec<Problem>,
    ) -> (UpstreamId, Option<Trouble>) {
        let (protocol, load_balance) = (policies.backend_protocol, policies.load_balance);
        let key = (name.clone(), port.clone(), protocol, load_balance);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let Found { port, endpoints, trouble } = match self.snapshot.services.get(name) {
            Some(service) => self.find(name, service, port, problems),
            None => Found::none(
                port,
                Trouble {
                    reason: Reason::ServiceNotFound,
                    below: ".service.name",
                    message: format!("Service {name} does not exist; it must be in the Ingress's namespace"),
                    served: None,
                },
            ),
        };
        let id = UpstreamId::new(name, &port, protocol, load_balance);
        let upstream = || Upstream { service: name.clone(), protocol, load_balance, endpoints };
        self.upstreams.entry(id.clone()).or_insert_with(upstream);
        self.known.insert(key, (id.clone(), trouble.clone()));
        (id, trouble)
    }

    /// All upstreams that were resolved.
    pub fn into_upstreams(self) -> BTreeMap<UpstreamId, Upstream> {
        self.upstreams
    }

    fn find(&self, name: &ObjectName, service: &Arc<Service>, port: &Port, problems: &mut Vec<Problem>) -> Found {
        let spec = service.spec.as_ref();
        if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
            return self.find_external(name, service, port, problems);
        }
        let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let (found, trouble) = match matching(name, ports, port) {
            Ok(found) => found,
            Err(trouble) => return Found::none(port, trouble),
        };
        let fence = Fence { origin: self.snapshot.origin, flags: self.flags };
        let ready = self.slices.ready(name, found.name.as_deref().unwrap_or_default(), fence, problems);
        let trouble = if ready.addresses.is_empty() { Some(no_endpoints(name, ready.unready)) } else { trouble };
        let port = number(found).map_or_else(|| id(port), PortId::number);
        Found { port, endpoints: Endpoints::Addresses(ready.addresses), trouble }
    }

    fn find_external(&self, name: &ObjectName, service: &Service, port: &Port, problems: &mut Vec<Problem>) -> Found {
        let spec = service.spec.as_ref();
        let unusable = |message| Trouble { reason: Reason::NoEndpoints, below: ".service.name", message, served: None };
        if self.flags.disable_svc_external_name {
            let switched_off =
                "is of the type ExternalName, which is switched off here (`--disable-svc-external-name`)";
            return Found::none(port, unusable(format!("Service {name} {switched_off}; it must be of another type")));
        }
        let host = match external::host(spec.and_then(|spec| spec.external_name.as_deref()).unwrap_or_default()) {
            Ok(host) => host,
            Err(message) => {
                let subject = self.subject(name);
                let effect = "the Service has no endpoints; requests for it are answered with 503";
                problems.push(subject.rejected(Reason::InvalidBackend, "spec.externalName", message, effect));
                let message =
                    format!("Service {name} has an external name that cannot be used; it must have a good one");
                return Found::none(port, unusable(message));
            }
        };
        let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let target = match port {
            // Nobody need declare the ports of somebody else's server.
            Port::Number(number) => Ok((*number, None)),
            Port::Name(_) => matching(name, ports, port)
                .and_then(|(found, trouble)| number(found).map(|n| (n, trouble)).ok_or_else(|| no_port(name, port))),
        };
        match target {
            Ok((number, trouble)) => {
                let endpoints = Endpoints::Name { host, port: number };
                Found { port: PortId::number(number), endpoints, trouble }
            }
            Err(trouble) => Found::none(port, trouble),
        }
    }
}

/// What was found behind a port of a Service.
struct Found {
    port: PortId,
    endpoints: Endpoints,
    trouble: Option<Trouble>,
}

impl Found {
    fn none(port: &Port, trouble: Trouble) -> Self {
        Self { port: id(port), endpoints: Endpoints::Addresses(Vec::new()), trouble: Some(trouble) }
    }
}

fn id(port: &Port) -> PortId {
    match port {
        Port::Number(number) => PortId::number(*number),
        Port::Name(name) => PortId::name(name),
    }
}

/// The port of a Service that is meant: the one of this number or name; else, as ingress-nginx has it, the one that
/// leads to a port of this number or name, which is told.
fn matching<'s>(
    name: &ObjectName,
    ports: &'s [ServicePort],
    port: &Port,
) -> Result<(&'s ServicePort, Option<Trouble>), Trouble> {
    let same = |candidate: &&ServicePort| match port {
        Port::Number(number) => candidate.port == i32::from(*number),
        Port::Name(name) => candidate.name.as_deref() == Some(name.as_str()),
    };
    let leads_there = |candidate: &&ServicePort| match (&candidate.target_port, port) {
        (Some(IntOrString::Int(target)), Port::Number(number)) => *target == i32::from(*number),
        (Some(IntOrString::String(target)), Port::Name(name)) => target == name.as_str(),
        _ => false,
    };
    let tcp = || ports.iter().filter(|port| is_tcp(port));
    if let Some(found) = tcp().find(same) {
        return Ok((found, None));
    }
    if let Some(found) = tcp().find(leads_there) {
        let right = found.port;
        let message =
            format!("{port} is no port of Service {name} but the target of its port {right}; it must be {right}");
        let served = Some(format!("port {right} is used"));
        return Ok((found, Some(Trouble { reason: Reason::PortNotFound, below: ".service.port", message, served })));
    }
    match ports.iter().find(same).and_then(|found| found.protocol.as_deref()) {
        Some(protocol) => {
            let message = format!("port {port} of Service {name} is {protocol:.10?}; only TCP ports can be served");
            Err(Trouble { reason: Reason::PortNotFound, below: ".service.port", message, served: None })
        }
        None => Err(no_port(name, port)),
    }
}

fn no_port(name: &ObjectName, port: &Port) -> Trouble {
    let message = format!("Service {name} has no port {port}; it must be the number or the name of one of its ports");
    Trouble { reason: Reason::PortNotFound, below: ".service.port", message, served: None }
}

fn no_endpoints(name: &ObjectName, unready: usize) -> Trouble {
    let beside = match unready {
        0 => "it must have one".to_owned(),
        1 => "1 is not ready".to_owned(),
        n => format!("{n} are not ready"),
    };
    let message = format!("Service {name} has no endpoint that is ready; {beside}");
    Trouble { reason: Reason::NoEndpoints, below: ".service.name", message, served: None }
}

fn is_tcp(port: &&ServicePort) -> bool {
    port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
}

fn number(port: &ServicePort) -> Option<u16> {
    u16::try_from(port.port).ok().filter(|&port| port != 0)
}
