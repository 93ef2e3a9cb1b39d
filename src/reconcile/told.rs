//! Problems on the log: each once when it arises, and a word when it is gone.

use std::collections::BTreeSet;

use tracing::{info, warn};

use crate::problem::{Problem, Severity};

/// How many problems are spelt out at once. Ten thousand lines are read by nobody.
const MOST: usize = 50;

/// What was told already.
#[derive(Default)]
pub struct Told(BTreeSet<Problem>);

impl Told {
    /// Tells what is new among all problems there are, which come sorted.
    pub fn tell(&mut self, problems: &[Problem]) {
        if problems.iter().eq(&self.0) {
            return;
        }
        let problems: BTreeSet<Problem> = problems.iter().cloned().collect();
        let new: Vec<&Problem> = problems.difference(&self.0).collect();
        for problem in new.iter().take(MOST) {
            let field = &problem.field;
            match problem.severity {
                Severity::Notice => info!(severity = %problem.severity, field, "{problem}"),
                Severity::Rejected | Severity::Degraded => warn!(severity = %problem.severity, field, "{problem}"),
            }
        }
        if new.len() > MOST {
            warn!("and {} problems more; `coxswain check` prints them all", new.len() - MOST);
        }
        let gone = self.0.difference(&problems).count();
        if gone > 0 {
            info!("{gone} problems less, {} left", problems.len());
        }
        self.0 = problems;
    }
}
