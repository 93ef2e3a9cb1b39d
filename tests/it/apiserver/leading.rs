//! Leadership on a real Lease.

use std::time::Duration;

use coxswain::status::leader::{Leadership, Options};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, Patch, PatchParams};
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

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_clock_is_ten_seconds_off_keeps_the_lease_and_leaves_it() {
    let Some(server) = ApiServer::start() else { return };
    server.apply(&namespace("own"));
    tokio::join!(beside_a_clock(&server, "behind", -10), beside_a_clock(&server, "ahead", 10));
}

/// Competes with a peer whose clock is so many seconds off, and which dies after a while.
async fn beside_a_clock(server: &ApiServer, peer: &str, off: i64) {
    let leases: Api<Lease> = Api::namespaced(server.client().await, "own");
    // The time to live that is the default; renewed after a third.
    let ttl = Duration::from_secs(30);
    let renew = async || {
        let now = k8s_openapi::jiff::Timestamp::now() + k8s_openapi::jiff::SignedDuration::from_secs(off);
        let patch = serde_json::json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": peer},
            "spec": {"holderIdentity": peer, "renewTime": MicroTime(now), "leaseDurationSeconds": ttl.as_secs()},
        });
        leases.patch(peer, &PatchParams::apply(peer).force(), &Patch::Apply(patch)).await.expect("written");
    };
    renew().await;
    let options = Options { namespace: "own".to_owned(), lease: peer.to_owned(), identity: "ours".to_owned(), ttl };
    let ours = Leadership::compete(server.config().await, options).expect("a candidate");
    let mut renewals = tokio::time::interval(ttl / 3);
    for _ in 0..4 {
        renewals.tick().await;
        assert!(!*ours.state().borrow(), "the clock of the leader is {peer}, and it renews in time");
        renew().await;
    }
    assert_eq!(server.object("lease", "own", peer)["spec"]["holderIdentity"], peer);
    // It dies: its Lease ends by our clock.
    becomes(&ours.state(), true).await;
}
