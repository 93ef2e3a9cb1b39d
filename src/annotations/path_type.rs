//! `strict-validate-path-type`: what becomes of Exact and Prefix paths that look like regular expressions. Translation
//! asks for it; the proxy never does.

use super::spec::{Case, Key, Spec};
use super::{GlobalPolicies, Reader};
use crate::problem::Reason;

static STRICT: Key = Key {
    name: "strict-validate-path-type",
    grammar: "`true` or `false`",
    default: "true",
    doc: "A path of the type Exact or Prefix that looks like a regular expression is not served: regular expressions need \
          the type ImplementationSpecific. With `false` such a path is compared as plain text.",
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
