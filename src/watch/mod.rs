//! Where the objects come from: the API server or files. Every source ends in a [`crate::snapshot::Snapshot`]; nothing
//! here knows what becomes of it.

pub mod cluster;
pub mod files;
mod source;
pub mod trigger;

pub use source::{Source, generated_certificate};
