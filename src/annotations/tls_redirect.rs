//! `ssl-redirect`, `force-ssl-redirect`, `http-redirect-code`, `no-tls-redirect-locations`: from http to https.

use serde::Serialize;

use super::spec::{Case, Key, Risk, Spec};
use super::{GlobalPolicies, IngressPolicies, Reader};
use crate::problem::Reason;
use crate::value::path::RulePath;
use crate::value::{Invalid, Value as _, shown};

/// Code and exceptions of the redirect to https. Which routes redirect is `Route::redirect_to_https`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TlsRedirect {
    /// 301, 302, 307 or 308.
    pub code: u16,
    /// Requests whose path begins with one of these are never redirected.
    pub exempt: Vec<RulePath>,
}

impl Default for TlsRedirect {
    fn default() -> Self {
        let acme = RulePath::parse(EXEMPT.default);
        Self { code: 308, exempt: acme.into_iter().collect() }
    }
}

static REDIRECT: Key = Key {
    name: "ssl-redirect",
    settings: &["ssl-redirect"],
    grammar: "`true` or `false`",
    default: "true",
    doc: "Send requests over plain http to https, where an Ingress asks for TLS for the host.",
    ..Key::ROUTE
};

static FORCE: Key = Key {
    name: "force-ssl-redirect",
    settings: &["force-ssl-redirect"],
    grammar: "`true` or `false`",
    default: "false",
    risk: Risk::Medium,
    doc: "Send requests over plain http to https even where nobody asks for TLS, as behind a load balancer that ends \
          TLS itself.",
    ..Key::ROUTE
};

static CODE: Key = Key {
    name: "http-redirect-code",
    grammar: "301, 302, 307 or 308",
    default: "308",
    doc: "The code of redirects to https. With 307 and 308 clients keep the method.",
    ..Key::GLOBAL
};

static EXEMPT: Key = Key {
    name: "no-tls-redirect-locations",
    grammar: "beginnings of paths, each beginning with `/`, separated by commas",
    default: "/.well-known/acme-challenge",
    doc: "Requests whose path begins with one of these are never sent to https.",
    ..Key::GLOBAL
};

static SPEC: Spec = Spec {
    title: "Redirect to https",
    keys: &[&REDIRECT, &FORCE, &CODE, &EXEMPT],
    cases: &[
        Case::good("plain http beside https", &[("ssl-redirect", "false")]),
        Case::bad("a switch that is none", &[("ssl-redirect", "off")], Reason::InvalidValue),
        Case::good("TLS ends in front of us", &[("force-ssl-redirect", "true")]),
        Case::bad("a code", &[("force-ssl-redirect", "308")], Reason::InvalidValue),
        Case::good("an old code", &[("http-redirect-code", "301")]),
        Case::bad("no redirect", &[("http-redirect-code", "200")], Reason::InvalidValue),
        Case::good("two exceptions", &[("no-tls-redirect-locations", "/.well-known/acme-challenge, /healthz")]),
        Case::bad("no path", &[("no-tls-redirect-locations", "healthz")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read(&self, from: &mut Reader<'_>, into: &mut IngressPolicies) {
        from.set(&REDIRECT, &mut into.ssl_redirect);
        from.set(&FORCE, &mut into.force_ssl_redirect);
    }

    fn read_globals(&self, from: &mut Reader<'_>, into: &mut GlobalPolicies) {
        let redirect = &mut into.globals.tls_redirect;
        if let Some(code) = from.parse(&CODE, redirect.code, code) {
            redirect.code = code;
        }
        let instead: Vec<_> = redirect.exempt.iter().map(RulePath::as_str).collect();
        if let Some(exempt) = from.parse(&EXEMPT, instead.join(","), exempt) {
            redirect.exempt = exempt;
        }
    }
}

fn code(text: &str) -> Result<u16, Invalid> {
    let codes = [301, 302, 307, 308];
    let code = text.parse().ok().filter(|code| codes.contains(code));
    code.ok_or_else(|| Invalid::new("is no code of a redirect", CODE.grammar))
}

fn exempt(text: &str) -> Result<Vec<RulePath>, Invalid> {
    let one = |item: &str| {
        let wrong =
            |invalid: Invalid| Invalid::new(format!("has {}, which {}", shown(item), invalid.wrong), EXEMPT.grammar);
        RulePath::parse(item).map_err(wrong)
    };
    text.split(',').map(|item| one(item.trim())).collect()
}
