//! `limit-rate`, `limit-rate-after`: how fast a client gets an answer.

use serde::Serialize;

use super::spec::{Case, Key, Spec};
use super::{IngressPolicies, Reader};
use crate::problem::{Reason, Severity};
use crate::value::number::Count;

/// How fast a client gets an answer, over each connection; HTTP/2: each request.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Rate {
    /// KiB in a second; 0: as fast as it can.
    pub kilobytes: Count,
    /// KiB of each answer before that.
    pub after: Count,
}

static RATE: Key = Key {
    name: "limit-rate",
    settings: &["limit-rate"],
    grammar: "a whole number of kilobytes in a second, from 0 to 1000000",
    default: "0",
    doc: "How fast a client gets each answer, in kilobytes (1024 bytes) in a second. With `0` there is no limit. \
          It counts for what is read ahead, so it needs `proxy-buffering`.",
    ..Key::ROUTE
};

static AFTER: Key = Key {
    name: "limit-rate-after",
    settings: &["limit-rate-after"],
    grammar: "a whole number of kilobytes, from 0 to 1000000",
    default: "0",
    doc: "How many kilobytes of each answer a client gets before `limit-rate` holds.",
    ..Key::ROUTE
};

static SPEC: Spec = Spec {
    title: "Speed of answers",
    keys: &[&RATE, &AFTER],
    cases: &[
        Case::good("a megabyte in a second", &[("limit-rate", "1024"), ("proxy-buffering", "on")]),
        Case::bad("an answer that is passed on as it comes", &[("limit-rate", "1024")], Reason::OutOfPlace),
        Case::bad("a unit", &[("limit-rate", "1m")], Reason::InvalidValue),
        Case::good("the first second of a film at once", &[("limit-rate-after", "4096")]),
        Case::bad("negative", &[("limit-rate-after", "-1")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read(&self, from: &mut Reader<'_>, into: &mut IngressPolicies) {
        from.set(&RATE, &mut into.policies.rate.kilobytes);
        from.set(&AFTER, &mut into.policies.rate.after);
        let limited = into.policies.rate.kilobytes != Count::default();
        if limited && !into.policies.buffering.responses && from.says(&RATE) {
            // nginx drops the limit of an answer that it does not buffer.
            let wrong = "needs `proxy-buffering` with the value `on`; it is off";
            from.refuse(&RATE, (Severity::Degraded, Reason::OutOfPlace), wrong, "there is no limit");
        }
    }
}
