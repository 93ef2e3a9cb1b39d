//! TLS versions and ciphers.

use std::fmt;

use serde::Serialize;

use super::{Invalid, Value};

/// A version of TLS that may be offered to clients.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum TlsVersion {
    V1_0,
    V1_1,
    V1_2,
    V1_3,
}

impl TlsVersion {
    /// As nginx and OpenSSL write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_0 => "TLSv1",
            Self::V1_1 => "TLSv1.1",
            Self::V1_2 => "TLSv1.2",
            Self::V1_3 => "TLSv1.3",
        }
    }
}

impl Value for TlsVersion {
    const GRAMMAR: &'static str = "`TLSv1`, `TLSv1.1`, `TLSv1.2` or `TLSv1.3`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        [Self::V1_0, Self::V1_1, Self::V1_2, Self::V1_3]
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| Invalid::new("is no version of TLS", Self::GRAMMAR))
    }
}

/// Ciphers up to TLS 1.2 in OpenSSL's notation, in order of preference.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Ciphers(String);

impl Ciphers {
    /// The list.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Ciphers {
    fn default() -> Self {
        Self(
            [
                "ECDHE-ECDSA-AES128-GCM-SHA256",
                "ECDHE-RSA-AES128-GCM-SHA256",
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-RSA-AES256-GCM-SHA384",
                "ECDHE-ECDSA-CHACHA20-POLY1305",
                "ECDHE-RSA-CHACHA20-POLY1305",
                "DHE-RSA-AES128-GCM-SHA256",
                "DHE-RSA-AES256-GCM-SHA384",
            ]
            .join(":"),
        )
    }
}

impl Value for Ciphers {
    const GRAMMAR: &'static str = "OpenSSL cipher names joined by `:`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let good = (1..=4096).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b':' | b'_' | b'-' | b'!' | b'@' | b'='));
        if good { Ok(Self(text.to_owned())) } else { Err(Invalid::new("is no list of ciphers", Self::GRAMMAR)) }
    }
}

impl fmt::Display for Ciphers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
