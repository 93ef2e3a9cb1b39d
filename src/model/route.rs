//! A route: requests of a path, and what becomes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::annotations::Policies;
use crate::problem::Subject;
use crate::value::path::RulePath;
use crate::value::reference::{Name, ObjectName};
use crate::value::regex::Regex;

use super::UpstreamId;

/// Requests of a path, and what becomes of them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Route {
    /// Which requests of the host.
    pub path: PathMatch,
    /// What becomes of them.
    pub action: Action,
    /// Send plain-HTTP requests to https first, except below `Globals::tls_redirect.exempt`.
    pub redirect_to_https: bool,
    /// What the annotations say.
    pub policies: Policies,
    /// The backend as the object names it, for logs and metrics; `None` where there is none.
    pub backend: Option<BackendName>,
    /// The object this comes from; `None` for what the controller adds itself (the final 404).
    pub source: Option<Subject>,
}

/// Service and port as an Ingress names them, for logs and metrics.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct BackendName {
    /// The Service.
    pub service: Name,
    /// Its port: number or name.
    pub port: String,
}

/// How the path of a request is compared: decoded once, case-sensitively unless said otherwise.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// The whole path, with or without its trailing slash as written.
    Exact(RulePath),
    /// Element by element; a trailing slash of the rule does not count: `/foo/` takes `/foo`, `/foo/` and `/foo/bar`.
    Prefix(RulePath),
    /// From the beginning of the path, in either case, open at the end (ingress-nginx's `use-regex`).
    Regex(Regex),
}

/// What becomes of a request.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Sent to an endpoint of this upstream; without any, 503.
    Forward(UpstreamId),
    /// Answered from files (a ConfigMap as resource backend).
    Files(StaticFiles),
    /// Answered with this status and the proxy's own page: 404 without a backend, 503 for what cannot be honoured.
    Respond(u16),
}

/// The content of a ConfigMap, served as files. GET and HEAD only, else 405.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct StaticFiles {
    /// The ConfigMap.
    pub object: ObjectName,
    /// The files by the rest of the path after the rule's path (Exact: its last element). `index.html` answers the
    /// empty rest too. Whatever is not here is a 404.
    pub files: BTreeMap<String, StaticFile>,
}

/// One file of a ConfigMap.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct StaticFile {
    /// SHA-256 of the content in hexadecimal digits: its name in `live/files`, and its ETag.
    pub sha256: String,
    /// The media type by the key's extension.
    pub content_type: String,
    /// The content.
    #[serde(skip)]
    pub content: Arc<[u8]>,
}
