//! Which port of a Service is meant.

use std::fmt;

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::model::PortId;
use crate::problem::Reason;
use crate::value::reference::{ObjectName, PortName};

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

impl Port {
    /// What identifies an upstream for a port that the Service does not have.
    pub fn id(&self) -> PortId {
        match self {
            Self::Number(number) => PortId::number(*number),
            Self::Name(name) => PortId::name(name),
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

/// The port of a Service that is meant: the one of this number or name; else, as ingress-nginx has it, the one that
/// leads to a port of this number or name, which is told.
pub fn matching<'s>(
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
    let tcp = || ports.iter().filter(is_tcp);
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

/// The Service has no such port.
pub fn no_port(name: &ObjectName, port: &Port) -> Trouble {
    let message = format!("Service {name} has no port {port}; it must be the number or the name of one of its ports");
    Trouble { reason: Reason::PortNotFound, below: ".service.port", message, served: None }
}

/// Whether it can be served at all.
pub fn is_tcp(port: &&ServicePort) -> bool {
    port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
}

/// Its number, if it can be one.
pub fn number(port: &ServicePort) -> Option<u16> {
    u16::try_from(port.port).ok().filter(|&port| port != 0)
}
