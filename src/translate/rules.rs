//! What one Ingress claims: the paths of its rules, and its default backend.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, IngressBackend, IngressRule};

use super::backends::{Answer, Backends};
use super::hosts::{Claim, Hosts};
use super::ingresses::{Closed, Ours};
use super::paths::{self, Parsed};
use crate::model::{Action, PathMatch};
use crate::problem::{Problem, Reason};
use crate::settings::Settings;
use crate::value::host::HostMatch;
use crate::value::path::RulePath;
use crate::value::{Value as _, shown};

/// Where in an Ingress something stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// `spec.defaultBackend`.
    Default,
    /// A path of a rule, both by number.
    Path(usize, usize),
}

impl Place {
    /// A field of the path.
    pub fn field(self, below: &str) -> String {
        match self {
            Self::Default => format!("spec.defaultBackend{below}"),
            Self::Path(rule, path) => format!("spec.rules[{rule}].http.paths[{path}]{below}"),
        }
    }

    /// A field of its backend.
    pub fn backend(self, below: &str) -> String {
        match self {
            Self::Default => self.field(below),
            Self::Path(..) => self.field(&format!(".backend{below}")),
        }
    }
}

/// Enters all claims of an Ingress, and returns the hosts that it names. An Ingress without rules names all.
pub fn claim<'a>(
    ingress: &'a Ours<'a>,
    settings: &Settings,
    backends: &mut Backends<'a>,
    hosts: &mut Hosts<'a>,
    problems: &mut Vec<Problem>,
) -> BTreeSet<HostMatch> {
    let mut own = BTreeSet::new();
    let rules = ingress.spec.rules.as_deref().unwrap_or_default();
    for (number, rule) in rules.iter().enumerate() {
        let Some(host) = host(ingress, number, rule, problems) else { continue };
        let named = hosts.name(&host, ingress);
        for (path_number, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
            let place = Place::Path(number, path_number);
            let Some(parsed) = parsed(ingress, place, path, settings, problems) else { continue };
            // What lost needs no backend: nothing of it is served.
            if named.is_free(&host, &parsed.path, ingress, place, problems) {
                named.claim(path_claim(ingress, place, path, parsed, backends, problems));
            }
        }
        own.insert(host);
    }
    if let Some(backend) = &ingress.spec.default_backend {
        let answer = answer(ingress, Place::Default, backend, &PathMatch::Prefix(RulePath::root()), backends, problems);
        let claim = Claim { by: ingress, place: Place::Default, path: PathMatch::Prefix(RulePath::root()), answer };
        if rules.is_empty() {
            hosts.name(&HostMatch::Any, ingress).claim_rest(&HostMatch::Any, claim, problems);
            own.insert(HostMatch::Any);
        } else {
            for host in &own {
                hosts.name(host, ingress).claim_rest(host, claim.clone(), problems);
            }
            hosts.claim_unknown(claim);
        }
    }
    own
}

fn host(ingress: &Ours<'_>, number: usize, rule: &IngressRule, problems: &mut Vec<Problem>) -> Option<HostMatch> {
    let text = rule.host.as_deref().unwrap_or_default();
    match HostMatch::parse(text) {
        Ok(host) => Some(host),
        Err(invalid) => {
            let field = format!("spec.rules[{number}].host");
            let message = format!("host {} {invalid}", shown(text));
            problems.push(ingress.subject.rejected(Reason::InvalidHost, field, message, "the rule is not served"));
            None
        }
    }
}

/// What a path matches, unless it is not served at all.
fn parsed(
    ingress: &Ours<'_>,
    place: Place,
    path: &HTTPIngressPath,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Option<Parsed> {
    let (parsed, notes) = paths::parse(path, &ingress.policies, settings.strict_validate_path_type);
    problems.extend(notes.into_iter().map(|note| note.told(&ingress.subject, place)));
    let held = ingress.closed == Some(Closed::Held);
    parsed.filter(|parsed| !held || !matches!(parsed.path, PathMatch::Regex(_)))
}

fn path_claim<'a>(
    ingress: &'a Ours<'a>,
    place: Place,
    path: &'a HTTPIngressPath,
    parsed: Parsed,
    backends: &mut Backends<'a>,
    problems: &mut Vec<Problem>,
) -> Claim<'a> {
    let mut answer = answer(ingress, place, &path.backend, &parsed.path, backends, problems);
    if matches!(answer.action, Action::Forward(_)) {
        answer.policies.rewrite = parsed.rewrite;
    }
    Claim { by: ingress, place, path: parsed.path, answer }
}

fn answer<'a>(
    ingress: &'a Ours<'a>,
    place: Place,
    backend: &'a IngressBackend,
    path: &PathMatch,
    backends: &mut Backends<'a>,
    problems: &mut Vec<Problem>,
) -> Answer {
    match ingress.closed {
        Some(_) => Answer::closed(),
        None => backends.answer(ingress, place, backend, path, problems),
    }
}
