//! `canary`: an Ingress that takes a share of another's traffic.
//!
//! Sharing is not built yet. Until it is, such an Ingress is left out: with routes of its own it would take all of the
//! traffic that it was to take a share of, as soon as it is the oldest of its host and path.

use super::spec::{Case, Key, Spec};
use super::{IngressPolicies, Reader};
use crate::problem::{Reason, Severity};

static CANARY: Key = Key {
    name: "canary",
    grammar: "`true` or `false`",
    default: "false",
    doc: "Marks an Ingress that takes a share of the requests of another Ingress with the same host and path. \
          Shares are not supported yet: the Ingress is left out, and the other one gets all of its requests.",
    ..Key::ROUTE
};

static SPEC: Spec = Spec {
    title: "Canary",
    keys: &[&CANARY],
    cases: &[
        Case::good("an Ingress like any other", &[("canary", "false")]),
        Case::bad("a canary", &[("canary", "true")], Reason::NotSupported),
        Case::bad("neither", &[("canary", "yes")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read(&self, from: &mut Reader<'_>, into: &mut IngressPolicies) {
        let mut canary = false;
        from.set(&CANARY, &mut canary);
        if canary {
            into.canary = true;
            let effect = "the Ingress is left out; the Ingresses of the same host and path get all requests";
            from.refuse(&CANARY, (Severity::Rejected, Reason::NotSupported), "is not supported yet", effect);
        }
    }
}
