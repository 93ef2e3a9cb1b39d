//! What the agent answers to a release and to a test, and what follows from it.

use tracing::{info, warn};

use super::{Asked, Reconciler};
use crate::annotations::logging;
use crate::problem::Problem;
use crate::quarantine::Good;
use crate::reports;
use crate::settings::Flags;
use crate::translate::Form;
use crate::volume::{FaultClass, Outcome, Report};

impl Reconciler {
    /// Reads the agent's answer to what it was asked. Each of these steps says whether it changed anything.
    pub(super) fn hear(&mut self) -> bool {
        let Some(asked) = &mut self.asked else { return false };
        let report = match reports::report(self.setup.publisher.disk().volume(), &asked.digest) {
            Ok(report) => report,
            Err(error) => return self.fault("hear", Some(format!("the proxy's side gives no good answer: {error:#}"))),
        };
        if report.is_none() || report == asked.report {
            return self.fault("hear", None);
        }
        let again = asked.report.as_ref().is_some_and(|former| former.outcome == Outcome::Accepted);
        asked.report.clone_from(&report);
        let Some(report) = report else { return false };
        let release = asked.digest.short().to_owned();
        match (report.outcome, report.class) {
            (Outcome::Accepted, _) => {
                info!(release, ms.test = report.timings.validate, ms.reload = report.timings.reload, "in force");
                self.good = Some((asked.digest.clone(), asked.good()));
                self.unusable = asked.unusable(&report, &self.setup.flags);
                if !again {
                    self.quarantine.accepted(&asked.held, self.good.as_ref().map(|(_, good)| good));
                }
                self.clean_up();
                self.fault("agent", None);
                self.translate_again();
            }
            (Outcome::Rejected, Some(FaultClass::Content) | None) => {
                let line = report.file.as_deref().zip(report.line);
                let blamed = line.and_then(|(file, line)| asked.source_map.blame(file, line)).cloned();
                warn!(release, blamed = blamed.as_ref().map(ToString::to_string), "refused: {}", report.message);
                let good = self.good.as_ref().map(|(_, good)| good);
                self.quarantine.refused(&asked.attempt, &asked.held, blamed.as_ref(), &report.message, good);
                self.translate_again();
            }
            (Outcome::Rejected | Outcome::Retrying, _) => {
                let words = format!("the proxy cannot take up release {release} at the moment: {}", report.message);
                self.fault("agent", Some(words));
            }
        }
        true
    }

    /// Reads the agent's answer to a test.
    pub(super) fn hear_of_trial(&mut self) -> bool {
        let wanted = self.quarantine.question().map(|(_, subjects)| subjects);
        if self.trial.as_ref().is_some_and(|(_, subjects)| Some(subjects) != wanted.as_ref()) {
            // Whom it was about has changed meanwhile.
            self.trial = None;
            return true;
        }
        let Some((digest, subjects)) = &self.trial else { return false };
        let report = match reports::report(self.setup.publisher.disk().volume(), digest) {
            Ok(Some(report)) => report,
            Ok(None) => return false,
            Err(error) => return self.fault("hear", Some(format!("the proxy's side gives no good answer: {error:#}"))),
        };
        let answer = match (report.outcome, report.class) {
            (Outcome::Accepted, _) => Ok(()),
            (Outcome::Rejected, Some(FaultClass::Content) | None) => Err(report.message),
            // Blames nobody; the agent tries again.
            (Outcome::Rejected | Outcome::Retrying, _) => return false,
        };
        info!(objects = subjects.len(), passed = answer.is_ok(), "tested for what the proxy refuses");
        self.trial = None;
        self.quarantine.answer(answer, self.good.as_ref().map(|(_, good)| good));
        self.translate_again();
        true
    }

    /// Enlarges what the proxy has run out of with the release that was asked for, in the next one.
    pub(super) fn grow(&mut self) -> bool {
        // What is not readable is told by `clean_up`.
        let Ok(Some(info)) = reports::proxy_info(self.setup.publisher.disk().volume()) else { return false };
        let (Some(asked), Some(newest)) = (&self.asked, &mut self.newest) else { return false };
        let mut grown = false;
        for (name, _) in info.full.iter().filter(|(_, digest)| **digest == asked.digest) {
            if self.doublings.grow(name, &asked.doublings) {
                warn!(zone = name, release = asked.digest.short(), "the proxy's shared memory is full; doubling it");
                grown = true;
            }
        }
        newest.published &= !grown;
        grown
    }
}

impl Asked {
    /// What the proxy has taken, if it has taken this.
    pub(super) fn good(&self) -> Good {
        let mut ingresses = self.attempt.snapshot.ingresses.clone();
        for (name, form) in &self.held.0 {
            match form {
                Form::Former(form) => drop(ingresses.insert(name.clone(), form.clone())),
                Form::Closed | Form::LeftOut => drop(ingresses.remove(name)),
            }
        }
        Good { config: self.attempt.config.clone(), ingresses }
    }

    /// What the proxy's side cannot use, although it has taken the release.
    fn unusable(&self, report: &Report, flags: &Flags) -> Option<Problem> {
        let path = self.attempt.config.globals.logging.access_path.as_ref()?;
        let config_map = flags.config_map_of(&self.attempt.snapshot)?;
        Some(logging::cannot_open(&config_map, path, report.access_log.as_deref()?))
    }
}
