//! Leadership on a real Lease.

use std::time::Duration;

use coxswain::status::leader::{Leadership, Options};
use tokio::sync::watch;

use crate::support::apiserver::ApiServer;
use crate::support::wait::eventually;

use super::namespace;

async fn candidate(server: &ApiServer, identity: &str) -> Leadership {
    let options = Options {
        namespace: "own".to_owned(),
        lease: "coxswain-leader".to_owned(),
        identity: identity.to_owned(),
        ttl: Duration::from_secs(6),
    };
    Leadership::compete(server.config().await, options).expect("a candidate")
}

async fn becomes(state: &watch::Receiver<bool>, leads: bool) {
    let what = if leads { "leads" } else { "leads no more" };
    eventually(what, async || if *state.borrow() == leads { Ok(()) } else { Err("not yet".to_owned()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_leads_and_hands_over_when_it_stops_or_dies() {
    let Some(server) = ApiServer::start() else { return };
    server.apply(&namespace("own"));
    let first = candidate(&server, "first").await;
    becomes(&first.state(), true).await;
    let second = candidate(&server, "second").await;
    // It was asked and said no: the Lease names the first one still.
    let holder = || server.object("lease", "own", "coxswain-leader")["spec"]["holderIdentity"].clone();
    assert_eq!(holder(), "first");
    assert!(!*second.state().borrow());
    first.release().await;
    becomes(&second.state(), true).await;
    assert_eq!(holder(), "second");

    // Dies without a word: its Lease runs out.
    let third = candidate(&server, "third").await;
    drop(second);
    becomes(&third.state(), true).await;
    assert_eq!(holder(), "third");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_renew_is_none_and_leads_again_when_it_can() {
    let Some(server) = ApiServer::start() else { return };
    server.apply(&namespace("own"));
    let only = candidate(&server, "only").await;
    becomes(&only.state(), true).await;
    server.interrupt();
    becomes(&only.state(), false).await;
    server.resume();
    becomes(&only.state(), true).await;
}
