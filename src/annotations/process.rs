//! `worker-processes`, `worker-shutdown-timeout`: the proxy's own processes.

use serde::Serialize;

use crate::value::number::{Count, Seconds};

/// The proxy's own processes.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Process {
    /// How many workers; `None`: as many as the container has CPUs.
    pub workers: Option<Count>,
    /// The age from which the oldest old workers may be ended, and only when too many generations are alive.
    pub shutdown_timeout: Seconds,
}

impl Default for Process {
    fn default() -> Self {
        Self { workers: None, shutdown_timeout: Seconds::new(240) }
    }
}
