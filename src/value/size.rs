//! Sizes in bytes.

use std::fmt;

use serde::Serialize;

use super::{Invalid, Value};

/// A number of bytes, written as nginx writes sizes: digits and an optional unit `k`, `m` or `g`. At most 1 TiB.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Size(u64);

impl Size {
    /// Takes a number of bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

impl Value for Size {
    const GRAMMAR: &'static str = "a number of bytes with an optional unit `k`, `m` or `g`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("is not a size", Self::GRAMMAR);
        let (digits, factor) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
            Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
            Some(b'g' | b'G') => (&text[..text.len() - 1], 1 << 30),
            _ => (text, 1),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).filter(|&n| n <= 1 << 40);
        bytes.map(Self).ok_or_else(|| Invalid::new("is larger than 1024g", Self::GRAMMAR))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            n if n % (1 << 20) == 0 => write!(f, "{}m", n >> 20),
            n if n % (1 << 10) == 0 => write!(f, "{}k", n >> 10),
            n => write!(f, "{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_nginxs() {
        for (text, bytes, shown) in
            [("1m", 1 << 20, "1m"), ("8K", 8192, "8k"), ("2g", 2 << 30, "2048m"), ("0", 0, "0"), ("1025", 1025, "1025")]
        {
            let size = Size::parse(text).unwrap();
            assert_eq!((size.as_bytes(), size.to_string().as_str()), (bytes, shown));
        }
        for bad in ["", "m", "1 m", "1mb", "-1", "1.5m", "99999999999999999999", "2000g", "1m;"] {
            assert!(Size::parse(bad).is_err(), "{bad:?}");
        }
    }
}
