//! Header names.

use std::fmt;

use serde::Serialize;

use super::{Invalid, Value};

/// A name of an HTTP header: letters, digits, `-` and `_`, at most 128 of them.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct HeaderName(String);

impl HeaderName {
    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as nginx's variables have it: `x_forwarded_for` of `X-Forwarded-For`.
    pub fn variable(&self) -> String {
        self.0.to_ascii_lowercase().replace('-', "_")
    }
}

impl Value for HeaderName {
    const GRAMMAR: &'static str = "a header name of letters, digits, `-` and `_`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let good = (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if good { Ok(Self(text.to_owned())) } else { Err(Invalid::new("is not a header name", Self::GRAMMAR)) }
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
