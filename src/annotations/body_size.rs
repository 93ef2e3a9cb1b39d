//! `proxy-body-size`: the largest request body.

use serde::Serialize;

use super::spec::{Case, Key, Risk, Spec};
use super::{IngressPolicies, Reader};
use crate::problem::Reason;
use crate::value::size::Size;

/// The largest request body; larger ones are answered with 413. A size of 0: no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct BodySize(pub Size);

impl Default for BodySize {
    fn default() -> Self {
        Self(Size::bytes(1 << 20))
    }
}

static BODY_SIZE: Key = Key {
    name: "proxy-body-size",
    settings: &["proxy-body-size"],
    grammar: "a number of bytes with an optional unit `k`, `m` or `g`, up to `1024g`",
    default: "1m",
    risk: Risk::Medium,
    doc: "The largest body of a request. A larger one is answered with 413. With `0` there is no limit.",
    ..Key::ROUTE
};

static SPEC: Spec = Spec {
    title: "Size of requests",
    keys: &[&BODY_SIZE],
    cases: &[
        Case::good("uploads of up to 64 MiB", &[("proxy-body-size", "64m")]),
        Case::good("no limit", &[("proxy-body-size", "0")]),
        Case::bad("a unit that is none", &[("proxy-body-size", "64 MB")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read(&self, from: &mut Reader<'_>, into: &mut IngressPolicies) {
        from.set(&BODY_SIZE, &mut into.policies.body_size.0);
    }
}
