//! **coxswain** steers, the proxy rows: a Kubernetes Ingress controller that never touches a request.
//!
//! It turns watched objects into the configuration of an unmodified nginx or Envoy that runs beside it, proves that
//! configuration good, makes the proxy take it up without losing a connection, and tells the owner of every object
//! what became of it. This page is the map: what runs where, how a change becomes traffic, where each thing lies in
//! the code, and what must never be broken.
//!
//! # The Pod
//!
//! ```text
//! ┌ Pod ────────────────────────────────────────────────────────────────────────────────────────┐
//! │ init: install ── copies this executable to the volume                                       │
//! │ ┌ controller ─────────────────────────────┐   ┌ proxy: stock image, no token ─────────────┐ │
//! │ │ coxswain run                            │   │ coxswain agent -- nginx                   │ │
//! │ │   watch → translate → render → publish ─┼──►│   validate → swap → signal → observe      │ │
//! │ │   ◄── report: accepted, or rejected why ┼───┤   restart, roll back, drain               │ │
//! │ └─────────────────────────────────────────┘   └───────────────────────────────────────────┘ │
//! └─────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The two sides share a volume and nothing else: releases and live data one way, reports the other. With `-f`, `run`
//! reads files instead of the API server and starts the agent as its child: the same path, on a laptop.
//!
//! # From a change to traffic
//!
//! ```text
//!   watch            snapshot        translate            render          publish        agent
//! reflectors  ──►  Snapshot   ──►  ProxyConfig   ──►   Release       ──►  volume   ──►  test, swap, reload,
//! + trigger        (BTreeMaps)     + Problems          (files+digest)                    observe, report
//! └──── shell ────┘ └──────────────── pure, deterministic core ─────────┘ └──────────── shell ─────────────┘
//! ```
//!
//! The core is functions of their arguments: no IO, no clock, no log, no order that hashing decides. Bad input is not a
//! failure there but a [`problem::Problem`] on the object that caused it. The shell is everything that waits, fails or
//! has a side effect. What changes often, endpoints and certificates, takes a way of its own past the release (`live`).
//!
//! # The code, in the order of the pipeline
//!
//! | module | owns |
//! | --- | --- |
//! | `value` | newtypes whose existence proves that a text is valid; the only way for a user's text into the model |
//! | `volume` | the paths and the documents of the shared volume, for both sides |
//! | `problem` | what people are told about their objects, and the closed list of reasons |
//! | `snapshot` | everything watched, at one moment, sorted |
//! | `annotations` | one file a family: its keys, how they parse, what they mean |
//! | `settings` | flags, the global ConfigMap and class parameters, read through the annotation families |
//! | `ingress_class` | which Ingresses are ours |
//! | `model` | what the proxy shall do, in words that are no proxy's |
//! | `translate` | the meaning of an Ingress: snapshot in, model and problems out |
//! | `render` | the model as the proxy's files; the escaper, which is the last fence |
//! | `watch` | objects, from the API server or from files, and when to look at them again |
//! | `hint` | when to look at files again: told by inotify, and once a second anyway |
//! | `publish` | releases on the volume: written whole, put in force by a rename, kept for a while |
//! | `live` | endpoints and certificates on the volume, which change without a release |
//! | `reports` | what the agent answered |
//! | `reconcile` | the order of things: from a wake-up to a report |
//! | `quarantine` | after a rejected release: whose fault it was, and what to hold back |
//! | `status` | what the API server is told: addresses, Events, who leads |
//! | `admission` | the webhook, which answers from the core alone |
//! | `server`, `metrics`, `telemetry` | health, numbers, logs |
//! | `agent` | the proxy's side: process 1, testing, reloading and watching the proxy, serving it what changes (DNS for nginx, xDS for Envoy) |
//! | `cli` | one file a command; it wires and decides nothing |
//! | `fault` | places where a test makes a process die; nothing at all in other builds |
//!
//! Who may import whom is the table of `tests/it/tidy.rs`; what the core may not call is `clippy.toml`.
//!
//! # What must never be broken
//!
//! 1. The core performs no IO, reads no clock, logs nothing, and cannot fail.
//! 2. Equal snapshots give equal bytes, whatever the order of arrival.
//! 3. No text from a user reaches a rendered file except through a [`value`] type and the escaper.
//! 4. Nothing is rendered before every store has been listed completely.
//! 5. A release is immutable; the proxy only ever sees a complete, validated one.
//! 6. Every annotation with our prefix is either used or reported.
//! 7. Whatever is dropped is reported on the object that caused it.
//! 8. Only the leader writes to Ingresses; losing leadership never disturbs traffic.
//! 9. Private keys cannot be printed.
//! 10. Each annotation is described in exactly one file.
//! 11. The controller trusts nothing that the proxy's container can write, and that container can write nothing that
//!     the controller or the init reads as code, configuration or keys.
//! 12. What protects and cannot be honoured closes the route; it never opens it.
//! 13. The death of the controller or of the agent proper costs no request. (With `-f`, `run` and all that it started
//!     end together; process 1 is the container, so it stays tiny.)
#![deny(missing_docs)]

// The pure core, in the order of the pipeline.
pub mod annotations;
pub mod ingress_class;
pub mod model;
pub mod problem;
pub mod render;
pub mod settings;
pub mod snapshot;
pub mod translate;
pub mod value;

// The shell.
pub mod admission;
pub mod agent;
pub mod cli;
pub mod fault;
pub mod hint;
pub mod live;
pub mod metrics;
pub mod publish;
pub mod quarantine;
pub mod reconcile;
pub mod reports;
pub mod server;
pub mod status;
pub mod telemetry;
pub mod volume;
pub mod watch;
