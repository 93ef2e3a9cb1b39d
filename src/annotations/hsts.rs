//! `hsts`, `hsts-max-age`, `hsts-include-subdomains`, `hsts-preload`: Strict-Transport-Security.

use serde::Serialize;

use super::spec::{Case, Key, Spec};
use super::{GlobalPolicies, Reader};
use crate::problem::Reason;
use crate::value::number::Seconds;

/// The Strict-Transport-Security header on every https answer, in place of the upstream's.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Hsts {
    /// Send it.
    pub enabled: bool,
    /// How long a client remembers.
    pub max_age: Seconds,
    /// `includeSubDomains`.
    pub include_subdomains: bool,
    /// `preload`.
    pub preload: bool,
}

impl Hsts {
    /// The value of the header.
    pub fn value(&self) -> String {
        let Self { enabled: _, max_age, include_subdomains, preload } = self;
        let mut value = format!("max-age={}", max_age.get());
        value.push_str(if *include_subdomains { "; includeSubDomains" } else { "" });
        value.push_str(if *preload { "; preload" } else { "" });
        value
    }
}

impl Default for Hsts {
    fn default() -> Self {
        Self { enabled: true, max_age: Seconds::new(31_536_000), include_subdomains: true, preload: false }
    }
}

static HSTS: Key = Key {
    name: "hsts",
    grammar: "`true` or `false`",
    default: "true",
    doc: "Send Strict-Transport-Security with every answer over https, in place of the one of the endpoint: clients \
          then refuse to come over plain http.",
    ..Key::GLOBAL
};

static MAX_AGE: Key = Key {
    name: "hsts-max-age",
    grammar: "a number of seconds, of ten years at most",
    default: "31536000",
    doc: "How long clients remember.",
    ..Key::GLOBAL
};

static SUBDOMAINS: Key = Key {
    name: "hsts-include-subdomains",
    grammar: "`true` or `false`",
    default: "true",
    doc: "It holds for the subdomains of the host too.",
    ..Key::GLOBAL
};

static PRELOAD: Key = Key {
    name: "hsts-preload",
    grammar: "`true` or `false`",
    default: "false",
    doc: "Ask the makers of browsers to build the host into their lists.",
    ..Key::GLOBAL
};

static SPEC: Spec = Spec {
    title: "Strict-Transport-Security",
    keys: &[&HSTS, &MAX_AGE, &SUBDOMAINS, &PRELOAD],
    cases: &[
        Case::good("none", &[("hsts", "false")]),
        Case::bad("a switch that is none", &[("hsts", "no")], Reason::InvalidValue),
        Case::good("a day, to try it out", &[("hsts-max-age", "86400")]),
        Case::bad("for ever", &[("hsts-max-age", "999999999999")], Reason::InvalidValue),
        Case::good("this host alone", &[("hsts-include-subdomains", "false")]),
        Case::bad("a list", &[("hsts-include-subdomains", "a,b")], Reason::InvalidValue),
        Case::good("in the lists of browsers", &[("hsts-preload", "true")]),
        Case::bad("the word of the header", &[("hsts-preload", "preload")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read_globals(&self, from: &mut Reader<'_>, into: &mut GlobalPolicies) {
        let hsts = &mut into.globals.hsts;
        from.set(&HSTS, &mut hsts.enabled);
        from.set(&MAX_AGE, &mut hsts.max_age);
        from.set(&SUBDOMAINS, &mut hsts.include_subdomains);
        from.set(&PRELOAD, &mut hsts.preload);
    }
}
