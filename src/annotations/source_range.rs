//! `allowlist-source-range`, `denylist-source-range`: which clients may come. Protects: what cannot be honoured closes.

use serde::Serialize;

use crate::value::cidr::Cidr;

/// Which clients may come; the others are answered with 403. Denials come first.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct SourceRange {
    /// These may not.
    pub deny: Vec<Cidr>,
    /// Only these may, unless empty: then all.
    pub allow: Vec<Cidr>,
}
