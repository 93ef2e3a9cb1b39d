//! `backend-protocol`: what the proxy speaks to the endpoints. Becomes part of the upstream.

use super::spec::{Case, Key, Spec};
use super::{IngressPolicies, Reader};
use crate::problem::Reason;
use crate::value::Invalid;
use crate::volume::Protocol;

static PROTOCOL: Key = Key {
    name: "backend-protocol",
    grammar: "`HTTP`, `HTTPS`, `GRPC` or `GRPCS`, in either case",
    default: "HTTP",
    doc: "What the proxy speaks to the endpoints: HTTP/1.1 or gRPC (HTTP/2), in plain text or over TLS.",
    ..Key::UPSTREAM
};

static SPEC: Spec = Spec {
    title: "Protocol of the backend",
    keys: &[&PROTOCOL],
    cases: &[
        Case::good("a backend that speaks gRPC", &[("backend-protocol", "GRPC")]),
        Case::good("in lower case", &[("backend-protocol", "https")]),
        Case::bad("FastCGI is not supported yet", &[("backend-protocol", "FCGI")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read(&self, from: &mut Reader<'_>, into: &mut IngressPolicies) {
        let protocol = from.parse(&PROTOCOL, into.backend_protocol, parse);
        into.backend_protocol = protocol.unwrap_or(into.backend_protocol);
    }
}

fn parse(text: &str) -> Result<Protocol, Invalid> {
    match text.to_ascii_uppercase().as_str() {
        "HTTP" => Ok(Protocol::Http),
        "HTTPS" => Ok(Protocol::Https),
        "GRPC" => Ok(Protocol::Grpc),
        "GRPCS" => Ok(Protocol::Grpcs),
        "AUTO_HTTP" | "FCGI" => Err(Invalid::new("is not supported yet", PROTOCOL.grammar)),
        _ => Err(Invalid::new("is no protocol", PROTOCOL.grammar)),
    }
}
