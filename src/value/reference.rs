//! Names of Kubernetes objects, and references to them.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::{Invalid, Value};

/// A DNS-1123 subdomain, the name of most kinds of object: at most 253 of `a-z 0-9 - .`, each part beginning and ending
/// with a letter or digit. Namespaces and Services are stricter in the API; this is what the rest relies on, for
/// comments and file names. Cheap to clone: one object's name stands in everything that comes from it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Name {
    const GRAMMAR: &'static str = "a DNS name of lower-case letters, digits, `-` and `.`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let part = |p: &str| {
            let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            let b = p.as_bytes();
            edge(b.first()) && edge(b.last()) && b.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        };
        if text.len() <= 253 && text.split('.').all(part) {
            Ok(Self(text.into()))
        } else {
            Err(Invalid::new("is not a name of an object", Self::GRAMMAR))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Namespace and name of an object. `namespace` is `None` for cluster-scoped kinds. Prints as `namespace/name`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ObjectName {
    /// The namespace; `None` for kinds that have none.
    pub namespace: Option<Name>,
    /// The name.
    pub name: Name,
}

impl ObjectName {
    /// A namespaced object.
    pub fn new(namespace: Name, name: Name) -> Self {
        Self { namespace: Some(namespace), name }
    }

    /// A cluster-scoped object.
    pub fn cluster(name: Name) -> Self {
        Self { namespace: None, name }
    }

    /// Another object of the same namespace.
    pub fn sibling(&self, name: Name) -> Self {
        Self { namespace: self.namespace.clone(), name }
    }
}

impl Value for ObjectName {
    const GRAMMAR: &'static str = "`namespace/name`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("does not name an object", Self::GRAMMAR);
        let (namespace, name) = text.split_once('/').ok_or_else(wrong)?;
        Ok(Self::new(Name::parse(namespace).map_err(|_| wrong())?, Name::parse(name).map_err(|_| wrong())?))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

/// A name of a Service port (IANA_SVC_NAME): at most 63 of `a-z A-Z 0-9 -`. Longer than the API's 15, because files may
/// say what they want and the limit protects nothing.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct PortName(String);

impl PortName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for PortName {
    const GRAMMAR: &'static str = "a name of letters, digits and `-`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let good = (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if good { Ok(Self(text.to_owned())) } else { Err(Invalid::new("is not a name of a port", Self::GRAMMAR)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_subdomains() {
        for good in ["a", "web-1", "a.b-c.d9"] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "-a", "a-", "a..b", "a/b", "a\n", "a{", "ä", "a b", &"a".repeat(254)] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn object_names_have_two_parts() {
        assert_eq!(ObjectName::parse("shop/web").unwrap().to_string(), "shop/web");
        for bad in ["web", "a/b/c", "/web", "shop/", "shop/We"] {
            assert!(ObjectName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
