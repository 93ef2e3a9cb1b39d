//! What `render` and `check` begin with: the objects, the flags and the time.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::ensure;

use super::flags::Common;
use crate::settings::Flags;
use crate::snapshot::Snapshot;
use crate::watch::{files, generated_certificate};

/// What `render` and `check` begin with.
pub struct Input {
    /// All objects, and the certificate made for now.
    pub snapshot: Snapshot,
    /// What decides what an Ingress means.
    pub flags: Flags,
    /// Seconds since 1970.
    pub now: i64,
}

impl Input {
    /// Reads the files of `-f`.
    pub fn read(common: &Common) -> anyhow::Result<Self> {
        ensure!(!common.files.is_empty(), "a cluster cannot be read yet; name files or folders with objects: -f PATH");
        common.check_paths()?;
        let mut snapshot = files::load(&common.files);
        snapshot.generated_certificate = Some(Arc::new(generated_certificate()?));
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        Ok(Self { snapshot, flags: common.flags(), now })
    }
}
