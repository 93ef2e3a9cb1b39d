//! `strict-validate-path-type`: what Exact and Prefix paths may hold. Translation asks for it; the proxy never does.

use super::spec::{Case, Key, Spec};
use super::{GlobalPolicies, Reader};
use crate::problem::Reason;

static STRICT: Key = Key {
    name: "strict-validate-path-type",
    grammar: "`true` or `false`",
    default: "true",
    doc: "Paths of the types Exact and Prefix hold letters, digits and `/._-` only; whatever else, as a regular \
          expression, needs the type ImplementationSpecific.",
    ..Key::GLOBAL
};

static SPEC: Spec = Spec {
    title: "Paths",
    keys: &[&STRICT],
    cases: &[
        Case::good("any text is a path", &[("strict-validate-path-type", "false")]),
        Case::bad("a switch that is none", &[("strict-validate-path-type", "strict")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read_globals(&self, from: &mut Reader<'_>, into: &mut GlobalPolicies) {
        from.set(&STRICT, &mut into.strict_validate_path_type);
    }
}
