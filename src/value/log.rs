//! Access log formats and paths.

use serde::Serialize;

use super::{Invalid, Value};

/// A format of the access log: literal text and `$variables`, in order.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct LogFormat(Vec<LogPiece>);

/// A piece of a [`LogFormat`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LogPiece {
    /// Text without `$` and control characters.
    Text(String),
    /// The name of a variable: lower-case letters, digits and `_`.
    Variable(String),
}

impl LogFormat {
    /// The pieces, in order.
    pub fn pieces(&self) -> &[LogPiece] {
        &self.0
    }
}

impl Value for LogFormat {
    const GRAMMAR: &'static str = "text of at most 4096 bytes on one line, with variables as `$name` or `${name}`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = |wrong: &'static str| Invalid::new(wrong, Self::GRAMMAR);
        if text.is_empty() || text.len() > 4096 {
            return Err(wrong("is empty or longer than 4096 bytes"));
        }
        if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
            return Err(wrong("has a control character"));
        }
        let mut pieces = Vec::new();
        let mut parts = text.split('$');
        if let Some(first) = parts.next().filter(|first| !first.is_empty()) {
            pieces.push(LogPiece::Text(first.to_owned()));
        }
        for part in parts {
            let word = |text: &str| {
                text.bytes().take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_').count()
            };
            let (name, rest) = match part.strip_prefix('{') {
                Some(braced) => braced.split_once('}').ok_or_else(|| wrong("has `${` without `}`"))?,
                None => part.split_at(word(part)),
            };
            if name.is_empty() || word(name) != name.len() {
                return Err(wrong("has a `$` that no name of a variable follows"));
            }
            pieces.push(LogPiece::Variable(name.to_owned()));
            if !rest.is_empty() {
                pieces.push(LogPiece::Text(rest.to_owned()));
            }
        }
        Ok(Self(pieces))
    }
}

/// Where the access log goes: an absolute path of letters, digits and `/ . _ -`, without `..`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct LogPath(String);

impl LogPath {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for LogPath {
    const GRAMMAR: &'static str = "an absolute path of letters, digits, `/`, `.`, `_` and `-`, without `..`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let good = text.starts_with('/')
            && text.len() <= 255
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-'))
            && !text.split('/').any(|part| part == "..");
        if good { Ok(Self(text.to_owned())) } else { Err(Invalid::new("is no path of a log file", Self::GRAMMAR)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_split_into_text_and_variables() {
        let text = |t: &str| LogPiece::Text(t.to_owned());
        let variable = |t: &str| LogPiece::Variable(t.to_owned());
        let format = LogFormat::parse(r#"$remote_addr - "${request}x" $status"#).unwrap();
        let want = [variable("remote_addr"), text(" - \""), variable("request"), text("x\" "), variable("status")];
        assert_eq!(format.pieces(), want);
        for bad in ["", "a\nb", "$", "$ x", "${x", "${X}", "$$"] {
            assert!(LogFormat::parse(bad).is_err(), "{bad:?}");
        }
    }
}
