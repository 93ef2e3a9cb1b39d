//! `keep-alive`, `large-client-header-buffers`, `enable-underscores-in-headers`, `upstream-keepalive-*`: connections
//! on both sides.

use serde::Serialize;

use super::spec::{Case, Key, Spec};
use super::{GlobalPolicies, Reader};
use crate::problem::Reason;
use crate::value::number::{Count, Seconds};
use crate::value::size::Size;
use crate::value::{Invalid, Value as _};

/// Connections on both sides.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Connections {
    /// How long an idle connection of a client is kept; 0: closed after each answer.
    pub keep_alive: Seconds,
    /// Number and size of the buffers for large request headers.
    pub large_header_buffers: (Count, Size),
    /// Take request headers with underscores in their names.
    pub underscores_in_headers: bool,
    /// Idle connections to each upstream that a worker keeps; 0: none, each request connects anew.
    pub upstream_connections: Count,
    /// The longest life of a connection to an upstream.
    pub upstream_time: Seconds,
    /// How long an idle connection to an upstream is kept.
    pub upstream_timeout: Seconds,
    /// The most requests over one connection to an upstream.
    pub upstream_requests: Count,
    /// Name the version of the proxy in its own pages and the `Server` header (`server-tokens`).
    pub server_tokens: bool,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            keep_alive: Seconds::new(75),
            large_header_buffers: (Count::new(4), Size::bytes(8 << 10)),
            underscores_in_headers: false,
            upstream_connections: Count::new(320),
            upstream_time: Seconds::new(3600),
            upstream_timeout: Seconds::new(60),
            upstream_requests: Count::new(10_000),
            server_tokens: false,
        }
    }
}

static KEEP_ALIVE: Key = Key {
    name: "keep-alive",
    grammar: "a number of seconds",
    default: "75",
    doc: "How long an idle connection of a client is kept. With `0` it is closed after each answer.",
    ..Key::GLOBAL
};

static HEADER_BUFFERS: Key = Key {
    name: "large-client-header-buffers",
    grammar: "a number from 1 to 1024 and a size from `1k` to `1m`, separated by a blank",
    default: "4 8k",
    doc: "Number and size of the buffers for large request headers. The request line and each header must fit into \
          one buffer, else the answer is 414 or 400.",
    ..Key::GLOBAL
};

static UNDERSCORES: Key = Key {
    name: "enable-underscores-in-headers",
    grammar: "`true` or `false`",
    default: "false",
    doc: "Take request headers with underscores in their names. Otherwise they are dropped, because many \
          applications cannot tell `_` from `-`.",
    ..Key::GLOBAL
};

static UPSTREAM_CONNECTIONS: Key = Key {
    name: "upstream-keepalive-connections",
    grammar: "a whole number from 0 to 10000",
    default: "320",
    doc: "How many idle connections to the endpoints of one Service each worker keeps for further requests. With `0` \
          each request connects anew.",
    ..Key::GLOBAL
};

static UPSTREAM_TIME: Key = Key {
    name: "upstream-keepalive-time",
    grammar: "a number of seconds, or a number with one of the units `s`, `m`, `h` and `d`",
    default: "1h",
    doc: "The longest life of a connection to an endpoint.",
    ..Key::GLOBAL
};

static UPSTREAM_TIMEOUT: Key = Key {
    name: "upstream-keepalive-timeout",
    grammar: "a number of seconds",
    default: "60",
    doc: "How long an idle connection to an endpoint is kept.",
    ..Key::GLOBAL
};

static UPSTREAM_REQUESTS: Key = Key {
    name: "upstream-keepalive-requests",
    grammar: "a whole number from 1 to 1000000",
    default: "10000",
    doc: "The most requests over one connection to an endpoint.",
    ..Key::GLOBAL
};

static SERVER_TOKENS: Key = Key {
    name: "server-tokens",
    grammar: "`true` or `false`",
    default: "false",
    doc: "Name the version of the proxy in its own pages and in the `Server` header.",
    ..Key::GLOBAL
};

