//! How requests go to an upstream and answers come back: time-outs, retries, buffers. Said once at `http` level for what
//! most routes agree on; a location says only what differs.

use super::baseline::Baseline;
use crate::annotations::buffering::Buffering;
use crate::annotations::retries::{Failure, Retries};
use crate::annotations::timeouts::Timeouts;

/// The module of nginx that speaks to an upstream: the first part of the names of its directives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Module {
    Proxy,
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

/// A directive of a [`Module`].
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Directive {
    pub module: &'static str,
    /// The rest of its name, after the `_`.
    pub name: &'static str,
    pub words: Vec<String>,
}

/// What a route asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Transfer<'a> {
    pub timeouts: &'a Timeouts,
    pub buffering: &'a Buffering,
    pub retries: &'a Retries,
}

impl<'a> Transfer<'a> {
    /// What holds for all.
    pub fn baseline(baseline: &'a Baseline) -> Self {
        let Baseline { body_size: _, timeouts, buffering, retries } = baseline;
        Self { timeouts, buffering, retries }
    }

    /// The directives that differ from those of `other`.
    pub fn unlike(self, other: Self, module: Module) -> Vec<Directive> {
        if self == other {
            return Vec::new();
        }
        let others = other.directives(module);
        self.directives(module).into_iter().filter(|directive| !others.contains(directive)).collect()
    }

    /// All directives.
    pub fn directives(self, module: Module) -> Vec<Directive> {
        let Timeouts { connect, send, read } = self.timeouts;
        let Retries { after: _, non_idempotent: _, timeout, tries } = self.retries;
        let mut all = Vec::new();
        let mut add = |name, words| all.push(Directive { module: module.as_str(), name, words });
        add("connect_timeout", vec![connect.to_string()]);
        add("send_timeout", vec![send.to_string()]);
        add("read_timeout", vec![read.to_string()]);
        add("next_upstream", failures(self.retries));
        add("next_upstream_timeout", vec![timeout.to_string()]);
        add("next_upstream_tries", vec![tries.to_string()]);
        if module == Module::Proxy {
            let Buffering { requests, request_memory: _, responses, buffer_size, buffers, .. } = self.buffering;
            add("request_buffering", vec![on(*requests)]);
            add("buffering", vec![on(*responses)]);
            add("buffer_size", vec![buffer_size.to_string()]);
            add("buffers", vec![buffers.to_string(), buffer_size.to_string()]);
            add("busy_buffers_size", vec![self.buffering.busy().to_string()]);
            add("max_temp_file_size", vec![self.buffering.file().to_string()]);
        }
        all
    }
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
