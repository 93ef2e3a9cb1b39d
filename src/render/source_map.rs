//! Which object a line of a rendered file comes from: how a rejection by the proxy finds its author.

use std::collections::BTreeMap;

use crate::problem::Subject;

/// Which object each line of each file comes from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SourceMap {
    /// By file: the first line of each stretch (from 1, ascending) and the object it comes from. Compared with file
    /// names that the proxy prints, so plain text.
    files: BTreeMap<String, Vec<(u64, Option<Subject>)>>,
}

impl SourceMap {
    /// The object that brought a line (from 1) of a file; `None` where the line serves all, or is none of ours.
    pub fn blame(&self, file: &str, line: u64) -> Option<&Subject> {
        let stretches = self.files.get(file)?;
        let after = stretches.partition_point(|(first, _)| *first <= line);
        stretches.get(after.checked_sub(1)?)?.1.as_ref()
    }

    pub(super) fn insert(&mut self, file: &str, stretches: Vec<(u64, Option<Subject>)>) {
        self.files.insert(file.to_owned(), stretches);
    }
}
