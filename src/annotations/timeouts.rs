//! `proxy-connect-timeout`, `proxy-send-timeout`, `proxy-read-timeout`: how long the proxy waits for the upstream.

use serde::Serialize;

use super::spec::{Case, Key, Spec};
use super::{IngressPolicies, Reader};
use crate::problem::Reason;
use crate::value::number::Seconds;

/// How long the proxy waits for the upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Seconds,
    /// Between two successful writes.
    pub send: Seconds,
    /// Between two successful reads.
    pub read: Seconds,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Seconds::new(5), send: Seconds::new(60), read: Seconds::new(60) }
    }
}

static CONNECT: Key = Key {
    name: "proxy-connect-timeout",
    settings: &["proxy-connect-timeout"],
    grammar: "a number of seconds, 1 at least",
    default: "5",
    doc: "How long the proxy waits for a connection to an endpoint before it tries another.",
    ..Key::UPSTREAM
};

static SEND: Key = Key {
    name: "proxy-send-timeout",
    settings: &["proxy-send-timeout"],
    grammar: "a number of seconds, 1 at least",
    default: "60",
    doc: "How long an endpoint may take nothing of the request before the proxy gives up.",
    ..Key::UPSTREAM
};

static READ: Key = Key {
    name: "proxy-read-timeout",
    settings: &["proxy-read-timeout"],
    grammar: "a number of seconds, 1 at least",
    default: "60",
    doc: "How long an endpoint may send nothing of the answer before the proxy gives up with 504; a WebSocket without \
          a message ends after this time.",
    ..Key::UPSTREAM
};

static SPEC: Spec = Spec {
    title: "Time-outs",
    keys: &[&CONNECT, &SEND, &READ],
    cases: &[
        Case::good("a backend far away", &[("proxy-connect-timeout", "15")]),
        Case::bad("half a second", &[("proxy-connect-timeout", "0.5")], Reason::InvalidValue),
        Case::good("slow uploads", &[("proxy-send-timeout", "300")]),
        Case::bad("no time at all", &[("proxy-send-timeout", "0")], Reason::InvalidValue),
        Case::good("WebSockets that are silent for an hour", &[("proxy-read-timeout", "3600")]),
        Case::bad("a unit that is none", &[("proxy-read-timeout", "1 hour")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read(&self, from: &mut Reader<'_>, into: &mut IngressPolicies) {
        let timeouts = &mut into.policies.timeouts;
        for (key, slot) in [(&CONNECT, &mut timeouts.connect), (&SEND, &mut timeouts.send), (&READ, &mut timeouts.read)]
        {
            // With 0 nginx would give up before it began.
            from.set_if(key, slot, |seconds| seconds.get() >= 1);
        }
    }
}
