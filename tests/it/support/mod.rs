//! What the tests of the whole share: the real parts of this machine, addresses, waiting, small servers and clients,
//! certificates, and a running coxswain. No expectation about coxswain lives here.
#![allow(dead_code, unused_imports, reason = "one toolbox for all tests: each uses what it needs")]

pub mod apiserver;
pub mod certificates;
pub mod client;
pub mod load;
pub mod model;
pub mod net;
pub mod node;
pub mod objects;
pub mod parts;
pub mod pod;
pub mod proxies;
pub mod rendered;
pub mod run;
pub mod standalone;
pub mod tokens;
pub mod wait;

pub use client::{Answer, Client, Connection, Lost, Request, raw};
pub use load::Load;
pub use objects::Ingress;
pub use pod::Pod;
pub use run::Run;
pub use wait::eventually;
