//! The model as the files of a proxy: a function from [`ProxyConfig`] to a [`Release`], the same bytes for the same
//! model.
//!
//! Which directive or resource says what is decided in Rust (`nginx`, `envoy`), the text lies in `templates/`, and everything that is
//! printed passes a fence (`escape`). What changes without a release, endpoints and certificates, is named here but
//! never written here (`live`). Nothing is tested here either: that is the proxy's own business.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod baseline;
mod envoy;
mod escape;
mod log;
mod manifest;
mod nginx;
mod page;
mod release;
mod site;
mod source_map;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::ProxyConfig;
use crate::problem::{Problem, Subject};
use crate::volume::{Digest, ProxyKind};

pub use release::{File, RelativePath, Release};
pub use source_map::SourceMap;

/// What went before, as far as a release depends on it.
#[derive(Clone, Debug, Default)]
pub struct History<'a> {
    /// The accepted release, against which `changed.conf` tells what is new.
    pub base: Option<Base<'a>>,
    /// What turned out to be too small.
    pub doublings: Doublings,
}

/// Shared memory that the proxy was found to have too little of: by its name in the files, how often to double it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Doublings(BTreeMap<String, u32>);

impl Doublings {
    /// The most that anything is doubled: beyond that, what fills it is no lack of room.
    const MOST: u32 = 8;

    /// How many names there may be, and how long each. They come from the proxy's side, which is not trusted.
    const NAMES: usize = 64;
    const LONGEST_NAME: usize = 64;

    /// How often to double this one.
    pub fn of(&self, name: &str) -> u32 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Doubles what was too small with `then`, unless that has happened by now. Whether anything is larger now.
    pub fn grow(&mut self, name: &str, then: &Self) -> bool {
        let known = self.0.contains_key(name) || (self.0.len() < Self::NAMES && name.len() <= Self::LONGEST_NAME);
        let grows = known && self.of(name) == then.of(name) && self.of(name) < Self::MOST;
        if grows {
            *self.0.entry(name.to_owned()).or_default() += 1;
        }
        grows
    }
}

/// An accepted release, against which `changed.conf` tells what is new.
#[derive(Clone, Debug)]
pub struct Base<'a> {
    /// What it was rendered from.
    pub config: &'a ProxyConfig,
    /// Its name.
    pub digest: Digest,
}

/// What rendering gives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rendering {
    /// The files.
    pub release: Release,
    /// What this proxy cannot express, told on the objects that ask for it.
    pub problems: Vec<Problem>,
    /// Whom to blame when the proxy refuses a line.
    pub source_map: SourceMap,
}

impl Rendering {
    /// Whether the proxy has to take up a release for this, `asked` being the one that it was asked for last. Decided here
    /// and nowhere else: what lies in `live/` is in no release, so a change of that alone makes the same release, and
    /// every other change that the proxy can notice makes another one.
    pub fn needs_release(&self, asked: Option<&Digest>) -> bool {
        asked != Some(&self.release.digest)
    }
}

/// A value could not be written, because it would have changed the structure of the file: a fault of ours, since values
/// are parsed before they get here. Nothing is rendered then.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RenderError {
    /// The object whose value it is.
    pub source: Option<Subject>,
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "a value of {source} cannot be written without changing the file's structure"),
            None => f.write_str("a setting cannot be written without changing the file's structure"),
        }
    }
}

impl std::error::Error for RenderError {}

/// Renders all of a configuration. With an accepted release before it, `changed.conf` is the part worth testing before a reload.
pub fn render(config: &ProxyConfig, proxy: ProxyKind, history: &History<'_>) -> Result<Rendering, RenderError> {
    match proxy {
        ProxyKind::Nginx => nginx::render(config, history),
        ProxyKind::Envoy => envoy::render(config),
    }
}

/// Renders what holds for all and what these objects bring, for a test that puts nothing in force. No objects: the
/// skeleton, for whose rejection nobody is to blame.
pub fn render_trial(
    config: &ProxyConfig,
    proxy: ProxyKind,
    suspects: &BTreeSet<Subject>,
    doublings: &Doublings,
) -> Result<Rendering, RenderError> {
    match proxy {
        ProxyKind::Nginx => nginx::render_trial(config, suspects, doublings),
        ProxyKind::Envoy => envoy::render_trial(config, suspects),
    }
}

/// Renders all of a configuration for Envoy as one bootstrap that asks nobody: for people to read, and for Envoy's own
/// test. File names in it are relative to `out/`.
pub fn standalone(config: &ProxyConfig) -> Result<String, RenderError> {
    envoy::standalone(config)
}
