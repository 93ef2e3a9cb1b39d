//! How requests go to an upstream and answers come back: sizes, time-outs, retries, buffers, speed. Said once at `http`
//! level for what most routes agree on; a location says only what differs.

use super::baseline::Baseline;
use crate::annotations::body_size::BodySize;
use crate::annotations::buffering::Buffering;
use crate::annotations::rate::Rate;
use crate::annotations::retries::{Failure, Retries};
use crate::annotations::timeouts::Timeouts;
use crate::value::number::Count;
use crate::value::size::Size;

/// The module of nginx that speaks to an upstream: the first part of the names of its directives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Module {
    /// HTTP.
    Proxy,
    /// gRPC.
    Grpc,
}

impl Module {
    pub const ALL: [Self; 2] = [Self::Proxy, Self::Grpc];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Grpc => "grpc",
        }
    }
}

/// A directive with its arguments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Directive {
    pub name: String,
    pub words: Vec<String>,
}

/// What a route asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Transfer<'a> {
    pub body_size: BodySize,
    pub timeouts: &'a Timeouts,
    pub buffering: &'a Buffering,
    pub retries: &'a Retries,
    pub rate: Rate,
}

impl<'a> Transfer<'a> {
    /// What holds for all.
    pub fn baseline(baseline: &'a Baseline) -> Self {
        let Baseline { body_size, timeouts, buffering, retries, rate } = baseline;
        Self { body_size: *body_size, timeouts, buffering, retries, rate: *rate }
    }

    /// The directives of a location, as far as they differ from those of `other`. `module`: what it passes requests on by.
    pub fn unlike(self, other: Self, module: Option<Module>) -> Vec<Directive> {
        if self == other {
            return Vec::new();
        }
        let all = |transfer: Self| {
            let upstream = module.map(|module| transfer.upstream(module));
            transfer.client().into_iter().chain(upstream.into_iter().flatten())
        };
        let others: Vec<_> = all(other).collect();
        all(self).filter(|directive| !others.contains(directive)).collect()
    }

    /// What concerns clients, whatever the upstream speaks.
    pub fn client(self) -> Vec<Directive> {
        let Rate { kilobytes, after } = self.rate;
        let size = |kilobytes: Count| Size::bytes(u64::from(kilobytes.get()) << 10).to_string();
        vec![
            directive("client_max_body_size", [self.body_size.0.to_string()]),
            directive("client_body_buffer_size", [self.buffering.request_memory.to_string()]),
            directive("limit_rate", [size(kilobytes)]),
            directive("limit_rate_after", [size(after)]),
        ]
    }

    /// What concerns upstreams of a module.
    pub fn upstream(self, module: Module) -> Vec<Directive> {
        let Timeouts { connect, send, read } = self.timeouts;
        let Retries { after: _, non_idempotent: _, timeout, tries } = self.retries;
        let name = |name| format!("{}_{name}", module.as_str());
        let mut all = vec![
            directive(name("connect_timeout"), [connect.to_string()]),
            directive(name("send_timeout"), [send.to_string()]),
            directive(name("read_timeout"), [read.to_string()]),
            directive(name("next_upstream"), failures(self.retries)),
            directive(name("next_upstream_timeout"), [timeout.to_string()]),
            directive(name("next_upstream_tries"), [tries.to_string()]),
        ];
        if module == Module::Proxy {
            all.extend(self.buffers());
        }
        all
    }

    fn buffers(self) -> [Directive; 6] {
        let Buffering { requests, request_memory: _, responses, buffer_size, buffers, .. } = self.buffering;
        [
            directive("proxy_request_buffering", [on(*requests)]),
            directive("proxy_buffering", [on(*responses)]),
            directive("proxy_buffer_size", [buffer_size.to_string()]),
            directive("proxy_buffers", [buffers.to_string(), buffer_size.to_string()]),
            directive("proxy_busy_buffers_size", [self.buffering.busy().to_string()]),
            directive("proxy_max_temp_file_size", [self.buffering.file().to_string()]),
        ]
    }
}

fn directive(name: impl Into<String>, words: impl Into<Vec<String>>) -> Directive {
    Directive { name: name.into(), words: words.into() }
}

fn failures(retries: &Retries) -> Vec<String> {
    let Retries { after, non_idempotent, timeout: _, tries: _ } = retries;
    let word = |failure: &Failure| match failure {
        Failure::Error => "error".to_owned(),
        Failure::Timeout => "timeout".to_owned(),
        Failure::InvalidHeader => "invalid_header".to_owned(),
        Failure::Status(status) => format!("http_{status}"),
    };
    if after.is_empty() {
        return vec!["off".to_owned()];
    }
    let non_idempotent = non_idempotent.then(|| "non_idempotent".to_owned());
    after.iter().map(word).chain(non_idempotent).collect()
}

fn on(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}
