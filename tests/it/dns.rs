//! Endpoints that change without a reload: the agent's DNS server before a real nginx.

mod fixture;
mod resolver;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use coxswain::agent::endpoints::Names;
use coxswain::volume::Protocol;

use self::fixture::{Fixture, backend, endpoint, get, id};
use self::resolver::{Answer, Resolver};
use crate::support::{eventually, wait};

/// The backends that answer some requests to an upstream; every request must be answered by one.
async fn backends(fixture: &Fixture, n: usize, requests: usize) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for _ in 0..requests {
        let response = fixture.request(n).await;
        assert_eq!(response.status, 200, "{response:?}");
        seen.insert(response.body);
    }
    seen
}

/// Waits until exactly these backends answer.
async fn until_backends(fixture: &Fixture, n: usize, endpoints: &[SocketAddr]) {
    let wanted: BTreeSet<_> = endpoints.iter().map(ToString::to_string).collect();
    eventually(&format!("{wanted:?} answer"), async || {
        let seen = backends(fixture, n, 4 * endpoints.len()).await;
        wait::check(seen == wanted, || format!("{seen:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_come_and_go_without_a_reload_and_without_a_failure() {
    let port = backend().await;
    let Some(mut fixture) = Fixture::with_plain_upstreams(3).await else { return };
    for n in 0..3 {
        fixture.write(n, &[endpoint(n, port)]);
    }
    fixture.start().await;
    fixture.all_answered().await;
    for n in 0..3 {
        until_backends(&fixture, n, &[endpoint(n, port)]).await;
    }
    // `until_backends` fails on any answer but 200.
    let sets: [&[SocketAddr]; 4] = [
        &[endpoint(1, port), endpoint(10, port)],
        &[endpoint(10, port), endpoint(11, port), endpoint(12, port)],
        &[endpoint(12, port)],
        &[endpoint(1, port)],
    ];
    for set in sets {
        fixture.write(1, set);
        until_backends(&fixture, 1, set).await;
    }
    for n in [0, 2] {
        assert_eq!(backends(&fixture, n, 4).await, [endpoint(n, port).to_string()].into());
    }
    assert_eq!(get(fixture.port, "/stamp").await.unwrap().body, "1", "there was no reload");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_without_endpoints_answers_503_in_its_protocol_and_is_back_by_itself() {
    let protocols = [Protocol::Http, Protocol::Https, Protocol::Grpc, Protocol::Grpcs];
    let upstreams = protocols.iter().enumerate().map(|(n, &protocol)| (id(n), protocol));
    let Some(mut fixture) = Fixture::new(upstreams, Names::system()).await else { return };
    for n in 0..4 {
        fixture.write(n, &[]);
    }
    fixture.start().await;
    fixture.all_answered().await;
    for _ in 0..2 {
        for n in 0..4 {
            fixture.until_status(n, 503).await;
            fixture.write(n, &[fixture.backends[n]]);
        }
        for (n, body) in ["http", "https", "grpc", "grpcs"].into_iter().enumerate() {
            fixture.until_status(n, 200).await;
            assert_eq!(fixture.request(n).await.body, body);
            fixture.write(n, &[]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_endpoints_are_told_over_tcp() {
    let port = backend().await;
    let Some(mut fixture) = Fixture::with_plain_upstreams(1).await else { return };
    fixture.write(0, &[endpoint(0, port)]);
    fixture.start().await;
    fixture.all_answered().await;
    for count in [200, 1000, 3] {
        let endpoints: Vec<_> = (0..count).map(|n| endpoint(n, port)).collect();
        fixture.write(0, &endpoints);
        // Round robin comes by everybody within about one round.
        let wanted: BTreeSet<_> = endpoints.iter().map(ToString::to_string).collect();
        eventually(&format!("{count} endpoints answer"), async || {
            let seen = backends(&fixture, 0, count + 20).await;
            wait::check(seen == wanted, || format!("{} answered", seen.len()))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_upstreams_are_answered_at_the_start_and_taken_over_by_a_reload() {
    const UPSTREAMS: usize = 1000;
    let port = backend().await;
    let Some(mut fixture) = Fixture::with_plain_upstreams(UPSTREAMS).await else { return };
    for n in 0..UPSTREAMS {
        fixture.write(n, &[endpoint(3 * n, port), endpoint(3 * n + 1, port), endpoint(3 * n + 2, port)]);
    }
    fixture.start().await;
    fixture.all_answered().await;
    for n in 0..UPSTREAMS {
        let response = fixture.request(n).await;
        assert_eq!(response.status, 200, "upstream {n}: {response:?}");
    }

    let load = Load::start(&fixture, UPSTREAMS);
    let mut former = Vec::new();
    for _ in 0..3 {
        former.extend(fixture.reload().await);
        fixture.all_answered().await;
    }
    drop(former);
    let answered = load.stop().await;
    assert!(answered > 100, "only {answered} requests were made");
    // The newest generation listens to its own sockets.
    fixture.write(7, &[endpoint(5, port)]);
    until_backends(&fixture, 7, &[endpoint(5, port)]).await;
}

/// Requests to all upstreams in turn, each of which must be answered.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(fixture: &Fixture, upstreams: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let port = fixture.port;
        let task = |start: usize| {
            let (stop, answered) = (stop.clone(), answered.clone());
            tokio::spawn(async move {
                let mut n = start;
                while !stop.load(Ordering::Relaxed) {
                    n = (n + 7) % upstreams;
                    let response = get(port, &format!("/{}", id(n))).await;
                    assert!(matches!(&response, Ok(r) if r.status == 200), "upstream {n}: {response:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let tasks = (0..4).map(|n| task(n * upstreams / 4)).collect();
        Self { stop, answered, tasks }
    }

    /// Ends it; how many requests were answered.
    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.answered.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_server_the_last_endpoints_stay_through_a_reload_too() {
    let port = backend().await;
    let Some(mut fixture) = Fixture::with_plain_upstreams(2).await else { return };
    for n in 0..2 {
        fixture.write(n, &[endpoint(n, port)]);
    }
    fixture.start().await;
    fixture.all_answered().await;
    for n in 0..2 {
        fixture.until_status(n, 200).await;
    }
    // The configuration goes on naming its addresses.
    let resolver = fixture.client.take().unwrap().addresses()[0];
    eventually("its ports are free", async || {
        tokio::net::UdpSocket::bind(resolver).await.map(drop).map_err(|e| e.to_string())
    })
    .await;
    fixture.write(0, &[endpoint(9, port)]);
    for _ in 0..2 {
        for n in 0..2 {
            assert_eq!(backends(&fixture, n, 8).await, [endpoint(n, port).to_string()].into());
        }
        fixture.reload_with_the_same_resolver().await;
    }
    // Back again, what changed meanwhile is taken up.
    fixture.reload().await;
    until_backends(&fixture, 0, &[endpoint(9, port)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_a_file_changes_nothing_and_the_next_good_one_counts() {
    let port = backend().await;
    let Some(mut fixture) = Fixture::with_plain_upstreams(2).await else { return };
    for n in 0..2 {
        fixture.write(n, &[endpoint(n, port)]);
    }
    fixture.start().await;
    fixture.all_answered().await;
    until_backends(&fixture, 0, &[endpoint(0, port)]).await;
    fixture.write_text(0, r#"{"protocol":"HTTP","endpoints":{"addresses":["127.0"#);
    // Once a later change elsewhere is in force, the garbage has been read.
    fixture.write(1, &[endpoint(8, port)]);
    until_backends(&fixture, 1, &[endpoint(8, port)]).await;
    assert_eq!(backends(&fixture, 0, 8).await, [endpoint(0, port).to_string()].into());
    fixture.write(0, &[endpoint(5, port)]);
    until_backends(&fixture, 0, &[endpoint(5, port)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_name_is_followed_and_never_leads_inside() {
    let cluster = Resolver::start().await;
    // Addresses for documentation: nobody answers, and nginx says where it tried.
    let first = "198.51.100.10".parse().unwrap();
    let second = "198.51.100.11".parse().unwrap();
    cluster.set("db.example.", Answer::Addresses(vec![first], 1));
    let names = cluster.names(&["shop.svc.cluster.test.", "svc.cluster.test."], 5);
    let Some(mut fixture) = Fixture::new([(id(0), Protocol::Http)], names).await else { return };
    fixture.write_name(0, "db.example", 8080);
    fixture.start().await;
    fixture.all_answered().await;
    let goes_to = async |address: &str| {
        eventually(&format!("requests go to {address}"), async || {
            let head = fixture.request(0).await.head;
            wait::check(head.contains(&format!("Upstream: {address}:8080")), || head)
        })
        .await;
    };
    goes_to("198.51.100.10").await;
    assert!(cluster.asked("db.example.shop.svc.cluster.test.") > 0, "the search list was tried");

    // Its time to live is a second: a new address is found by itself.
    cluster.set("db.example.", Answer::Addresses(vec![second], 1));
    goes_to("198.51.100.11").await;

    // The resolver fails: the last good answer stays.
    for failure in [Answer::ServFail, Answer::Silence] {
        cluster.set("db.example.", failure);
        let asked = cluster.asked("db.example.");
        eventually("it is asked again", async || {
            wait::check(cluster.asked("db.example.") > asked + 1, || cluster.asked("db.example.").to_string())
        })
        .await;
        goes_to("198.51.100.11").await;
    }

    // Rebinding: the name leads to this machine now, and our own server must not be reached.
    let inside = ["127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1"].map(|a| a.parse().unwrap()).to_vec();
    cluster.set("db.example.", Answer::Addresses(inside, 1));
    fixture.until_status(0, 503).await;
    cluster.set("db.example.", Answer::Addresses(vec!["127.0.0.1".parse().unwrap(), first], 1));
    goes_to("198.51.100.10").await;

    // It exists no more.
    cluster.remove("db.example.");
    fixture.until_status(0, 503).await;
    // It is in the search list now.
    cluster.set("db.example.svc.cluster.test.", Answer::Addresses(vec![second], 1));
    goes_to("198.51.100.11").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_name_that_cannot_be_looked_up_yet_answers_503_and_recovers() {
    let cluster = Resolver::start().await;
    cluster.set("db.example.", Answer::Silence);
    let Some(mut fixture) = Fixture::new([(id(0), Protocol::Http)], cluster.names(&[], 1)).await else { return };
    fixture.write_name(0, "db.example", 8080);
    fixture.start().await;
    fixture.all_answered().await;
    fixture.until_status(0, 503).await;
    cluster.set("db.example.", Answer::Addresses(vec!["198.51.100.10".parse().unwrap()], 60));
    eventually("requests go to 198.51.100.10", async || {
        let head = fixture.request(0).await.head;
        wait::check(head.contains("198.51.100.10:8080"), || head)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_endpoint_is_used_after_one_reload_and_hurts_nobody_before() {
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else {
        return eprintln!("skipped: there is no IPv6 here");
    };
    let v6 = listener.local_addr().unwrap();
    tokio::spawn(fixture::accept(listener));
    let port = backend().await;
    let Some(mut fixture) = Fixture::with_plain_upstreams(2).await else { return };
    fixture.write(0, &[endpoint(0, port)]);
    fixture.write(1, &[endpoint(1, port)]);
    fixture.start().await;
    fixture.all_answered().await;
    until_backends(&fixture, 0, &[endpoint(0, port)]).await;
    assert!(!fixture.server.has_ipv6() && !fixture.client.as_ref().unwrap().ipv6());

    fixture.write(1, &[v6]);
    fixture.write(0, &[endpoint(5, port), v6]);
    fixture.until_status(1, 503).await;
    until_backends(&fixture, 0, &[endpoint(5, port)]).await;
    assert!(fixture.server.has_ipv6() && !fixture.client.as_ref().unwrap().ipv6());

    let former = fixture.reload().await;
    until_backends(&fixture, 1, &[v6]).await;
    until_backends(&fixture, 0, &[endpoint(5, port), v6]).await;
    drop(former);
    tokio::time::timeout(Duration::from_secs(60), fixture.all_answered()).await.unwrap();
}
