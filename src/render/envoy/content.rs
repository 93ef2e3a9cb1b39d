//! What becomes of the requests of a route of ours: one route of Envoy, or a few.

use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, RetryPolicy};
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::make::{any, has, has_not, regex};
use super::route::{Draft, Forward};
use super::{Common, access, body_size, expression, filter, path, problems, route, transfer};
use crate::annotations::Policies;
use crate::annotations::rewrite::Rewrite;
use crate::annotations::source_range::SourceRange;
use crate::model::{Action, PathMatch, Route, StaticFile, StaticFiles, UpstreamId};
use crate::render::escape::Literal;
use crate::value::rewrite::RewritePiece;

/// The routes of Envoy for a route of ours, in the order in which Envoy must look at them. `redirected`: all plain HTTP
/// of the host is sent to https already.
pub(super) fn routes(common: &Common<'_>, route: &Route, redirected: bool) -> Vec<Draft> {
    let Route { path, action, redirect_to_https, policies, backend: _, source: _ } = route;
    let mut drafts = match (matched(path), policies.redirect.target(), action) {
        // Whoever the expression takes would be let through to somebody else's rule.
        (None, ..) if protects(policies) => match path {
            PathMatch::Regex(regex) => {
                vec![Draft::new(path::below(expression::beginning(regex))).answers(503, None)]
            }
            PathMatch::Exact(_) | PathMatch::Prefix(_) => Vec::new(),
        },
        (None, ..) => Vec::new(),
        (Some(path), Some((status, url)), _) => {
            vec![Draft::new(path).answers(status, None).with("location", url.as_str())]
        }
        (Some(path), None, Action::Respond(status)) => vec![Draft::new(path).answers(*status, None)],
        (Some(path), None, Action::Files(content)) => files(route, path, content),
        (Some(path), None, Action::Forward(upstream)) => vec![forward(common, route, path, upstream)],
    };
    if *redirect_to_https && !redirected && policies.redirect.target().is_none() {
        drafts.splice(0..0, matched(path).map(|path| to_https(common, path)));
    }
    common.log.label(route, &mut drafts);
    drafts
}

/// Sends plain HTTP to https, but for the paths that are exempt.
pub(super) fn to_https(common: &Common<'_>, path: PathSpecifier) -> Draft {
    let redirect = &common.config.globals.tls_redirect;
    let plain = Draft::new(path).only(has("x-forwarded-proto", MatchPattern::Exact("http".to_owned())));
    let exempt =
        redirect.exempt.iter().map(|path| has_not(":path", MatchPattern::Prefix(path::compared(path.as_str()))));
    exempt.fold(plain, Draft::only).redirects(redirect.code, common.config.listeners.public_https)
}

fn matched(path: &PathMatch) -> Option<PathSpecifier> {
    match path {
        PathMatch::Exact(path) => Some(path::exact(path.as_str())),
        PathMatch::Prefix(path) => Some(path::tree(path)),
        PathMatch::Regex(regex) => expression::foreign(regex).is_none().then(|| path::begins(regex)),
    }
}

fn protects(policies: &Policies) -> bool {
    let SourceRange { deny, allow } = &policies.source_range;
    !deny.is_empty() || !allow.is_empty()
}

fn forward(common: &Common<'_>, of: &Route, path: PathSpecifier, upstream: &UpstreamId) -> Draft {
    let Policies { body_size: largest, buffering, rate, redirect: _, retries, rewrite, source_range, timeouts } =
        &of.policies;
    // Where all agree the cluster says it.
    let agreed = common.uses.get(upstream).is_some_and(|used| used.retry.is_some());
    let retry = if agreed { RetryPolicy::default() } else { transfer::retry(retries) };
    let rewrite = match rewrite {
        Some(rewrite) if problems::rewrites(rewrite, &of.path) => Some(rewritten(rewrite, &of.path)),
        // What goes upstream would be another path than the one that was asked for.
        Some(_) => return Draft::new(path).answers(503, None),
        None => None,
    };
    let mut draft = Draft::new(path).forwards(Forward {
        cluster: upstream.to_string(),
        idle: transfer::idle(retries, timeouts),
        retry: transfer::silent(retry, timeouts),
        rewrite,
        words: transfer::repeats(retries).into_iter().collect(),
    });
    if *largest != common.body_size {
        draft.filters.insert(body_size::NAME, body_size::limit(*largest));
    }
    // Without buffering there is no limit; translation tells that.
    let limit = transfer::rate(*rate).filter(|_| buffering.responses);
    draft.filters.extend(limit.map(|limit| (filter::RATE, any(limit))));
    draft.filters.extend(access::rules(source_range).map(|rules| (filter::ACCESS, any(rules))));
    draft
}

