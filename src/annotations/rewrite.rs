//! `rewrite-target` and `use-regex`: the path that goes upstream, and paths as regular expressions.

use serde::Serialize;

use crate::value::regex::Regex;
use crate::value::rewrite::RewriteTarget;

/// How the path of a request is replaced before it goes upstream; the query stays.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Rewrite {
    /// What the path is matched with (from the start, in either case): groups feed `$1`… of the target. For a literal path, the
    /// path itself, quoted.
    pub pattern: Regex,
    /// The new path.
    pub target: RewriteTarget,
}
