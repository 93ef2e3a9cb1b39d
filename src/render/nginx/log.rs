//! The access log: its format, and what sets the variables that only we have.

use std::borrow::Cow;

use crate::annotations::logging::Logging;
use crate::model::Route;
use crate::render::baseline::most_frequent;
use crate::render::escape::Piece;
use crate::render::log::{RouteVariable, pieces};

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
        let Logging { format: _, access_path: _, error_level: _ } = logging;
        let format = pieces(logging);
        Self { variables: RouteVariable::asked_for(&format), format }
    }

    /// What the log may tell about a route.
    pub fn values<'r>(&self, route: &'r Route) -> Values<'r> {
        self.variables.iter().map(|variable| variable.value(route)).collect()
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
