//! `coxswain agent` before a real nginx, with hand-written releases: process 1, the loop, and every way to fail.

mod deaths;
mod drain;
mod environment;
pub mod fixture;
mod refusals;
mod releases;
mod unprivileged;
