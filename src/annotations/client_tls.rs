//! `ssl-protocols`, `ssl-ciphers`, `use-http2`: TLS and HTTP/2 towards clients.

use serde::Serialize;

use super::spec::{Case, Key, Spec};
use super::{GlobalPolicies, Reader};
use crate::problem::Reason;
use crate::value::tls::{Ciphers, TlsVersion};
use crate::value::{Invalid, Value as _, shown};

/// TLS and HTTP/2 towards clients.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ClientTls {
    /// The versions offered, oldest first, none twice.
    pub protocols: Vec<TlsVersion>,
    /// The ciphers up to TLS 1.2, in order of preference; the proxy's order counts.
    pub ciphers: Ciphers,
    /// Offer HTTP/2 by ALPN.
    pub http2: bool,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self { protocols: vec![TlsVersion::V1_2, TlsVersion::V1_3], ciphers: Ciphers::default(), http2: true }
    }
}

static PROTOCOLS: Key = Key {
    name: "ssl-protocols",
    grammar: "some of `TLSv1`, `TLSv1.1`, `TLSv1.2` and `TLSv1.3`, separated by blanks",
    default: "TLSv1.2 TLSv1.3",
    doc: "The versions of TLS that are offered to clients.",
    ..Key::GLOBAL
};

static CIPHERS: Key = Key {
    name: "ssl-ciphers",
    grammar: "names of ciphers as OpenSSL has them, joined by `:`, of which one at least is in common use",
    default: "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
              ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:\
              DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384",
    doc: "The ciphers up to TLS 1.2 that are offered to clients, in order of preference. The proxy's order counts.",
    ..Key::GLOBAL
};

static HTTP2: Key = Key {
    name: "use-http2",
    grammar: "`true` or `false`",
    default: "true",
    doc: "Offer HTTP/2 to clients that come over TLS.",
    ..Key::GLOBAL
};

static SPEC: Spec = Spec {
    title: "TLS towards clients",
    keys: &[&PROTOCOLS, &CIPHERS, &HTTP2],
    cases: &[
        Case::good("TLS 1.3 only", &[("ssl-protocols", "TLSv1.3")]),
        Case::bad("a version that is no longer spoken", &[("ssl-protocols", "SSLv3 TLSv1.2")], Reason::InvalidValue),
        Case::good("two ciphers", &[("ssl-ciphers", "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256")]),
        Case::good("a class of ciphers without another", &[("ssl-ciphers", "HIGH:!aNULL:!MD5")]),
        Case::bad("a name that OpenSSL does not have", &[("ssl-ciphers", "AES-GCM-256")], Reason::InvalidValue),
        Case::bad("nothing that is left", &[("ssl-ciphers", "HIGH:!ALL")], Reason::InvalidValue),
        Case::good("HTTP/1.1 only", &[("use-http2", "false")]),
        Case::bad("a switch that is none", &[("use-http2", "h2")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read_globals(&self, from: &mut Reader<'_>, into: &mut GlobalPolicies) {
        let tls = &mut into.globals.client_tls;
        let instead: Vec<_> = tls.protocols.iter().map(|version| version.as_str()).collect();
        if let Some(protocols) = from.parse(&PROTOCOLS, instead.join(" "), protocols) {
            tls.protocols = protocols;
        }
        if let Some(ciphers) = from.value(&CIPHERS, "the default") {
            tls.ciphers = ciphers;
        }
        from.set(&HTTP2, &mut tls.http2);
    }
}

fn protocols(text: &str) -> Result<Vec<TlsVersion>, Invalid> {
    let one = |word: &str| {
        let wrong =
            |_| Invalid::new(format!("has {}, which is no version of TLS here", shown(word)), PROTOCOLS.grammar);
        TlsVersion::parse(word).map_err(wrong)
    };
    let mut versions = text.split_whitespace().map(one).collect::<Result<Vec<_>, _>>()?;
    versions.sort();
    versions.dedup();
    if versions.is_empty() { Err(Invalid::new("names none", PROTOCOLS.grammar)) } else { Ok(versions) }
}
