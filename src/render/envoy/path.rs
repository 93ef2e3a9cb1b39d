//! Paths as Envoy compares them: the script at the edge decodes the path of a request, but for what a path of Envoy's
//! cannot hold, and literal paths of rules are written in the same way.

use std::fmt::Write as _;

use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;

use super::make::regex;
use crate::render::escape::Literal;
use crate::value::path::RulePath;
use crate::value::regex::Regex;

/// This path.
pub(super) fn exact(path: &str) -> PathSpecifier {
    PathSpecifier::Path(compared(path))
}

/// This path and all below it; a slash at its end does not count.
pub(super) fn tree(path: &RulePath) -> PathSpecifier {
    match path.trimmed() {
        "" => PathSpecifier::Prefix("/".to_owned()),
        path => PathSpecifier::PathSeparatedPrefix(compared(path)),
    }
}

/// What begins like this, in either case.
pub(super) fn begins(expression: &Regex) -> PathSpecifier {
    PathSpecifier::SafeRegex(regex(format!("(?is)(?:{expression}).*")))
}

/// What begins like this, in either case, followed by exactly this name.
pub(super) fn begins_then(expression: &Regex, name: &str) -> PathSpecifier {
    PathSpecifier::SafeRegex(regex(format!("(?:(?i){expression})/?{}", Literal(&compared(name)))))
}

/// What begins with this text, in either case.
pub(super) fn below(text: &str) -> PathSpecifier {
    PathSpecifier::SafeRegex(regex(format!("(?is){}.*", Literal(text))))
}

/// A path as it is compared: only what could end it, or look like an escape, is escaped.
pub(super) fn compared(path: &str) -> String {
    escaped(path, |b| matches!(b, b'%' | b'?' | b'#' | b'\x7f') || b < b' ')
}

/// A path as it is sent when it is rewritten, and as it is compared for that.
pub(super) fn sendable(path: &str) -> String {
    escaped(path, |b| !b.is_ascii_graphic() || b"\"#%<>?\\^`{|}".contains(&b))
}

fn escaped(path: &str, is_special: impl Fn(u8) -> bool) -> String {
    let mut out = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        if is_special(byte) {
            let mut escape = String::new();
            // Writing into a string cannot fail.
            let _ = write!(escape, "%{byte:02X}");
            out.extend(escape.into_bytes());
        } else {
            out.push(byte);
        }
    }
    // Whole characters are kept or escaped byte by byte; ASCII takes the place of the latter.
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_could_end_a_path_is_escaped_for_comparing() {
        assert_eq!(compared("/a b%ü\"{"), "/a b%25ü\"{");
        assert_eq!(sendable("/a b%ü{~"), "/a%20b%25%C3%BC%7B~");
    }
}
