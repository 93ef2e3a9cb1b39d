//! Who wins a path: of several Ingresses that claim the same requests of a host, the one that comes first.
//!
//! Claims arrive in the order in which Ingresses win (oldest first). What a loser would have done is not looked at: it
//! is told by whom it lost, and nothing of it is served.

use k8s_openapi::api::networking::v1::IngressBackend;

use super::ingresses::{Closed, Ours};
use super::paths::{self, Precedence, described};
use super::rules::{Named, Place};
use crate::annotations::rewrite::Rewrite;
use crate::model::PathMatch;
use crate::problem::{Problem, Reason};
use crate::settings::Settings;
use crate::value::host::HostMatch;
use crate::value::path::RulePath;

/// Requests that an Ingress wants to answer.
pub struct Claim<'a> {
    /// Who.
    pub by: &'a Ours<'a>,
    /// Where it says so.
    pub place: Place,
    /// Which requests.
    pub path: PathMatch,
    /// How their path is rewritten.
    pub rewrite: Option<Rewrite>,
    /// What shall become of them.
    pub backend: &'a IngressBackend,
}

impl<'a> Claim<'a> {
    /// The claim of a default backend, on whatever is left.
    pub fn rest(by: &'a Ours<'a>) -> Option<Self> {
        let backend = by.spec.default_backend.as_ref()?;
        let path = PathMatch::Prefix(RulePath::root());
        Some(Self { by, place: Place::Default, path, rewrite: None, backend })
    }
}

/// The paths of a host that are claimed, each once, in the order in which they are tried.
pub fn paths<'a>(group: &[Named<'a>], settings: &Settings, problems: &mut Vec<Problem>) -> Vec<Claim<'a>> {
    let mut claims: Vec<Claim<'a>> = group.iter().flat_map(|named| of_rule(named, settings, problems)).collect();
    // Stable: of equal ones the first to arrive stays first, and wins.
    claims.sort_by(|a, b| Precedence::of(&a.path).cmp(&Precedence::of(&b.path)));
    let mut winners: Vec<Claim<'a>> = Vec::with_capacity(claims.len());
    for claim in claims {
        match winners.last().filter(|winner| Precedence::of(&winner.path) == Precedence::of(&claim.path)) {
            None => winners.push(claim),
            Some(winner) => {
                let host = group.first().map_or(&HostMatch::Any, |named| &named.host);
                let what = format!("the {} of {}", described(&claim.path), named(host));
                problems.push(lost(&claim, winner, claim.place.field(".path"), &what));
            }
        }
    }
    winners
}

/// The default backend for what nobody claims of a host: the first Ingress that names the host and has one.
pub fn rest<'a>(host: &HostMatch, group: &[Named<'a>], problems: &mut Vec<Problem>) -> Option<Claim<'a>> {
    let mut claims = distinct(group).filter_map(|named| Claim::rest(named.by));
    let winner = claims.next()?;
    for claim in claims {
        let what = format!("the default backend of {}", named(host));
        problems.push(lost(&claim, &winner, claim.place.field(""), &what));
    }
    Some(winner)
}

/// Those who name a host, each once: an Ingress may do so in several rules, which stand side by side.
pub fn distinct<'g, 'a>(group: &'g [Named<'a>]) -> impl Iterator<Item = &'g Named<'a>> {
    group.chunk_by(|a, b| std::ptr::eq(a.by, b.by)).filter_map(<[_]>::first)
}

fn of_rule<'a>(named: &Named<'a>, settings: &Settings, problems: &mut Vec<Problem>) -> Vec<Claim<'a>> {
    let by = named.by;
    let mut claims = Vec::with_capacity(named.paths.len());
    for (number, path) in named.paths.iter().enumerate() {
        let place = Place::Path(named.rule, number);
        let (parsed, notes) = paths::parse(path, &by.policies, settings.strict_validate_path_type);
        problems.extend(notes.into_iter().map(|note| note.told(&by.subject, place)));
        let held = by.closed == Some(Closed::Held);
        let usable = parsed.filter(|parsed| !held || !matches!(parsed.path, PathMatch::Regex(_)));
        claims.extend(usable.map(|parsed| Claim {
            by,
            place,
            path: parsed.path,
            rewrite: parsed.rewrite,
            backend: &path.backend,
        }));
    }
    claims
}

fn lost(claim: &Claim<'_>, winner: &Claim<'_>, field: String, what: &str) -> Problem {
    let subject = &claim.by.subject;
    if winner.by.subject == *subject {
        let message = format!("{what} stands in this Ingress already, at {}", winner.place.field(""));
        return subject.degraded(Reason::ConflictLost, field, message, "the first one counts");
    }
    let winning = &winner.by.subject;
    let message = format!("{what} belongs to {winning}, {}", winner.by.precedes(claim.by));
    subject.degraded(Reason::ConflictLost, field, message, &format!("{winning} answers these requests"))
}

fn named(host: &HostMatch) -> String {
    match host {
        HostMatch::Any => "every host that has no rule of its own".to_owned(),
        host => format!("host {host}"),
    }
}
