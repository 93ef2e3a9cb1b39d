//! Where requests are sent to.

use std::fmt;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::annotations::load_balance::LoadBalance;
use crate::value::reference::{Name, ObjectName};
use crate::volume::{Endpoints, Protocol};

/// One port of a Service, spoken to in one protocol and balanced in one way.
///
/// Endpoints are live data: they reach the proxy through `live/endpoints` and never through a release.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Upstream {
    /// The Service.
    pub service: ObjectName,
    /// What the proxy speaks to it.
    pub protocol: Protocol,
    /// How requests are spread.
    pub load_balance: LoadBalance,
    /// Where its requests go at this moment.
    pub endpoints: Endpoints,
}

/// The name of an upstream: unique for Service, port, protocol and balancing, stable for ever, safe as a file name and
/// as a word of a configuration: `<8 to 31 hexadecimal digits>-<namespace>-<service>-<port>`, at most 200 characters.
///
/// It begins with a hash whose length is drawn from the hash, because nginx compares names of upstreams linearly, by
/// length first and then byte by byte (measured: 1.3 s instead of 5.3 s at 10 000).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct UpstreamId(Arc<str>);

impl UpstreamId {
    /// The name for one port (by its number in the Service, or by the text of the reference where there is none) of a Service.
    pub fn new(service: &ObjectName, port: &PortId, protocol: Protocol, load_balance: LoadBalance) -> Self {
        let mut hash = Sha256::new();
        let namespace = service.namespace.as_ref().map_or("", Name::as_str);
        let (protocol, load_balance) = (spoken(protocol), spread(load_balance));
        for part in [namespace, service.name.as_str(), &port.0, protocol, load_balance] {
            hash.update(part.len().to_be_bytes());
            hash.update(part.as_bytes());
        }
        let hash = hash.finalize();
        let hex = HEXLOWER.encode(&hash);
        // 64 bits at least, so that two names never agree in what the DNS label holds.
        let length = 16 + usize::from(hash[31] % 16);
        let mut id = format!("{}-{namespace}-{}-{}", &hex[..length], service.name, port.0);
        id.truncate(200);
        Self(id.into())
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash alone: unique too, and one label of a DNS name.
    pub fn label(&self) -> &str {
        self.0.split('-').next().unwrap_or(&self.0)
    }
}

/// The word for a protocol in an id. It may never change: the proxy hands addresses over by the name of an upstream.
fn spoken(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "Http",
        Protocol::Https => "Https",
        Protocol::Grpc => "Grpc",
        Protocol::Grpcs => "Grpcs",
    }
}

/// The word for a way of balancing in an id; see [`spoken`].
fn spread(load_balance: LoadBalance) -> &'static str {
    match load_balance {
        LoadBalance::RoundRobin => "RoundRobin",
        LoadBalance::Ewma => "Ewma",
    }
}

impl fmt::Display for UpstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identifies a port of a Service: letters, digits and `-` only.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PortId(String);

impl PortId {
    /// A port by number.
    pub fn number(port: u16) -> Self {
        Self(port.to_string())
    }

    /// A port by a name that the Service may not have.
    pub fn name(name: &crate::value::reference::PortName) -> Self {
        Self(name.as_str().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn id(service: &str, port: u16) -> UpstreamId {
        let service = ObjectName::parse(service).unwrap();
        UpstreamId::new(&service, &PortId::number(port), Protocol::Http, LoadBalance::RoundRobin)
    }

    #[test]
    fn names_that_would_collide_when_glued_together_differ() {
        assert_ne!(id("a-b/c", 80).label(), id("a/b-c", 80).label());
    }

    #[test]
    fn the_length_of_the_hash_varies() {
        let lengths: std::collections::BTreeSet<_> = (1..200).map(|p| id("a/b", p).label().len()).collect();
        assert_eq!(lengths.len(), 16);
        assert!(lengths.first() >= Some(&16) && lengths.last() <= Some(&31));
    }

    #[test]
    fn the_longest_names_stay_file_names() {
        let name = format!("{}/{}", "n".repeat(63), "s".repeat(63));
        assert!(id(&name, 65535).as_str().len() <= 200);
    }
}
