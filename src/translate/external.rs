//! The names of ExternalName Services: which ones the agent may look up.
//!
//! What such a name leads to is checked with each answer, by the agent; here only names are refused that cannot lead
//! anywhere else than to the proxy itself, or that are no names.

use crate::value::host::Hostname;
use crate::value::{Value as _, shown};

/// Names by which machines call themselves, whatever domain follows.
const SELF: &[&str] = &["localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback", "loopback"];

/// The name to look up, or what is wrong with it. A trailing dot stays: it keeps the search list out.
pub fn host(text: &str) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("externalName {} {what}; it must be a DNS name", shown(text)));
    if text.is_empty() {
        return wrong("is empty");
    }
    let Ok(name) = Hostname::parse(text) else { return wrong("is not a host name") };
    let mut labels = name.as_str().rsplit('.');
    let (last, first) = (labels.next().unwrap_or_default(), name.as_str().split('.').next().unwrap_or_default());
    // What ends in a number is read as an IPv4 address by more than one library, in decimal, octal or hexadecimal.
    let hexadecimal = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if last.bytes().all(|b| b.is_ascii_digit()) || hexadecimal {
        return wrong("is an IP address");
    }
    if SELF.contains(&first) || last == "localhost" || last == "localdomain" {
        return wrong("means the proxy itself");
    }
    Ok(if text.ends_with('.') { format!("{name}.") } else { name.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_taken_and_our_own_are_not() {
        for (text, expected) in [
            ("example.com", Some("example.com")),
            ("Example.com.", Some("example.com.")),
            ("db.other-namespace", Some("db.other-namespace")),
            ("backend", Some("backend")),
            ("my_host.example", Some("my_host.example")),
            ("localhost", None),
            ("LocalHost.", None),
            ("x.localhost", None),
            ("localhost.localdomain", None),
            ("localhost.example.com", None),
            ("ip6-loopback", None),
            ("127.0.0.1", None),
            ("2130706433", None),
            ("0x7f000001", None),
            ("127.1", None),
            ("foo.0x1", None),
            ("::1", None),
            ("[::1]", None),
            ("", None),
            (".", None),
            ("a b", None),
            ("a\nb", None),
            ("*.example.com", None),
        ] {
            assert_eq!(host(text).ok().as_deref(), expected, "{text:?}");
        }
        assert_eq!(host("10.0.0.1").unwrap_err(), "externalName \"10.0.0.1\" is an IP address; it must be a DNS name");
    }
}
