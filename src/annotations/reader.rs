//! The one way from the text of a key to a value.
//!
//! Values are read layer by layer, from the weakest to the strongest: global ConfigMap, parameters of the class,
//! annotations of the Ingress, annotations of the Service. Each layer overwrites what it says and leaves the rest, so
//! that a value which cannot be used leaves in force what the weaker layers say. A [`Reader`] is one layer of one
//! object: it marks what is used, tells what is wrong, and at the end tells about what nobody used.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::leftovers;
use super::spec::{Key, OnInvalid, Scope};
use crate::problem::{Problem, Reason, Severity, Subject};
use crate::value::{Invalid, Value, shown};

/// Where the texts of a [`Reader`] stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Layer<'a> {
    /// Annotations of a Service, with our prefix.
    Service {
        /// Our prefix, without the slash.
        prefix: &'a str,
    },
    /// Annotations of an Ingress, with our prefix.
    Ingress {
        /// Our prefix, without the slash.
        prefix: &'a str,
    },
    /// The ConfigMap with the parameters of a class.
    Class,
    /// The global ConfigMap.
    ConfigMap,
}

impl Layer<'_> {
    /// The names under which a key counts here, in the order in which they count; none where it is out of place.
    pub(super) fn names(self, key: &Key) -> impl Iterator<Item = &'static str> {
        let (annotations, settings) = match self {
            Self::Service { .. } => (key.scope == Scope::Upstream, false),
            Self::Ingress { .. } => (key.scope != Scope::Global, false),
            Self::Class => (key.scope != Scope::Global, key.scope != Scope::Global),
            Self::ConfigMap => (false, true),
        };
        let annotations = annotations.then(|| key.annotations());
        let settings = settings.then(|| key.in_config_map());
        annotations.into_iter().flatten().chain(settings.into_iter().flatten())
    }

    /// Which routes are closed when something that protects cannot be honoured here.
    fn closed(self) -> &'static str {
        match self {
            Self::Service { .. } => "every route to the Service answers 503",
            Self::Ingress { .. } => "every route of the Ingress answers 503",
            Self::Class => "every route of the class answers 503",
            Self::ConfigMap => "every route answers 503",
        }
    }
}

/// One layer of one object: the only way to a value.
#[derive(Debug)]
pub struct Reader<'a> {
    layer: Layer<'a>,
    subject: &'a Subject,
    entries: Vec<Entry<'a>>,
    problems: &'a mut Vec<Problem>,
    denied: BTreeSet<&'static str>,
    honoured: BTreeSet<&'static str>,
}

#[derive(Debug)]
struct Entry<'a> {
    name: &'a str,
    text: &'a str,
    used: bool,
}

impl<'a> Reader<'a> {
    /// Takes the entries of `map` that belong to the layer: those with our prefix, or all of a ConfigMap.
    pub fn new(
        layer: Layer<'a>,
        subject: &'a Subject,
        map: Option<&'a BTreeMap<String, String>>,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        let name = |key: &'a str| match layer {
            Layer::Service { prefix } | Layer::Ingress { prefix } => {
                key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/'))
            }
            Layer::Class | Layer::ConfigMap => Some(key),
        };
        let entries = map.into_iter().flatten();
        let entries = entries.filter_map(|(key, text)| Some(Entry { name: name(key)?, text, used: false })).collect();
        Self { layer, subject, entries, problems, denied: BTreeSet::new(), honoured: BTreeSet::new() }
    }

    /// Whether the layer says nothing at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the layer says anything of `key`, usable or not.
    pub fn says(&self, key: &Key) -> bool {
        let mut names = self.layer.names(key);
        names.any(|name| self.entries.iter().any(|entry| entry.name == name && !entry.text.is_empty()))
    }

    /// Overwrites `slot` with what the layer says of `key`, if it says something usable.
    pub fn set<T: Value + Display>(&mut self, key: &'static Key, slot: &mut T) {
        self.set_if(key, slot, |_| true);
    }

    /// Like [`Self::set`], for values that must lie in a range too.
    pub fn set_if<T: Value + Display>(&mut self, key: &'static Key, slot: &mut T, good: impl FnOnce(&T) -> bool) {
        let parsed = self.parse(key, &*slot, |text| {
            let value = T::parse(text)?;
            if good(&value) { Ok(value) } else { Err(Invalid::new("is out of range", key.grammar)) }
        });
        if let Some(value) = parsed {
            *slot = value;
        }
    }

    /// What the layer says of `key`, if it says something usable. Otherwise `instead` stays in force.
    pub fn value<T: Value>(&mut self, key: &'static Key, instead: impl Display) -> Option<T> {
        self.parse(key, instead, T::parse)
    }

