//! Networks.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::{Invalid, Value};

/// A network, or a single address, with the bits of the host cleared.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Cidr(IpNet);

impl Cidr {
    /// The network.
    pub fn network(&self) -> IpNet {
        self.0
    }
}

impl Value for Cidr {
    const GRAMMAR: &'static str = "an IP address or a network such as `10.0.0.0/8`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(|net| Self(net.trunc())).map_err(|_| Invalid::new("is not a network", Self::GRAMMAR))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            write!(f, "{}", self.0.addr())
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// Networks, separated by commas.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Cidrs(pub Vec<Cidr>);

impl Value for Cidrs {
    const GRAMMAR: &'static str = "IP addresses or networks such as `10.0.0.0/8`, separated by commas";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let one = |item: &str| {
            Cidr::parse(item.trim()).map_err(|_| {
                Invalid::new(format!("has {}, which is no network", super::shown(item.trim())), Self::GRAMMAR)
            })
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_normalised_and_bad_items_named() {
        let list = Cidrs::parse("10.1.2.3/8, 192.168.0.1,2001:db8::1/32").unwrap();
        let shown: Vec<_> = list.0.iter().map(Cidr::to_string).collect();
        assert_eq!(shown, ["10.0.0.0/8", "192.168.0.1", "2001:db8::/32"]);
        let wrong = Cidrs::parse("10.0.0.0/8,10.0.0.0/33").unwrap_err().wrong;
        assert_eq!(wrong, r#"has "10.0.0.0/33", which is no network"#);
        assert!(Cidrs::parse("").is_err() && Cidrs::parse("10.0.0.0/8,").is_err());
    }
}
