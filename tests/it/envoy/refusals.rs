//! What Envoy refuses, and what the agent does.

use coxswain::volume::{FaultClass, Outcome};
use nix::sys::signal::Signal;
use serde_json::json;

use super::fixture::{Release, held, serving};
use crate::agent::fixture::Sidecar;
use crate::support::net;
use crate::support::wait::check;

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_release_is_rejected_in_envoys_words_and_the_former_one_is_held_whole() {
    let good = Release::saying("one").cluster("a");
    let Some((sidecar, first)) = serving(&good).await else { return };
    let before = held(&sidecar).await;
    let port = net::port();
    let other = |name: &str, port: u16| {
        json!({
            "name": name,
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
            "filter_chains": [{ "filters": [] }],
        })
    };
    let bad_address = json!({ "type": "STATIC", "eds_cluster_config": null, "load_assignment": { "cluster_name": "z",
        "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "socket_address": { "address": "nowhere", "port_value": 1 } } } }] }] } });
    let regex = json!([{ "match": { "safe_regex": { "regex": "(" } }, "direct_response": { "status": 200 } }]);
    // Of the first two Envoy takes all but the bad one.
    let mut listeners = Release::saying("two").cluster("a");
    listeners.listeners = vec![other("more", port), {
        let mut bad = other("same", net::port());
        bad["filter_chains"] = json!([{ "filters": [] }, { "filters": [] }]);
        bad
    }];
    let cases = [
        (
            Release::saying("two")
                .cluster_with("a", json!({ "connect_timeout": "4s" }))
                .cluster("new")
                .cluster_with("z", bad_address),
            "clusters.pb",
            Some(3),
            "malformed IP address: nowhere",
        ),
        (listeners, "listeners.pb", Some(3), "same"),
        (Release::routing(regex).cluster("a").cluster("new"), "routes.pb", Some(1), "missing )"),
    ];
    let traffic = sidecar.traffic();
    for (bad, file, line, words) in cases {
        let bad = sidecar.publish(&bad);
        let report = sidecar.reports(&bad, Outcome::Rejected).await;
        assert_eq!(report.class, Some(FaultClass::Content));
        assert!(report.message.contains(words), "{report:?}");
        assert_eq!((report.file.as_deref(), report.line), (Some(file), line), "{report:?}");
        assert_eq!(sidecar.current().as_ref(), Some(&first));
        crate::support::eventually("the former state", async || {
            let now = held(&sidecar).await;
            check(now == before, || format!("{now:#?}\nand not {before:#?}"))
        })
        .await;
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
    }
    let next = sidecar.publish(&Release::saying("good again"));
    sidecar.accepts(&next).await;
    sidecar.serves("good again").await;
    drop(traffic);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_somebody_else_has_is_waited_for() {
    let Some(mut sidecar) = Sidecar::envoy().await else { return };
    let taken = std::net::TcpListener::bind(sidecar.address()).unwrap();
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start();
    let report = sidecar.reports(&first, Outcome::Retrying).await;
    assert_eq!(report.class, Some(FaultClass::Environment));
    assert!(report.message.contains("Address already in use"), "{report:?}");
    sidecar.readiness_is(503, "cannot bind").await;
    drop(taken);
    sidecar.accepts(&first).await;
    sidecar.becomes_ready().await;

    // Another port at a change.
    let other = net::port();
    let taken = std::net::TcpListener::bind(("127.0.0.1", other)).unwrap();
    let mut next = Release::saying("two");
    next.listeners = vec![json!({
        "name": "more",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": other } },
        "filter_chains": [{ "filters": [] }],
    })];
    let next = sidecar.publish(&next);
    let report = sidecar.reports(&next, Outcome::Retrying).await;
    assert!(report.message.contains("Address already in use"), "{report:?}");
    assert_eq!(sidecar.get().await.unwrap(), "one");
    drop(taken);
    sidecar.accepts(&next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_volume_is_refused_and_the_first_serves_on() {
    let Some((sidecar, _)) = serving(&Release::saying("one")).await else { return };
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_coxswain")).args(sidecar.arguments()).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("a volume has one agent"), "{said}");
    assert_eq!(sidecar.get().await.unwrap(), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_than_envoy_and_wrong_arguments_are_refused_by_name() {
    for (command, words) in [
        (vec!["true"], "true is not Envoy: asked for its version (--version)"),
        (vec!["no-such-envoy"], "there is no no-such-envoy here: install Envoy 1.40 or later"),
        (vec!["envoy", "--concurrency", "9"], "leave out \"--concurrency\""),
    ] {
        let Some(mut sidecar) = Sidecar::envoy().await else { return };
        sidecar.command = command.into_iter().map(str::to_owned).collect();
        sidecar.start();
        assert_eq!(sidecar.ended().await.code(), Some(3));
        sidecar.says(words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_for_nginx_is_rejected() {
    let Some((sidecar, first)) = serving(&Release::saying("one")).await else { return };
    let other = sidecar.publish(&crate::agent::fixture::Release::saying("nginx"));
    let report = sidecar.reports(&other, Outcome::Rejected).await;
    assert_eq!(report.message, "the release is for nginx, and this is envoy");
    assert_eq!(sidecar.current(), Some(first));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_hears_nothing_is_the_environments_fault() {
    let Some(mut sidecar) = Sidecar::envoy().await else { return };
    sidecar.flags.push("--reload-timeout=1".to_owned());
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start();
    sidecar.accepts(&first).await;
    let envoy = sidecar.master().await;
    nix::sys::signal::kill(envoy, Signal::SIGSTOP).unwrap();
    let next = sidecar.publish(&Release::saying("two"));
    let report = sidecar.reports(&next, Outcome::Retrying).await;
    assert_eq!(report.class, Some(FaultClass::Environment));
    assert!(report.message.contains("Envoy did not take it up in time"), "{report:?}");
    // It does not go back either, and is started anew.
    sidecar.accepts(&next).await;
    sidecar.serves("two").await;
    assert_ne!(sidecar.master().await, envoy);
}
