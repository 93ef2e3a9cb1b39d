//! What one Envoy was told of one kind: what it asked for, what it holds, what is on its way.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::kind::Kind;
use super::target::Target;

/// Subscribes to whatever there is.
const WILDCARD: &str = "*";

/// What Envoy was told of one kind.
#[derive(Debug, Default)]
pub struct Channel {
    /// Envoy has asked.
    pub open: bool,
    /// Envoy wants whatever there is.
    pub wildcard: bool,
    /// What it asked for by name.
    pub names: BTreeSet<String>,
    /// What Envoy holds, by name.
    pub held: BTreeMap<String, Held>,
    /// What may differ from what it shall hold.
    pub dirty: BTreeSet<String>,
    /// What it asked for and is to let go.
    pub evicted: BTreeSet<String>,
    /// The push that has not been answered yet.
    pub on_its_way: Option<Push>,
    /// Envoy waits for an answer, even an empty one.
    pub owed: bool,
}

/// A push that has not been answered yet.
#[derive(Debug)]
pub struct Push {
    /// By which Envoy answers it.
    pub nonce: u64,
    /// How often Envoy had been given something to hold by then.
    pub aim: u64,
    /// What is in it.
    pub names: Vec<String>,
}

/// What Envoy holds under one name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// Which one.
    pub version: Version,
    /// Envoy has said so.
    pub acknowledged: bool,
}

/// Which version of a resource Envoy holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Version {
    /// This one.
    Known(String),
    /// It refused this one; it may have taken it all the same, in part.
    Refused(String),
    /// It must be told again.
    Stale,
}

impl Channel {
    /// The first message about a kind says what Envoy holds from a former stream.
    pub fn begin(&mut self, kind: Kind, request: &DeltaDiscoveryRequest, target: &Target) {
        let versions = request.initial_resource_versions.iter();
        self.held = versions
            .map(|(name, version)| {
                (name.clone(), Held { version: Version::Known(version.clone()), acknowledged: true })
            })
            .collect();
        self.wildcard = kind.is_wildcard() && request.resource_names_subscribe.is_empty();
        self.owed = self.held.is_empty() && kind.is_wildcard();
        self.dirty.extend(self.held.keys().cloned());
        self.dirty.extend(target.names(kind).cloned());
    }

    /// Envoy asks for a name; whether in its first message, which says what it holds.
    pub fn subscribe(&mut self, name: String, first: bool) {
        if name == WILDCARD {
            self.wildcard = true;
            return;
        }
        self.evicted.remove(&name);
        if !first {
            // It may have forgotten what it held: whoever asks is answered.
            self.held.remove(&name);
        }
        self.dirty.insert(name.clone());
        self.names.insert(name);
    }

    /// Envoy does not want a name any more.
    pub fn forget(&mut self, name: &str) {
        if name == WILDCARD {
            self.wildcard = false;
        }
        self.names.remove(name);
        self.held.remove(name);
        self.dirty.remove(name);
    }

    /// An answer to a push. Envoy's words and the push, if it refuses it.
    pub fn answered(&mut self, nonce: &str, words: Option<String>) -> Option<(String, Push)> {
        let push = self.on_its_way.take_if(|push| push.nonce.to_string() == nonce)?;
        for name in &push.names {
            let Some(held) = self.held.get_mut(name) else { continue };
            match (&words, &held.version) {
                (Some(_), Version::Known(version)) => held.version = Version::Refused(version.clone()),
                (_, Version::Known(_) | Version::Refused(_)) => {}
                // It is to be told again, and that is what will be acknowledged.
                (_, Version::Stale) => continue,
            }
            held.acknowledged = true;
        }
        words.map(|words| (words, push))
    }

    /// Whether Envoy asked for this kind and has answered everything.
    pub fn may_push(&self) -> bool {
        self.open && self.on_its_way.is_none()
    }

    /// Whether Envoy asked for this name.
    pub fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Whether Envoy holds something else under this name.
    pub fn differs(&self, name: &str, version: &str) -> bool {
        match self.held.get(name).map(|held| &held.version) {
            Some(Version::Known(held) | Version::Refused(held)) => held != version,
            Some(Version::Stale) | None => true,
        }
    }

    /// This is on its way to Envoy.
    pub fn hold(&mut self, name: &str, version: &str) {
        self.held.insert(name.to_owned(), Held { version: Version::Known(version.to_owned()), acknowledged: false });
    }
}
