//! What becomes of the requests of one location: who may come, what is changed, where they go.

use std::fmt;

use askama::Template;

use super::Common;
use super::location::{Content, Location};
use super::log::Set;
use super::transfer::{Directive, Module, Transfer};
use crate::annotations::Policies;
use crate::annotations::source_range::SourceRange;
use crate::model::{Action, Route, StaticFile, UpstreamId};
use crate::problem::Subject;
use crate::render::RenderError;
use crate::render::escape::{Piece, filters};
use crate::render::page::Page;
use crate::value::rewrite::{RewritePiece, RewriteTarget};
use crate::volume::Protocol;

/// Where requests go.
enum Answer<'a> {
    /// To an upstream.
    Pass { module: Module, scheme: &'static str, upstream: &'a str },
    /// To a file; not sent again to who has it, unless only some may know of it.
    File { file: &'a StaticFile, conditional: bool },
    /// Nowhere: there is no such file.
    NoFile,
    /// Elsewhere, by the client itself.
    Redirect(u16, Vec<Piece<'a>>),
    /// Nowhere: a status.
    Respond(u16),
}

struct RewriteView<'a> {
    pattern: &'a str,
    target: Vec<Piece<'a>>,
}

#[derive(Template)]
#[template(path = "nginx/location.conf")]
struct View<'a> {
    comment: Option<&'a Subject>,
    location: &'a Location<'a>,
    /// Variables for the access log.
    variables: Vec<Set<'a>>,
    redirect: Option<super::server::Redirect>,
    access: &'a SourceRange,
    transfer: Vec<Directive>,
    rewrite: Option<RewriteView<'a>>,
    answer: Answer<'a>,
}

/// Writes a location. `comment`: name the object above it. `redirect`: how plain HTTP is redirected here. `variables`:
/// for the access log.
pub(super) fn write(
    page: &mut Page,
    common: &Common<'_>,
    location: &Location<'_>,
    comment: bool,
    redirect: Option<super::server::Redirect>,
    variables: Vec<Set<'_>>,
) -> Result<(), RenderError> {
    let route = location.route;
    let Route { path: _, action: _, redirect_to_https: _, policies, backend: _, source } = route;
    let Policies { body_size, buffering, rate, redirect: _, retries, rewrite, source_range, timeouts } = policies;
    let answer = answer(common, location);
    let passes = matches!(answer, Answer::Pass { .. });
    let own = Transfer { body_size: *body_size, timeouts, buffering, retries, rate: *rate };
    let shared = Transfer::baseline(&common.baseline);
    let transfer = match answer {
        Answer::Pass { module, .. } => own.unlike(shared, Some(module)),
        Answer::File { .. } => own.unlike(shared, None),
        Answer::NoFile | Answer::Redirect(..) | Answer::Respond(_) => Vec::new(),
    };
    let view = View {
        comment: source.as_ref().filter(|_| comment),
        location,
        variables,
        redirect,
        access: source_range,
        transfer,
        rewrite: rewrite
            .as_ref()
            .filter(|_| passes)
            .map(|rewrite| RewriteView { pattern: rewrite.pattern.as_str(), target: target(&rewrite.target) }),
        answer,
    };
    page.part(source.as_ref(), &view)
}

fn answer<'a>(common: &Common<'a>, location: &Location<'a>) -> Answer<'a> {
    if let Some((status, url)) = location.route.policies.redirect.target() {
        return Answer::Redirect(status, vec![Piece::Text(url.as_str())]);
    }
    let upstream = |id: &UpstreamId| common.config.upstreams.get_key_value(id);
    match (&location.route.action, location.content) {
        (_, Content::File(file)) => {
            let SourceRange { deny, allow } = &location.route.policies.source_range;
            Answer::File { file, conditional: deny.is_empty() && allow.is_empty() }
        }
        (Action::Files(_), _) | (_, Content::NoFile) => Answer::NoFile,
        (Action::Respond(status), _) => Answer::Respond(*status),
        (Action::Forward(id), _) => match upstream(id) {
            Some((id, upstream)) => {
                let (module, scheme) = match upstream.protocol {
                    Protocol::Http => (Module::Proxy, "http://"),
                    Protocol::Https => (Module::Proxy, "https://"),
                    Protocol::Grpc => (Module::Grpc, "grpc://"),
                    Protocol::Grpcs => (Module::Grpc, "grpcs://"),
                };
                Answer::Pass { module, scheme, upstream: id.as_str() }
            }
            // The model names no upstream that it does not have; were it to, one route would fail and not the file.
            None => Answer::Respond(503),
        },
    }
}

fn target(target: &RewriteTarget) -> Vec<Piece<'_>> {
    let piece = |piece| match piece {
        &RewritePiece::Group(group) => Piece::Group(group),
        RewritePiece::Text(text) => Piece::Text(text),
    };
    target.pieces().iter().map(piece).collect()
}

/// The expression of a rewrite, as it was checked when it was parsed: from the start, in either case.
struct Anchored<'a>(&'a str);

impl fmt::Display for Anchored<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(?i)^(?:{})", self.0)
    }
}

/// A file's tag: the same wherever it lies and whenever it was written.
struct ETag<'a>(&'a str);

impl fmt::Display for ETag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// Matches a client's list of tags that has this one, weak or strong.
struct IfNoneMatch<'a>(&'a str);

impl fmt::Display for IfNoneMatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r"^\*$|{}", self.0)
    }
}
