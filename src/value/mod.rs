//! Parsed values: newtypes whose existence proves that their text is good. One concept, one file.
//!
//! Renderers accept nothing else from a user. Nothing here does IO or knows the rest of the crate.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod cidr;
mod ciphers;
pub mod header;
pub mod host;
pub mod log;
pub mod log_variable;
pub mod number;
pub mod path;
pub mod reference;
pub mod regex;
pub mod rewrite;
pub mod size;
pub mod tls;
pub mod url;

use std::borrow::Cow;
use std::fmt;

/// Why a text is not such a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invalid {
    /// What is wrong, as the end of a sentence that begins with the text: `is longer than 253 characters`,
    /// `is not a size`.
    pub wrong: Cow<'static, str>,
    /// What would be right, as the end of a sentence that begins with `it must be`: `a number with an optional unit k, m or g`.
    pub right: Cow<'static, str>,
}

impl Invalid {
    /// Both halves of the sentence.
    pub fn new(wrong: impl Into<Cow<'static, str>>, right: impl Into<Cow<'static, str>>) -> Self {
        Self { wrong: wrong.into(), right: right.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; it must be {}", self.wrong, self.right)
    }
}

impl std::error::Error for Invalid {}

/// A type that a text from a user can be parsed to.
pub trait Value: Sized {
    /// The grammar in words, as the reference of annotations prints it.
    const GRAMMAR: &'static str;

    /// Parses the whole text, or says what is wrong with it and what would be right.
    fn parse(text: &str) -> Result<Self, Invalid>;
}

/// A text from anybody, made safe to show: control and format characters escaped, cut at 100 characters, in quotes.
pub fn shown(text: &str) -> String {
    const MOST: usize = 100;
    let mut out = String::from("\"");
    for (n, c) in text.chars().enumerate() {
        if n == MOST {
            out.push('…');
            break;
        }
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // What a terminal or a log reader would obey: controls, separators, bidirectional and invisible marks.
            c if c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}') =>
            {
                out.extend(c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_text_cannot_drive_a_terminal_and_has_an_end() {
        assert_eq!(shown("a\u{1b}[31mb\n\"c\""), r#""a\u{1b}[31mb\u{a}\"c\"""#);
        assert_eq!(shown("\u{202e}x"), r#""\u{202e}x""#);
        assert_eq!(shown(&"x".repeat(200)).chars().count(), 103);
    }
}
