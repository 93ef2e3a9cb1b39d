//! Which clients may come.

use envoy_types::pb::envoy::config::rbac::v3::permission::Rule;
use envoy_types::pb::envoy::config::rbac::v3::principal::{Identifier, Set};
use envoy_types::pb::envoy::config::rbac::v3::rbac::Action;
use envoy_types::pb::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac as Rules};
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::{Rbac, RbacPerRoute};

use super::make::network;
use crate::annotations::source_range::SourceRange;
use crate::value::cidr::Cidr;

/// The rules of a route; `None`: everybody may come.
pub(super) fn rules(range: &SourceRange) -> Option<RbacPerRoute> {
    let SourceRange { deny, allow } = range;
    let denied = (!deny.is_empty()).then(|| Identifier::NotId(Box::new(any_of(deny))));
    let allowed = (!allow.is_empty()).then(|| any_of(allow));
    let mut ids: Vec<_> = denied.map(principal).into_iter().chain(allowed).collect();
    let who = match (ids.pop(), ids.pop()) {
        (None, _) => return None,
        (Some(one), None) => one,
        (Some(one), Some(other)) => principal(Identifier::AndIds(Set { ids: vec![other, one] })),
    };
    let policy = Policy {
        permissions: vec![Permission { rule: Some(Rule::Any(true)) }],
        principals: vec![who],
        ..Policy::default()
    };
    let rules =
        Rules { action: Action::Allow.into(), policies: [("clients".to_owned(), policy)].into(), ..Rules::default() };
    Some(RbacPerRoute { rbac: Some(Rbac { rules: Some(rules), ..Rbac::default() }) })
}

fn any_of(networks: &[Cidr]) -> Principal {
    let ids = networks.iter().map(|cidr| principal(Identifier::RemoteIp(network(cidr)))).collect();
    principal(Identifier::OrIds(Set { ids }))
}

fn principal(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}
