//! Paths as nginx matches them: each route becomes one location or a few.
//!
//! nginx takes exact locations first, then the longest prefix unless a regular expression fits, and of those the first.
//! A host without a regex route therefore has exact and prefix locations alone; in a host with one, everything but
//! exact paths becomes a regular expression, in the model's order. Of two locations for the same requests the earlier
//! route has its own, because nginx refuses to have both.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use crate::model::{Action, PathMatch, Route, StaticFile, StaticFiles};
use crate::render::escape::Literal;
use crate::render::site::Site;
use crate::value::path::RulePath;
use crate::value::regex::Regex;

/// What a location of nginx matches.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Matcher<'a> {
    /// This path.
    Exact(Cow<'a, str>),
    /// All that is below this path, which has no slash at its end.
    Below(&'a str),
    /// Whatever nothing else matches.
    Rest,
    /// This path, in the order of regular expressions.
    Whole(Cow<'a, str>),
    /// This path and all below it, in the order of regular expressions.
    Tree(&'a str),
    /// What begins like this, in either case.
    Regex(&'a Regex),
    /// What begins like this, in either case, followed by exactly this name.
    RegexThen(&'a Regex, &'a str),
}

impl Matcher<'_> {
    /// The word between `location` and the pattern; empty for none.
    pub fn modifier(&self) -> &'static str {
        match self {
            Self::Exact(_) => "=",
            Self::Below(_) => "^~",
            Self::Rest => "",
            Self::Whole(_) | Self::Tree(_) | Self::RegexThen(..) => "~",
            Self::Regex(_) => "~*",
        }
    }
}

/// The pattern. `\z` and not `$`, which also matches before a line break at the end.
impl fmt::Display for Matcher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Below(path) => write!(f, "{path}/"),
            Self::Rest => f.write_str("/"),
            Self::Whole(path) => write!(f, r"^{}\z", Literal(path)),
            Self::Tree(path) => write!(f, r"^{}(?:/|\z)", Literal(path)),
            Self::Regex(regex) => write!(f, "^(?:{regex})"),
            Self::RegexThen(regex, name) => write!(f, r"^(?i:{regex})/?{}\z", Literal(name)),
        }
    }
}

/// What a location answers with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Content<'a> {
    /// What the route says.
    Route,
    /// One file of the route.
    File(&'a StaticFile),
    /// None of the route's files is there.
    NoFile,
}

/// A location of nginx.
pub(super) struct Location<'a> {
    pub matcher: Matcher<'a>,
    pub route: &'a Route,
    pub content: Content<'a>,
}

/// The locations of a site, in the order in which nginx must read them. `reserved` paths are taken already.
pub(super) fn all<'a>(site: &Site<'a>, reserved: &'static [&'static str]) -> Vec<Location<'a>> {
    let mut locations = Locations {
        // Of the whole host, so that a part of it behaves as in the whole.
        by_regex: site.host.has_regex(),
        taken: reserved.iter().map(|path| Matcher::Exact(Cow::Borrowed(*path))).collect(),
        list: Vec::with_capacity(site.routes.len() * 2),
    };
    for route in &site.routes {
        match &route.action {
            Action::Files(files) => locations.files(route, files),
            Action::Forward(_) | Action::Respond(_) => locations.route(route),
        }
    }
    if !locations.by_regex {
        locations.without_slash(&site.routes);
    }
    locations.list
}

struct Locations<'a> {
    by_regex: bool,
    taken: BTreeSet<Matcher<'a>>,
    list: Vec<Location<'a>>,
}

impl<'a> Locations<'a> {
    fn route(&mut self, route: &'a Route) {
        match &route.path {
            PathMatch::Exact(path) => self.one(Cow::Borrowed(path.as_str()), route, Content::Route),
            PathMatch::Prefix(path) => self.tree(path, route, Content::Route),
            PathMatch::Regex(regex) => self.push(Matcher::Regex(regex), route, Content::Route),
        }
    }

