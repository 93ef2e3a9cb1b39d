//! A host: one server of nginx, or the default server for whatever no other host takes.

use std::fmt;

use askama::Template;

use super::Common;
use super::log::Set;
use super::{content, location};
use crate::model::{Listeners, Route, VirtualHost};
use crate::problem::Subject;
use crate::render::RenderError;
use crate::render::escape::{Literal, filters};
use crate::render::page::Page;
use crate::render::site::Site;
use crate::value::host::{HostMatch, Hostname};

/// Paths of the default server that no rule can have: what load balancers ask ingress-nginx for.
const RESERVED: &[&str] = &["/healthz"];

/// How plain HTTP is redirected.
#[derive(Clone, Copy)]
pub(super) struct Redirect {
    pub code: u16,
    pub port: PublicPort,
}

/// The public https port as it stands in a location: nothing for the usual one.
#[derive(Clone, Copy)]
pub(super) struct PublicPort(u16);

impl fmt::Display for PublicPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 443 { Ok(()) } else { write!(f, ":{}", self.0) }
    }
}

/// A name of a server.
enum ServerName<'a> {
    Exact(&'a Hostname),
    Regex(String),
    Any,
}

#[derive(Template)]
#[template(path = "nginx/server.conf")]
struct View<'a> {
    comment: Option<&'a Subject>,
    listeners: &'a Listeners,
    name: ServerName<'a>,
    /// Variables for the access log.
    variables: Vec<Set<'a>>,
    redirect: Option<Redirect>,
}

/// Writes a host.
pub(super) fn write(page: &mut Page, common: &Common<'_>, site: &Site<'_>) -> Result<(), RenderError> {
    let VirtualHost { host, tls: _, routes: _, source } = site.host;
    let redirect = Redirect {
        code: common.config.globals.tls_redirect.code,
        port: PublicPort(common.config.listeners.public_https),
    };
    // Where all routes redirect the server does it, because an `if` costs as much as a location. The default server
    // has a location of its own that does not.
    // A route that sends its requests elsewhere anyway does so at once.
    let redirects = |route: &&Route| route.redirect_to_https && route.policies.redirect.target().is_none();
    let whole = !site.is_default() && !site.routes.is_empty() && site.routes.iter().all(redirects);
    let locations = location::all(site, if site.is_default() { RESERVED } else { &[] });
    let values: Vec<_> = locations.iter().map(|location| common.log.values(location.route)).collect();
    let usual = common.log.usual(&values);
    let view = View {
        comment: source.as_ref(),
        listeners: &common.config.listeners,
        name: match host {
            HostMatch::Exact(name) => ServerName::Exact(name),
            HostMatch::Wildcard(parent) => ServerName::Regex(wildcard(parent)),
            HostMatch::Any => ServerName::Any,
        },
        variables: common.log.of_server(&usual, site.is_default()),
        redirect: whole.then_some(redirect),
    };
    page.part(source.as_ref(), &view)?;
    for (location, values) in locations.iter().zip(&values) {
        let comment = location.route.source != *source;
        let redirect = (!whole && redirects(&location.route)).then_some(redirect);
        content::write(page, common, location, comment, redirect, common.log.of_location(values, &usual))?;
    }
    page.line(source.as_ref(), "\t}");
    Ok(())
}

/// One label and then the parent: nginx's own wildcard would take several.
pub(super) fn wildcard(parent: &Hostname) -> String {
    format!(r"^[^.]+\.{}$", Literal(parent.as_str()))
}
