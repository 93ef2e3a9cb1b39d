//! From a Service and the port that somebody names to an upstream.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use k8s_openapi::api::core::v1::Service;

use super::endpoints::{Fence, Slices};
use super::external;
use super::ports::{Port, Trouble, is_tcp, matching, no_port, number};
use crate::annotations::{IngressPolicies, Source, read_service};
use crate::model::{PortId, Upstream, UpstreamId};
use crate::problem::{Kind, Problem, Reason, Subject};
use crate::settings::Flags;
use crate::snapshot::Snapshot;
use crate::value::reference::ObjectName;
use crate::volume::Endpoints;

/// The Services, and the upstreams made of them so far.
pub struct Services<'a> {
    snapshot: &'a Snapshot,
    flags: &'a Flags,
    slices: Slices<'a>,
    upstreams: BTreeMap<UpstreamId, Upstream>,
    /// For upstreams without endpoints: how many are not ready.
    unready: BTreeMap<UpstreamId, usize>,
}

/// A Service by its name, whether or not it exists.
#[derive(Clone, Copy)]
pub struct ServiceNamed<'n, 'a> {
    name: &'n ObjectName,
    service: Option<&'a Service>,
}

impl<'n> ServiceNamed<'n, '_> {
    /// The Service as somebody to be told something.
    pub fn subject(self) -> Subject {
        let uid = self.service.and_then(|service| service.metadata.uid.clone());
        Subject { kind: Kind::Service, object: self.name.clone(), uid }
    }

    /// What holds on the way to this Service: what its own annotations say comes first.
    pub fn policies<'p>(
        self,
        prefix: &str,
        policies: &'p IngressPolicies,
        problems: &mut Vec<Problem>,
    ) -> Cow<'p, IngressPolicies> {
        let annotations = self.service.and_then(|service| service.metadata.annotations.as_ref());
        if annotations.is_none_or(BTreeMap::is_empty) {
            return Cow::Borrowed(policies);
        }
        read_service(prefix, policies, Source { subject: &self.subject(), annotations }, problems)
    }

    /// The number of its first TCP port.
    pub fn first_port(self) -> Option<u16> {
        let ports = self.service?.spec.as_ref()?.ports.as_ref()?;
        ports.iter().filter(is_tcp).find_map(number)
    }
}

impl<'a> Services<'a> {
    /// Indexes the EndpointSlices once.
    pub fn new(snapshot: &'a Snapshot, flags: &'a Flags) -> Self {
        let slices = Slices::new(snapshot);
        Self { snapshot, flags, slices, upstreams: BTreeMap::new(), unready: BTreeMap::new() }
    }

    /// Looks a Service up.
    pub fn named<'n>(&self, name: &'n ObjectName) -> ServiceNamed<'n, 'a> {
        ServiceNamed { name, service: self.snapshot.services.get(name).map(|service| &**service) }
    }

    /// The upstream for a port of a Service. There always is one: without endpoints it answers 503 until they come.
    pub fn resolve(
        &mut self,
        ServiceNamed { name, service }: ServiceNamed<'_, 'a>,
        port: &Port,
        policies: &IngressPolicies,
        problems: &mut Vec<Problem>,
    ) -> (UpstreamId, Option<Trouble>) {
        let (protocol, load_balance) = (policies.backend_protocol, policies.load_balance);
        let Found { port, target, trouble } = match service {
            Some(service) => self.find(name, service, port, problems),
            None => Found::none(port, no_service(name)),
        };
        let id = UpstreamId::new(name, &port, protocol, load_balance);
        if let Entry::Vacant(vacant) = self.upstreams.entry(id.clone()) {
            let endpoints = match target {
                Target::Nothing => Endpoints::Addresses(Vec::new()),
                Target::External(host, port) => Endpoints::Name { host, port },
                Target::Slices(port) => {
                    let fence = Fence { origin: self.snapshot.origin, flags: self.flags };
                    let ready = self.slices.ready(name, port, fence, problems);
                    if ready.addresses.is_empty() {
                        self.unready.insert(id.clone(), ready.unready);
                    }
                    Endpoints::Addresses(ready.addresses)
                }
            };
            vacant.insert(Upstream { service: name.clone(), protocol, load_balance, endpoints });
        }
        let trouble = self.unready.get(&id).map(|&unready| no_endpoints(name, unready)).or(trouble);
        (id, trouble)
    }

    /// All upstreams that were resolved.
    pub fn into_upstreams(self) -> BTreeMap<UpstreamId, Upstream> {
        self.upstreams
    }

    fn find(&self, name: &ObjectName, service: &'a Service, port: &Port, problems: &mut Vec<Problem>) -> Found<'a> {
        let spec = service.spec.as_ref();
        if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
            return self.find_external(name, service, port, problems);
        }
        let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        match matching(name, ports, port) {
            Ok((found, trouble)) => {
                let target = Target::Slices(found.name.as_deref().unwrap_or_default());
                Found { port: number(found).map_or_else(|| port.id(), PortId::number), target, trouble }
            }
            Err(trouble) => Found::none(port, trouble),
        }
    }

    fn find_external(
        &self,
        name: &ObjectName,
        service: &'a Service,
        port: &Port,
        problems: &mut Vec<Problem>,
    ) -> Found<'a> {
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
                let subject = ServiceNamed { name, service: Some(service) }.subject();
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
                Found { port: PortId::number(number), target: Target::External(host, number), trouble }
            }
            Err(trouble) => Found::none(port, trouble),
        }
    }
}

/// What was found behind a port of a Service.
struct Found<'a> {
    port: PortId,
    target: Target<'a>,
    trouble: Option<Trouble>,
}

/// Where the endpoints of an upstream come from.
enum Target<'a> {
    /// There are none.
    Nothing,
    /// The slices of the Service, by the name of the port.
    Slices(&'a str),
    /// Another host, at this port.
    External(String, u16),
}

impl Found<'_> {
    fn none(port: &Port, trouble: Trouble) -> Self {
        Self { port: port.id(), target: Target::Nothing, trouble: Some(trouble) }
    }
}

fn no_service(name: &ObjectName) -> Trouble {
    let message = format!("Service {name} does not exist; it must be in the Ingress's namespace");
    Trouble { reason: Reason::ServiceNotFound, below: ".service.name", message, served: None }
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

#[cfg(test)]
mod tests;