    fn files(&mut self, route: &'a Route, files: &'a StaticFiles) {
        let names = || files.files.iter().map(|(name, file)| (name.as_str(), Content::File(file)));
        let index = || index(files).map(Content::File);
        match &route.path {
            PathMatch::Exact(path) => {
                let content = file_of(files, path.as_str().rsplit('/').next().unwrap_or_default());
                self.one(Cow::Borrowed(path.as_str()), route, content);
            }
            PathMatch::Prefix(path) => {
                let tree = path.trimmed();
                for (name, file) in names() {
                    self.one(Cow::Owned(format!("{tree}/{name}")), route, file);
                }
                if let Some(index) = index() {
                    self.one(Cow::Owned(format!("{tree}/")), route, index);
                    if !tree.is_empty() {
                        self.one(Cow::Borrowed(tree), route, index);
                    }
                }
                self.tree(path, route, Content::NoFile);
            }
            PathMatch::Regex(regex) => {
                for (name, file) in names().chain(index().map(|file| ("", file))) {
                    self.push(Matcher::RegexThen(regex, name), route, file);
                }
                self.push(Matcher::Regex(regex), route, Content::NoFile);
            }
        }
    }

    /// A single path.
    fn one(&mut self, path: Cow<'a, str>, route: &'a Route, content: Content<'a>) {
        // A rule's own exact path comes before every regular expression, as in nginx; a file has the rank of its tree.
        // And `= /p/` with a `proxy_pass` would redirect `/p` to itself, which is some other route's.
        let exact = matches!(route.path, PathMatch::Exact(_)) && (path == "/" || !path.ends_with('/'));
        let matcher = if exact || !self.by_regex { Matcher::Exact(path) } else { Matcher::Whole(path) };
        self.push(matcher, route, content);
    }

    /// A path and all below it.
    fn tree(&mut self, path: &'a RulePath, route: &'a Route, content: Content<'a>) {
        let path = path.trimmed();
        if path.is_empty() {
            self.push(Matcher::Rest, route, content);
        } else if self.by_regex {
            self.push(Matcher::Tree(path), route, content);
        } else {
            self.push(Matcher::Exact(Cow::Borrowed(path)), route, content);
            self.push(Matcher::Below(path), route, content);
        }
    }

    /// nginx answers `/p` with a redirect to `/p/` where it has a location `= /p/` with a `proxy_pass`. By the rules `/p`
    /// belongs to whatever route matches it next.
    fn without_slash(&mut self, routes: &[&'a Route]) {
        for route in routes {
            let PathMatch::Exact(path) = &route.path else { continue };
            if path.as_str() == path.trimmed() || path.trimmed().is_empty() {
                continue;
            }
            if let Some(next) = routes.iter().find(|route| takes(&route.path, path.trimmed())) {
                self.push(Matcher::Exact(Cow::Borrowed(path.trimmed())), next, content(next, path.trimmed()));
            }
        }
    }

    fn push(&mut self, matcher: Matcher<'a>, route: &'a Route, content: Content<'a>) {
        if self.taken.insert(matcher.clone()) {
            self.list.push(Location { matcher, route, content });
        }
    }
}

/// Whether a literal path takes a request for `path`.
fn takes(rule: &PathMatch, path: &str) -> bool {
    match rule {
        PathMatch::Exact(rule) => rule.as_str() == path,
        PathMatch::Prefix(rule) => {
            path.strip_prefix(rule.trimmed()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatch::Regex(_) => false,
    }
}

/// What a route that takes a request for `path` answers with.
fn content<'a>(route: &'a Route, path: &str) -> Content<'a> {
    match (&route.action, &route.path) {
        (Action::Files(files), PathMatch::Prefix(rule)) => {
            let rest = path.strip_prefix(rule.trimmed()).unwrap_or_default();
            file_of(files, rest.strip_prefix('/').unwrap_or(rest))
        }
        (Action::Files(files), _) => file_of(files, path.rsplit('/').next().unwrap_or_default()),
        (Action::Forward(_) | Action::Respond(_), _) => Content::Route,
    }
}

fn file_of<'a>(files: &'a StaticFiles, name: &str) -> Content<'a> {
    let file = if name.is_empty() { index(files) } else { files.files.get(name) };
    file.map_or(Content::NoFile, Content::File)
}

fn index(files: &StaticFiles) -> Option<&StaticFile> {
    files.files.get("index.html")
}
