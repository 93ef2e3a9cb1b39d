//! `temporal-redirect`, `permanent-redirect`: every request of a route is sent elsewhere.

use serde::Serialize;

use super::spec::{Case, Key, Risk, Spec};
use super::{IngressPolicies, Reader};
use crate::problem::Reason;
use crate::value::Invalid;
use crate::value::url::Url;

/// Where every request of a route is sent, in place of any backend. It comes before source ranges are looked at, as in
/// ingress-nginx: a redirect gives nothing away.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Redirect {
    /// For the time being: it beats `permanent`.
    pub temporal: Option<Url>,
    /// The status with it, 301, 302, 303 or 307.
    pub temporal_code: u16,
    /// For good.
    pub permanent: Option<Url>,
    /// The status with it, 301, 302, 303, 307 or 308.
    pub permanent_code: u16,
}

impl Redirect {
    /// Where to, and with which status; `None`: the route has no redirect.
    pub fn target(&self) -> Option<(u16, &Url)> {
        let temporal = self.temporal.as_ref().map(|url| (self.temporal_code, url));
        temporal.or(self.permanent.as_ref().map(|url| (self.permanent_code, url)))
    }
}

impl Default for Redirect {
    fn default() -> Self {
        Self { temporal: None, temporal_code: 302, permanent: None, permanent_code: 301 }
    }
}

static TEMPORAL: Key = Key {
    name: "temporal-redirect",
    grammar: "an address that begins with `http://` or `https://`, of at most 1000 characters",
    risk: Risk::Medium,
    doc: "Every request is sent to this address for the time being, as it stands. It beats `permanent-redirect`.",
    ..Key::ROUTE
};

static TEMPORAL_CODE: Key = Key {
    name: "temporal-redirect-code",
    grammar: "301, 302, 303 or 307",
    default: "302",
    doc: "The status with `temporal-redirect`. With 307 clients keep the method.",
    ..Key::ROUTE
};

static PERMANENT: Key = Key {
    name: "permanent-redirect",
    grammar: "an address that begins with `http://` or `https://`, of at most 1000 characters",
    risk: Risk::Medium,
    doc: "Every request is sent to this address for good, as it stands: clients remember it.",
    ..Key::ROUTE
};

static PERMANENT_CODE: Key = Key {
    name: "permanent-redirect-code",
    grammar: "301, 302, 303, 307 or 308",
    default: "301",
    doc: "The status with `permanent-redirect`. With 308 clients keep the method.",
    ..Key::ROUTE
};

static SPEC: Spec = Spec {
    title: "Redirects",
    keys: &[&TEMPORAL, &TEMPORAL_CODE, &PERMANENT, &PERMANENT_CODE],
    cases: &[
        Case::good("a page of the day", &[("temporal-redirect", "https://example.com/today?from=here")]),
        Case::bad("a path alone", &[("temporal-redirect", "/today")], Reason::InvalidValue),
        Case::good("with the method", &[("temporal-redirect-code", "307")]),
        Case::bad("no redirect", &[("temporal-redirect-code", "200")], Reason::InvalidValue),
        Case::good("a site that has moved", &[("permanent-redirect", "https://new.example.com")]),
        Case::bad("a variable", &[("permanent-redirect", "https://example.com$request_uri")], Reason::InvalidValue),
        Case::good("with the method, for good", &[("permanent-redirect-code", "308")]),
        Case::bad("no number", &[("permanent-redirect-code", "for good")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read(&self, from: &mut Reader<'_>, into: &mut IngressPolicies) {
        let redirect = &mut into.policies.redirect;
        for (key, slot) in [(&TEMPORAL, &mut redirect.temporal), (&PERMANENT, &mut redirect.permanent)] {
            if let Some(url) = from.value(key, "no redirect") {
                *slot = Some(url);
            }
        }
        for (key, slot) in
            [(&TEMPORAL_CODE, &mut redirect.temporal_code), (&PERMANENT_CODE, &mut redirect.permanent_code)]
        {
            *slot = from.parse(key, *slot, |text| code(key, text)).unwrap_or(*slot);
        }
    }
}

/// A status that sends clients elsewhere: 300, 304 to 306 do not.
fn code(key: &'static Key, text: &str) -> Result<u16, Invalid> {
    let most = if key.name == TEMPORAL_CODE.name { 307 } else { 308 };
    let codes = [301, 302, 303, 307, 308];
    let code = text.parse().ok().filter(|code| codes.contains(code) && *code <= most);
    code.ok_or_else(|| Invalid::new("is no status of a redirect here", key.grammar))
}
