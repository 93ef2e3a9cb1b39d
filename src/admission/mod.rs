//! The admission webhook: tells the author of an Ingress before it is stored what would be wrong with it.
//!
//! It answers from the pure core alone, nginx never sees an object that is not stored (CVE-2025-1974). Denied is what
//! `check` calls `rejected` and this change brings; everything else that is found comes back as a warning. Who would
//! only mend other things, or delete, is never in the way.

pub mod certificate;
pub mod server;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;

use crate::problem::{Kind, Problem, Severity};
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::translate::{HeldBack, translate};
use crate::value::reference::ObjectName;

/// What is judged by: the last state that was translated, and its problems.
#[derive(Clone)]
pub struct Basis {
    /// The objects.
    pub snapshot: Arc<Snapshot>,
    /// The settings.
    pub settings: Arc<Settings>,
    /// The problems of that state.
    pub problems: Arc<Vec<Problem>>,
}

/// The answer to one change.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verdict {
    /// Why it is denied, one sentence each; empty: it is allowed.
    pub denials: Vec<String>,
    /// What its author should know besides.
    pub warnings: Vec<String>,
}

/// Judges an Ingress as if it were stored now (`now`: seconds since 1970).
pub fn judge(basis: &Basis, name: &ObjectName, ingress: Ingress, now: i64) -> Verdict {
    let mut snapshot = Snapshot::clone(&basis.snapshot);
    snapshot.ingresses.insert(name.clone(), Arc::new(ingress));
    let after = translate(&snapshot, &basis.settings, &HeldBack::default(), now).problems;
    let before: BTreeSet<_> = basis.problems.iter().map(identity).collect();
    let mut verdict = Verdict::default();
    for problem in &after {
        let own = problem.subject.kind == Kind::Ingress && problem.subject.object == *name;
        let new = !before.contains(&identity(problem));
        if new && problem.severity == Severity::Rejected {
            verdict.denials.push(sentence(problem));
        } else if own {
            verdict.warnings.push(sentence(problem));
        }
    }
    verdict
}

/// What makes two problems the same one.
fn identity(problem: &Problem) -> (Kind, &ObjectName, &str, &str) {
    (problem.subject.kind, &problem.subject.object, &problem.field, &problem.message)
}

fn sentence(problem: &Problem) -> String {
    let place = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
    format!("{place}{}; {}", problem.message, problem.effect)
}
