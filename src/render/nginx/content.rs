//! What becomes of the requests of one location: who may come, what is changed, where they go.

use std::fmt;

use askama::Template;

use super::Common;
use super::location::{Content, Location};
use super::log::RouteVariable;
use super::transfer::{Directive, Module, Transfer};
use crate::annotations::Policies;
use crate::annotations::source_range::SourceRange;
use crate::model::{Action, PathMatch, Route, StaticFile, UpstreamId};
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
    /// Variables for the access log, unless empty.
    variables: Vec<(&'static str, Vec<Piece<'a>>)>,
    redirect: Option<super::server::Redirect>,
    access: &'a SourceRange,
    transfer: Vec<Directive>,
    rewrite: Option<RewriteView<'a>>,
    answer: Answer<'a>,
}

/// Writes a location. `comment`: name the object above it. `redirect`: how plain HTTP is redirected here.
pub(super) fn write(
    page: &mut Page,
    common: &Common<'_>,
    location: &Location<'_>,
    comment: bool,
    redirect: Option<super::server::Redirect>,
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
    let texts = Texts::of(common, route);
    let view = View {
        comment: source.as_ref().filter(|_| comment),
        location,
        variables: common.log.variables.iter().filter_map(|variable| texts.value(*variable)).collect(),
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

/// What the access log may tell about a route.
struct Texts<'a> {
    route: &'a Route,
    upstream_name: String,
}

impl<'a> Texts<'a> {
    fn of(common: &Common<'_>, route: &'a Route) -> Self {
        let named = common.log.variables.contains(&RouteVariable::ProxyUpstreamName);
        let upstream_name = match (&route.backend, &route.source) {
            (Some(backend), Some(source)) if named => {
                let namespace = source.object.namespace.as_ref().map_or("", |namespace| namespace.as_str());
                format!("{namespace}-{}-{}", backend.service, backend.port)
            }
            _ => String::new(),
        };
        Self { route, upstream_name }
    }

    fn value(&self, variable: RouteVariable) -> Option<(&'static str, Vec<Piece<'_>>)> {
        let object = self.route.source.as_ref().map(|source| &source.object);
        let text = match variable {
            RouteVariable::Namespace => object.and_then(|o| o.namespace.as_ref()).map(|namespace| namespace.as_str()),
            RouteVariable::IngressName => object.map(|o| o.name.as_str()),
            RouteVariable::ServiceName => self.route.backend.as_ref().map(|backend| backend.service.as_str()),
            RouteVariable::ServicePort => self.route.backend.as_ref().map(|backend| backend.port.as_str()),
            RouteVariable::LocationPath => Some(match &self.route.path {
                PathMatch::Exact(path) | PathMatch::Prefix(path) => path.as_str(),
                PathMatch::Regex(regex) => regex.as_str(),
            }),
            RouteVariable::ProxyUpstreamName => Some(self.upstream_name.as_str()),
        };
        text.filter(|text| !text.is_empty()).map(|text| (variable.name(), vec![Piece::Text(text)]))
    }
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
