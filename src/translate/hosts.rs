//! From the hosts that Ingresses name to virtual hosts: their routes, and what answers when no route of an Ingress does.

use super::backends::{Answer, Backends};
use super::certificates::Certificates;
use super::claims::{self, Claim};
use super::ingresses::{Closed, Ours};
use super::paths::Precedence;
use super::rules::Named;
use super::tls;
use crate::model::{Action, PathMatch, Route, VirtualHost};
use crate::problem::{Problem, Subject};
use crate::settings::Settings;
use crate::value::host::HostMatch;
use crate::value::path::RulePath;

/// Makes virtual hosts.
pub struct Hosts<'h, 'a> {
    settings: &'h Settings,
    backends: &'h mut Backends<'a>,
    certificates: &'h mut Certificates<'a>,
    problems: &'h mut Vec<Problem>,
    /// The controller's own answer where no Ingress has one.
    rest: Answer,
    /// The default backend of the oldest Ingress that has rules too: for hosts that nobody names, after everything else,
    /// if the controller itself has none. Losing this is not told: such an Ingress is served on its own hosts as it says.
    unknown: Option<Claim<'a>>,
}

impl<'h, 'a> Hosts<'h, 'a> {
    /// Resolves the controller's default backend.
    pub fn new(
        settings: &'h Settings,
        backends: &'h mut Backends<'a>,
        certificates: &'h mut Certificates<'a>,
        problems: &'h mut Vec<Problem>,
    ) -> Self {
        let rest = backends.controller_default(settings, problems);
        Self { settings, backends, certificates, problems, rest, unknown: None }
    }

    /// The virtual hosts of what Ingresses name, in the order in which Ingresses win; and the one of all other hosts.
    pub fn make(mut self, mut named: Vec<Named<'a>>) -> Vec<VirtualHost> {
        let open = named.iter().filter(|named| named.by.closed.is_none());
        self.unknown = open.filter_map(|named| Claim::rest(named.by)).next();
        // Stable: who names the same host stays in the order in which they win.
        named.sort_by(|a, b| a.host.cmp(&b.host));
        let mut hosts: Vec<_> = named.chunk_by(|a, b| a.host == b.host).map(|group| self.host(group)).collect();
        if hosts.last().is_none_or(|last| last.host != HostMatch::Any) {
            hosts.push(self.virtual_host(HostMatch::Any, &[]));
        }
        hosts
    }

    fn host(&mut self, group: &[Named<'a>]) -> VirtualHost {
        let host = group.first().map_or(HostMatch::Any, |named| named.host.clone());
        self.virtual_host(host, group)
    }

    /// The virtual host of those who name it.
    fn virtual_host(&mut self, host: HostMatch, group: &[Named<'a>]) -> VirtualHost {
        let tls = tls::slot(&host, group, self.certificates, self.problems);
        let source = group.first().map(|oldest| oldest.by.subject.clone());
        let claims = claims::paths(group, self.settings, self.problems);
        let held = group.iter().all(|named| named.by.closed == Some(Closed::Held));
        let routes = if held && host != HostMatch::Any {
            vec![everything(Answer::closed(), false, source.clone())]
        } else {
            self.routes(&host, group, claims, tls.is_some())
        };
        VirtualHost { host, tls, routes, source }
    }

    fn routes(&mut self, host: &HostMatch, group: &[Named<'a>], claims: Vec<Claim<'a>>, tls: bool) -> Vec<Route> {
        let whole = claims.last().is_some_and(|last| Precedence::of(&last.path) == Precedence::Everything);
        let rest = claims::rest(host, group, self.problems).or_else(|| self.unknown(host));
        let mut routes: Vec<_> = claims.into_iter().map(|claim| self.route(claim, tls)).collect();
        if !whole {
            routes.push(match rest {
                Some(claim) => self.route(claim, tls),
                None => self.controllers(group.first().map(|oldest| oldest.by), tls),
            });
        }
        routes
    }

    fn unknown(&mut self, host: &HostMatch) -> Option<Claim<'a>> {
        let nobody = self.rest.action == Action::Respond(404);
        if *host == HostMatch::Any && nobody { self.unknown.take() } else { None }
    }

    fn route(&mut self, claim: Claim<'a>, tls: bool) -> Route {
        let Answer { action, backend, mut policies } = self.backends.answer(&claim, self.problems);
        let Claim { by, path, rewrite, .. } = claim;
        if matches!(action, Action::Forward(_)) {
            policies.rewrite = rewrite;
        }
        let redirect_to_https = redirects(by, tls) && !is_closed(&action);
        Route { path, action, redirect_to_https, policies, backend, source: Some(by.subject.clone()) }
    }

    /// The controller's own answer. It redirects as the oldest Ingress of the host does.
    fn controllers(&self, oldest: Option<&Ours<'_>>, tls: bool) -> Route {
        let base = self.settings.base(None);
        let redirect = match oldest.filter(|oldest| oldest.closed.is_none()) {
            Some(oldest) => redirects(oldest, tls),
            None => base.force_ssl_redirect || (base.ssl_redirect && tls),
        };
        everything(self.rest.clone(), redirect && !is_closed(&self.rest.action), None)
    }
}

fn redirects(by: &Ours<'_>, tls: bool) -> bool {
    by.policies.force_ssl_redirect || (by.policies.ssl_redirect && tls)
}

/// What is closed says so at once, over http too.
fn is_closed(action: &Action) -> bool {
    *action == Action::Respond(503)
}

fn everything(answer: Answer, redirect_to_https: bool, source: Option<Subject>) -> Route {
    let Answer { action, backend, policies } = answer;
    Route { path: PathMatch::Prefix(RulePath::root()), action, redirect_to_https, policies, backend, source }
}

#[cfg(test)]
mod tests;
