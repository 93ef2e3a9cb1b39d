//! The same test through each proxy: what a request is answered with must not depend on which one answers.
//!
//! Where it does all the same, and for a reason, is listed here once, in [`DIFFERENCES`]. A test that differs as a whole
//! must fail through Envoy: an entry whose reason has gone is found by the test that passes.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

use coxswain::volume::ProxyKind;
use futures::FutureExt;

use super::parts;

/// What may differ.
pub struct Difference {
    /// The whole test that fails through Envoy, or the name by which [`either`] is told.
    pub what: &'static str,
    /// What nginx does, and somebody relies on.
    pub requirement: &'static str,
    /// Why Envoy does not.
    pub reason: &'static str,
}

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        what: "the size of an answer's headers",
        requirement: "proxy-buffer-size: an answer whose headers do not fit is an error (502)",
        reason: "Envoy's limit holds for a whole cluster and is not a buffer that an Ingress could size; it lets more through, which harms nobody",
    },
    Difference {
        what: "what comes before limit-rate-after",
        requirement: "limit-rate-after: so much of an answer comes at full speed",
        reason: "Envoy's filter for the rate of answers begins with their first byte; the problem that is told names the proxy",
    },
    Difference {
        what: "errors of gRPC calls",
        requirement: "a call that cannot be forwarded is answered with HTTP 503",
        reason: "Envoy answers as gRPC prescribes, with HTTP 200 and grpc-status UNAVAILABLE, which clients understand at least as well",
    },
    Difference {
        what: "the size of one header",
        requirement: "large-client-header-buffers: one header fits into one buffer",
        reason: "Envoy knows one limit for all headers together, which is the size of all buffers together",
    },
    Difference {
        what: "headers that are too large",
        requirement: "headers beyond the limit are a bad request (400)",
        reason: "Envoy answers 431, which says more precisely what is wrong",
    },
    Difference {
        what: "the header that ends a connection to an endpoint",
        requirement: "upstream-keepalive-connections of 0: each request to an endpoint says `Connection: close`",
        reason: "Envoy closes the connection by itself after one request and does not say so before",
    },
    Difference {
        what: "the version in the server header",
        requirement: "server-tokens: the header tells the proxy's version",
        reason: "Envoy knows no such command for that header, and the renderer does not know which version will run",
    },
];

tokio::task_local! {
    static PROXY: ProxyKind;
}

/// The proxy that this test runs through: nginx, unless it was declared with `through_each_proxy!`.
pub fn of_this_test() -> ProxyKind {
    PROXY.try_with(|proxy| *proxy).unwrap_or_default()
}

/// The executable of a proxy, or `None` after the reason has been printed.
pub fn executable(proxy: ProxyKind) -> Option<PathBuf> {
    parts::part(&proxy.to_string(), &proxy.to_string())
}

/// What is expected of the proxy of this test, where the two differ by the entry `what`.
pub fn either<T: PartialEq + std::fmt::Debug>(what: &str, nginx: T, envoy: T) -> T {
    assert!(DIFFERENCES.iter().any(|difference| difference.what == what), "{what:?} is no listed difference");
    assert_ne!(nginx, envoy, "{what:?} is no difference");
    match of_this_test() {
        ProxyKind::Nginx => nginx,
        ProxyKind::Envoy => envoy,
    }
}

/// Runs a test through a proxy. Where it is listed as a difference, it must fail.
pub async fn through(proxy: ProxyKind, name: &str, test: impl Future<Output = ()>) {
    let difference = DIFFERENCES.iter().find(|difference| difference.what == name);
    let Some(difference) = difference.filter(|_| proxy == ProxyKind::Envoy) else {
        return PROXY.scope(proxy, test).await;
    };
    if executable(proxy).is_none() {
        return;
    }
    let outcome = AssertUnwindSafe(PROXY.scope(proxy, test)).catch_unwind().await;
    assert!(
        outcome.is_err(),
        "{name} passes through Envoy: take it off the list of differences ({})",
        difference.requirement
    );
}

/// Declares a test of this name through each proxy.
macro_rules! through_each_proxy {
    ($test:ident) => {
        mod $test {
            use coxswain::volume::ProxyKind;

            use crate::support::proxies::through;

            #[tokio::test(flavor = "multi_thread")]
            async fn nginx() {
                through(ProxyKind::Nginx, stringify!($test), super::$test()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn envoy() {
                through(ProxyKind::Envoy, stringify!($test), super::$test()).await;
            }
        }
    };
}

pub(crate) use through_each_proxy;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_has_a_requirement_a_reason_and_a_test_that_needs_it() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/traffic");
        let files = std::fs::read_dir(folder).unwrap().flatten();
        let text: String = files.map(|file| std::fs::read_to_string(file.path()).unwrap()).collect();
        for Difference { what, requirement, reason } in DIFFERENCES {
            assert!(!requirement.is_empty() && !reason.is_empty(), "{what}");
            let used =
                text.contains(&format!("either({what:?}")) || text.contains(&format!("through_each_proxy!({what})"));
            assert!(used, "no test needs {what:?}: take it off the list");
        }
    }
}
