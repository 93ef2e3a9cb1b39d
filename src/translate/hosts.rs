//! Who wins: the claims of all Ingresses on the requests of each host, and the virtual hosts that come of them.
//!
//! Claims arrive in the order in which they win (oldest Ingress first), so the first of several stays and the others are
//! told by whom they lost.

use std::collections::BTreeMap;

use super::backends::Answer;
use super::ingresses::{Closed, Ours};
use super::paths::{Precedence, described};
use super::rules::Place;
use crate::annotations::Policies;
use crate::model::{Action, PathMatch, Route, SlotId, VirtualHost};
use crate::problem::{Problem, Reason, Subject};
use crate::settings::Settings;
use crate::value::host::HostMatch;
use crate::value::path::RulePath;

/// One path that an Ingress wants to answer.
#[derive(Clone)]
pub struct Claim<'a> {
    /// Who.
    pub by: &'a Ours<'a>,
    /// Where it says so.
    pub place: Place,
    /// Which requests.
    pub path: PathMatch,
    /// What becomes of them.
    pub answer: Answer,
}

/// The certificate of a host.
pub struct Tls<'a> {
    /// What serves it.
    pub slot: SlotId,
    /// Who says so.
    pub by: &'a Ours<'a>,
}

/// All hosts that any Ingress names.
#[derive(Default)]
pub struct Hosts<'a> {
    named: BTreeMap<HostMatch, Host<'a>>,
    /// The default backend of the oldest Ingress that has rules: for hosts that nobody names, after everything else.
    unknown: Option<Claim<'a>>,
}

/// A host, and who claims what of it.
#[derive(Default)]
pub struct Host<'a> {
    oldest: Option<&'a Ours<'a>>,
    /// Whether an Ingress names it that is not held back.
    live: bool,
    claims: BTreeMap<Precedence, Claim<'a>>,
    /// The default backend of the oldest Ingress that has one: for paths that nobody claims.
    rest: Option<Claim<'a>>,
    /// The certificate that the oldest Ingress with TLS for this host brings.
    pub tls: Option<Tls<'a>>,
}

impl<'a> Hosts<'a> {
    /// The host, which `by` names.
    pub fn name(&mut self, host: &HostMatch, by: &'a Ours<'a>) -> &mut Host<'a> {
        if !self.named.contains_key(host) {
            self.named.insert(host.clone(), Host::default());
        }
        let Some(named) = self.named.get_mut(host) else { unreachable!("it was entered just now") };
        named.oldest.get_or_insert(by);
        named.live |= by.closed != Some(Closed::Held);
        named
    }

    /// Claims the hosts that nobody names, after everything else. Losing this is not told: the Ingress is served on its
    /// own hosts as it says.
    pub fn claim_unknown(&mut self, claim: Claim<'a>) {
        self.unknown.get_or_insert(claim);
    }

    /// The virtual hosts. `rest` is the controller's own answer where no Ingress has one.
    pub fn finish(mut self, settings: &Settings, rest: Answer) -> Vec<VirtualHost> {
        let any = self.named.entry(HostMatch::Any).or_default();
        let nobody = matches!(rest.action, Action::Respond(404));
        if any.rest.is_none() && nobody {
            any.rest = self.unknown;
        }
        self.named.into_iter().map(|(host, named)| named.finish(host, settings, &rest)).collect()
    }
}

impl<'a> Host<'a> {
    /// Whether a path is free for `by`; the loser of a conflict is told.
    pub fn is_free(
        &self,
        host: &HostMatch,
        path: &PathMatch,
        by: &Ours<'_>,
        place: Place,
        problems: &mut Vec<Problem>,
    ) -> bool {
        let winner = self.claims.get(&Precedence::of(path));
        problems.extend(winner.map(|winner| {
            let what = format!("the {} of {}", described(path), named(host));
            lost(by, winner, place.field(".path"), &what)
        }));
        winner.is_none()
    }

    /// Enters a claim on a path that is free.
    pub fn claim(&mut self, claim: Claim<'a>) {
        self.claims.insert(Precedence::of(&claim.path), claim);
    }

