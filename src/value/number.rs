//! Numbers: switches, seconds and counts, as ingress-nginx reads them.

use std::fmt;

use serde::Serialize;

use super::{Invalid, Value};

impl Value for bool {
    const GRAMMAR: &'static str = "`true` or `false`";

    /// Go's `strconv.ParseBool`, because manifests in the field rely on it.
    fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
            _ => Err(Invalid::new("is neither true nor false", Self::GRAMMAR)),
        }
    }
}

/// A duration in whole seconds, without a unit or with `s`, `m`, `h` or `d`. At most ten years.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Seconds(u32);

impl Seconds {
    /// Takes a number of seconds.
    pub const fn new(seconds: u32) -> Self {
        Self(seconds)
    }

    /// The number of seconds.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Value for Seconds {
    const GRAMMAR: &'static str = "a number of seconds";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let (digits, factor) = match text.as_bytes().last() {
            Some(b's') => (&text[..text.len() - 1], 1),
            Some(b'm') => (&text[..text.len() - 1], 60),
            Some(b'h') => (&text[..text.len() - 1], 3600),
            Some(b'd') => (&text[..text.len() - 1], 86_400),
            _ => (text, 1),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Invalid::new("is not a number of seconds", Self::GRAMMAR));
        }
        let seconds = digits.parse::<u32>().ok().and_then(|n| n.checked_mul(factor)).filter(|&n| n <= 315_360_000);
        seconds.map(Self).ok_or_else(|| Invalid::new("is longer than ten years", Self::GRAMMAR))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// A whole number from 0 to 1 000 000.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Count(u32);

impl Count {
    /// Takes a number.
    pub const fn new(count: u32) -> Self {
        Self(count)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Value for Count {
    const GRAMMAR: &'static str = "a whole number from 0 to 1000000";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let count = if digits { text.parse().ok().filter(|&n| n <= 1_000_000) } else { None };
        count.map(Self).ok_or_else(|| Invalid::new("is not such a number", Self::GRAMMAR))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_take_units_and_nothing_else() {
        for (text, seconds) in [("5", 5), ("240s", 240), ("10m", 600), ("1h", 3600), ("0", 0)] {
            assert_eq!(Seconds::parse(text).unwrap().get(), seconds);
        }
        for bad in ["", "s", "-1", "1.5", "5ms", "5 s", "99999999999", "11000d"] {
            assert!(Seconds::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn switches_are_gos() {
        assert_eq!(bool::parse("True"), Ok(true));
        assert!(bool::parse("yes").is_err());
    }
}
