//! `proxy-next-upstream` and its kin: when a request is tried at a further endpoint.

use serde::Serialize;

use super::spec::{Case, Key, Risk, Spec};
use super::{IngressPolicies, Reader};
use crate::problem::Reason;
use crate::value::number::{Count, Seconds};
use crate::value::{Invalid, shown};

/// When a request is tried at a further endpoint.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Retries {
    /// After which failures; none: never. Sorted, none twice.
    pub after: Vec<Failure>,
    /// Requests that may have been carried out (POST and the like) too.
    pub non_idempotent: bool,
    /// The time for all tries together; 0: no limit.
    pub timeout: Seconds,
    /// The most endpoints that are tried; 0: all.
    pub tries: Count,
}

/// What may be wrong with an endpoint's answer.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No connection, or one that broke.
    Error,
    /// Nothing in time.
    Timeout,
    /// No answer that can be understood.
    InvalidHeader,
    /// An answer with this status.
    Status(u16),
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            after: vec![Failure::Error, Failure::Timeout],
            non_idempotent: false,
            timeout: Seconds::new(0),
            tries: Count::new(3),
        }
    }
}

const STATUSES: [u16; 7] = [403, 404, 429, 500, 502, 503, 504];

static AFTER: Key = Key {
    name: "proxy-next-upstream",
    settings: &["proxy-next-upstream"],
    grammar: "`off`, or some of `error`, `timeout`, `invalid_header`, `http_403`, `http_404`, `http_429`, `http_500`, \
              `http_502`, `http_503`, `http_504` and `non_idempotent`, separated by blanks",
    default: "error timeout",
    risk: Risk::Medium,
    doc: "After which failures a request is tried at a further endpoint. Without `non_idempotent`, requests like POST \
          are tried again only when nothing of them has been sent.",
    ..Key::UPSTREAM
};

static TIMEOUT: Key = Key {
    name: "proxy-next-upstream-timeout",
    settings: &["proxy-next-upstream-timeout"],
    grammar: "a number of seconds",
    default: "0",
    doc: "The time after which no further endpoint is tried. With `0` there is no limit.",
    ..Key::UPSTREAM
};

static TRIES: Key = Key {
    name: "proxy-next-upstream-tries",
    settings: &["proxy-next-upstream-tries"],
    grammar: "a whole number from 0 to 1000000",
    default: "3",
    doc: "The most endpoints that are tried for one request. With `0` there is no limit.",
    ..Key::UPSTREAM
};

static SPEC: Spec = Spec {
    title: "Further endpoints",
    keys: &[&AFTER, &TIMEOUT, &TRIES],
    cases: &[
        Case::good("endpoints that are starting", &[("proxy-next-upstream", "error timeout http_503 non_idempotent")]),
        Case::good("never", &[("proxy-next-upstream", "off")]),
        Case::bad("a status that is not offered", &[("proxy-next-upstream", "http_501")], Reason::InvalidValue),
        Case::bad("both", &[("proxy-next-upstream", "off error")], Reason::InvalidValue),
        Case::good("ten seconds in all", &[("proxy-next-upstream-timeout", "10")]),
        Case::bad("a unit that is none", &[("proxy-next-upstream-timeout", "10 s")], Reason::InvalidValue),
        Case::good("one further endpoint", &[("proxy-next-upstream-tries", "2")]),
        Case::bad("no number", &[("proxy-next-upstream-tries", "all")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read(&self, from: &mut Reader<'_>, into: &mut IngressPolicies) {
        let retries = &mut into.policies.retries;
        if let Some((after, non_idempotent)) = from.parse(&AFTER, "what holds without it", failures) {
            (retries.after, retries.non_idempotent) = (after, non_idempotent);
        }
        from.set(&TIMEOUT, &mut retries.timeout);
        from.set(&TRIES, &mut retries.tries);
    }
}

fn failures(text: &str) -> Result<(Vec<Failure>, bool), Invalid> {
    if text == "off" {
        return Ok((vec![], false));
    }
    let (mut after, mut non_idempotent) = (vec![], false);
    for word in text.split_whitespace() {
        let status = word.strip_prefix("http_").and_then(|status| status.parse().ok());
        match (word, status.filter(|status| STATUSES.contains(status))) {
            ("error", _) => after.push(Failure::Error),
            ("timeout", _) => after.push(Failure::Timeout),
            ("invalid_header", _) => after.push(Failure::InvalidHeader),
            ("non_idempotent", _) => non_idempotent = true,
            (_, Some(status)) => after.push(Failure::Status(status)),
            _ => return Err(Invalid::new(format!("has {}, which is no failure here", shown(word)), AFTER.grammar)),
        }
    }
    after.sort();
    after.dedup();
    if after.is_empty() { Err(Invalid::new("names no failure", AFTER.grammar)) } else { Ok((after, non_idempotent)) }
}
