//! What an Ingress says, one rule after the other: the hosts that it names, and the places in it.

use k8s_openapi::api::networking::v1::HTTPIngressPath;

use super::ingresses::Ours;
use super::tls::Section;
use crate::problem::{Problem, Reason};
use crate::value::host::HostMatch;
use crate::value::{Value as _, shown};

/// A host that an Ingress names, with what it says of it.
pub struct Named<'a> {
    /// The host.
    pub host: HostMatch,
    /// Who names it.
    pub by: &'a Ours<'a>,
    /// Its TLS section.
    pub tls: Option<&'a Section<'a>>,
    /// The number of the rule.
    pub rule: usize,
    /// The paths of the rule.
    pub paths: &'a [HTTPIngressPath],
}

/// The hosts of the rules of an Ingress; all hosts, where it has no rules but a default backend.
pub fn hosts<'a>(ingress: &'a Ours<'a>, tls: Option<&'a Section<'a>>, problems: &mut Vec<Problem>) -> Vec<Named<'a>> {
    let rules = ingress.spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() {
        return vec![Named { host: HostMatch::Any, by: ingress, tls, rule: 0, paths: &[] }];
    }
    let mut named = Vec::with_capacity(rules.len());
    for (number, rule) in rules.iter().enumerate() {
        let text = rule.host.as_deref().unwrap_or_default();
        match HostMatch::parse(text) {
            Ok(host) => {
                let paths = rule.http.as_ref().map_or(&[][..], |http| &http.paths);
                named.push(Named { host, by: ingress, tls, rule: number, paths });
            }
            Err(invalid) => {
                let field = format!("spec.rules[{number}].host");
                let message = format!("host {} {invalid}", shown(text));
                problems.push(ingress.subject.rejected(Reason::InvalidHost, field, message, "the rule is not served"));
            }
        }
    }
    named
}

/// Where in an Ingress something stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// `spec.defaultBackend`.
    Default,
    /// A path of a rule, both by number.
    Path(usize, usize),
}

impl Place {
    /// A field of the path.
    pub fn field(self, below: &str) -> String {
        match self {
            Self::Default => format!("spec.defaultBackend{below}"),
            Self::Path(rule, path) => format!("spec.rules[{rule}].http.paths[{path}]{below}"),
        }
    }

    /// A field of its backend.
    pub fn backend(self, below: &str) -> String {
        match self {
            Self::Default => self.field(below),
            Self::Path(..) => self.field(&format!(".backend{below}")),
        }
    }
}
