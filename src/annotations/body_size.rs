//! `proxy-body-size`: the largest request body.

use serde::Serialize;

use crate::value::size::Size;

/// The largest request body; larger ones are answered with 413. A size of 0: no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct BodySize(pub Size);

impl Default for BodySize {
    fn default() -> Self {
        Self(Size::bytes(1 << 20))
    }
}
