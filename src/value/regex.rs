//! Regular expressions of paths, compiled with nginx's own engine before nginx ever sees them.

use std::fmt;

use serde::Serialize;

use super::{Invalid, Value};

/// A PCRE2 expression for the beginning of a path: at most 1024 bytes, no control characters, no named groups, compiles
/// as it will be written (as a group, anchored at the start, in either case).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Regex(String);

impl Regex {
    /// The expression as given, without an anchor.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An expression for exactly this text, without groups. A text that is too long is cut: what the rest would have
    /// matched was matched already by whoever asks for this path.
    pub fn quoted(text: &str) -> Self {
        let mut quoted = String::with_capacity(text.len());
        for c in text.chars().filter(|c| !c.is_control()) {
            if quoted.len() + c.len_utf8() + 1 > MOST {
                break;
            }
            if c.is_ascii() && !c.is_ascii_alphanumeric() && !matches!(c, '/' | '-' | '_') {
                quoted.push('\\');
            }
            quoted.push(c);
        }
        Self(quoted)
    }

    /// How many capturing groups it has: `$1` to `$n` exist.
    pub fn captures(&self) -> usize {
        // It compiled when it was parsed; an expression that no longer does has no groups to offer.
        compile(&self.0).map_or(0, |regex| regex.captures_len() - 1)
    }
}

/// The longest expression, in bytes.
const MOST: usize = 1024;

fn compile(text: &str) -> Result<pcre2::bytes::Regex, pcre2::Error> {
    let build = |text: &str| pcre2::bytes::RegexBuilder::new().caseless(true).build(text);
    // By itself, so that it cannot end the group that the renderer puts it into; and in the group, so that neither a
    // comment nor a quotation in it swallows what is written after it.
    build(text)?;
    build(&format!("^(?:{text})"))
}

impl Value for Regex {
    const GRAMMAR: &'static str = "a Perl-compatible regular expression of at most 1024 bytes";

    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > MOST {
            return Err(Invalid::new("is longer than 1024 bytes", Self::GRAMMAR));
        }
        if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
            return Err(Invalid::new("has a control character", Self::GRAMMAR));
        }
        match compile(text) {
            // nginx makes a variable of each named group: it could take the place of one of ours, or nginx refuses it.
            Ok(regex) if regex.capture_names().iter().any(Option::is_some) => {
                Err(Invalid::new("has a named group", "a regular expression with plain groups alone"))
            }
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(Invalid::new(format!("is no regular expression ({error})"), Self::GRAMMAR)),
        }
    }
}

impl fmt::Display for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_compile_is_refused_with_the_engines_words() {
        let wrong = Regex::parse("/a(b").unwrap_err().wrong;
        assert!(wrong.contains("missing closing parenthesis"), "{wrong}");
        assert!(Regex::parse("/a\n").is_err());
        assert!(Regex::parse(&"a".repeat(1025)).is_err());
    }

    #[test]
    fn a_quoted_text_matches_itself_and_nothing_else() {
        for text in ["/a.b", "/a+(b)|[c]{2}^$", "/ü/ß", "/\\d", "/a b#c"] {
            let quoted = Regex::quoted(text);
            assert_eq!(Regex::parse(quoted.as_str()).as_ref(), Ok(&quoted), "{text}");
            let whole = pcre2::bytes::Regex::new(&format!("^{quoted}$")).unwrap();
            assert!(whole.is_match(text.as_bytes()).unwrap(), "{text}");
            assert_eq!(quoted.captures(), 0, "{text}");
        }
        assert!(Regex::parse(Regex::quoted(&"ü.".repeat(1000)).as_str()).is_ok());
    }

    #[test]
    fn an_expression_stays_within_its_group() {
        for bad in ["a(?x) # b", r"a\Qb", "a)|(?:b", "a\\"] {
            assert!(Regex::parse(bad).is_err(), "{bad}");
        }
        for good in ["a|b", "a(?x: b )", r"\Qa\E", ""] {
            assert!(Regex::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn named_groups_are_refused() {
        for bad in ["/(?<remote_addr>.*)", "/(?P<tls>.)", "/(?'x'.)"] {
            assert_eq!(Regex::parse(bad).unwrap_err().wrong, "has a named group", "{bad}");
        }
    }

    #[test]
    fn groups_are_counted() {
        assert_eq!(Regex::parse("/a(/|$)(.*)").unwrap().captures(), 2);
        assert_eq!(Regex::parse("/a(?:b)").unwrap().captures(), 0);
    }
}
