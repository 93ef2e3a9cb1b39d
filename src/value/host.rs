//! Host names: of rules, of `tls` sections, of requests and of certificates.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::{Invalid, Value};

/// A DNS host name in lower case without a trailing dot: at most 253 characters, labels of `a-z 0-9 - _` of at most
/// 63, none of underscores alone.
///
/// Underscores are taken although the API refuses them in rules, because files and certificates have them.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Hostname(Arc<str>);

impl Hostname {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its first label: `foo.com` of `bar.foo.com`; `None` for a single label.
    pub fn parent(&self) -> Option<Self> {
        self.0.split_once('.').map(|(_, parent)| Self(parent.into()))
    }
}

impl Value for Hostname {
    const GRAMMAR: &'static str = "a DNS name of letters, digits, `-` and `.`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let upper = name.bytes().any(|b| b.is_ascii_uppercase());
        let name: Arc<str> = if upper { name.to_ascii_lowercase().into() } else { name.into() };
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().any(|b| b != b'_')
                && l.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        };
        if name.len() > 253 {
            Err(Invalid::new("is longer than 253 characters", Self::GRAMMAR))
        } else if name.split('.').all(label) {
            Ok(Self(name))
        } else {
            Err(Invalid::new("is not a host name", Self::GRAMMAR))
        }
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which requests a virtual host answers, by their `Host`. Ordered: exact names first, then wildcards, then all.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HostMatch {
    /// Exactly this name.
    Exact(Hostname),
    /// Exactly one more label before this name: `*.foo.com` holds `foo.com`, and takes `bar.foo.com` but neither
    /// `foo.com` nor `baz.bar.foo.com` (the Ingress specification).
    Wildcard(Hostname),
    /// Whatever no other virtual host takes.
    Any,
}

impl HostMatch {
    /// Whether a request for `host` belongs here, disregarding better matches elsewhere.
    pub fn covers(&self, host: &Hostname) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Wildcard(parent) => host.parent().as_ref() == Some(parent),
            Self::Any => true,
        }
    }
}

impl Value for HostMatch {
    const GRAMMAR: &'static str = "a DNS name, or `*.` and a DNS name";

    /// The empty text is every host. A port is refused: hosts of rules have none.
    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Ok(Self::Any);
        }
        if let Some((_, port)) = text.rsplit_once(':')
            && !port.is_empty()
            && port.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(Invalid::new("has a port", "a DNS name without a port (a rule holds for every port)"));
        }
        if text.parse::<std::net::IpAddr>().is_ok() {
            return Err(Invalid::new("is an IP address", "a DNS name"));
        }
        let parsed = match text.strip_prefix("*.") {
            Some(parent) => Hostname::parse(parent).map(Self::Wildcard),
            None => Hostname::parse(text).map(Self::Exact),
        };
        parsed.map_err(|invalid| Invalid { right: Self::GRAMMAR.into(), ..invalid })
    }
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
            Self::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_without_case_and_trailing_dot() {
        assert_eq!(HostMatch::parse("Foo.Bar.COM.").unwrap().to_string(), "foo.bar.com");
        assert_eq!(HostMatch::parse("*.Foo.com").unwrap().to_string(), "*.foo.com");
        assert_eq!(HostMatch::parse("").unwrap(), HostMatch::Any);
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        let wildcard = HostMatch::parse("*.foo.com").unwrap();
        for (host, covered) in [("bar.foo.com", true), ("baz.bar.foo.com", false), ("foo.com", false)] {
            assert_eq!(wildcard.covers(&Hostname::parse(host).unwrap()), covered, "{host}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused_with_the_reason() {
        let wrong = |text: &str| HostMatch::parse(text).unwrap_err().wrong.into_owned();
        assert_eq!(wrong("foo.com:80"), "has a port");
        assert_eq!(wrong("10.0.0.1"), "is an IP address");
        for bad in ["*", "a.*.b", "*foo.com", "a b", "a\nb", "a;b", "{", "-a.b", "a..b", ".", "_", "a.__"] {
            assert_eq!(wrong(bad), "is not a host name", "{bad:?}");
        }
        assert_eq!(wrong(&format!("{}.b", "a.".repeat(130))), "is longer than 253 characters");
    }
}
