//! From the text of a path to what it matches, how it is rewritten, and where it stands among the others of its host.

use std::cmp::Reverse;

use k8s_openapi::api::networking::v1::HTTPIngressPath;

use super::rules::Place;
use crate::annotations::IngressPolicies;
use crate::annotations::rewrite::Rewrite;
use crate::model::PathMatch;
use crate::problem::{Problem, Reason, Severity, Subject};
use crate::value::path::RulePath;
use crate::value::regex::Regex;
use crate::value::{Invalid, Value as _, shown};

/// A path of a rule.
pub struct Parsed {
    /// What it matches.
    pub path: PathMatch,
    /// How it is rewritten.
    pub rewrite: Option<Rewrite>,
}

/// Something to be told about a path.
pub struct Note {
    field: &'static str,
    severity: Severity,
    reason: Reason,
    message: String,
    effect: &'static str,
}

impl Note {
    fn not_served(field: &'static str, reason: Reason, message: String) -> Self {
        Self { field, severity: Severity::Rejected, reason, message, effect: "the path is not served" }
    }

    /// The note as a problem of the Ingress that has the path.
    pub fn told(self, subject: &Subject, place: Place) -> Problem {
        let Self { field, severity, reason, message, effect } = self;
        let (subject, field, effect) = (subject.clone(), place.field(field), effect.to_owned());
        Problem { subject, field, severity, reason, message, effect }
    }
}

/// The types of a path in the API.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum PathType {
    Exact,
    Prefix,
    ImplementationSpecific,
}

/// Parses a path. An ImplementationSpecific one is a Prefix, unless its Ingress asks for regular expressions, by name or
/// by a rewrite target other than the path.
pub fn parse(given: &HTTPIngressPath, policies: &IngressPolicies, strict: bool) -> (Option<Parsed>, Vec<Note>) {
    let mut notes = Vec::new();
    let parsed = parse_noting(given, policies, strict, &mut notes).unwrap_or_else(|note| {
        notes.push(note);
        None
    });
    (parsed, notes)
}

fn parse_noting(
    given: &HTTPIngressPath,
    policies: &IngressPolicies,
    strict: bool,
    notes: &mut Vec<Note>,
) -> Result<Option<Parsed>, Note> {
    let kind = path_type(&given.path_type)?;
    let text = given.path.as_deref().unwrap_or_default();
    let text = match (text, kind) {
        ("", PathType::ImplementationSpecific) => "/",
        ("", _) => {
            let message = format!("the path is missing; with the pathType {} there must be one", given.path_type);
            return Err(Note::not_served(".path", Reason::InvalidPath, message));
        }
        (text, _) => text,
    };
    let target = policies.rewrite_target.as_ref().filter(|target| target.text() != text);
    let regex = kind == PathType::ImplementationSpecific && (policies.use_regex || target.is_some());
    let path = if regex { regex_path(text)? } else { literal_path(text, kind, strict, notes)? };
    let (pattern, groups) = match &path {
        PathMatch::Regex(regex) => (regex.clone(), regex.captures()),
        PathMatch::Exact(path) => (Regex::quoted(path.as_str()), 0),
        PathMatch::Prefix(path) => (Regex::quoted(path.trimmed()), 0),
    };
    let rewrite = target.map(|target| {
        if target.groups() > groups {
            notes.push(Note {
                field: ".path",
                severity: Severity::Degraded,
                reason: Reason::InvalidValue,
                message: format!(
                    "path {} has {} of the groups that rewrite-target asks for ({}); it must have {}",
                    shown(text),
                    if groups == 0 { "none".to_owned() } else { format!("only {groups}") },
                    shown(&target.text()),
                    target.groups(),
                ),
                effect: "the missing groups are empty",
            });
        }
        Rewrite { pattern, target: target.up_to_group(groups) }
    });
    Ok(Some(Parsed { path, rewrite }))
}

fn path_type(text: &str) -> Result<PathType, Note> {
    match text {
        "Exact" => Ok(PathType::Exact),
        "Prefix" => Ok(PathType::Prefix),
        "ImplementationSpecific" => Ok(PathType::ImplementationSpecific),
        _ => {
            let message = format!(
                "pathType {} is not known; it must be `Exact`, `Prefix` or `ImplementationSpecific`",
                shown(text)
            );
            Err(Note::not_served(".pathType", Reason::InvalidValue, message))
        }
    }
}

fn regex_path(text: &str) -> Result<PathMatch, Note> {
    if !text.starts_with('/') {
        let invalid = Invalid::new("does not begin with `/`", "a regular expression for the whole path, from its `/`");
        return Err(wrong_path(text, Reason::InvalidPath, &invalid));
    }
    // Both match everything; as a Prefix it stands last, and the host needs no regular expression for it.
    if text == "/" {
        return Ok(PathMatch::Prefix(RulePath::root()));
    }
    Regex::parse(text).map(PathMatch::Regex).map_err(|invalid| wrong_path(text, Reason::InvalidRegex, &invalid))
}

