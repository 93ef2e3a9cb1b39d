//! The access log: its format, and the variables that only we have.

use crate::annotations::logging::Logging;
use crate::render::escape::Piece;
use crate::value::log::LogPiece;

/// ingress-nginx's format, which log readers in the field expect.
const DEFAULT: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
    \"$http_referer\" \"$http_user_agent\" $request_length $request_time [$proxy_upstream_name] \
    [$proxy_alternative_upstream_name] $upstream_addr $upstream_response_length $upstream_response_time \
    $upstream_status $req_id";

/// A variable that tells about the route. It is set in each location, and only where the format asks for it: each one
/// costs a reload a few per cent.
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
    const ALL: [Self; 6] = [
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
}

/// The access log.
pub(super) struct Log<'a> {
    /// The format.
    pub format: Vec<Piece<'a>>,
    /// What each location has to set.
    pub variables: Vec<RouteVariable>,
    /// The file; `None`: the agent says where.
    pub path: Option<&'a str>,
}

impl<'a> Log<'a> {
    pub fn new(logging: &'a Logging) -> Self {
        let Logging { format, access_path, error_level: _ } = logging;
        let pieces = match format {
            Some(format) => format.pieces().iter().map(piece).collect(),
            None => default_pieces(),
        };
        let asks_for = |name| pieces.iter().any(|piece| matches!(piece, Piece::Variable(asked) if *asked == name));
        Self {
            variables: RouteVariable::ALL.into_iter().filter(|variable| asks_for(variable.name())).collect(),
            format: pieces,
            path: access_path.as_ref().map(|path| path.as_str()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;
    use crate::value::log::LogFormat;

    #[test]
    fn only_what_the_format_asks_for_is_set() {
        assert_eq!(Log::new(&Logging::default()).variables, [RouteVariable::ProxyUpstreamName]);
        let format = Some(LogFormat::parse("$status ${ingress_name} $namespace").unwrap());
        let logging = Logging { format, ..Logging::default() };
        assert_eq!(Log::new(&logging).variables, [RouteVariable::Namespace, RouteVariable::IngressName]);
    }
}
