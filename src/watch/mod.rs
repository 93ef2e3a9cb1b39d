//! Where objects come from: the API server or files.

pub mod cluster;
