//! Stop signals: how Envoy ends without cutting anybody off, and when it does so all the same.

use std::net::{Ipv4Addr, SocketAddr};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::fixture::Release;
use crate::agent::fixture::Sidecar;
use crate::support::eventually;
use crate::support::wait::check;

/// One that serves, a request that is under way, and the backend that has not answered it.
async fn busy(flags: &[&str]) -> Option<(Sidecar, TcpStream, TcpStream)> {
    let mut sidecar = Sidecar::envoy().await?;
    sidecar.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
    let backend = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to: SocketAddr = backend.local_addr().unwrap();
    sidecar.endpoints("slow", &[to]);
    let first = sidecar.publish(&Release::to("slow"));
    sidecar.start();
    sidecar.accepts(&first).await;
    sidecar.becomes_ready().await;
    let mut client = TcpStream::connect(sidecar.address()).await.unwrap();
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let (backend, _) = backend.accept().await.unwrap();
    Some((sidecar, client, backend))
}

async fn finish(mut client: TcpStream, mut backend: TcpStream) -> String {
    let mut request = [0; 4096];
    assert!(backend.read(&mut request).await.unwrap() > 0);
    backend.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\nslow but whole").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn refuses_connections(sidecar: &Sidecar) {
    let refused = async || {
        let connected = TcpStream::connect(sidecar.address()).await;
        check(connected.is_err(), || "it still accepts".to_owned())
    };
    eventually("no new connections", refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stop_signal_lets_requests_finish_and_asks_clients_to_go() {
    for signal in [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT] {
        let Some((mut sidecar, client, backend)) = busy(&["--drain-timeout=60"]).await else { return };
        sidecar.signal(signal);
        refuses_connections(&sidecar).await;
        sidecar.readiness_is(503, "").await;
        let answer = finish(client, backend).await;
        assert!(answer.ends_with("slow but whole"), "{signal}: {answer}");
        assert!(answer.contains("connection: close"), "{signal}: {answer}");
        assert_eq!(sidecar.ended().await.code(), Some(0), "{signal}");
        sidecar.leaves_nothing().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_take_too_long_are_cut_when_the_time_is_over() {
    let Some((mut sidecar, mut client, backend)) = busy(&["--drain-timeout=1"]).await else { return };
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.ended().await.code(), Some(0));
    let mut answer = vec![];
    let _ = client.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
    sidecar.says("requests have not finished in time and are cut").await;
    drop(backend);
    sidecar.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_accepted_for_the_grace_period_though_the_pod_is_no_longer_ready() {
    let Some(mut sidecar) = Sidecar::envoy().await else { return };
    sidecar.flags.push("--shutdown-grace-period=600".to_owned());
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start();
    sidecar.accepts(&first).await;
    sidecar.becomes_ready().await;
    sidecar.signal(Signal::SIGTERM);
    sidecar.readiness_is(503, "").await;
    assert_eq!(sidecar.get().await.unwrap(), "one");
}
