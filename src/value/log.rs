//! Access log formats and paths.

use serde::Serialize;

use super::{Invalid, Value, log_variable, shown};

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
    /// A variable that the proxy has: lower-case letters, digits and `_`.
    Variable(String),
}

impl LogFormat {
    /// The pieces, in order.
    pub fn pieces(&self) -> &[LogPiece] {
        &self.0
    }
}

impl Value for LogFormat {
    const GRAMMAR: &'static str =
        "text on one line, of at most 4000 bytes, with variables that the proxy has as `$name` or `${name}`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = |wrong: String| Invalid::new(wrong, Self::GRAMMAR);
        // One word of nginx's configuration holds 4096 bytes: quotes and backslashes need two, names two more for braces.
        let length =
            text.len() + text.bytes().filter(|b| matches!(b, b'"' | b'\\')).count() + 2 * text.matches('$').count();
        if text.is_empty() || length > 4000 {
            return Err(wrong("is empty or longer than 4000 bytes".into()));
        }
        if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
            return Err(wrong("has a control character".into()));
        }
        let mut pieces = Vec::new();
        let mut parts = text.split('$');
        pieces.extend(parts.next().filter(|first| !first.is_empty()).map(|first| LogPiece::Text(first.to_owned())));
        for part in parts {
            let (name, rest) = match part.strip_prefix('{') {
                Some(braced) => braced.split_once('}').ok_or_else(|| wrong("has `${` without `}`".into()))?,
                None => part.split_at(word(part)),
            };
            if name.is_empty() || word(name) != name.len() {
                return Err(wrong("has a `$` that no name of a variable follows".into()));
            }
            // nginx's names are the same in either case.
            let name = name.to_ascii_lowercase();
            if !log_variable::exists(&name) {
                return Err(wrong(format!("has {}, which is no variable of the proxy", shown(&format!("${name}")))));
            }
            pieces.push(LogPiece::Variable(name));
            pieces.extend(Some(rest).filter(|rest| !rest.is_empty()).map(|rest| LogPiece::Text(rest.to_owned())));
        }
        Ok(Self(pieces))
    }
}

/// How many bytes at the beginning are those of a name.
fn word(text: &str) -> usize {
    text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
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
        assert_eq!(
            LogFormat::parse("$Status$HTTP_Host").unwrap().pieces(),
            [variable("status"), variable("http_host")]
        );
        let wrong = LogFormat::parse("$remote_adr").unwrap_err().wrong;
        assert_eq!(wrong, r#"has "$remote_adr", which is no variable of the proxy"#);
        assert!(LogFormat::parse(&"x".repeat(4000)).is_ok() && LogFormat::parse(&"\"".repeat(2001)).is_err());
        for bad in ["", "a\nb", "$", "$ x", "${x", "${X}", "$$"] {
            assert!(LogFormat::parse(bad).is_err(), "{bad:?}");
        }
    }
}
