//! What a family says about itself: its keys, their documentation, and examples.
//!
//! The reference (`coxswain annotations`), the reader and the tests all work from this one description.

use crate::problem::Reason;

/// A family of keys.
#[derive(Debug)]
pub struct Spec {
    /// What the family is about: the heading of its part of the reference.
    pub title: &'static str,
    /// Its keys, in the order of the reference.
    pub keys: &'static [&'static Key],
    /// Examples, good and bad. Each key stands in one of either kind at least.
    pub cases: &'static [Case],
}

/// One thing that can be set.
#[derive(Debug)]
pub struct Key {
    /// The name: of the annotation, or for [`Scope::Global`] of the key in the ConfigMap.
    pub name: &'static str,
    /// Further names of the annotation. They count only where `name` is absent or empty.
    pub aliases: &'static [&'static str],
    /// The names of the key in the global ConfigMap that gives the default of the annotation; the first is the
    /// documented one. Empty: there is none.
    pub settings: &'static [&'static str],
    /// What a value looks like, as the end of a sentence that begins with `it must be`.
    pub grammar: &'static str,
    /// The value in force without any; empty: none.
    pub default: &'static str,
    /// What it holds for.
    pub scope: Scope,
    /// How much harm a value could do in the hands of the wrong author (ingress-nginx's classes).
    pub risk: Risk,
    /// The first version of coxswain that has it.
    pub since: &'static str,
    /// What it does to traffic, in full sentences.
    pub doc: &'static str,
    /// What becomes of a value that cannot be used.
    pub on_invalid: OnInvalid,
}

impl Key {
    /// What most annotations of a route have in common.
    pub const ROUTE: Self = Self {
        name: "",
        aliases: &[],
        settings: &[],
        grammar: "",
        default: "",
        scope: Scope::Route,
        risk: Risk::Low,
        since: "0.1",
        doc: "",
        on_invalid: OnInvalid::Ignore,
    };

    /// What most annotations that concern the way to the endpoints have in common.
    pub const UPSTREAM: Self = Self { scope: Scope::Upstream, ..Self::ROUTE };

    /// What most keys of the global ConfigMap have in common.
    pub const GLOBAL: Self = Self { scope: Scope::Global, ..Self::ROUTE };

    /// The names of the annotation, in the order in which they count; none for [`Scope::Global`].
    pub fn annotations(&self) -> impl Iterator<Item = &'static str> {
        let name = (self.scope != Scope::Global).then_some(self.name);
        name.into_iter().chain(self.aliases.iter().copied())
    }

    /// The names in the global ConfigMap, in the order in which they count.
    pub fn in_config_map(&self) -> impl Iterator<Item = &'static str> {
        let name = (self.scope == Scope::Global).then_some(self.name);
        name.into_iter().chain(self.settings.iter().copied())
    }
}

/// What a key holds for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Each route of the Ingress.
    Route,
    /// The host of each route of the Ingress, whoever else has routes there: the oldest Ingress wins.
    VirtualHost,
    /// The way to the endpoints of a Service: may stand on the Service too, and then counts first.
    Upstream,
    /// The whole proxy: only in the global ConfigMap.
    Global,
}

impl Scope {
    /// The word in the reference.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::VirtualHost => "host",
            Self::Upstream => "upstream",
            Self::Global => "global",
        }
    }
}

/// How much harm a value could do in the hands of the wrong author.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Risk {
    /// It concerns its own Ingress only.
    Low,
    /// It may reach other objects of its namespace, or the clients of its host.
    Medium,
    /// It may reach beyond its namespace.
    High,
    /// It is text of the proxy's configuration.
    Critical,
}

impl Risk {
    /// The word in the reference.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What becomes of a value that cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnInvalid {
    /// What would be in force without it stays in force, and the author is told.
    Ignore,
    /// It protects: the routes answer 503 until it is put right. An empty annotation counts as unusable, not as absent.
    Deny,
}

/// An example: in the reference, and tested.
#[derive(Debug)]
pub struct Case {
    /// What the example shows.
    pub name: &'static str,
    /// Keys and values. They are keys of the global ConfigMap when the first of them is one of scope
    /// [`Scope::Global`], else annotations of an Ingress.
    pub entries: &'static [(&'static str, &'static str)],
    /// What becomes of it.
    pub expect: Expect,
}

impl Case {
    /// An example that is taken as it is.
    pub const fn good(name: &'static str, entries: &'static [(&'static str, &'static str)]) -> Self {
        Self { name, entries, expect: Expect::Accepted }
    }

    /// An example that is told to be wrong.
    pub const fn bad(name: &'static str, entries: &'static [(&'static str, &'static str)], reason: Reason) -> Self {
        Self { name, entries, expect: Expect::Told(reason) }
    }
}

/// What becomes of an example.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expect {
    /// It is in force, and nobody is told anything.
    Accepted,
    /// Its author is told, for this reason.
    Told(Reason),
}
