//! How requests go to an upstream and answers come back: sizes, time-outs, retries, buffers, speed. Said once at `http`
//! level for what most routes agree on; a location says only what differs.

use super::baseline::Baseline;
use crate::annotations::body_size::BodySize;
use crate::annotations::buffering::Buffering;
use crate::annotations::retries::{Failure, Retries};
use crate::annotations::timeouts::Timeouts;

/// Which of nginx's modules a directive belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Module {
    /// What concerns clients, whatever the upstream speaks.
    Client,
    /// Upstreams that speak HTTP.
    Proxy,
    /// Upstreams that speak gRPC.
    Grpc,
}

impl Module {
    /// The modules that speak to an upstream.
    pub const UPSTREAM: [Self; 2] = [Self::Proxy, Self::Grpc];

    /// The first part of the names of its directives.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
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
}

impl<'a> Transfer<'a> {
    /// What holds for all.
    pub fn baseline(baseline: &'a Baseline) -> Self {
        let Baseline { body_size, timeouts, buffering, retries } = baseline;
        Self { body_size: *body_size, timeouts, buffering, retries }
    }

    /// The directives of a location that passes requests on by this module, as far as they differ from those of `other`.
    pub fn unlike(self, other: Self, module: Module) -> Vec<Directive> {
        if self == other {
            return Vec::new();
        }
        let of = |transfer: Self| [transfer.directives(Module::Client), transfer.directives(module)].concat();
        let others = of(other);
        of(self).into_iter().filter(|directive| !others.contains(directive)).collect()
    }

    /// All directives of a module.
    pub fn directives(self, module: Module) -> Vec<Directive> {
        match module {
            Module::Client => self.client(),
            Module::Proxy => [self.upstream(module), self.buffers(module)].concat(),
            Module::Grpc => self.upstream(module),
        }
    }

    fn client(self) -> Vec<Directive> {
        vec![
            directive(Module::Client, "max_body_size", [self.body_size.0.to_string()]),
            directive(Module::Client, "body_buffer_size", [self.buffering.request_memory.to_string()]),
        ]
    }

    fn upstream(self, module: Module) -> Vec<Directive> {
        let Timeouts { connect, send, read } = self.timeouts;
        let Retries { after: _, non_idempotent: _, timeout, tries } = self.retries;
        vec![
            directive(module, "connect_timeout", [connect.to_string()]),
            directive(module, "send_timeout", [send.to_string()]),
            directive(module, "read_timeout", [read.to_string()]),
            directive(module, "next_upstream", failures(self.retries)),
            directive(module, "next_upstream_timeout", [timeout.to_string()]),
            directive(module, "next_upstream_tries", [tries.to_string()]),
        ]
    }

    fn buffers(self, module: Module) -> Vec<Directive> {
        let Buffering { requests, request_memory: _, responses, buffer_size, buffers, .. } = self.buffering;
        vec![
            directive(module, "request_buffering", [on(*requests)]),
            directive(module, "buffering", [on(*responses)]),
            directive(module, "buffer_size", [buffer_size.to_string()]),
            directive(module, "buffers", [buffers.to_string(), buffer_size.to_string()]),
            directive(module, "busy_buffers_size", [self.buffering.busy().to_string()]),
            directive(module, "max_temp_file_size", [self.buffering.file().to_string()]),
        ]
    }
}

fn directive(module: Module, name: &str, words: impl Into<Vec<String>>) -> Directive {
    Directive { name: format!("{}_{name}", module.as_str()), words: words.into() }
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
