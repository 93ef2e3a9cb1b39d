//! Paths of rules, as requests are compared with them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::{Invalid, Value};

/// An absolute path as a rule gives it: begins with `/`, at most 1000 bytes, no control characters, no `?` and no `#`.
///
/// Compared with the path of a request after one decoding of `%XX`, as nginx compares. Has no empty, `.` or `..`
/// elements within: a proxy that normalises the request would never see them, so such a rule could never match.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct RulePath(Arc<str>);

impl RulePath {
    /// `/`, which every request has.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// The text, decoded.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without a trailing slash: `/foo` of `/foo/`, empty for `/`.
    pub fn trimmed(&self) -> &str {
        self.0.strip_suffix('/').unwrap_or(&self.0)
    }
}

impl Value for RulePath {
    const GRAMMAR: &'static str =
        "a path that begins with `/`, without `//`, `.` or `..` as elements, `?`, `#` or control characters";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = |wrong: &'static str| Err(Invalid::new(wrong, Self::GRAMMAR));
        let Some(text) = decoded(text) else {
            return wrong("has a `%` that is no escape of a character");
        };
        if !text.starts_with('/') {
            return wrong("does not begin with `/`");
        }
        // One word of nginx's configuration holds 4096 bytes, and a byte of the path may need four of them.
        if text.len() > 1000 {
            return wrong("is longer than 1000 bytes");
        }
        if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
            return wrong("has a control character");
        }
        if text.contains(['?', '#']) {
            return wrong("has a `?` or `#`, which end a path");
        }
        let inner = text[1..].strip_suffix('/').unwrap_or(&text[1..]);
        if text == "//" || (!inner.is_empty() && inner.split('/').any(str::is_empty)) {
            return wrong("has `//`, which requests never keep");
        }
        if inner.split('/').any(|e| e == "." || e == "..") {
            return wrong("has `.` or `..` as an element, which requests never keep");
        }
        Ok(Self(text.into()))
    }
}

/// Decodes `%XX` once. `None` when an escape is cut, is no hexadecimal number, or the result is no UTF-8.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        if b != b'%' {
            out.push(b);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let value = |d: u8| (d as char).to_digit(16);
        out.push(u8::try_from(value(digits[0])? * 16 + value(digits[1])?).ok()?);
        rest = tail;
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

impl fmt::Display for RulePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once() {
        assert_eq!(RulePath::parse("/a%20b/%C3%A4").unwrap().as_str(), "/a b/ä");
        assert_eq!(RulePath::parse("/a%2525").unwrap().as_str(), "/a%25");
        for bad in ["/a%", "/a%2", "/a%zz", "/%ff"] {
            assert!(RulePath::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_no_request_can_have_is_refused() {
        for bad in ["", "foo", "/a//b", "//", "/../a", "/a/.", "/a?b", "/a#b", "/a\nb", "/a\u{7f}", "/%0a"] {
            assert!(RulePath::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["/", "/foo", "/foo/", "/foo/bar", "/a;b{c}\"d'$e\\", "/.well-known/x", "/ü"] {
            assert!(RulePath::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn trimmed_drops_one_trailing_slash() {
        assert_eq!(RulePath::parse("/foo/").unwrap().trimmed(), "/foo");
        assert_eq!(RulePath::root().trimmed(), "");
    }
}
