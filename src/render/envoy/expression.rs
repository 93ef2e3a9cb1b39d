//! Regular expressions: written for PCRE, compiled by RE2.
//!
//! RE2 has neither look-around nor back-references, and the two differ in corners. What is certainly the same in both
//! goes to Envoy as it is; the rest is refused here, so that Envoy never refuses it and never reads it otherwise.

use regex_syntax::ast::parse::ParserBuilder;
use regex_syntax::ast::{
    Assertion, AssertionKind, Ast, ClassSet, ClassSetItem, Flag, Flags, FlagsItemKind, GroupKind, HexLiteralKind,
    Literal, LiteralKind, RepetitionKind, RepetitionOp, RepetitionRange,
};

use crate::value::regex::Regex;

/// RE2's limit for counted repetitions, nested ones multiplied.
const REPETITIONS: u32 = 1000;

/// What of an expression RE2 does not have, as the end of a sentence; `None`: it takes it, and reads it as PCRE does.
pub(super) fn foreign(regex: &Regex) -> Option<String> {
    let text = regex.as_str();
    match ParserBuilder::new().nest_limit(100).build().parse(text) {
        Ok(ast) => node(text, &ast, 1).err().map(str::to_owned),
        Err(error) => Some(match error.kind() {
            regex_syntax::ast::ErrorKind::UnsupportedLookAround => "look-around".to_owned(),
            regex_syntax::ast::ErrorKind::UnsupportedBackreference => "a back-reference".to_owned(),
            kind => format!("something else: {kind}"),
        }),
    }
}

/// The text that everything an expression takes begins with.
pub(super) fn beginning(regex: &Regex) -> &str {
    let text = regex.as_str();
    if text.contains('|') {
        return "";
    }
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '-' | '_' | '~' | ':' | '@' | '=' | '&' | ',');
    let (start, rest) = text.split_at(text.find(|c| !plain(c)).unwrap_or(text.len()));
    // What may be missing is not what all begin with.
    let last = start.char_indices().next_back().filter(|_| rest.starts_with(['?', '*', '{']));
    last.map_or(start, |(at, _)| &start[..at])
}

fn node(text: &str, ast: &Ast, factor: u32) -> Result<(), &'static str> {
    match ast {
        Ast::Empty(_) | Ast::Dot(_) | Ast::ClassPerl(_) => Ok(()),
        Ast::Flags(flags_of) => flags(&flags_of.flags),
        Ast::Literal(one) => literal(one),
        Ast::Assertion(one) => assertion(one),
        Ast::ClassUnicode(_) => Err("a class of Unicode"),
        Ast::ClassBracketed(class) => set(&class.kind),
        Ast::Repetition(repetition) => {
            let inner = &repetition.ast;
            if matches!(**inner, Ast::Repetition(_) | Ast::Assertion(_) | Ast::Empty(_) | Ast::Flags(_)) {
                return Err("a repetition of a repetition");
            }
            let factor = times(text, &repetition.op).and_then(|times| factor.checked_mul(times));
            match factor {
                Some(factor) if factor <= REPETITIONS => node(text, inner, factor),
                _ => Err("more than 1000 repetitions"),
            }
        }
        Ast::Group(group) => {
            match &group.kind {
                GroupKind::CaptureIndex(_) => {}
                GroupKind::CaptureName { .. } => return Err("a named group"),
                GroupKind::NonCapturing(of_group) => flags(of_group)?,
            }
            node(text, &group.ast, factor)
        }
        Ast::Alternation(alternation) => alternation.asts.iter().try_for_each(|ast| node(text, ast, factor)),
        Ast::Concat(concat) => concat.asts.iter().try_for_each(|ast| node(text, ast, factor)),
    }
}

/// How often something may be repeated, as RE2 counts; `None`: not as PCRE reads it.
fn times(text: &str, op: &RepetitionOp) -> Option<u32> {
    match &op.kind {
        RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => Some(1),
        RepetitionKind::Range(range) => {
            let written = &text[op.span.start.offset..op.span.end.offset];
            if written.contains("{,") || written.contains(char::is_whitespace) {
                return None;
            }
            Some(match range {
                RepetitionRange::Exactly(n) | RepetitionRange::AtLeast(n) | RepetitionRange::Bounded(_, n) => {
                    (*n).max(1)
                }
            })
        }
    }
}

