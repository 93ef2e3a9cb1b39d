//! Why a proxy did not take a release or a trial, in words that may be shown to anybody.

use crate::volume::FaultClass;

/// The longest message that is passed on, in bytes. nginx's own lines are at most 2 048.
const LONGEST: usize = 4096;

/// Why a release or a trial was not taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejection {
    /// Who is at fault.
    pub class: FaultClass,
    /// The file, relative to the release.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u64>,
    /// The proxy's words, or ours.
    pub message: String,
}

impl Rejection {
    /// Our own words about something that is no object's fault.
    pub fn environment(message: impl Into<String>) -> Self {
        Self { class: FaultClass::Environment, file: None, line: None, message: printable(&message.into()) }
    }

    /// The proxy's words about what a release says.
    pub fn content(message: impl Into<String>) -> Self {
        Self { class: FaultClass::Content, ..Self::environment(message) }
    }

    /// A failure of our own doing or of the machine: nobody's release is to blame.
    pub fn of_ours(err: anyhow::Error) -> Self {
        Self::environment(format!("{err:#}"))
    }
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Text that may stand in a log or a report: no control characters, not too long.
pub fn printable(text: &str) -> String {
    let mut clean = String::new();
    for c in text.trim().chars() {
        if clean.len() >= LONGEST {
            clean.push('…');
            break;
        }
        match c {
            '\n' | '\t' => clean.push(' '),
            c if c.is_control() || unsafe_direction(c) => clean.extend(c.escape_unicode()),
            c => clean.push(c),
        }
    }
    clean
}

/// Characters that reorder what a person reads.
fn unsafe_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelt_out() {
        assert_eq!(printable("a\u{1b}[31mb\nc\u{202e}"), "a\\u{1b}[31mb c\\u{202e}");
        assert!(printable(&"ü".repeat(10_000)).len() < LONGEST + 8);
    }
}