    /// Enters a claim on the paths that nobody else claims.
    pub fn claim_rest(&mut self, host: &HostMatch, claim: Claim<'a>, problems: &mut Vec<Problem>) {
        match &self.rest {
            None => self.rest = Some(claim),
            Some(winner) => {
                let what = format!("the default backend of {}", named(host));
                problems.push(lost(claim.by, winner, claim.place.field(""), &what));
            }
        }
    }

    fn finish(self, host: HostMatch, settings: &Settings, rest: &Answer) -> VirtualHost {
        let source = self.oldest.map(|ingress| ingress.subject.clone());
        let tls = self.tls.as_ref().map(|tls| tls.slot.clone());
        let redirects = Redirects { tls: tls.is_some(), host: &self, settings };
        let mut routes: Vec<Route>;
        if self.live || host == HostMatch::Any {
            let whole = self.claims.contains_key(&Precedence::Everything);
            let last = (!whole).then(|| match &self.rest {
                Some(claim) => redirects.route(claim),
                None => redirects.controllers(rest),
            });
            routes = self.claims.values().map(|claim| redirects.route(claim)).collect();
            routes.extend(last);
        } else {
            routes = vec![everything(Answer::closed(), false, source.clone())];
        }
        VirtualHost { host, tls, routes, source }
    }
}

/// Which routes of a host send plain requests to https.
struct Redirects<'h> {
    tls: bool,
    host: &'h Host<'h>,
    settings: &'h Settings,
}

impl Redirects<'_> {
    fn route(&self, claim: &Claim<'_>) -> Route {
        let Claim { by, place: _, path, answer } = claim;
        let Answer { action, backend, policies } = answer.clone();
        Route {
            path: path.clone(),
            redirect_to_https: self.wanted(by) && !is_closed(&action),
            action,
            policies,
            backend,
            source: Some(by.subject.clone()),
        }
    }

    /// The controller's own answer. It redirects as the oldest Ingress of the host does.
    fn controllers(&self, answer: &Answer) -> Route {
        let base = self.settings.base(None);
        let redirect = match self.host.oldest.filter(|oldest| oldest.closed.is_none()) {
            Some(oldest) => self.wanted(oldest),
            None => base.force_ssl_redirect || (base.ssl_redirect && self.tls),
        };
        everything(answer.clone(), redirect && !is_closed(&answer.action), None)
    }

    fn wanted(&self, by: &Ours<'_>) -> bool {
        by.policies.force_ssl_redirect || (by.policies.ssl_redirect && self.tls)
    }
}

/// What is closed says so at once, over http too.
fn is_closed(action: &Action) -> bool {
    *action == Action::Respond(503)
}

fn everything(answer: Answer, redirect_to_https: bool, source: Option<Subject>) -> Route {
    let Answer { action, backend, policies } = answer;
    Route { path: PathMatch::Prefix(RulePath::root()), action, redirect_to_https, policies, backend, source }
}

fn lost(by: &Ours<'_>, winner: &Claim<'_>, field: String, what: &str) -> Problem {
    let subject = &by.subject;
    if winner.by.subject == *subject {
        let message = format!("{what} stands in this Ingress already, at {}", winner.place.field(""));
        return subject.degraded(Reason::ConflictLost, field, message, "the first one counts");
    }
    let winning = &winner.by.subject;
    let message = format!("{what} belongs to {winning}, {}", winner.by.precedes(by));
    subject.degraded(Reason::ConflictLost, field, message, &format!("{winning} answers these requests"))
}

fn named(host: &HostMatch) -> String {
    match host {
        HostMatch::Any => "every host that has no rule of its own".to_owned(),
        host => format!("host {host}"),
    }
}

impl Answer {
    /// 503, with nothing that the Ingress says.
    pub fn closed() -> Self {
        Self { action: Action::Respond(503), backend: None, policies: Policies::default() }
    }
}

#[cfg(test)]
mod tests;
