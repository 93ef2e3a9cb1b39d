//! Targets of rewrites.

use serde::Serialize;

use super::{Invalid, Value};

/// A new path for a request: literal text and captured groups, in order. No query: it stays the client's.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RewriteTarget(Vec<RewritePiece>);

/// A piece of a [`RewriteTarget`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RewritePiece {
    /// Text without `$`, `?`, `#`, white space and control characters.
    Text(String),
    /// The n-th group of the expression, from 1 to 9.
    Group(u8),
}

impl RewriteTarget {
    /// The pieces, in order.
    pub fn pieces(&self) -> &[RewritePiece] {
        &self.0
    }

    /// The highest group it asks for; 0 for none.
    pub fn groups(&self) -> usize {
        self.0
            .iter()
            .map(|piece| if let RewritePiece::Group(n) = piece { usize::from(*n) } else { 0 })
            .max()
            .unwrap_or(0)
    }

    /// The same without the groups above `most`, which would be empty.
    pub fn up_to_group(&self, most: usize) -> Self {
        let kept = |piece: &&RewritePiece| !matches!(piece, RewritePiece::Group(n) if usize::from(*n) > most);
        Self(self.0.iter().filter(kept).cloned().collect())
    }

    /// The text as it was written.
    pub fn text(&self) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                RewritePiece::Text(text) => text.clone(),
                RewritePiece::Group(n) => format!("${n}"),
            })
            .collect()
    }
}

impl Value for RewriteTarget {
    const GRAMMAR: &'static str =
        "a path that begins with `/` or `$`, of letters, digits and `-._~:/%`, with groups as `$1` to `$9`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = |wrong: &'static str| Invalid::new(wrong, Self::GRAMMAR);
        if text.is_empty() || text.len() > 1024 {
            return Err(wrong("is empty or longer than 1024 bytes"));
        }
        // Anything else at the beginning would be no path, and `http://` would make the proxy answer with a redirect.
        if !text.starts_with(['/', '$']) {
            return Err(wrong("does not begin with `/` or `$`"));
        }
        let good =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b'%' | b'$');
        if !text.bytes().all(good) {
            return Err(wrong("has a character that is not taken there"));
        }
        let mut pieces = Vec::new();
        let mut parts = text.split('$');
        if let Some(first) = parts.next().filter(|first| !first.is_empty()) {
            pieces.push(RewritePiece::Text(first.to_owned()));
        }
        for part in parts {
            let group = part.bytes().next().filter(|b| matches!(b, b'1'..=b'9'));
            let group = group.ok_or_else(|| wrong("has a `$` that no digit from 1 to 9 follows"))?;
            pieces.push(RewritePiece::Group(group - b'0'));
            if part.len() > 1 {
                pieces.push(RewritePiece::Text(part[1..].to_owned()));
            }
        }
        Ok(Self(pieces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_split_into_text_and_groups() {
        let target = RewriteTarget::parse("/a/$2x$1").unwrap();
        let text = |t: &str| RewritePiece::Text(t.to_owned());
        assert_eq!(target.pieces(), [text("/a/"), RewritePiece::Group(2), text("x"), RewritePiece::Group(1)]);
        assert_eq!((target.groups(), target.text().as_str()), (2, "/a/$2x$1"));
        assert_eq!(target.up_to_group(1).text(), "/a/x$1");
        for bad in ["", "/a?b", "/$", "/$x", "/$0", "/a b", "/a;", "/a\n", "/\"", "/${1}", "a", "http://a/$1"] {
            assert!(RewriteTarget::parse(bad).is_err(), "{bad:?}");
        }
    }
}
