//! Pods come and go as in a cluster that works: rolling updates, scaling, renamed ports. None of it is a reload, none of
//! it a 502, and the connections that the proxy keeps to pods are kept.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::json;

use super::processes;
use crate::support::load::Outcome;
use crate::support::objects::{document, service, service_at, slice};
use crate::support::proxies::through_each_proxy;
use crate::support::wait::check;
use crate::support::{Ingress, Load, Pod, Request, Run, eventually, net};

const HOST: &str = "h.test";

fn ingress() -> String {
    Ingress::new("a").host(HOST).path("Prefix", "/", "web").yaml()
}

/// So many endpoints that one pod answers for all of.
async fn crowd(count: usize) -> (Pod, Vec<SocketAddr>) {
    let port = net::port();
    let pod = Pod::start_at("web", SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port), None).await;
    (pod, (0..count).map(|_| SocketAddr::new(IpAddr::V4(net::address()), port)).collect())
}

/// Waits until these endpoints answer and nobody else.
async fn answer(run: &Run, expected: &[SocketAddr]) {
    let http = run.http();
    let expected: BTreeSet<_> = expected.iter().copied().collect();
    let mut seen = BTreeSet::new();
    eventually(&format!("{} endpoints answer", expected.len()), async || {
        let mut connection = None;
        // All workers and clients go round together, so that one client may miss some each time.
        for _ in 0..3 * expected.len() + 20 {
            let mut open = match connection.take() {
                Some(open) => open,
                None => http.connect().await?,
            };
            let answer = open.send(&Request::get(HOST, "/")).await?;
            // nginx closes a connection after a thousand requests.
            connection = answer.header("connection").is_none_or(|value| value != "close").then_some(open);
            seen.insert(answer.echo()?.pod);
            if seen.len() == expected.len() {
                break;
            }
        }
        let others = seen.difference(&expected).count();
        let result = check(seen == expected, || format!("{} endpoints, {others} of them others", seen.len()));
        if others > 0 {
            seen.clear();
        }
        result
    })
    .await;
}

through_each_proxy!(a_rolling_update_of_fifty_pods_loses_nothing_and_reloads_nothing);

async fn a_rolling_update_of_fifty_pods_loses_nothing_and_reloads_nothing() {
    let Some(setup) = Run::setup() else { return };
    let port = net::port();
    let mut old = Vec::new();
    for _ in 0..50 {
        old.push(Pod::start("old", port).await);
    }
    let all = |old: &[Pod], new: &[Pod]| service("web", &old.iter().chain(new).collect::<Vec<_>>());
    let run = setup.file("ingress.yaml", &ingress()).file("web.yaml", &all(&old, &[])).serve().await;
    answer(&run, &old.iter().map(|pod| pod.address).collect::<Vec<_>>()).await;
    let before = processes(&run);
    let load = Load::start(&run.http(), &Request::get(HOST, "/"), 6);
    let mut new: Vec<Pod> = Vec::new();
    while !old.is_empty() {
        // A quarter more at first, then the same number of old ones goes.
        for _ in 0..old.len().min(12) {
            new.push(Pod::start("new", port).await);
        }
        run.write("web.yaml", &all(&old, &new));
        let going = old.split_off(old.len().saturating_sub(12));
        run.write("web.yaml", &all(&old, &new));
        // A pod that ends finishes what it has, and waits for the endpoints to be known everywhere.
        eventually("nobody asks the old pods any more", async || {
            let answered = || going.iter().map(Pod::answered).sum::<usize>();
            let then = answered();
            load.goes_on(200).await;
            let more = answered() - then;
            check(more == 0, || format!("{more} requests more"))
        })
        .await;
        drop(going);
    }
    load.goes_on(100).await;
    let Outcome { answers, failures, .. } = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["new", "old"], "{answers:?}");
    assert_eq!(processes(&run), before, "none of this needs a reload");
    // nginx keeps its connections: a new one for each request would be as many as there were answers.
    let (answered, connections) = new.iter().fold((0, 0), |(a, c), pod| (a + pod.answered(), c + pod.connections()));
    assert!(connections * 3 < answered, "{connections} connections for {answered} requests");
}