fn rewritten(rewrite: &Rewrite, path: &PathMatch) -> RegexMatchAndSubstitute {
    let Rewrite { pattern, target } = rewrite;
    let pattern = match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => Literal(&path::sendable(path.as_str())).to_string(),
        PathMatch::Regex(_) => pattern.to_string(),
    };
    let piece = |piece: &RewritePiece| match piece {
        RewritePiece::Group(group) => format!("\\{group}"),
        RewritePiece::Text(text) => path::sendable(text),
    };
    route::rewrite(&pattern, target.pieces().iter().map(piece).collect())
}

/// The files of a ConfigMap. Whoever may not come learns nothing of what is there.
fn files(route: &Route, tree: PathSpecifier, content: &StaticFiles) -> Vec<Draft> {
    let mut drafts = vec![
        Draft::new(tree.clone()).only(has_not(":method", reading())).answers(405, None).with("allow", "GET, HEAD"),
    ];
    let guard = access::rules(&route.policies.source_range).map(any);
    for (path, file) in places(&route.path, content) {
        if guard.is_none() {
            drafts.push(
                Draft::new(path.clone())
                    .only(unchanged(file))
                    .answers(304, None)
                    .with("etag", &tag(file))
                    .without("location"),
            );
        }
        let mut draft = Draft::new(path).answers(200, Some(&file.content));
        draft = draft.with("content-type", &file.content_type).with("etag", &tag(file));
        draft.filters.extend(guard.clone().map(|guard| (filter::ACCESS, guard)));
        draft.filters.extend(transfer::rate(route.policies.rate).map(|rate| (filter::RATE, any(rate))));
        drafts.push(draft);
    }
    drafts.push(Draft::new(tree).answers(404, None));
    drafts
}

/// Where each file lies.
fn places<'a>(rule: &PathMatch, content: &'a StaticFiles) -> Vec<(PathSpecifier, &'a StaticFile)> {
    let index = content.files.get("index.html");
    match rule {
        PathMatch::Exact(path) => {
            let name = path.as_str().rsplit('/').next().unwrap_or_default();
            let file = if name.is_empty() { index } else { content.files.get(name) };
            file.into_iter().map(|file| (super::path::exact(path.as_str()), file)).collect()
        }
        PathMatch::Prefix(path) => {
            let tree = path.trimmed();
            let named = content.files.iter().map(|(name, file)| (format!("{tree}/{name}"), file));
            let of_index = index.into_iter().flat_map(|file| [(format!("{tree}/"), file), (tree.to_owned(), file)]);
            let all = named.chain(of_index).filter(|(path, _)| !path.is_empty());
            all.map(|(path, file)| (super::path::exact(&path), file)).collect()
        }
        PathMatch::Regex(regex) => {
            let named = content.files.iter().map(|(name, file)| (name.as_str(), file));
            let all = named.chain(index.map(|file| ("", file)));
            all.map(|(name, file)| (super::path::begins_then(regex, name), file)).collect()
        }
    }
}

fn reading() -> MatchPattern {
    MatchPattern::SafeRegex(regex("GET|HEAD"))
}

/// Requests of a client that has this very content.
fn unchanged(file: &StaticFile) -> HeaderMatcher {
    has("if-none-match", MatchPattern::SafeRegex(regex(format!(r"\*|.*{}.*", file.sha256))))
}

fn tag(file: &StaticFile) -> String {
    format!("\"{}\"", file.sha256)
}
