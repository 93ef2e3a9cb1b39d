//! `use-forwarded-headers` and its kin: what is believed of a client's address and scheme, and what is sent upstream.

use serde::Serialize;

use super::spec::{Case, Key, Spec};
use super::{GlobalPolicies, Reader};
use crate::problem::{Reason, Severity};
use crate::value::cidr::Cidrs;
use crate::value::header::HeaderName;
use crate::value::{Invalid, Value};

/// What is believed of forwarded headers, and what is sent upstream.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Forwarded {
    /// `Some`: a proxy in front is trusted, as far as `Trust` says. `None`: X-Forwarded-* of clients are overwritten.
    pub trust: Option<Trust>,
    /// Send X-Request-ID: the client's, else a new one (`generate-request-id`).
    pub request_id: bool,
}

/// Trust in a proxy in front (`use-forwarded-headers: "true"`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Trust {
    /// The header with the client's address.
    pub header: HeaderName,
    /// Who may say so.
    pub from: Cidrs,
    /// Append to X-Forwarded-For instead of replacing it.
    pub append: bool,
}

impl Default for Forwarded {
    fn default() -> Self {
        Self { trust: None, request_id: true }
    }
}

static USE: Key = Key {
    name: "use-forwarded-headers",
    grammar: "`true` or `false`",
    default: "false",
    doc: "Believe the X-Forwarded-* headers of requests, because a proxy in front sets them. Without it they are \
          overwritten.",
    ..Key::GLOBAL
};

static HEADER: Key = Key {
    name: "forwarded-for-header",
    grammar: "the name of a header, of letters, digits, `-` and `_`",
    default: "X-Forwarded-For",
    doc: "The header in which the proxy in front sends the address of the client. Counts with \
          `use-forwarded-headers`. While it cannot be read, nobody is believed.",
    ..Key::GLOBAL
};

static FROM: Key = Key {
    name: "proxy-real-ip-cidr",
    grammar: "IP addresses or networks such as `10.0.0.0/8`, separated by commas",
    default: "0.0.0.0/0",
    doc: "Who may say for whom a request is: the addresses of the proxies in front. Counts with \
          `use-forwarded-headers`. While it cannot be read, nobody is believed.",
    ..Key::GLOBAL
};

static APPEND: Key = Key {
    name: "compute-full-forwarded-for",
    grammar: "`true` or `false`",
    default: "false",
    doc: "Append the address of the peer to the X-Forwarded-For of the request instead of replacing it. Counts with \
          `use-forwarded-headers`.",
    ..Key::GLOBAL
};

static REQUEST_ID: Key = Key {
    name: "generate-request-id",
    grammar: "`true` or `false`",
    default: "true",
    doc: "Send X-Request-ID to the endpoint: the one of the request, else a new one.",
    ..Key::GLOBAL
};

static SPEC: Spec = Spec {
    title: "Addresses and forwarded headers",
    keys: &[&USE, &HEADER, &FROM, &APPEND, &REQUEST_ID],
    cases: &[
        Case::good(
            "a load balancer in front",
            &[("use-forwarded-headers", "true"), ("proxy-real-ip-cidr", "10.0.0.0/8, fd00::/8")],
        ),
        Case::bad("a switch that is none", &[("use-forwarded-headers", "yes")], Reason::InvalidValue),
        Case::good("another header", &[("forwarded-for-header", "CF-Connecting-IP")]),
        Case::bad("no name of a header", &[("forwarded-for-header", "X Forwarded For")], Reason::InvalidValue),
        Case::bad(
            "the PROXY protocol is no header",
            &[("forwarded-for-header", "proxy_protocol")],
            Reason::InvalidValue,
        ),
        Case::bad(
            "a header that the proxy drops",
            &[("forwarded-for-header", "X_Forwarded_For"), ("use-forwarded-headers", "true")],
            Reason::OutOfPlace,
        ),
        Case::bad("no network", &[("proxy-real-ip-cidr", "10.0.0.0/33")], Reason::InvalidValue),
        Case::good("the whole chain of proxies", &[("compute-full-forwarded-for", "true")]),
        Case::bad("empty but for a blank", &[("compute-full-forwarded-for", " ")], Reason::InvalidValue),
        Case::good("no X-Request-ID of ours", &[("generate-request-id", "false")]),
        Case::bad("a number", &[("generate-request-id", "2")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read_globals(&self, from: &mut Reader<'_>, into: &mut GlobalPolicies) {
        let (mut trusts, mut append) = (false, false);
        from.set(&USE, &mut trusts);
        from.set(&APPEND, &mut append);
        let header = read_or(from, &HEADER, header);
        let networks = read_or(from, &FROM, Cidrs::parse);
        into.globals.forwarded.trust = match (header, networks) {
            (Some(header), Some(from)) if trusts => Some(Trust { header, from, append }),
            _ => None,
        };
        let dropped = |trust: &Trust| trust.header.as_str().contains('_');
        if !into.globals.connections.underscores_in_headers
            && into.globals.forwarded.trust.as_ref().is_some_and(dropped)
        {
            let wrong = "names a header with `_`, and the proxy drops such headers; `enable-underscores-in-headers` must \
                         be `true`, or the header another one";
            let effect = "every request counts as coming from the other end of its connection";
            from.refuse(&HEADER, (Severity::Degraded, Reason::OutOfPlace), wrong, effect);
        }
        from.set(&REQUEST_ID, &mut into.globals.forwarded.request_id);
    }
}

/// The value of a key, or its default where nothing is said. What cannot be read is `None`: it must not widen whom we
/// believe, so then nobody is believed.
fn read_or<T>(from: &mut Reader<'_>, key: &'static Key, parse: fn(&str) -> Result<T, Invalid>) -> Option<T> {
    let said = from.says(key);
    let value = from.parse(key, "none of them: nobody is believed", parse);
    if said { value } else { parse(key.default).ok() }
}

fn header(text: &str) -> Result<HeaderName, Invalid> {
    if text.eq_ignore_ascii_case("proxy_protocol") {
        return Err(Invalid::new("is the PROXY protocol, which is not supported yet", HEADER.grammar));
    }
    HeaderName::parse(text)
}
