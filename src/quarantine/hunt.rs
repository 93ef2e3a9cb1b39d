//! One search for those whom the proxy refuses: which test comes next, and what follows from its answer.

use std::collections::BTreeSet;

use super::Attempt;
use super::search::Search;
use crate::problem::Subject;

/// How many tests may take place before everybody still under suspicion is held back and the rest goes live.
const BUDGET: u32 = 12;

/// A search that is going on.
pub struct Hunt {
    /// What was refused. Tests are made of it, so that newer changes cannot disturb the search.
    pub attempt: Attempt,
    /// The proxy's words.
    pub words: String,
    stage: Stage,
    tests: u32,
    search: Search<Subject>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// Is it the global part itself?
    Skeleton,
    /// Do tests show the fault at all?
    Whole,
    /// Halving, by tests. Nothing is published until the first culprit is known.
    Tests,
    /// The same with everybody under suspicion held back: there is no hurry any more.
    Behind,
    /// Only a reload shows the fault. Everybody under suspicion is held back; when the rest is live (`true`), they come
    /// back by halves.
    Reloads(bool),
}

/// What follows from a test.
#[derive(Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The global part itself is refused, in these words.
    Global(String),
    /// The search goes on, or has found whom [`Hunt::guilty`] names.
    Known,
}

impl Hunt {
    /// A search among `suspects`.
    pub fn new(attempt: Attempt, words: String, suspects: BTreeSet<Subject>) -> Self {
        Self { attempt, words, stage: Stage::Skeleton, tests: 0, search: Search::among(suspects) }
    }

    /// The objects that the next test consists of, besides the global part; `None`: there is nothing to be tested.
    pub fn question(&self) -> Option<BTreeSet<Subject>> {
        match self.stage {
            Stage::Skeleton => Some(BTreeSet::new()),
            Stage::Whole => Some(self.search.open().chain(self.search.guilty()).cloned().collect()),
            // Once a culprit is known, publishing the others is the better test.
            Stage::Tests if !self.search.is_pressing() => None,
            Stage::Tests | Stage::Behind => {
                let question: BTreeSet<_> = self.search.question().iter().cloned().collect();
                (!question.is_empty()).then_some(question)
            }
            Stage::Reloads(_) => None,
        }
    }

    /// What the proxy said of the test. `Err`: its words.
    pub fn answer(&mut self, tested: Result<(), String>) -> Verdict {
        self.tests += 1;
        match (self.stage, tested) {
            (Stage::Skeleton, Err(words)) => return Verdict::Global(words),
            // A single suspect needs no further test.
            (Stage::Skeleton, Ok(())) if self.search.open().next().is_none() => self.stage = Stage::Tests,
            (Stage::Skeleton, Ok(())) => self.stage = Stage::Whole,
            (Stage::Whole, Ok(())) => self.stage = Stage::Reloads(false),
            (Stage::Whole, Err(words)) => {
                self.words = words;
                self.stage = Stage::Tests;
            }
            (Stage::Tests | Stage::Behind, tested) => {
                self.search.answer(tested.is_ok());
                self.keep_to_the_budget();
            }
            (Stage::Reloads(_), _) => {}
        }
        Verdict::Known
    }

    /// A release went live; it held everything of the search's configuration but for those held back.
    pub fn accepted(&mut self) {
        match self.stage {
            Stage::Reloads(false) => self.stage = Stage::Reloads(true),
            Stage::Reloads(true) => self.search.answer(true),
            // Whoever was still open is live now.
            Stage::Tests => self.search = Search::among([]),
            Stage::Skeleton | Stage::Whole | Stage::Behind => {}
        }
    }

    /// A release was refused. `others`: objects that this search is not about had changed in it. `false`: this search
    /// cannot tell why.
    pub fn refused(&mut self, others: bool) -> bool {
        match self.stage {
            Stage::Reloads(true) if !others => self.search.answer(false),
            Stage::Tests if self.search.open().next().is_some() => {
                self.search.refused_again();
                self.keep_to_the_budget();
            }
            _ => return false,
        }
        true
    }

    /// Those who have come back for a trial, by reloading.
    pub fn tried(&self) -> &[Subject] {
        if self.stage == Stage::Reloads(true) { self.search.question() } else { &[] }
    }

    /// Those who are to be held back on suspicion.
    pub fn suspects(&self) -> Vec<Subject> {
        match self.stage {
            Stage::Behind | Stage::Reloads(_) => self.search.open().cloned().collect(),
            Stage::Skeleton | Stage::Whole | Stage::Tests => Vec::new(),
        }
    }

    /// Those who are refused without doubt.
    pub fn guilty(&self) -> Vec<Subject> {
        match self.stage {
            Stage::Skeleton | Stage::Whole => Vec::new(),
            Stage::Tests | Stage::Behind | Stage::Reloads(_) => self.search.guilty().iter().cloned().collect(),
        }
    }

    /// Those who are under suspicion in whatever way.
    pub fn open(&self) -> impl Iterator<Item = &Subject> {
        self.search.open().chain(self.search.guilty())
    }

    /// Whether publishing must wait: what was refused would be published again.
    pub fn blocks(&self) -> bool {
        match self.stage {
            Stage::Skeleton | Stage::Whole => true,
            Stage::Tests => self.search.is_pressing(),
            Stage::Behind | Stage::Reloads(_) => false,
        }
    }

    /// This object changed, or is held back for another reason.
    pub fn forget(&mut self, subject: &Subject) {
        self.search.forget(subject);
    }

    /// Whether nothing is left to be found.
    pub fn is_over(&self) -> bool {
        let open = self.search.open().next().is_some();
        !open && (self.search.guilty().is_empty() || !matches!(self.stage, Stage::Skeleton | Stage::Whole))
    }

    fn keep_to_the_budget(&mut self) {
        if self.stage == Stage::Tests && self.tests >= BUDGET && self.search.is_pressing() {
            self.stage = Stage::Behind;
        }
    }
}
