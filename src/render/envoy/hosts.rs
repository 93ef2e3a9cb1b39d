//! The table of routes: one for both listeners, a virtual host for each host.
//!
//! Envoy's `*.foo.com` takes several labels, and what a virtual host takes never falls through to another. So the routes
//! of a wildcard ask for one label, and those of the catch-all follow, which is where the rest belongs: of all other
//! wildcards none takes a name with more labels than its own.

use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, RouteConfiguration, VirtualHost};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::google::protobuf::UInt32Value;
use prost::Message as _;

use super::make::{has, regex};
use super::resources::{Named, append};
use super::route::Draft;
use super::{Common, body_size, content, path};
use crate::model::Route;
use crate::render::escape::Literal;
use crate::render::site::Site;
use crate::value::host::{HostMatch, Hostname};
use crate::value::path::RulePath;

/// The name of the table.
pub(super) const NAME: &str = "hosts";

/// The largest file of a ConfigMap, which cannot be larger itself.
const FILE_SIZE: u32 = 2 << 20;

/// Numbers of fields: `RouteConfiguration.virtual_hosts` and `VirtualHost.routes`.
const VIRTUAL_HOSTS: u32 = 2;
const ROUTES: u32 = 3;

/// The table of these sites.
pub(super) fn table(common: &Common<'_>, sites: &[Site<'_>]) -> Named {
    let configuration = RouteConfiguration {
        name: NAME.to_owned(),
        ignore_port_in_host_matching: true,
        max_direct_response_body_size_bytes: Some(UInt32Value { value: FILE_SIZE }),
        // What most routes agree on.
        typed_per_filter_config: [(body_size::NAME.to_owned(), body_size::limit(common.body_size))].into(),
        ..RouteConfiguration::default()
    };
    let mut bytes = configuration.encode_to_vec();
    let others: Vec<Draft> =
        sites.iter().filter(|site| site.is_default()).flat_map(|site| of_site(common, site)).collect();
    for site in sites {
        append(&mut bytes, VIRTUAL_HOSTS, &virtual_host(common, site, &others));
    }
    Named { name: NAME.to_owned(), bytes, source: None }
}

fn virtual_host(common: &Common<'_>, site: &Site<'_>, others: &[Draft]) -> Vec<u8> {
    let name = site.host.host.to_string();
    let (domain, routes) = match &site.host.host {
        HostMatch::Exact(name) => (name.to_string(), of_site(common, site)),
        HostMatch::Wildcard(parent) => {
            let own = of_site(common, site).into_iter().map(|draft| draft.only(one_label(parent)));
            (format!("*.{parent}"), own.chain(others.iter().cloned()).collect())
        }
        HostMatch::Any => ("*".to_owned(), others.to_vec()),
    };
    let mut bytes = VirtualHost { name, domains: vec![domain], ..VirtualHost::default() }.encode_to_vec();
    for route in routes {
        append(&mut bytes, ROUTES, &route.encode());
    }
    bytes
}

fn of_site(common: &Common<'_>, site: &Site<'_>) -> Vec<Draft> {
    // What load balancers ask ingress-nginx for.
    let health = site.is_default().then(|| Draft::new(path::exact("/healthz")).answers(200, None));
    // A route that sends its requests elsewhere anyway does so at once.
    let redirects = |route: &&Route| route.redirect_to_https && route.policies.redirect.target().is_none();
    let whole = !site.is_default() && !site.routes.is_empty() && site.routes.iter().all(redirects);
    let redirect = whole.then(|| content::to_https(common, path::tree(&RulePath::root())));
    let routes = site.routes.iter().flat_map(|route| content::routes(common, route, whole));
    health.into_iter().chain(redirect).chain(routes).collect()
}

/// Names of exactly one label more, in either case, with or without a port.
fn one_label(parent: &Hostname) -> HeaderMatcher {
    let names = format!(r"(?i)[^.]+\.{}(?::[0-9]*)?", Literal(parent.as_str()));
    has(":authority", MatchPattern::SafeRegex(regex(names)))
}
