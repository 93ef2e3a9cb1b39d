//! `load-balance`: how requests are spread over the endpoints. Becomes part of the upstream.

use serde::Serialize;

/// How requests are spread over the endpoints of an upstream.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalance {
    /// In turn.
    #[default]
    RoundRobin,
    /// To the less busy of two drawn by lot: what `ewma` was for.
    Ewma,
}
