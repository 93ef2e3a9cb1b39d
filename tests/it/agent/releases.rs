//! From one release to the next, and what is said of it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use coxswain::volume::{EndpointSet, Endpoints, FaultClass, Outcome, Protocol};

use super::fixture::{Release, Sidecar};
use crate::support::wait::check;
use crate::support::{Client, Request, eventually, raw};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_release_is_awaited_served_and_reported() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    sidecar.start();
    sidecar.readiness_is(503, "waiting for the first release").await;

    let first = sidecar.publish(&Release::saying("one"));
    let report = sidecar.accepts(&first).await;
    assert_eq!((report.attempt, report.class), (1, None));
    assert!(report.timings.reload > 0 && report.timings.observe > 0, "{report:?}");
    assert_eq!(sidecar.get().await.as_deref(), Ok("one"));
    sidecar.becomes_ready().await;
    let info = sidecar.proxy_info().unwrap();
    assert_eq!((info.generations, info.answered), (vec![first], (0, 0)));
    assert!(info.version.starts_with("1."), "{}", info.version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_follows_another_without_a_lost_request() {
    let Some((sidecar, first)) = Sidecar::serving("one").await else { return };
    let traffic = sidecar.traffic();
    traffic.goes_on(20).await;
    let mut last = first;
    for text in ["two", "three", "four"] {
        let next = sidecar.publish(&Release::saying(text));
        let report = sidecar.accepts(&next).await;
        // Accepted means: nobody is served by the former any more, from now on.
        assert_eq!(sidecar.get().await.as_deref(), Ok(text));
        assert!(report.timings.validate > 0, "{report:?}");
        // Only the release in force is said to be accepted.
        assert_eq!(sidecar.report(&last), None);
        last = next;
    }
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_rejected_with_its_place_and_the_former_release_serves_on() {
    let Some((sidecar, first)) = Sidecar::serving("one").await else { return };
    let traffic = sidecar.traffic();
    let bad = sidecar.publish(&Release::server("location / { retrun 200; }"));
    let report = sidecar.reports(&bad, Outcome::Rejected).await;
    assert_eq!(report.class, Some(FaultClass::Content));
    assert_eq!(report.file.as_deref(), Some("nginx.conf"));
    let text = fs::read_to_string(sidecar.volume.release(&bad).join("nginx.conf")).unwrap();
    let line = text.lines().position(|line| line.contains("retrun")).unwrap() + 1;
    assert_eq!(report.line, Some(line.try_into().unwrap()));
    assert!(report.message.starts_with("unknown directive \"retrun\""), "{report:?}");
    assert_eq!((sidecar.current(), sidecar.get().await), (Some(first.clone()), Ok("one".to_owned())));

    // It is not tried again, and the next one is.
    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
    assert_eq!(sidecar.report(&bad).unwrap().attempt, 1);
    sidecar.becomes_ready().await;
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_tested_while_its_base_is_in_force() {
    let Some((sidecar, first)) = Sidecar::serving("one").await else { return };
    let broken = "events {}\nhttp { server { listen 127.0.0.1:PORT; nonsense; } }\n";
    // `changed.conf` alone is bad: who rejects the release has tested that.
    let bad = sidecar.publish(&Release::saying("two").changed(Some(&first), broken));
    let report = sidecar.reports(&bad, Outcome::Rejected).await;
    assert_eq!((report.file.as_deref(), report.line), (Some("changed.conf"), Some(2)));

    // With another base, or none, it says nothing about this proxy: the whole is tested.
    let other = sidecar.publish(&Release::saying("three").changed(Some(&bad), broken));
    sidecar.accepts(&other).await;
    let none = sidecar.publish(&Release::saying("four").changed(None, broken));
    sidecar.accepts(&none).await;
    assert_eq!(sidecar.get().await.as_deref(), Ok("four"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_reload_refuses_is_rejected_and_rolled_back() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let limited = |key: &str| Release::saying(key).http(&format!("limit_req_zone {key} zone=rl:1m rate=1000r/s;"));
    let first = sidecar.publish(&limited("$host"));
    sidecar.start();
    sidecar.accepts(&first).await;
    let served = sidecar.get().await.unwrap();
    let traffic = sidecar.traffic();

    let bad = sidecar.publish(&limited("$uri"));
    let report = sidecar.reports(&bad, Outcome::Rejected).await;
    assert_eq!(report.class, Some(FaultClass::Content));
    assert!(report.message.contains("uses the \"$uri\" key while previously"), "{report:?}");
    assert_eq!((sidecar.current(), sidecar.get().await), (Some(first), Ok(served)));
    // No worker was replaced for it.
    let old = sidecar.proxy_info().unwrap();
    assert_eq!(old.generations.len(), 1, "{old:?}");

    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_cannot_live_with_a_release_are_a_rejection_too() {
    let Some((sidecar, first)) = Sidecar::serving("one").await else { return };
    let traffic = sidecar.traffic();
    traffic.goes_on(20).await;
    // The test says nothing of it, the reload goes through, and every new worker ends at once.
    let bad = sidecar.publish(&Release { main: "working_directory /nowhere;".into(), ..Release::saying("two") });
    let report = sidecar.reports(&bad, Outcome::Rejected).await;
    assert_eq!(report.class, Some(FaultClass::Content));
    assert!(report.message.contains("chdir(\"/nowhere\") failed (2:"), "{report:?}");
    sidecar.serves("one").await;
    assert_eq!(sidecar.current(), Some(first));
    let next = sidecar.publish(&Release::saying("three"));
    sidecar.accepts(&next).await;
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trials_are_tested_and_never_put_in_force() {
    let Some((sidecar, first)) = Sidecar::serving("one").await else { return };
    let good = sidecar.try_out(&Release::saying("trial"));
    let bad = sidecar.try_out(&Release::server("retrun;"));
    assert_eq!(sidecar.reports(&good, Outcome::Accepted).await.class, None);
    let report = sidecar.reports(&bad, Outcome::Rejected).await;
    assert_eq!((report.file.as_deref(), report.class), (Some("nginx.conf"), Some(FaultClass::Content)));
    assert_eq!((sidecar.current(), sidecar.get().await), (Some(first), Ok("one".to_owned())));

    // Their reports go when they are gone.
    fs::remove_dir_all(sidecar.volume.trial(&good)).unwrap();
    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
    assert_eq!(sidecar.report(&good), None);
    assert!(sidecar.report(&bad).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn trials_are_tested_before_anything_is_served() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let bad = sidecar.publish(&Release::server("retrun;"));
    sidecar.start();
    sidecar.reports(&bad, Outcome::Rejected).await;
    sidecar.readiness_is(503, "unknown directive").await;
    let good = sidecar.try_out(&Release::saying("trial"));
    sidecar.reports(&good, Outcome::Accepted).await;

    let next = sidecar.publish(&Release::saying("one"));
    sidecar.accepts(&next).await;
    sidecar.becomes_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_have_their_endpoints_before_the_pod_is_ready_and_503_without() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let kinds = [Protocol::Http, Protocol::Https, Protocol::Grpc, Protocol::Grpcs];
    let schemes = ["proxy_pass http", "proxy_pass https", "grpc_pass grpc", "grpc_pass grpcs"];
    let mut release = Release::server("");
    for (at, (protocol, pass)) in kinds.into_iter().zip(schemes).enumerate() {
        let id = format!("u{at}-default-web-80");
        release.http.push_str(&format!(
            "upstream {id} {{ zone u{at} 1m; server u{at}.coxswain.internal service=ep resolve; keepalive 4; }}\n"
        ));
        release.server.push_str(&format!("location /{at} {{ {pass}://{id}; }}\n"));
        let set = EndpointSet { protocol, endpoints: Endpoints::Addresses(vec![]) };
        fs::write(sidecar.volume.endpoint_set(&id), serde_json::to_vec(&set).unwrap()).unwrap();
        release.manifest.upstreams.push(id);
    }
    let first = sidecar.publish(&release);
    sidecar.start();
    let report = sidecar.accepts(&first).await;
    assert_eq!(report.message, "");
    sidecar.becomes_ready().await;
    assert_eq!(sidecar.proxy_info().unwrap().answered, (4, 4));
    let client = Client::new(sidecar.address());
    for at in 0..2 {
        let answer = client.get("localhost", &format!("/{at}")).await;
        assert_eq!(answer.status, 503, "{at}: {}", answer.text());
    }
    for at in 2..4 {
        let answer = client.send(&Request::grpc("localhost", &format!("/{at}"))).await;
        assert_eq!(answer.status, 503, "{at}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_path_than_a_socket_can_have_is_no_obstacle() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let long = sidecar.folder().join("a folder with \"quotes\" and $blanks; {}".repeat(4)).join("v".repeat(100));
    fs::create_dir_all(&long).unwrap();
    fs::rename(sidecar.volume.root(), long.join("volume")).unwrap();
    sidecar.volume = coxswain::volume::Volume::new(long.join("volume"));
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start();
    sidecar.accepts(&first).await;
    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
    sidecar.becomes_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_log_is_passed_on_in_harmless_words() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    // Nobody listens there.
    let mut release = Release::server("location / { proxy_pass http://127.0.0.1:1; }");
    release.manifest.error_log_level = coxswain::volume::LogLevel::Error;
    let first = sidecar.publish(&release);
    sidecar.start();
    sidecar.accepts(&first).await;
    // A terminal would obey this; nginx itself spells out only the request line.
    let request = b"GET / HTTP/1.0\r\nHost: localhost\r\nReferer: a\x1b[31mb\r\n\r\n";
    assert_eq!(raw(sidecar.address(), request).await.unwrap().status, 502);
    sidecar.says("connect() failed (111: Connection refused) while connecting to upstream").await;
    // What the release does not want is not said: this level does not include notices.
    let next = sidecar.publish(&Release { http: "# another\n".into(), ..release });
    sidecar.accepts(&next).await;
    assert!(!sidecar.said().contains("[notice]"), "{}", sidecar.said());
    assert!(!sidecar.said().contains("\u{1b}[31mb"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifth_generation_of_old_workers_waits_for_the_oldest() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let backend = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = backend.local_addr().unwrap();
    let release = |number: u64, patience: u64| {
        let server = format!("location /n {{ return 200 \"{number}\"; }} location / {{ proxy_pass http://{to}; }}");
        let mut release = Release::server(&server);
        release.manifest.worker_shutdown_timeout = patience;
        release
    };
    let first = sidecar.publish(&release(0, 3600));
    sidecar.start();
    sidecar.accepts(&first).await;

    // Each request below holds a worker of its generation for as long as the backend says nothing.
    let mut held = vec![];
    for number in 1..=4 {
        held.push(hold(sidecar.address(), &backend).await);
        let next = sidecar.publish(&release(number, 3600));
        sidecar.accepts(&next).await;
    }
    assert_eq!(sidecar.proxy_info().unwrap().generations.len(), 5);
    held.push(hold(sidecar.address(), &backend).await);
    let waiting = sidecar.publish(&release(5, 3600));
    sidecar.says("the next reload waits").await;
    let last = sidecar.publish(&release(6, 3600));

    // One has finished: the last wish is fulfilled, the one before is skipped.
    drop(held.remove(0));
    sidecar.accepts(&last).await;
    assert_eq!(sidecar.report(&waiting), None);
    let served = Client::new(sidecar.address()).get("localhost", "/n").await.text();
    assert_eq!(served, "6");
    assert_eq!(sidecar.proxy_info().unwrap().generations.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_has_had_its_time_makes_room() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let backend = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = backend.local_addr().unwrap();
    let release = |number: u64| {
        let mut release = Release::server(&format!("location / {{ proxy_pass http://{to}; }} # {number}"));
        // No patience at all.
        release.manifest.worker_shutdown_timeout = 0;
        release
    };
    let first = sidecar.publish(&release(0));
    sidecar.start();
    sidecar.accepts(&first).await;
    let mut held = vec![];
    for number in 1..=6 {
        held.push(hold(sidecar.address(), &backend).await);
        let next = sidecar.publish(&release(number));
        sidecar.accepts(&next).await;
        assert!(sidecar.proxy_info().unwrap().generations.len() <= 5);
    }
    assert!(sidecar.said().contains("they have had their time"), "{}", sidecar.said());
}

/// A request that its backend has and does not answer.
pub(super) struct Held {
    _client: tokio::net::TcpStream,
    _backend: tokio::net::TcpStream,
}

pub(super) async fn hold(proxy: SocketAddr, backend: &tokio::net::TcpListener) -> Held {
    use tokio::io::AsyncWriteExt;

    let mut client = tokio::net::TcpStream::connect(proxy).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let (backend, _) = backend.accept().await.unwrap();
    Held { _client: client, _backend: backend }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_watch_a_look_each_second_is_enough() {
    let Some((sidecar, _)) = Sidecar::serving("one").await else { return };
    // The watch is on the folder that was `in`: that one is gone, and another is there.
    fs::rename(sidecar.volume.input(), sidecar.volume.root().join("old")).unwrap();
    fs::create_dir_all(sidecar.volume.releases()).unwrap();
    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
    eventually("serving two", async || {
        let got = sidecar.get().await?;
        check(got == "two", || got)
    })
    .await;
}
