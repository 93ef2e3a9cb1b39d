//! What the API server is told: addresses in the status of Ingresses, Events on every object with a problem, and who
//! may tell it (one replica, the leader).
//!
//! Everything here runs beside the traffic and never before it: the reconciler hands over an [`Outcome`] after a
//! configuration went live, and neither waits for nor learns of what is written.

pub mod address;
pub mod events;
pub mod ingress;
pub mod leader;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::problem::Problem;
use crate::value::reference::ObjectName;

/// How long the API server may take to answer one request: one that is lost must not hold up all that follow.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of one pass of the reconciler, as far as others are told.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// The Ingresses that are ours, with what identifies the form of each that is live (its `uid` and `generation`).
    pub ours: BTreeMap<ObjectName, Version>,
    /// Ingresses that are ours but not live as they are now (held back, or the release was not accepted).
    pub pending: BTreeSet<ObjectName>,
    /// Ingresses that are ours and whose status was not written by us yet: nobody was told that they are live.
    pub unaddressed: BTreeSet<ObjectName>,
    /// Every problem of every object.
    pub problems: Vec<Problem>,
}

/// Identifies one form of an object.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version {
    /// The uid: another object of the same name has another.
    pub uid: Option<String>,
    /// A digest of what translation reads (spec and annotations).
    pub content: u64,
}