fn literal_path(text: &str, kind: PathType, strict: bool, notes: &mut Vec<Note>) -> Result<PathMatch, Note> {
    let path = RulePath::parse(text).map_err(|invalid| wrong_path(text, Reason::InvalidPath, &invalid))?;
    if kind != PathType::ImplementationSpecific && looks_like_a_regex(text) {
        let message = format!(
            "path {} looks like a regular expression; with the pathType {kind:?} it is plain text, for a regular \
             expression it must be ImplementationSpecific, with `use-regex`",
            shown(text)
        );
        let note = Note::not_served(".path", Reason::InvalidPath, message);
        if strict {
            return Err(note);
        }
        notes.push(Note { severity: Severity::Notice, effect: "it is compared as plain text", ..note });
    }
    Ok(match kind {
        PathType::Exact => PathMatch::Exact(path),
        PathType::Prefix | PathType::ImplementationSpecific => PathMatch::Prefix(path),
    })
}

fn wrong_path(text: &str, reason: Reason, invalid: &Invalid) -> Note {
    Note::not_served(".path", reason, format!("path {} {invalid}", shown(text)))
}

/// Whether a text has what only regular expressions have. Single characters such as `+` or `$` are good in paths.
fn looks_like_a_regex(text: &str) -> bool {
    let bracketed = |open, close| text.find(open).is_some_and(|at| text[at..].contains(close));
    let group = text.find('(').is_some_and(|at| text[at..].contains('|') && text[at..].contains(')'));
    let escape = text.find('\\').is_some_and(|at| at + 1 < text.len());
    let repeat = text.as_bytes().windows(2).any(|pair| pair[0] == b'{' && pair[1].is_ascii_digit());
    text.contains(".*")
        || text.contains(".+")
        || text.ends_with('$')
        || bracketed('[', ']')
        || group
        || escape
        || repeat
}

/// Where a path stands among those of its host; the first that matches answers. Paths of equal precedence match the
/// same requests: of them there can be one only.
///
/// Exact ones come first, then Prefix and regular expressions together, the longer text first; what is left is the order
/// of ingress-nginx, so that regular expressions of equal length mean what they meant there.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Precedence<'p> {
    /// A whole path.
    Exact(&'p str),
    /// A beginning, without a trailing slash, or (`regex`) an expression for one.
    Beginning {
        /// In bytes.
        length: Reverse<usize>,
        /// The text.
        text: Reverse<&'p str>,
        /// Of equal texts the literal one stands first.
        regex: bool,
    },
    /// Every path.
    Everything,
}

impl<'p> Precedence<'p> {
    /// The precedence of a path.
    pub fn of(path: &'p PathMatch) -> Self {
        let beginning =
            |text: &'p str, regex| Self::Beginning { length: Reverse(text.len()), text: Reverse(text), regex };
        match path {
            PathMatch::Exact(path) => Self::Exact(path.as_str()),
            PathMatch::Prefix(path) if path.trimmed().is_empty() => Self::Everything,
            PathMatch::Prefix(path) => beginning(path.trimmed(), false),
            PathMatch::Regex(regex) => beginning(regex.as_str(), true),
        }
    }
}

