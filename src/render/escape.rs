//! The last fence before a file: what a template prints either stays within one argument of one directive, or the
//! rendering fails.
//!
//! The first fence are the types in [`crate::value`]; nothing here repairs what they let through. Every `{{ … }}` of a
//! `.conf` template goes through [`Nginx`], of a `.json` one through [`Json`]; arguments in quotes ask for a filter of
//! [`filters`] by name. Nothing else writes to a file of nginx.

use std::fmt::{self, Write};

use askama::filters::Escaper;

/// Bare words: letters, digits and what can neither end nor begin anything in nginx's syntax. Everything else is an
/// error.
#[derive(Clone, Copy, Debug)]
pub struct Nginx;

impl Escaper for Nginx {
    fn write_escaped_str<W: Write>(&self, mut dest: W, text: &str) -> fmt::Result {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/:@+!=,%*^".contains(&b);
        if text.bytes().all(plain) { dest.write_str(text) } else { Err(fmt::Error) }
    }
}

/// The inside of a JSON string.
#[derive(Clone, Copy, Debug)]
pub struct Json;

impl Escaper for Json {
    fn write_escaped_str<W: Write>(&self, mut dest: W, text: &str) -> fmt::Result {
        let quoted = serde_json::Value::from(text).to_string();
        dest.write_str(&quoted[1..quoted.len() - 1])
    }
}

/// A part of an argument in which nginx looks for variables.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// Text as it is; a dollar in it is a dollar.
    Text(&'a str),
    /// The value of a variable.
    Variable(&'a str),
    /// A group of the expression that matched last, from 1 to 9.
    Group(u8),
}

/// An argument in quotes in which nginx looks for no variables: a path, an expression.
pub struct Quoted<T>(T);

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write!(Inside { to: f, dollar: "$" }, "{}", self.0)?;
        f.write_char('"')
    }
}

/// An argument in quotes in which nginx looks for variables.
pub struct Interpolated<'a>(&'a [Piece<'a>]);

impl fmt::Display for Interpolated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for piece in self.0 {
            match *piece {
                // nginx has no escape for a dollar; `http.conf` declares a variable that holds one.
                Piece::Text(text) => Inside { to: f, dollar: "${dollar}" }.write_str(text)?,
                Piece::Variable(name) if is_variable(name) => write!(f, "${{{name}}}")?,
                Piece::Group(group @ 1..=9) => write!(f, "${group}")?,
                Piece::Variable(_) | Piece::Group(_) => return Err(fmt::Error),
            }
        }
        f.write_char('"')
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// The inside of double quotes: `\` and `"` escaped, `$` as the place wants it, control characters refused.
struct Inside<'w, W> {
    to: &'w mut W,
    dollar: &'static str,
}

impl<W: Write> Write for Inside<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for run in text.split_inclusive(['\\', '"', '$']) {
            if run.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
                return Err(fmt::Error);
            }
            let (plain, last) = match run.as_bytes().last() {
                Some(b'\\') => (&run[..run.len() - 1], "\\\\"),
                Some(b'"') => (&run[..run.len() - 1], "\\\""),
                Some(b'$') => (&run[..run.len() - 1], self.dollar),
                _ => (run, ""),
            };
            self.to.write_str(plain)?;
            self.to.write_str(last)?;
        }
        Ok(())
    }
}

/// What templates call with `|`.
pub mod filters {
    use std::fmt;

    use askama::Values;
    use askama::filters::Safe;

    use super::{Interpolated, Piece, Quoted};

    /// An argument in quotes in which nginx looks for no variables.
    #[askama::filter_fn]
    pub fn quoted<T: fmt::Display>(text: T, _: &dyn Values) -> askama::Result<Safe<Quoted<T>>> {
        Ok(Safe(Quoted(text)))
    }

    /// An argument in quotes in which nginx looks for variables.
    #[askama::filter_fn]
    pub fn interpolated<'a>(pieces: &'a [Piece<'a>], _: &dyn Values) -> askama::Result<Safe<Interpolated<'a>>> {
        Ok(Safe(Interpolated(pieces)))
    }
}

/// Text of a regular expression that matches this text and nothing else.
pub struct Literal<'a>(pub &'a str);

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for run in self.0.split_inclusive(|c| r"\^$.[]|()?*+{}".contains(c)) {
            match run.char_indices().next_back() {
                Some((at, last)) if r"\^$.[]|()?*+{}".contains(last) => write!(f, "{}\\{last}", &run[..at])?,
                _ => f.write_str(run)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(text: &str) -> Result<String, fmt::Error> {
        let mut out = String::new();
        Nginx.write_escaped_str(&mut out, text).map(|()| out)
    }

    #[test]
    fn whatever_could_end_a_bare_word_is_refused() {
        assert_eq!(bare("*.shop-1.example.com:80/x").as_deref(), Ok("*.shop-1.example.com:80/x"));
        for bad in [" ", ";", "{", "}", "\"", "'", "\\", "$", "#", "\n", "\r", "\t", "\0", "\u{85}", "ä", "\u{2028}"] {
            assert!(bare(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn text_stays_within_a_json_string() {
        let mut out = String::new();
        Json.write_escaped_str(&mut out, "a\"\\\n").unwrap();
        assert_eq!(out, r#"a\"\\\n"#);
    }

    #[test]
    fn quoted_text_stays_within_its_quotes() {
        assert_eq!(Quoted(r#"/a";} \d$x"#).to_string(), r#""/a\";} \\d$x""#);
        for bad in ["\n", "\r", "\0", "\u{7f}", "\u{85}", "\u{2029}"] {
            assert!(write!(String::new(), "{}", Quoted(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_dollar_in_text_is_no_variable() {
        let pieces = [Piece::Text("a$b\"${c}"), Piece::Variable("host"), Piece::Group(2)];
        assert_eq!(Interpolated(&pieces).to_string(), r#""a${dollar}b\"${dollar}{c}${host}$2""#);
        for bad in [Piece::Variable("a}"), Piece::Variable(""), Piece::Group(0), Piece::Text("\r")] {
            assert!(write!(String::new(), "{}", Interpolated(&[bad])).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn literals_match_only_themselves() {
        assert_eq!(Literal(r"/a.b(c)\{d}ü").to_string(), r"/a\.b\(c\)\\\{d\}ü");
    }
}