    /// The primitive below the others: the text of `key` goes through `parse`, and an error is told.
    pub fn parse<T>(
        &mut self,
        key: &'static Key,
        instead: impl Display,
        parse: impl FnOnce(&str) -> Result<T, Invalid>,
    ) -> Option<T> {
        let (name, text) = self.take(key)?;
        match parse(text.trim_matches([' ', '\t', '\r', '\n'])) {
            Ok(value) => {
                if key.on_invalid == OnInvalid::Deny {
                    self.honoured.insert(key.name);
                }
                Some(value)
            }
            Err(invalid) => {
                self.tell_invalid(key, name, text, &invalid, instead);
                None
            }
        }
    }

    /// Tells that `key`, which has a usable value, does not do what its author wants, and what happens to traffic instead.
    /// `wrong` ends a sentence that begins with the name of the key.
    pub fn refuse(&mut self, key: &'static Key, (severity, reason): (Severity, Reason), wrong: &str, effect: &str) {
        let message = format!("{} {wrong}", key.name);
        let field = self.field(key.name);
        self.tell(field, severity, reason, message, effect.to_owned());
    }

    /// Ends the layer: tells about every entry that nobody used, and returns what is denied now, given what the weaker
    /// layers denied.
    pub fn finish(mut self, denied: &mut BTreeSet<&'static str>) {
        for entry in std::mem::take(&mut self.entries).into_iter().filter(|entry| !entry.used) {
            let Some(found) = leftovers::explain(self.layer, entry.name, entry.text) else { continue };
            let effect = match found.protects {
                Some(key) => {
                    self.denied.insert(key);
                    self.layer.closed()
                }
                None => found.effect,
            };
            let severity = if found.protects.is_some() { Severity::Rejected } else { found.severity };
            let field = self.field(entry.name);
            self.tell(field, severity, found.reason, found.message, effect.to_owned());
        }
        denied.retain(|key| !self.honoured.contains(key));
        denied.append(&mut self.denied);
    }

    /// The text that counts for `key`, with the name it stands under. All names of the key are used from here on.
    fn take(&mut self, key: &'static Key) -> Option<(&'static str, &'a str)> {
        if self.entries.is_empty() {
            return None;
        }
        let (mut counts, mut empty): (Option<(&'static str, &'a str)>, _) = (None, None);
        for name in self.layer.names(key) {
            let Some(entry) = self.entries.iter_mut().find(|entry| entry.name == name) else { continue };
            if std::mem::replace(&mut entry.used, true) {
                continue;
            }
            let text = entry.text;
            match counts {
                None if text.is_empty() => empty = empty.or(Some((name, text))),
                None => counts = Some((name, text)),
                Some(_) if text.is_empty() => {}
                Some((first, _)) => {
                    let message = format!("{name} means the same as {first}, which is given too");
                    let field = self.field(name);
                    self.tell(field, Severity::Notice, Reason::OutOfPlace, message, format!("{first} counts"));
                }
            }
        }
        let annotation = matches!(self.layer, Layer::Service { .. } | Layer::Ingress { .. });
        counts.or(empty.filter(|_| annotation && key.on_invalid == OnInvalid::Deny))
    }

    fn tell_invalid(&mut self, key: &'static Key, name: &str, text: &str, invalid: &Invalid, instead: impl Display) {
        let message = format!("{name}: {} {}; it must be {}", shown(text), invalid.wrong, key.grammar);
        let (severity, reason, effect) = match key.on_invalid {
            OnInvalid::Ignore => (Severity::Degraded, Reason::InvalidValue, format!("using {instead}")),
            OnInvalid::Deny => {
                self.denied.insert(key.name);
                (Severity::Rejected, Reason::ProtectionFailed, self.layer.closed().to_owned())
            }
        };
        let field = self.field(name);
        self.tell(field, severity, reason, message, effect);
    }

    fn tell(&mut self, field: String, severity: Severity, reason: Reason, message: String, effect: String) {
        self.problems.push(Problem { subject: self.subject.clone(), field, severity, reason, message, effect });
    }

    /// Where an entry stands, as `kubectl explain` would write it. Names that nobody knows are anybody's text.
    fn field(&self, name: &str) -> String {
        let plain = name.len() <= 100 && name.bytes().all(|b| b.is_ascii_graphic());
        let name = if plain { name.to_owned() } else { shown(name) };
        match self.layer {
            Layer::Service { prefix } | Layer::Ingress { prefix } => format!("metadata.annotations[{prefix}/{name}]"),
            Layer::Class | Layer::ConfigMap => format!("data[{name}]"),
        }
    }
}
