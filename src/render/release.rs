//! A release: files, and their name.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::volume::{Digest, Manifest, release};

/// The name of a file below the folder of a release.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct RelativePath(&'static str);

impl RelativePath {
    /// What the proxy is started with.
    pub const MAIN: Self = Self(release::MAIN);
    /// What is worth testing before a reload.
    pub const CHANGED: Self = Self(release::CHANGED);
    /// What Envoy is started with; in a trial, all that Envoy's own test is to read.
    pub const BOOTSTRAP: Self = Self(release::BOOTSTRAP);
    /// The slot of each name, for Envoy.
    pub const CERTIFICATES: Self = Self(release::CERTIFICATES);
    /// Envoy's clusters.
    pub const CLUSTERS: Self = Self(release::CLUSTERS);
    /// Envoy's listeners.
    pub const LISTENERS: Self = Self(release::LISTENERS);
    /// Envoy's table of routes.
    pub const ROUTES: Self = Self(release::ROUTES);

    /// The name.
    pub fn as_str(&self) -> &str {
        self.0
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A file of a release.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct File {
    /// Its permissions.
    pub mode: u32,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl File {
    /// A file that everybody may read.
    pub fn public(content: impl Into<Vec<u8>>) -> Self {
        Self { mode: 0o644, bytes: content.into() }
    }
}

/// What is published, whole and for good.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Release {
    /// The files that the digest is over.
    pub files: BTreeMap<RelativePath, File>,
    /// The name: equal content has an equal name, whatever it was derived from.
    pub digest: Digest,
    /// `changed.conf`, which depends on what was in force before and so stands outside the digest; `None` without an
    /// accepted release before.
    pub changed: Option<File>,
    /// `release.json`. Its settings for the agent are part of the digest, or a change of nothing else would publish
    /// nothing.
    pub manifest: Manifest,
}

impl Release {
    pub(super) fn new(files: BTreeMap<RelativePath, File>, changed: Option<File>, manifest: Manifest) -> Self {
        Self { digest: digest(&files, &manifest), files, changed, manifest }
    }
}

fn digest(files: &BTreeMap<RelativePath, File>, manifest: &Manifest) -> Digest {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update(bytes.len().to_be_bytes());
        hash.update(bytes);
    };
    for (path, file) in files {
        part(path.as_str().as_bytes());
        part(&file.bytes);
    }
    // The base is history, and what a release refers to stands in its files.
    let Manifest {
        proxy,
        base: _,
        upstreams: _,
        slots: _,
        files: _,
        error_log_level,
        worker_shutdown_timeout,
        workers,
        access_log,
    } = manifest;
    part(proxy.to_string().as_bytes());
    part(error_log_level.as_str().as_bytes());
    part(&worker_shutdown_timeout.to_be_bytes());
    part(&workers.unwrap_or_default().to_be_bytes());
    part(access_log.as_deref().unwrap_or_default().as_bytes());
    let text: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let Some(digest) = Digest::parse(&text) else { unreachable!("SHA-256 has 64 hexadecimal digits") };
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::LogLevel;

    #[test]
    fn the_digest_is_over_names_and_content() {
        let one = |path, text: &str| BTreeMap::from([(path, File::public(text.to_owned()))]);
        let digests = [
            digest(&one(RelativePath::MAIN, "a"), &Manifest::empty()),
            digest(&one(RelativePath::MAIN, "b"), &Manifest::empty()),
            digest(&one(RelativePath::CHANGED, "a"), &Manifest::empty()),
        ];
        assert_eq!(digests[0], digest(&one(RelativePath::MAIN, "a"), &Manifest::empty()));
        assert!(digests[0] != digests[1] && digests[0] != digests[2] && digests[1] != digests[2]);
    }

    #[test]
    fn what_only_the_agent_is_told_is_a_release_of_its_own_and_history_is_not() {
        let digest = |manifest: Manifest| digest(&BTreeMap::new(), &manifest);
        let plain = digest(Manifest::empty());
        assert_ne!(digest(Manifest { error_log_level: LogLevel::Debug, ..Manifest::empty() }), plain);
        assert_ne!(digest(Manifest { worker_shutdown_timeout: 241, ..Manifest::empty() }), plain);
        assert_ne!(digest(Manifest { workers: Some(2), ..Manifest::empty() }), plain);
        assert_ne!(digest(Manifest { access_log: Some("/x".to_owned()), ..Manifest::empty() }), plain);
        assert_eq!(digest(Manifest { base: Some(plain.clone()), ..Manifest::empty() }), plain);
    }
}