through_each_proxy!(from_one_to_a_hundred_to_none_to_three_without_a_reload_and_without_a_502);

async fn from_one_to_a_hundred_to_none_to_three_without_a_reload_and_without_a_502() {
    let Some(setup) = Run::setup() else { return };
    let (_pod, hundred) = crowd(100).await;
    let run = setup.file("ingress.yaml", &ingress()).file("web.yaml", &service_at("web", &hundred[..1])).serve().await;
    answer(&run, &hundred[..1]).await;
    let before = processes(&run);
    let load = Load::start(&run.http(), &Request::get(HOST, "/"), 4);
    run.write("web.yaml", &service_at("web", &hundred));
    answer(&run, &hundred).await;
    load.goes_on(50).await;
    assert_eq!(load.failed(), 0, "nothing is lost before there is nobody");
    run.write("web.yaml", &service_at("web", &[]));
    let http = run.http();
    eventually("503", async || {
        let status = http.try_get(HOST, "/").await?.status;
        check(status == 503, || status.to_string())
    })
    .await;
    run.write("web.yaml", &service_at("web", &hundred[..3]));
    answer(&run, &hundred[..3]).await;
    let failed = load.failed();
    load.goes_on(100).await;
    assert_eq!(load.failed(), failed, "there is somebody again");
    let Outcome { answers, failures, .. } = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["503", "web"], "{answers:?}");
    assert_eq!(processes(&run), before, "none of this needs a reload");
}

through_each_proxy!(a_renamed_port_is_no_reload_and_loses_nothing);

async fn a_renamed_port_is_no_reload_and_loses_nothing() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let named = |name: &str| {
        let ports = json!([{"name": name, "port": 80, "targetPort": pod.address.port()}]);
        let service =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": ports}});
        document(&service) + &slice("web", "a", &[(name, pod.address.port())], &[(pod.address, Some(true))])
    };
    let run = setup.file("ingress.yaml", &ingress()).file("web.yaml", &named("http")).serve().await;
    answer(&run, &[pod.address]).await;
    let before = processes(&run);
    let load = Load::start(&run.http(), &Request::get(HOST, "/"), 4);
    for name in ["www", "http", "web-traffic"] {
        run.write("web.yaml", &named(name));
        load.goes_on(200).await;
    }
    // What comes after has been read after: the rename has been, too.
    let other = Pod::start("web", pod.address.port()).await;
    run.write(
        "web.yaml",
        &(named("last") + &slice("web", "b", &[("last", pod.address.port())], &[(other.address, None)])),
    );
    answer(&run, &[pod.address, other.address]).await;
    let Outcome { answers, failures, .. } = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["web"], "{answers:?}");
    assert_eq!(processes(&run), before, "none of this needs a reload");
}

through_each_proxy!(one_a_hundred_and_two_thousand_endpoints_are_all_used);

async fn one_a_hundred_and_two_thousand_endpoints_are_all_used() {
    let Some(setup) = Run::setup() else { return };
    let (_pod, all) = crowd(2000).await;
    let run = setup.file("ingress.yaml", &ingress()).file("web.yaml", &service_at("web", &all[..1])).serve().await;
    answer(&run, &all[..1]).await;
    let load = Load::start(&run.http(), &Request::get(HOST, "/"), 2);
    for count in [100, 2000, 1] {
        run.write("web.yaml", &service_at("web", &all[..count]));
        answer(&run, &all[..count]).await;
    }
    // For two thousand their zone has to grow: the old one was full for a moment, and nobody was lost by that.
    let Outcome { answers, failures, .. } = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["web"], "{answers:?}");
}
