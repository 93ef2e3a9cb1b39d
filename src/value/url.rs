//! Absolute addresses on the web.

use std::fmt;

use serde::Serialize;

use super::host::Hostname;
use super::{Invalid, Value};

/// An `http` or `https` address: a host name or IP address, a port if need be, and a path, query and fragment of the
/// characters that stand for themselves there. No `$`, no user name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Url(String);

impl Url {
    /// The address as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Url {
    const GRAMMAR: &'static str = "an address that begins with `http://` or `https://`, of at most 1000 characters";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = |wrong: &'static str| Invalid::new(wrong, Self::GRAMMAR);
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let rest = rest.ok_or_else(|| wrong("does not begin with `http://` or `https://`"))?;
        if text.len() > 1000 {
            return Err(wrong("is longer than 1000 characters"));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if !is_authority(authority) {
            return Err(wrong("has no host that can be one"));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!&'()*+,;=%".contains(&b);
        if rest.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(wrong("has a character that is not taken there"))
        }
    }
}

fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok());
    let v6 = |host: &str| {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
    };
    port && (v6(host) || Hostname::parse(host).is_ok())
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_whole() {
        for good in [
            "https://example.com",
            "http://example.com:8080/a/b?c=d&e=%20#f",
            "https://10.0.0.1/",
            "https://[2001:db8::1]:443/x",
            "http://example.com?q",
        ] {
            assert_eq!(Url::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "/a",
            "//example.com",
            "ftp://example.com",
            "https://",
            "https://user@example.com/",
            "https://exa mple.com",
            "https://example.com/$host",
            "https://example.com/\"",
            "https://example.com/;}\n",
            "https://example.com:99999/",
            "https://example.com:/",
            "https://[::1/",
            "https://example.com\\@evil.example/",
            "javascript:alert(1)",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }
}
