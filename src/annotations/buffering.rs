//! `proxy-buffering` and its kin: how much of requests and answers the proxy takes in ahead of the other side.

use serde::Serialize;

use super::spec::{Case, Key, Spec};
use super::{IngressPolicies, Reader};
use crate::problem::Reason;
use crate::value::number::Count;
use crate::value::size::Size;
use crate::value::{Invalid, Value as _};

/// How much of requests and answers the proxy takes in ahead of the other side.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Buffering {
    /// Read the whole request body before the upstream gets any of it.
    pub requests: bool,
    /// The part of a request body that is kept in memory; the rest goes into a file.
    pub request_memory: Size,
    /// Read answers as fast as the upstream sends them, rather than as fast as the client takes them.
    pub responses: bool,
    /// The size of the buffer for the beginning of an answer, and of each buffer for the rest. Headers must fit into one.
    pub buffer_size: Size,
    /// How many buffers there are for one answer, 2 at least.
    pub buffers: Count,
    /// How much of what is buffered may be on its way to the client; `None`: two buffers, if there are three.
    pub busy_size: Option<Size>,
    /// How much of an answer may go into a file; 0: none.
    pub file_size: Size,
}

impl Buffering {
    /// What may be on its way to the client: a buffer at least, and all buffers but one at most, as every proxy needs.
    pub fn busy(&self) -> Size {
        let one = self.buffer_size.as_bytes();
        let most = one * u64::from(self.buffers.get().saturating_sub(1)).max(1);
        Size::bytes(self.busy_size.map_or(2 * one, Size::as_bytes).clamp(one, most))
    }

    /// How much of an answer may go into a file: nothing, or a buffer at least.
    pub fn file(&self) -> Size {
        if self.file_size.as_bytes() == 0 { self.file_size } else { self.file_size.max(self.buffer_size) }
    }
}

impl Default for Buffering {
    fn default() -> Self {
        Self {
            requests: true,
            request_memory: Size::bytes(8 << 10),
            responses: false,
            buffer_size: Size::bytes(4 << 10),
            buffers: Count::new(4),
            busy_size: None,
            file_size: Size::bytes(1 << 30),
        }
    }
}

static REQUESTS: Key = Key {
    name: "proxy-request-buffering",
    settings: &["proxy-request-buffering"],
    grammar: "`on` or `off`",
    default: "on",
    doc: "Read the whole body of a request before the endpoint gets any of it. With `off` it is passed on as it comes, \
          and cannot be tried at a second endpoint.",
    ..Key::UPSTREAM
};

static REQUEST_MEMORY: Key = Key {
    name: "client-body-buffer-size",
    settings: &["client-body-buffer-size"],
    grammar: "a size from `1k` to `16m`",
    default: "8k",
    doc: "The part of a request's body that is kept in memory; the rest goes into a file.",
    ..Key::ROUTE
};

static RESPONSES: Key = Key {
    name: "proxy-buffering",
    settings: &["proxy-buffering"],
    grammar: "`on` or `off`",
    default: "off",
    doc: "Read answers as fast as the endpoint sends them, so that it is free for the next request while a slow client \
          still reads. With `off` each part goes to the client at once.",
    ..Key::UPSTREAM
};

static BUFFERS: Key = Key {
    name: "proxy-buffers-number",
    settings: &["proxy-buffers-number"],
    grammar: "a whole number from 2 to 1024",
    default: "4",
    doc: "How many buffers there are for one answer, with `proxy-buffering`.",
    ..Key::UPSTREAM
};

static BUFFER_SIZE: Key = Key {
    name: "proxy-buffer-size",
    settings: &["proxy-buffer-size"],
    grammar: "a size from `1k` to `16m`",
    default: "4k",
    doc: "The size of each buffer of an answer. The headers of the answer must fit into one, else the client gets 502.",
    ..Key::UPSTREAM
};

static BUSY: Key = Key {
    name: "proxy-busy-buffers-size",
    settings: &["proxy-busy-buffers-size"],
    grammar: "a size between that of one buffer and that of all but one",
    doc: "How much of a buffered answer may be on its way to the client while the rest is still read. Without it: two \
          buffers.",
    ..Key::UPSTREAM
};

static FILE: Key = Key {
    name: "proxy-max-temp-file-size",
    settings: &["proxy-max-temp-file-size"],
    grammar: "`0`, or a size that is not below that of one buffer",
    default: "1024m",
    doc: "How much of a buffered answer may go into a file. With `0` none does.",
    ..Key::UPSTREAM
};

