//! What every access log has in common: ingress-nginx's format, and the variables that tell about a route.

use std::borrow::Cow;

use super::escape::Piece;
use crate::annotations::logging::Logging;
use crate::model::{PathMatch, Route};
use crate::value::log::LogPiece;

/// ingress-nginx's format, which log readers in the field expect.
const DEFAULT: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
    \"$http_referer\" \"$http_user_agent\" $request_length $request_time [$proxy_upstream_name] \
    [$proxy_alternative_upstream_name] $upstream_addr $upstream_response_length $upstream_response_time \
    $upstream_status $req_id";

/// A variable that tells about the route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RouteVariable {
    Namespace,
    IngressName,
    ServiceName,
    ServicePort,
    LocationPath,
    ProxyUpstreamName,
}

impl RouteVariable {
    pub const ALL: [Self; 6] = [
        Self::Namespace,
        Self::IngressName,
        Self::ServiceName,
        Self::ServicePort,
        Self::LocationPath,
        Self::ProxyUpstreamName,
    ];

    /// Its name, which is ingress-nginx's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::IngressName => "ingress_name",
            Self::ServiceName => "service_name",
            Self::ServicePort => "service_port",
            Self::LocationPath => "location_path",
            Self::ProxyUpstreamName => "proxy_upstream_name",
        }
    }

    /// Those that a format asks for.
    pub fn asked_for(format: &[Piece<'_>]) -> Vec<Self> {
        let asks = |name| format.iter().any(|piece| matches!(piece, Piece::Variable(asked) if *asked == name));
        Self::ALL.into_iter().filter(|variable| asks(variable.name())).collect()
    }

    /// What it says about a route.
    pub fn value(self, route: &Route) -> Cow<'_, str> {
        let object = route.source.as_ref().map(|source| &source.object);
        let namespace = object.and_then(|object| object.namespace.as_ref()).map_or("", |namespace| namespace.as_str());
        let backend = route.backend.as_ref();
        Cow::Borrowed(match self {
            Self::Namespace => namespace,
            Self::IngressName => object.map_or("", |object| object.name.as_str()),
            Self::ServiceName => backend.map_or("", |backend| backend.service.as_str()),
            Self::ServicePort => backend.map_or("", |backend| backend.port.as_str()),
            Self::LocationPath => match &route.path {
                PathMatch::Exact(path) | PathMatch::Prefix(path) => path.as_str(),
                PathMatch::Regex(regex) => regex.as_str(),
            },
            Self::ProxyUpstreamName => {
                return backend.map_or(Cow::Borrowed(""), |backend| {
                    Cow::Owned(format!("{namespace}-{}-{}", backend.service, backend.port))
                });
            }
        })
    }
}

/// The format in pieces.
pub(super) fn pieces(logging: &Logging) -> Vec<Piece<'_>> {
    match &logging.format {
        Some(format) => format.pieces().iter().map(piece).collect(),
        None => default_pieces(),
    }
}

fn piece(piece: &LogPiece) -> Piece<'_> {
    match piece {
        LogPiece::Text(text) => Piece::Text(text),
        LogPiece::Variable(name) => Piece::Variable(name),
    }
}

fn default_pieces() -> Vec<Piece<'static>> {
    let mut pieces = Vec::new();
    for part in DEFAULT.split('$').skip(1) {
        let end = part.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(part.len());
        pieces.push(Piece::Variable(&part[..end]));
        if end < part.len() {
            pieces.push(Piece::Text(&part[end..]));
        }
    }
    pieces
}
