//! Which Ingresses count, oldest first, with what their annotations say.

use std::borrow::Cow;
use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{Ingress, IngressSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Form, HeldBack};
use crate::annotations::{IngressPolicies, Source, read_policies};
use crate::ingress_class::{Verdict, judge};
use crate::problem::{Kind, Problem, Reason, Subject};
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::value::reference::ObjectName;

/// An Ingress of ours.
pub struct Ours<'a> {
    /// The object.
    pub subject: Subject,
    /// When it was made; `None` counts as older than all.
    pub age: Option<Time>,
    /// What it asks for.
    pub spec: &'a IngressSpec,
    /// What its annotations say.
    pub policies: Cow<'a, IngressPolicies>,
    /// Set where each of its routes answers 503, whatever its backend.
    pub closed: Option<Closed>,
}

/// Why an Ingress serves nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Closed {
    /// Something that is meant to protect it cannot be honoured.
    Denied,
    /// The proxy refused what it says, and no former form of it is known.
    Held,
}

impl Ours<'_> {
    /// Why this Ingress comes before `other`, as the end of a sentence about it.
    pub fn precedes(&self, other: &Self) -> &'static str {
        if self.age < other.age { "which is older" } else { "which is as old and comes first by name" }
    }
}

/// The names of all Ingresses of ours, and those of them that count, in the order in which they win: oldest first, then
/// by namespace and name.
pub fn in_order<'a>(
    snapshot: &'a Snapshot,
    settings: &'a Settings,
    held: &'a HeldBack,
    problems: &mut Vec<Problem>,
) -> (BTreeSet<ObjectName>, Vec<Ours<'a>>) {
    let mut names = Vec::with_capacity(snapshot.ingresses.len());
    let mut ingresses = Vec::with_capacity(snapshot.ingresses.len());
    for (name, current) in &snapshot.ingresses {
        let subject = Subject { kind: Kind::Ingress, object: name.clone(), uid: current.metadata.uid.clone() };
        let class = match judge(&subject, current, &settings.flags, snapshot) {
            Verdict::Ours(class) => class,
            Verdict::Foreign(problem) => {
                problems.extend(problem.map(|problem| *problem));
                continue;
            }
        };
        names.push(name.clone());
        let (form, held) = match held.0.get(name) {
            None => (&**current, None),
            Some(Form::Former(former)) => (&**former, None),
            Some(Form::Closed) => (&**current, Some(Closed::Held)),
            Some(Form::LeftOut) => continue,
        };
        let base = settings.base(class.as_ref());
        let source = Source { subject: &subject, annotations: form.metadata.annotations.as_ref() };
        let policies = read_policies(&settings.flags.annotations_prefix, base, source, problems);
        let Some(spec) = served(&subject, form, &policies, settings, problems) else { continue };
        let closed = held.or((!policies.denied.is_empty()).then_some(Closed::Denied));
        ingresses.push(Ours { subject, age: current.metadata.creation_timestamp.clone(), spec, policies, closed });
    }
    // Stable, so what is of equal age stays in the order of the names, which is the snapshot's.
    ingresses.sort_by(|a, b| a.age.cmp(&b.age));
    (names.into_iter().collect(), ingresses)
}

/// What an Ingress asks for, unless nothing of it is to be served.
fn served<'a>(
    subject: &Subject,
    form: &'a Ingress,
    policies: &IngressPolicies,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Option<&'a IngressSpec> {
    const LEFT_OUT: &str = "nothing of the Ingress is served";
    let spec = form.spec.as_ref();
    let Some(spec) = spec.filter(|spec| spec.default_backend.is_some() || spec.rules.iter().flatten().next().is_some())
    else {
        let message = "has neither rules nor a default backend; it must have one of them";
        problems.push(subject.rejected(Reason::InvalidValue, "spec", message, LEFT_OUT));
        return None;
    };
    if settings.flags.disable_catch_all && spec.default_backend.is_some() {
        let message = "default backends are switched off here (`--disable-catch-all`); it must have rules only";
        problems.push(subject.rejected(Reason::OutOfPlace, "spec.defaultBackend", message, LEFT_OUT));
        return None;
    }
    (!policies.canary).then_some(spec)
}
