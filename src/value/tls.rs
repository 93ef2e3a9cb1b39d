//! TLS versions.

use serde::Serialize;

use super::{Invalid, Value};

pub use super::ciphers::Ciphers;

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
