//! `load-balance`: how requests are spread over the endpoints. Becomes part of the upstream.

use std::fmt;

use serde::Serialize;

use super::spec::{Case, Key, Spec};
use super::{IngressPolicies, Reader};
use crate::problem::Reason;
use crate::value::{Invalid, Value};

/// How requests are spread over the endpoints of an upstream.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalance {
    /// In turn.
    #[default]
    RoundRobin,
    /// To the less busy of two drawn by lot: what `ewma` was for.
    Ewma,
}

impl fmt::Display for LoadBalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RoundRobin => "round_robin",
            Self::Ewma => "ewma",
        })
    }
}

impl Value for LoadBalance {
    const GRAMMAR: &'static str = "`round_robin` or `ewma`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "round_robin" => Ok(Self::RoundRobin),
            "ewma" => Ok(Self::Ewma),
            _ => Err(Invalid::new("is no way of balancing here", Self::GRAMMAR)),
        }
    }
}

static LOAD_BALANCE: Key = Key {
    name: "load-balance",
    settings: &["load-balance"],
    grammar: LoadBalance::GRAMMAR,
    default: "round_robin",
    doc: "How requests are spread over the endpoints of a Service: in turn, or (`ewma`) to the less busy of two that \
          are drawn by lot.",
    ..Key::UPSTREAM
};

static SPEC: Spec = Spec {
    title: "Load balancing",
    keys: &[&LOAD_BALANCE],
    cases: &[
        Case::good("endpoints of unequal strength", &[("load-balance", "ewma")]),
        Case::bad("a way that is none", &[("load-balance", "least_conn")], Reason::InvalidValue),
    ],
};

/// The family.
pub struct Family;

impl super::Family for Family {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn read(&self, from: &mut Reader<'_>, into: &mut IngressPolicies) {
        from.set(&LOAD_BALANCE, &mut into.load_balance);
    }
}
