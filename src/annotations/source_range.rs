//! `allowlist-source-range`, `denylist-source-range`, `block-cidrs`: which clients may come. Protects: what cannot be honoured closes.

use serde::Serialize;

use super::spec::{Case, Key, OnInvalid, Risk, Spec};
use super::{IngressPolicies, Reader};
use crate::problem::Reason;
use crate::value::cidr::{Cidr, Cidrs};

/// Which clients may come; the others are answered with 403. Denials come first.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct SourceRange {
    /// These may not.
    pub deny: Vec<Cidr>,
    /// Only these may, unless empty: then all.
    pub allow: Vec<Cidr>,
}

static ALLOW: Key = Key {
    name: "allowlist-source-range",
    aliases: &["whitelist-source-range"],
    settings: &["whitelist-source-range", "allowlist-source-range"],
    grammar: "IP addresses or networks such as `10.0.0.0/8`, separated by commas",
    risk: Risk::Medium,
    doc: "Only clients from these networks may come; others are answered with 403.",
    on_invalid: OnInvalid::Deny,
    ..Key::ROUTE
};

static DENY: Key = Key {
    name: "denylist-source-range",
    settings: &["denylist-source-range"],
    grammar: "IP addresses or networks such as `10.0.0.0/8`, separated by commas",
    risk: Risk::Medium,
    doc: "Clients from these networks may not come, whatever the allowlist says; they are answered with 403.",
    on_invalid: OnInvalid::Deny,
    ..Key::ROUTE
};

static BLOCK: Key = Key {
    name: "block-cidrs",
    grammar: "IP addresses or networks such as `10.0.0.0/8`, separated by commas",
    doc: "Clients from these networks may not come, besides those of `denylist-source-range`; they are answered with 403. \
          An Ingress or class with a denylist of its own has that in the place of both.",
    on_invalid: OnInvalid::Deny,
    ..Key::GLOBAL
};

static SPEC: Spec = Spec {
    title: "Source ranges",
    keys: &[&ALLOW, &DENY, &BLOCK],
    cases: &[
        Case::good("the own network", &[("allowlist-source-range", "10.0.0.0/8, 2001:db8::/32")]),
        Case::good("under its old name", &[("whitelist-source-range", "192.0.2.7")]),
        Case::bad("no network", &[("allowlist-source-range", "10.0.0.0/8,10.0.0.256")], Reason::ProtectionFailed),
        Case::bad("empty", &[("allowlist-source-range", "")], Reason::ProtectionFailed),
        Case::good("a nuisance", &[("denylist-source-range", "198.51.100.0/24")]),
        Case::good("a nuisance to all", &[("block-cidrs", "198.51.100.7, 2001:db8:bad::/48")]),
        Case::bad("no network to block", &[("block-cidrs", "198.51.100.0/33")], Reason::ProtectionFailed),
        Case::bad("a name", &[("denylist-source-range", "office.example.com")], Reason::ProtectionFailed),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read(&self, from: &mut Reader<'_>, into: &mut IngressPolicies) {
        let range = &mut into.policies.source_range;
        // What follows a list that cannot be read does not matter: the reader closes the routes.
        for (key, list) in [(&ALLOW, &mut range.allow), (&DENY, &mut range.deny)] {
            if let Some(Cidrs(networks)) = from.value(key, "none") {
                *list = networks;
            }
        }
        if let Some(Cidrs(networks)) = from.value(&BLOCK, "none") {
            range.deny.extend(networks);
        }
    }
}