fn flags(flags: &Flags) -> Result<(), &'static str> {
    let known = |kind: &FlagsItemKind| {
        matches!(
            kind,
            FlagsItemKind::Negation
                | FlagsItemKind::Flag(
                    Flag::CaseInsensitive | Flag::MultiLine | Flag::DotMatchesNewLine | Flag::SwapGreed
                )
        )
    };
    if flags.items.iter().all(|item| known(&item.kind)) { Ok(()) } else { Err("a flag") }
}

fn assertion(assertion: &Assertion) -> Result<(), &'static str> {
    match assertion.kind {
        AssertionKind::StartLine
        | AssertionKind::EndLine
        | AssertionKind::StartText
        | AssertionKind::EndText
        | AssertionKind::WordBoundary
        | AssertionKind::NotWordBoundary => Ok(()),
        _ => Err("a kind of word boundary"),
    }
}

fn literal(literal: &Literal) -> Result<(), &'static str> {
    match literal.kind {
        // RE2 takes `\_` for an unknown escape.
        LiteralKind::Superfluous | LiteralKind::Meta if literal.c == '_' => Err(r"`\_`"),
        LiteralKind::HexBrace(HexLiteralKind::X) | LiteralKind::HexFixed(HexLiteralKind::X) if literal.c.is_ascii() => {
            Ok(())
        }
        LiteralKind::HexBrace(_) | LiteralKind::HexFixed(_) => Err("a character by its number"),
        _ => Ok(()),
    }
}

fn set(set: &ClassSet) -> Result<(), &'static str> {
    match set {
        ClassSet::BinaryOp(_) => Err("an operation on classes"),
        ClassSet::Item(one) => item(one),
    }
}

fn item(one: &ClassSetItem) -> Result<(), &'static str> {
    match one {
        ClassSetItem::Empty(_) | ClassSetItem::Ascii(_) | ClassSetItem::Perl(_) => Ok(()),
        ClassSetItem::Literal(one) => literal(one),
        ClassSetItem::Range(range) => literal(&range.start).and_then(|()| literal(&range.end)),
        ClassSetItem::Unicode(_) => Err("a class of Unicode"),
        ClassSetItem::Bracketed(_) => Err("a class within a class"),
        ClassSetItem::Union(union) => union.items.iter().try_for_each(item),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    #[test]
    fn what_re2_has_is_taken() {
        for good in [
            "/foo",
            "/api(/|$)(.*)",
            "/[a-z0-9_-]+/x",
            r"/v\d+\.json$",
            "/(?:a|b)c?",
            "/a{2,3}",
            r"/\w+\s?",
            "/(?i)x",
            "/[[:alpha:]]+",
            r"/\x2f",
            "/ü",
            "/.*?x",
            r"\A/a\z",
        ] {
            assert_eq!(foreign(&Regex::parse(good).unwrap()), None, "{good}");
        }
    }

    #[test]
    fn what_only_pcre_has_is_named() {
        for (bad, what) in [
            ("/(?!admin)", "look-around"),
            ("/(?<=a)b", "look-around"),
            (r"/(a)\1", "a back-reference"),
            ("/a++", "a repetition of a repetition"),
            (r"/\_", r"`\_`"),
            (r"/\xe4", "a character by its number"),
            ("/a{1001}", "more than 1000 repetitions"),
            ("/(?:a{100}){11}", "more than 1000 repetitions"),
            (r"/\pL", "a class of Unicode"),
        ] {
            assert_eq!(foreign(&Regex::parse(bad).unwrap()).as_deref(), Some(what), "{bad}");
        }
        for bad in [r"/a\h", r"/\Qa\E", "/(?>a)", "/(?#x)a", "/[a[b]c]", r"/a\Z", "/(?x)a", r"/(?|(a)|b)", r"/a\K"] {
            assert!(foreign(&Regex::parse(bad).unwrap()).is_some(), "{bad}");
        }
    }

    #[test]
    fn the_beginning_of_an_expression_is_what_all_its_paths_have() {
        for (text, beginning_of) in [
            ("/api(/|x)", ""),
            ("/api/(?!x)", "/api/"),
            ("/ab?(?=c)", "/a"),
            ("/ab+(?=c)", "/ab"),
            (r"/a\.b(?!c)", "/a"),
        ] {
            assert_eq!(beginning(&Regex::parse(text).unwrap()), beginning_of, "{text}");
        }
    }
}