/// A path as people are told of it: `Prefix path "/foo"`.
pub fn described(path: &PathMatch) -> String {
    let (kind, text) = match path {
        PathMatch::Exact(path) => ("Exact path", path.as_str()),
        PathMatch::Prefix(path) => ("Prefix path", path.as_str()),
        PathMatch::Regex(regex) => ("regular expression", regex.as_str()),
    };
    format!("{kind} {}", shown(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::rewrite::RewriteTarget;

    fn given(kind: &str, path: &str) -> HTTPIngressPath {
        HTTPIngressPath { path: Some(path.to_owned()), path_type: kind.to_owned(), ..Default::default() }
    }

    fn policies(use_regex: bool, target: Option<&str>) -> IngressPolicies {
        let rewrite_target = target.map(|target| RewriteTarget::parse(target).unwrap());
        IngressPolicies { use_regex, rewrite_target, ..IngressPolicies::default() }
    }

    /// `kind path` becomes this path with this rewrite, or nothing.
    fn check(kind: &str, path: &str, policies: &IngressPolicies, expected: &str) {
        let (parsed, notes) = parse(&given(kind, path), policies, true);
        let shown = match parsed {
            None => notes.last().map_or_else(|| "nothing told".to_owned(), |note| note.message.clone()),
            Some(Parsed { path, rewrite }) => {
                let path = match path {
                    PathMatch::Exact(path) => format!("= {path}"),
                    PathMatch::Prefix(path) => format!("^ {path}"),
                    PathMatch::Regex(regex) => format!("~ {regex}"),
                };
                rewrite.map(|r| format!("{path} > {} {}", r.pattern, r.target.text())).unwrap_or(path)
            }
        };
        assert_eq!(shown, expected, "{kind} {path}");
    }

    #[test]
    fn implementation_specific_is_a_prefix_unless_regular_expressions_are_asked_for() {
        let (plain, regex) = (policies(false, None), policies(true, None));
        check("ImplementationSpecific", "/foo", &plain, "^ /foo");
        check("ImplementationSpecific", "", &plain, "^ /");
        check("ImplementationSpecific", "/foo", &regex, "~ /foo");
        check("ImplementationSpecific", "/", &regex, "^ /");
        check("Prefix", "/foo", &regex, "^ /foo");
        check("Exact", "/foo", &regex, "= /foo");
        check(
            "ImplementationSpecific",
            "/foo(/|$)(.*)",
            &policies(false, Some("/$2")),
            "~ /foo(/|$)(.*) > /foo(/|$)(.*) /$2",
        );
        check("ImplementationSpecific", "/foo", &policies(false, Some("/foo")), "^ /foo");
        check("ImplementationSpecific", "/foo", &policies(true, Some("/foo")), "~ /foo");
    }

    #[test]
    fn literal_paths_are_rewritten_as_literal_text() {
        check("Prefix", "/a.b/", &policies(false, Some("/")), r"^ /a.b/ > /a\.b /");
        check("Exact", "/a/", &policies(false, Some("/x")), "= /a/ > /a/ /x");
        check("Prefix", "/", &policies(false, Some("/x")), "^ / >  /x");
    }

    #[test]
    fn what_cannot_be_a_path_is_told() {
        let plain = policies(false, None);
        check("Prefix", "", &plain, "the path is missing; with the pathType Prefix there must be one");
        check(
            "prefix",
            "/",
            &plain,
            "pathType \"prefix\" is not known; it must be `Exact`, `Prefix` or `ImplementationSpecific`",
        );
        check(
            "Exact",
            "foo",
            &plain,
            "path \"foo\" does not begin with `/`; it must be a path that begins with `/`, without `//`, `.` or `..` as \
             elements, `?`, `#` or control characters",
        );
        check(
            "ImplementationSpecific",
            "^/foo",
            &policies(true, None),
            "path \"^/foo\" does not begin with `/`; it must be a regular expression for the whole path, from its `/`",
        );
        let (parsed, notes) = parse(&given("ImplementationSpecific", "/a(b"), &policies(true, None), true);
        assert!(parsed.is_none() && notes[0].reason == Reason::InvalidRegex, "{}", notes[0].message);
    }

    #[test]
    fn a_literal_path_that_looks_like_a_regular_expression_is_refused_only_when_strict() {
        for text in ["/foo/(.*)", "/a(/|$)", "/[a-z]+", r"/\d", "/foo$", "/a{2}", "/.+"] {
            let (parsed, notes) = parse(&given("Prefix", text), &policies(false, None), true);
            assert!(parsed.is_none() && notes[0].reason == Reason::InvalidPath, "{text}");
            let (parsed, notes) = parse(&given("Prefix", text), &policies(false, None), false);
            assert!(parsed.is_some() && notes[0].severity == Severity::Notice, "{text}");
        }
        for text in
            ["/c++", "/$metadata", "/a(b)", "/{id}", "/a;b{c}\"d'$e\\", "/.well-known/x*", "/a|b", "/x[", "/v1.0"]
        {
            let (parsed, notes) = parse(&given("Prefix", text), &policies(false, None), true);
            assert!(parsed.is_some() && notes.is_empty(), "{text}");
        }
    }

    #[test]
    fn groups_that_the_path_does_not_have_are_dropped_and_told() {
        let (parsed, notes) = parse(&given("ImplementationSpecific", "/a(.*)"), &policies(false, Some("/$2/$1")), true);
        assert_eq!(parsed.unwrap().rewrite.unwrap().target.text(), "//$1");
        assert_eq!(
            notes[0].message,
            "path \"/a(.*)\" has only 1 of the groups that rewrite-target asks for (\"/$2/$1\"); it must have 2"
        );
        check("Prefix", "/a", &policies(false, Some("/$2")), "^ /a > /a /");
    }

    #[test]
    fn precedence_is_exact_then_by_length_and_everything_last() {
        let all = policies(true, None);
        let paths = [
            ("Exact", "/"),
            ("Exact", "/a"),
            ("ImplementationSpecific", "/aaa/[0-9]+"),
            ("Prefix", "/aaa/bbb"),
            ("Prefix", "/bb/"),
            ("ImplementationSpecific", "/b."),
            ("Prefix", "/aa"),
            ("ImplementationSpecific", "/aa"),
            ("Prefix", "/a"),
            ("Prefix", "/"),
        ];
        let parsed = |(kind, path): &(&str, &str)| parse(&given(kind, path), &all, true).0.unwrap().path;
        let mut sorted: Vec<_> = paths.iter().map(|path| (parsed(path), path)).collect();
        sorted.reverse();
        sorted.sort_by(|(a, _), (b, _)| Precedence::of(a).cmp(&Precedence::of(b)));
        assert_eq!(sorted.iter().map(|(_, path)| *path).collect::<Vec<_>>(), paths.iter().collect::<Vec<_>>());
        for (a, b) in [(("Prefix", "/foo"), ("Prefix", "/foo/")), (("Prefix", "/"), ("ImplementationSpecific", "/"))] {
            assert_eq!(Precedence::of(&parsed(&a)), Precedence::of(&parsed(&b)));
        }
    }
}
