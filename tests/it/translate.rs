//! What people are told, over all golden cases: every reason has a case that shows it, and every sentence is whole.

use std::collections::BTreeSet;
use std::path::Path;

use coxswain::cli::check::Findings;
use coxswain::problem::{Problem, Reason};
use coxswain::settings::Flags;
use coxswain::value::Value as _;
use coxswain::value::reference::ObjectName;
use coxswain::watch::files;

/// Reasons that no manifest can bring about: they are about the API server, the proxy, or files that are no objects.
const ELSEWHERE: &[Reason] = &[
    Reason::HeldBack,
    Reason::InvalidObject,
    Reason::MalformedObject,
    Reason::NamespaceUnreadable,
    Reason::ProxyCannot,
    Reason::UnknownField,
    Reason::UnreadableInput,
];

fn problems() -> Vec<Problem> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let config_map = Some(ObjectName::parse("coxswain/coxswain").unwrap());
            let flags = Flags { config_map, ..Flags::default() };
            let findings = Findings::of(&files::load(&[path]), &flags, 1_800_000_000);
            problems.extend(findings.problems().iter().cloned());
        }
    }
    problems
}

#[test]
fn every_reason_is_told_in_some_golden_case() {
    let told: BTreeSet<Reason> = problems().iter().map(|problem| problem.reason).collect();
    let missing: Vec<_> =
        Reason::ALL.iter().filter(|reason| !told.contains(reason) && !ELSEWHERE.contains(reason)).collect();
    assert!(missing.is_empty(), "no case in tests/golden shows {missing:?}");
    let stale: Vec<_> = ELSEWHERE.iter().filter(|reason| told.contains(reason)).collect();
    assert!(stale.is_empty(), "a manifest can bring about {stale:?} after all");
}

#[test]
fn every_sentence_is_whole_and_safe_to_print() {
    for problem in problems() {
        let Problem { subject, field, message, effect, .. } = &problem;
        let shown = format!("{subject} {field}: {message}; {effect}");
        assert!(!message.is_empty() && !effect.is_empty(), "{shown}");
        assert!(!message.ends_with('.') && !effect.ends_with('.'), "ends like a paragraph: {shown}");
        assert!(!shown.chars().any(char::is_control), "drives a terminal: {}", shown.escape_debug());
        assert!(shown.len() < 1000, "too long for an Event: {shown}");
    }
}
