//! The model as the files of a proxy: a function from [`ProxyConfig`] to a [`Release`], the same bytes for the same
//! model.
//!
//! Which directive or resource says what is decided in Rust (`nginx`, `envoy`), the text lies in `templates/`, and everything that is
//! printed passes a fence (`escape`). What changes without a release, endpoints and certificates, is named here but
//! never written here (`live`). Nothing is tested here either: that is the proxy's own business.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod envoy;
mod escape;
mod manifest;
mod nginx;
mod page;
mod release;
mod site;
mod source_map;

use std::collections::BTreeSet;
use std::fmt;

use crate::model::ProxyConfig;
use crate::problem::{Problem, Subject};
use crate::volume::{Digest, ProxyKind};

pub use release::{File, RelativePath, Release};
pub use source_map::SourceMap;

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

/// Renders all of a configuration. With an accepted `base`, `changed.conf` is the part worth testing before a reload.
pub fn render(config: &ProxyConfig, proxy: ProxyKind, base: Option<&Base<'_>>) -> Result<Rendering, RenderError> {
    match proxy {
        ProxyKind::Nginx => nginx::render(config, base),
        ProxyKind::Envoy => envoy::render(config),
    }
}

/// Renders what holds for all and what these objects bring, for a test that puts nothing in force. No objects: the
/// skeleton, for whose rejection nobody is to blame.
pub fn render_trial(
    config: &ProxyConfig,
    proxy: ProxyKind,
    suspects: &BTreeSet<Subject>,
) -> Result<Rendering, RenderError> {
    match proxy {
        ProxyKind::Nginx => nginx::render_trial(config, suspects),
        ProxyKind::Envoy => envoy::render_trial(config, suspects),
    }
}
