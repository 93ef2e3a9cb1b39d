//! `rewrite-target` and `use-regex`: the path that goes upstream, and paths as regular expressions.

use serde::Serialize;

use super::spec::{Case, Key, Risk, Spec};
use super::{IngressPolicies, Reader};
use crate::problem::Reason;
use crate::value::regex::Regex;
use crate::value::rewrite::RewriteTarget;

/// How the path of a request is replaced before it goes upstream; the query stays.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Rewrite {
    /// What the path is matched with (from the start, in either case): groups feed `$1`… of the target. For a literal path, the
    /// path itself, quoted.
    pub pattern: Regex,
    /// The new path.
    pub target: RewriteTarget,
}

static TARGET: Key = Key {
    name: "rewrite-target",
    grammar: "a path that begins with `/` or `$`, of letters, digits and `-._~:/%`, with groups as `$1` to `$9`",
    risk: Risk::Medium,
    doc: "The path that goes to the endpoint in place of the part of the request's path that the rule matches and of \
          all that follows. `$1` to `$9` are the groups of the rule's path; ImplementationSpecific paths are regular \
          expressions then. The query stays.",
    ..Key::ROUTE
};

static USE_REGEX: Key = Key {
    name: "use-regex",
    grammar: "`true` or `false`",
    default: "false",
    doc: "ImplementationSpecific paths of this Ingress are regular expressions, which must match from the beginning \
          of the path, in either case. Exact and Prefix paths stay what they are.",
    ..Key::ROUTE
};

static SPEC: Spec = Spec {
    title: "Rewriting and regular expressions",
    keys: &[&TARGET, &USE_REGEX],
    cases: &[
        Case::good("the second group alone", &[("rewrite-target", "/$2")]),
        Case::bad("a query", &[("rewrite-target", "/?path=$1")], Reason::InvalidValue),
        Case::bad("a directive", &[("rewrite-target", "/ last; } location / { deny all")], Reason::InvalidValue),
        Case::bad("an address", &[("rewrite-target", "http://elsewhere.example/")], Reason::InvalidValue),
        Case::good("paths as regular expressions", &[("use-regex", "true")]),
        Case::bad("a switch that is none", &[("use-regex", "~")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read(&self, from: &mut Reader<'_>, into: &mut IngressPolicies) {
        if let Some(target) = from.value(&TARGET, "the path as it comes") {
            into.rewrite_target = Some(target);
        }
        from.set(&USE_REGEX, &mut into.use_regex);
    }
}
