//! A file in the making: its text, and the object each line comes from.

use askama::Template;

use super::RenderError;
use crate::problem::Subject;

/// A file in the making.
#[derive(Default)]
pub(super) struct Page {
    text: String,
    /// How many lines there are already.
    lines: u64,
    stretches: Vec<(u64, Option<Subject>)>,
}

impl Page {
    /// An empty page with room for this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ..Self::default() }
    }

    /// Appends what a template gives, as lines of this object.
    pub fn part(&mut self, source: Option<&Subject>, view: &impl Template) -> Result<(), RenderError> {
        self.begin(source);
        let start = self.text.len();
        let refused = |_| RenderError { source: source.cloned() };
        view.render_into(&mut self.text).map_err(refused)?;
        // askama drops the line break at the end of a template.
        self.text.push('\n');
        self.lines += self.text.as_bytes()[start..].iter().filter(|b| **b == b'\n').count() as u64;
        Ok(())
    }

    /// Appends a line that no text of anybody is in.
    pub fn line(&mut self, source: Option<&Subject>, text: &'static str) {
        self.begin(source);
        self.text.push_str(text);
        self.text.push('\n');
        self.lines += 1;
    }

    /// The whole text, and the object each of its lines comes from.
    pub fn finish(self) -> (String, Vec<(u64, Option<Subject>)>) {
        (self.text, self.stretches)
    }

    fn begin(&mut self, source: Option<&Subject>) {
        if self.stretches.last().is_none_or(|(_, last)| last.as_ref() != source) {
            self.stretches.push((self.lines + 1, source.cloned()));
        }
    }
}