static SPEC: Spec = Spec {
    title: "Buffering",
    keys: &[&REQUESTS, &REQUEST_MEMORY, &RESPONSES, &BUFFERS, &BUFFER_SIZE, &BUSY, &FILE],
    cases: &[
        Case::good("large uploads as they come", &[("proxy-request-buffering", "off")]),
        Case::bad("a word that is none", &[("proxy-request-buffering", "false")], Reason::InvalidValue),
        Case::good("small forms in memory", &[("client-body-buffer-size", "64k")]),
        Case::bad("nothing", &[("client-body-buffer-size", "0")], Reason::InvalidValue),
        Case::good("slow clients", &[("proxy-buffering", "on")]),
        Case::bad("a number", &[("proxy-buffering", "1")], Reason::InvalidValue),
        Case::good("more buffers", &[("proxy-buffers-number", "16")]),
        Case::bad("fewer than nginx can do with", &[("proxy-buffers-number", "1")], Reason::InvalidValue),
        Case::good("large headers", &[("proxy-buffer-size", "16k")]),
        Case::bad("too small for any header", &[("proxy-buffer-size", "100")], Reason::InvalidValue),
        Case::good("three buffers", &[("proxy-busy-buffers-size", "12k"), ("proxy-buffers-number", "8")]),
        Case::bad("more than there is", &[("proxy-busy-buffers-size", "64k")], Reason::InvalidValue),
        Case::good("never into a file", &[("proxy-max-temp-file-size", "0")]),
        Case::bad("less than a buffer", &[("proxy-max-temp-file-size", "1k")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read(&self, from: &mut Reader<'_>, into: &mut IngressPolicies) {
        let buffering = &mut into.policies.buffering;
        for (key, slot) in [(&REQUESTS, &mut buffering.requests), (&RESPONSES, &mut buffering.responses)] {
            let instead = if *slot { "on" } else { "off" };
            *slot = from.parse(key, instead, |text| on_off(key, text)).unwrap_or(*slot);
        }
        let usual = |size: &Size| (1 << 10..=16 << 20).contains(&size.as_bytes());
        from.set_if(&REQUEST_MEMORY, &mut buffering.request_memory, usual);
        from.set_if(&BUFFER_SIZE, &mut buffering.buffer_size, usual);
        from.set_if(&BUFFERS, &mut buffering.buffers, |n| (2..=1024).contains(&n.get()));
        // These two depend on the others, which may come from another layer: what does not fit there is bent by
        // `busy` and `file`, but what does not fit here is told.
        let read = |text: &str| {
            let wanted = Buffering { busy_size: Some(Size::parse(text)?), ..*buffering };
            if wanted.busy_size == Some(wanted.busy()) { Ok(wanted.busy_size) } else { Err(out_of_range(&BUSY)) }
        };
        if let Some(size) = from.parse(&BUSY, buffering.busy(), read) {
            buffering.busy_size = size;
        }
        let read = |text: &str| {
            let wanted = Buffering { file_size: Size::parse(text)?, ..*buffering };
            if wanted.file_size == wanted.file() { Ok(wanted.file_size) } else { Err(out_of_range(&FILE)) }
        };
        if let Some(size) = from.parse(&FILE, buffering.file(), read) {
            buffering.file_size = size;
        }
    }
}

fn on_off(key: &'static Key, text: &str) -> Result<bool, Invalid> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Invalid::new("is neither on nor off", key.grammar)),
    }
}

fn out_of_range(key: &'static Key) -> Invalid {
    Invalid::new("is out of range", key.grammar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_proxy_gets_always_fits_together() {
        for (buffers, busy, file, want) in [
            (2, None, 1 << 30, (4 << 10, 1 << 30)),
            (3, None, 0, (8 << 10, 0)),
            (4, Some(1), 1, (4 << 10, 4 << 10)),
            (4, Some(1 << 20), 5 << 10, (12 << 10, 5 << 10)),
        ] {
            let buffering = Buffering {
                buffers: Count::new(buffers),
                busy_size: busy.map(Size::bytes),
                file_size: Size::bytes(file),
                ..Buffering::default()
            };
            assert_eq!((buffering.busy().as_bytes(), buffering.file().as_bytes()), want, "{buffering:?}");
        }
    }
}
