//! Releases and what changes without one: what is pushed, and that nobody notices.

use coxswain::volume::Outcome;
use futures::{SinkExt, StreamExt};
use nix::sys::signal::{Signal, kill};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::fixture::{Release, answers, held, serving, stat, updates};
use crate::agent::fixture::Sidecar;
use crate::support::wait::check;
use crate::support::{Client, Pod, eventually, net};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_release_is_awaited_served_and_reported() {
    let Some(mut sidecar) = Sidecar::envoy().await else { return };
    sidecar.start();
    sidecar.readiness_is(503, "waiting for the first release").await;
    let first = sidecar.publish(&Release::saying("one"));
    let report = sidecar.accepts(&first).await;
    assert_eq!((report.attempt, report.message.as_str()), (1, ""));
    assert!(report.timings.reload > 0);
    sidecar.becomes_ready().await;
    assert_eq!(sidecar.get().await.unwrap(), "one");
    let info = sidecar.proxy_info().unwrap();
    assert_eq!((info.kind.to_string().as_str(), info.generations), ("envoy", vec![first]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_pushes_what_differs_and_loses_no_request() {
    let Some((sidecar, _)) = serving(&Release::saying("one").cluster("a").cluster("b")).await else { return };
    let before = updates(&sidecar).await;
    let traffic = sidecar.traffic();
    traffic.goes_on(20).await;
    for (n, text) in ["two", "three", "four"].into_iter().enumerate() {
        let next = sidecar.publish(&Release::saying(text).cluster("a").cluster("b"));
        sidecar.accepts(&next).await;
        assert_eq!(sidecar.get().await.unwrap(), text);
        let now = updates(&sidecar).await;
        assert_eq!((now.clusters, now.listeners), (before.clusters, before.listeners));
        assert_eq!(now.routes, before.routes + n as u64 + 1);
    }
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_changes_is_one_resource_and_nothing_else() {
    let Some(mut sidecar) = Sidecar::envoy().await else { return };
    let port = net::port();
    let (one, two) = (Pod::start("one", port).await, Pod::start("two", port).await);
    sidecar.endpoints("shop-web", &[]);
    sidecar.endpoints("other", &[one.address]);
    let release = sidecar.publish(&Release::to("shop-web").cluster("other"));
    sidecar.start();
    sidecar.accepts(&release).await;
    sidecar.becomes_ready().await;
    answers(&sidecar, 503).await;
    assert_eq!(sidecar.proxy_info().unwrap().answered, (2, 2));

    let before = updates(&sidecar).await;
    let others = stat(&sidecar, "cluster.other.update_success").await;
    sidecar.endpoints("shop-web", &[one.address]);
    answers(&sidecar, 200).await;
    let traffic = sidecar.traffic();
    traffic.goes_on(20).await;
    for pod in [&two, &one, &two] {
        sidecar.endpoints("shop-web", &[pod.address]);
        let answered = pod.answered();
        eventually("requests at the new pod", async || check(pod.answered() > answered + 5, || "none".to_owned()))
            .await;
    }
    traffic.lost_nothing().await;
    sidecar.endpoints("shop-web", &[]);
    answers(&sidecar, 503).await;
    assert_eq!(updates(&sidecar).await, before);
    assert_eq!(stat(&sidecar, "cluster.other.update_success").await, others);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_upstream_is_warm_at_once_and_one_that_is_gone_is_let_go() {
    let Some(mut sidecar) = Sidecar::envoy().await else { return };
    let pod = Pod::start("shop", net::port()).await;
    for upstream in ["shop-web", "b", "c"] {
        sidecar.endpoints(upstream, &[pod.address]);
    }
    let first = sidecar.publish(&Release::to("shop-web").cluster("b"));
    sidecar.start();
    sidecar.accepts(&first).await;
    sidecar.becomes_ready().await;
    let traffic = sidecar.traffic();
    let next = Release::to("c").cluster_with("shop-web", json!({ "connect_timeout": "4s" }));
    let next = sidecar.publish(&next);
    let report = sidecar.accepts(&next).await;
    // Without its endpoints once more Envoy would have waited for 15 s.
    assert!(report.timings.reload < 10_000, "{report:?}");
    let held = held(&sidecar).await;
    let clusters: Vec<_> = held.keys().filter(|name| name.starts_with("dynamic_active_clusters")).collect();
    assert_eq!(clusters, ["dynamic_active_clusters \"c\"", "dynamic_active_clusters \"shop-web\""]);
    assert!(held["dynamic_active_clusters \"shop-web\""].contains("\"4s\""));
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_lives_through_every_change() {
    let Some(mut sidecar) = Sidecar::envoy().await else { return };
    let port = net::port();
    let (one, two) = (Pod::start("one", port).await, Pod::start("two", port).await);
    sidecar.endpoints("shop-web", &[one.address]);
    let first = sidecar.publish(&Release::to("shop-web"));
    sidecar.start();
    sidecar.accepts(&first).await;
    sidecar.becomes_ready().await;
    let mut socket = Client::new(sidecar.address()).websocket("localhost", "/").await.unwrap();
    let mut echo = async |text: &str| {
        socket.send(Message::text(text)).await.unwrap();
        let answer = tokio::time::timeout(std::time::Duration::from_secs(60), socket.next()).await;
        assert_eq!(answer.unwrap().unwrap().unwrap(), Message::text(format!("one: {text}")));
    };
    echo("before").await;
    sidecar.endpoints("shop-web", &[two.address, one.address]);
    let routes = sidecar.publish(&Release::to("shop-web").cluster("more"));
    sidecar.accepts(&routes).await;
    echo("another upstream").await;
    // Another connection manager: the listener changes, and its old connections keep the old one.
    let mut changed = Release::to("shop-web");
    changed.manager = json!({ "server_name": "another" });
    let changed = sidecar.publish(&changed);
    sidecar.accepts(&changed).await;
    eventually("the new listener", async || {
        let answer = Client::new(sidecar.address()).try_get("localhost", "/").await?;
        check(answer.headers["server"] == "another", || format!("{:?}", answer.headers))
    })
    .await;
    echo("another listener").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trials_are_tested_and_never_put_in_force() {
    let Some((sidecar, first)) = serving(&Release::saying("one")).await else { return };
    let before = updates(&sidecar).await;
    let with_cluster = |cluster: serde_json::Value| {
        let mut release = Release::saying("trial");
        let mut bootstrap = super::fixture::bootstrap();
        bootstrap["static_resources"]["clusters"].as_array_mut().unwrap().push(cluster);
        release.bootstrap = Some(bootstrap);
        release
    };
    let good = sidecar.try_out(&with_cluster(json!({ "name": "a", "connect_timeout": "5s" })));
    let bad = sidecar.try_out(&with_cluster(json!({ "name": "a", "connect_timeout": "-5s" })));
    let report = sidecar.reports(&good, Outcome::Accepted).await;
    assert!(report.timings.validate > 0);
    let report = sidecar.reports(&bad, Outcome::Rejected).await;
    assert!(report.message.contains("Expected positive duration"), "{report:?}");
    assert_eq!(sidecar.current(), Some(first));
    assert_eq!(updates(&sidecar).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_read_at_a_start_is_told_and_holds_from_the_next_one_on() {
    let Some((sidecar, _)) = serving(&Release::saying("one")).await else { return };
    let former = sidecar.master().await;
    let mut next = Release::saying("two");
    next.manifest.workers = Some(1);
    let next = sidecar.publish(&next);
    sidecar.accepts(&next).await;
    assert_eq!(sidecar.get().await.unwrap(), "two");
    sidecar.says("holds from its next start on").await;
    assert_eq!((sidecar.master().await, stat(&sidecar, "server.concurrency").await), (former, 2));
    kill(former, Signal::SIGKILL).unwrap();
    eventually("another Envoy", async || check(sidecar.master().await != former, || "the same".to_owned())).await;
    sidecar.serves("two").await;
    assert_eq!(stat(&sidecar, "server.concurrency").await, 1);
}