static SPEC: Spec = Spec {
    title: "Connections and headers",
    keys: &[
        &KEEP_ALIVE,
        &HEADER_BUFFERS,
        &UNDERSCORES,
        &UPSTREAM_CONNECTIONS,
        &UPSTREAM_TIME,
        &UPSTREAM_TIMEOUT,
        &UPSTREAM_REQUESTS,
        &SERVER_TOKENS,
    ],
    cases: &[
        Case::good("clients that come back late", &[("keep-alive", "300")]),
        Case::bad("no number", &[("keep-alive", "long")], Reason::InvalidValue),
        Case::good("large cookies", &[("large-client-header-buffers", "8 32k")]),
        Case::bad("a size alone", &[("large-client-header-buffers", "32k")], Reason::InvalidValue),
        Case::bad("buffers that no header fits into", &[("large-client-header-buffers", "4 16")], Reason::InvalidValue),
        Case::good("headers with underscores", &[("enable-underscores-in-headers", "true")]),
        Case::bad("a switch that is none", &[("enable-underscores-in-headers", "on")], Reason::InvalidValue),
        Case::good("no connection is used twice", &[("upstream-keepalive-connections", "0")]),
        Case::bad("more than a worker can keep", &[("upstream-keepalive-connections", "99999")], Reason::InvalidValue),
        Case::good("connections of ten minutes", &[("upstream-keepalive-time", "10m")]),
        Case::bad("a unit that is none", &[("upstream-keepalive-time", "10 min")], Reason::InvalidValue),
        Case::good("idle for five seconds", &[("upstream-keepalive-timeout", "5")]),
        Case::bad("negative", &[("upstream-keepalive-timeout", "-1")], Reason::InvalidValue),
        Case::good("a thousand requests", &[("upstream-keepalive-requests", "1000")]),
        Case::bad("no request at all", &[("upstream-keepalive-requests", "0")], Reason::InvalidValue),
        Case::good("the version is no secret", &[("server-tokens", "true")]),
        Case::bad("nginx's own word", &[("server-tokens", "build")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read_globals(&self, from: &mut Reader<'_>, into: &mut GlobalPolicies) {
        let connections = &mut into.globals.connections;
        from.set(&KEEP_ALIVE, &mut connections.keep_alive);
        let (number, size) = connections.large_header_buffers;
        if let Some(buffers) = from.parse(&HEADER_BUFFERS, format!("{number} {size}"), header_buffers) {
            connections.large_header_buffers = buffers;
        }
        from.set(&UNDERSCORES, &mut connections.underscores_in_headers);
        // Each worker reserves room for every one of them in every upstream, whether or not it is ever used.
        from.set_if(&UPSTREAM_CONNECTIONS, &mut connections.upstream_connections, |n| n.get() <= 10_000);
        from.set(&UPSTREAM_TIME, &mut connections.upstream_time);
        from.set(&UPSTREAM_TIMEOUT, &mut connections.upstream_timeout);
        from.set_if(&UPSTREAM_REQUESTS, &mut connections.upstream_requests, |n| n.get() >= 1);
        from.set(&SERVER_TOKENS, &mut connections.server_tokens);
    }
}

fn header_buffers(text: &str) -> Result<(Count, Size), Invalid> {
    let wrong = || Invalid::new("is not a number and a size", HEADER_BUFFERS.grammar);
    let (number, size) = text.split_once([' ', '\t']).ok_or_else(wrong)?;
    let number = Count::parse(number).map_err(|_| wrong())?;
    let size = Size::parse(size.trim_start()).map_err(|_| wrong())?;
    if (1..=1024).contains(&number.get()) && (1 << 10..=1 << 20).contains(&size.as_bytes()) {
        Ok((number, size))
    } else {
        Err(Invalid::new("is out of range", HEADER_BUFFERS.grammar))
    }
}
