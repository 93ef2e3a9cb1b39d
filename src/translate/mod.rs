//! The meaning of an Ingress: from the objects at one moment to what the proxy shall do, and what people are told.
//!
//! ```text
//! ingresses     which ones count, oldest first, with what their annotations say
//!   rules       the hosts that each names
//! hosts         from all who name a host to a virtual host
//!   claims      who wins a path (paths: from a text to what it matches, and the order among them)
//!   backends    where the requests go (services, ports, endpoints, external; static_files)
//!   tls         which certificate is served (certificates)
//! ```
//!
//! Pure and total: the same input gives the same output whatever its order, and nothing in it can make this fail. What
//! cannot be used is left out or closed, and told to the object that caused it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod backends;
mod certificates;
mod claims;
mod endpoints;
mod external;
mod hosts;
mod ingresses;
mod paths;
mod ports;
mod rules;
mod services;
mod static_files;
mod tls;

#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;

use crate::model::ProxyConfig;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::value::reference::ObjectName;

use backends::Backends;
use certificates::Certificates;
use hosts::Hosts;
use tls::Section;

/// What the proxy shall do, and what people are told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Translation {
    /// What the proxy shall do.
    pub config: ProxyConfig,
    /// What is wrong, sorted by object and field, nothing twice. Without what arrival and settings told already.
    pub problems: Vec<Problem>,
    /// The Ingresses that are ours, whether or not all of each is served.
    pub ours: BTreeSet<ObjectName>,
}

/// The Ingresses that the quarantine holds back, each with what is served of it. Nothing is told about them here; the
/// quarantine knows why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeldBack(pub BTreeMap<ObjectName, Form>);

/// What is served of an Ingress that is held back.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// The form in which the proxy took it last.
    Former(Arc<Ingress>),
    /// What is needed to keep its requests from going elsewhere: its hosts stay and answer 503. On a host that others
    /// have too, its literal paths do; its regular expressions are dropped, because they may be what the proxy refused.
    Closed,
    /// Nothing, because the proxy refused even that. Its requests belong to whoever else takes them: a wildcard, the
    /// default backend, or nobody.
    LeftOut,
}

/// Translates. `now` is in seconds since 1970, for certificates that have expired.
pub fn translate(snapshot: &Snapshot, settings: &Settings, held: &HeldBack, now: i64) -> Translation {
    let mut problems = Vec::new();
    let (ours, ingresses) = ingresses::in_order(snapshot, settings, held, &mut problems);
    let mut backends = Backends::new(snapshot, &settings.flags);
    let mut certificates = Certificates::new(snapshot, &settings.flags, now, &mut problems);
    let sections: Vec<_> =
        ingresses.iter().map(|ingress| Section::read(ingress, &certificates, &mut problems)).collect();
    let mut named = Vec::with_capacity(ingresses.len());
    for (ingress, section) in ingresses.iter().zip(&sections) {
        let own = rules::hosts(ingress, section.as_ref(), &mut problems);
        if let Some(section) = section {
            section.tell_unused(&own, &mut problems);
        }
        named.extend(own);
    }
    let hosts = Hosts::new(settings, &mut backends, &mut certificates, &mut problems).make(named);
    problems.sort();
    problems.dedup();
    let config = ProxyConfig {
        listeners: settings.flags.listeners.clone(),
        globals: settings.globals.clone(),
        globals_source: settings.globals_source.clone(),
        hosts,
        upstreams: backends.into_upstreams(),
        slots: certificates.into_slots(),
    };
    Translation { config, problems, ours }
}

#[cfg(test)]
mod tests {
    use super::testing::check;

    #[test]
    fn an_ingress_becomes_a_virtual_host_with_an_upstream() {
        check(
            "
            {kind: Service, metadata: {name: web}, spec: {ports: [{port: 80, name: http, targetPort: 8080}]}}
            ---
            {kind: EndpointSlice, metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}, addressType: IPv4,
             ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.0.0.2]}, {addresses: [10.0.0.1]}]}
            ---
            {kind: Ingress, metadata: {name: a}, spec: {rules: [{host: a.com, http: {paths: [
              {path: /foo, pathType: Exact, backend: svc(web:80)},
              {path: /bar, pathType: Prefix, backend: svc(web:http)}]}}]}}
            ",
            "
            a.com
              = /foo -> shop/web:80 [10.0.0.1:8080 10.0.0.2:8080]
              ^ /bar -> shop/web:80 [10.0.0.1:8080 10.0.0.2:8080]
              ^ / -> 404
            *
              ^ / -> 404
            ",
        );
    }
}
