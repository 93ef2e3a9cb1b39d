//! `worker-processes`, `worker-shutdown-timeout`: the proxy's own processes.

use serde::Serialize;

use super::spec::{Case, Key, Spec};
use super::{GlobalPolicies, Reader};
use crate::problem::Reason;
use crate::value::number::{Count, Seconds};
use crate::value::{Invalid, Value as _};

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

static WORKERS: Key = Key {
    name: "worker-processes",
    grammar: "`auto` or a whole number from 1 to 512",
    default: "auto",
    doc: "How many worker processes the proxy has. With `auto`: as many as its container may use CPUs.",
    ..Key::GLOBAL
};

static SHUTDOWN_TIMEOUT: Key = Key {
    name: "worker-shutdown-timeout",
    grammar: "a number of seconds, or a number with one of the units `s`, `m`, `h` and `d`",
    default: "240s",
    doc: "The age from which old workers, which still serve WebSockets and long answers after a reload, may be ended. \
          That happens only when too many generations of them are alive.",
    ..Key::GLOBAL
};

static SPEC: Spec = Spec {
    title: "Processes",
    keys: &[&WORKERS, &SHUTDOWN_TIMEOUT],
    cases: &[
        Case::good("two workers", &[("worker-processes", "2")]),
        Case::bad("none", &[("worker-processes", "0")], Reason::InvalidValue),
        Case::good("patience for WebSockets", &[("worker-shutdown-timeout", "3600s")]),
        Case::bad("a unit that is none", &[("worker-shutdown-timeout", "1 hour")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read_globals(&self, from: &mut Reader<'_>, into: &mut GlobalPolicies) {
        let process = &mut into.globals.process;
        let instead = process.workers.map_or("auto".to_owned(), |workers| workers.to_string());
        if let Some(workers) = from.parse(&WORKERS, instead, workers) {
            process.workers = workers;
        }
        from.set(&SHUTDOWN_TIMEOUT, &mut process.shutdown_timeout);
    }
}

fn workers(text: &str) -> Result<Option<Count>, Invalid> {
    if text == "auto" {
        return Ok(None);
    }
    let workers = Count::parse(text)?;
    // nginx has room for 1024 processes, of two generations.
    let good = (1..=512).contains(&workers.get());
    if good { Ok(Some(workers)) } else { Err(Invalid::new("is out of range", WORKERS.grammar)) }
}
