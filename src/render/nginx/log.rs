//! The access log: its format, and the variables that only we have.

use std::borrow::Cow;

use super::baseline::most_frequent;
use crate::annotations::logging::Logging;
use crate::model::{PathMatch, Route};
use crate::render::escape::Piece;
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
    const ALL: [Self; 6] = [
        Self::Namespace,
        Self::IngressName,
        Self::ServiceName,
        Self::ServicePort,
        Self::LocationPath,
        Self::ProxyUpstreamName,
    ];

    /// Its name, which is ingress-nginx's.
    fn name(self) -> &'static str {
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

/// Gives a variable a value.
pub(super) struct Set<'a> {
    pub name: &'static str,
    pub value: [Piece<'a>; 1],
}

/// The values of all variables for one route.
pub(super) type Values<'a> = Vec<Cow<'a, str>>;

/// The access log.
pub(super) struct Log<'a> {
    /// The format.
    pub format: Vec<Piece<'a>>,
    /// What the format asks for and only a route knows.
    variables: Vec<RouteVariable>,
}

impl<'a> Log<'a> {
    pub fn new(logging: &'a Logging) -> Self {
        let Logging { format, access_path: _, error_level: _ } = logging;
        let pieces = match format {
            Some(format) => format.pieces().iter().map(piece).collect(),
            None => default_pieces(),
        };
        let asks_for = |name| pieces.iter().any(|piece| matches!(piece, Piece::Variable(asked) if *asked == name));
        Self {
            variables: RouteVariable::ALL.into_iter().filter(|variable| asks_for(variable.name())).collect(),
            format: pieces,
        }
    }

    /// What the log may tell about a route.
    pub fn values<'r>(&self, route: &'r Route) -> Values<'r> {
        self.variables.iter().map(|variable| value(*variable, route)).collect()
    }

    /// What most routes of a server agree on.
    pub fn usual<'r>(&self, routes: &[Values<'r>]) -> Values<'r> {
        let one = |n: usize| most_frequent(routes.iter().map(|values| &values[n])).cloned().unwrap_or_default();
        (0..self.variables.len()).map(one).collect()
    }

    /// What the server sets: what its routes agree on. The default server names every variable, because nginx knows
    /// none that is set nowhere.
    pub fn of_server<'v>(&self, usual: &'v Values<'_>, is_default: bool) -> Vec<Set<'v>> {
        self.sets(usual).filter(|set| is_default || !set.is_empty()).collect()
    }

    /// What a location sets: what differs. Each directive in a location costs a reload more than any other.
    pub fn of_location<'v>(&self, values: &'v Values<'_>, usual: &Values<'_>) -> Vec<Set<'v>> {
        self.sets(values).zip(usual).filter(|(set, usual)| !set.is(usual)).map(|(set, _)| set).collect()
    }

    fn sets<'v>(&self, values: &'v Values<'_>) -> impl Iterator<Item = Set<'v>> {
        let set = |(variable, value): (&RouteVariable, &'v Cow<'_, str>)| Set {
            name: variable.name(),
            value: [Piece::Text(value)],
        };
        self.variables.iter().zip(values).map(set)
    }
}

impl Set<'_> {
    fn is_empty(&self) -> bool {
        self.is("")
    }

    fn is(&self, text: &str) -> bool {
        matches!(self.value, [Piece::Text(value)] if value == text)
    }
}

fn value(variable: RouteVariable, route: &Route) -> Cow<'_, str> {
    let object = route.source.as_ref().map(|source| &source.object);
    let namespace = object.and_then(|object| object.namespace.as_ref()).map_or("", |namespace| namespace.as_str());
    let backend = route.backend.as_ref();
    Cow::Borrowed(match variable {
        RouteVariable::Namespace => namespace,
        RouteVariable::IngressName => object.map_or("", |object| object.name.as_str()),
        RouteVariable::ServiceName => backend.map_or("", |backend| backend.service.as_str()),
        RouteVariable::ServicePort => backend.map_or("", |backend| backend.port.as_str()),
        RouteVariable::LocationPath => match &route.path {
            PathMatch::Exact(path) | PathMatch::Prefix(path) => path.as_str(),
            PathMatch::Regex(regex) => regex.as_str(),
        },
        RouteVariable::ProxyUpstreamName => {
            return backend.map_or(Cow::Borrowed(""), |backend| {
                Cow::Owned(format!("{namespace}-{}-{}", backend.service, backend.port))
            });
        }
    })
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
