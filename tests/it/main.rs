//! The integration tests, one binary: what several modules, or real parts, do together.

mod agent;
mod annotations;
mod apiserver;
mod chaos;
mod check;
mod commands;
mod dns;
mod envoy;
mod envoy_render;
mod golden;
mod lossless;
mod node;
mod properties;
mod quarantine;
mod rendered;
mod security;
mod support;
mod tidy;
mod traffic;
mod translate;
mod validate;
