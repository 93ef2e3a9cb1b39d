//! `coxswain agent --proxy envoy` before a real Envoy, with hand-written releases: what is pushed when, what becomes of a
//! release that Envoy refuses, and every way to die.

mod chart;
mod deaths;
mod drain;
pub mod fixture;
mod quarantine;
mod refusals;
mod releases;
