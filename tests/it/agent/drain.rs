//! Stop signals: how the proxy ends without cutting anybody off, and when it does so all the same.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::fixture::{Release, Sidecar};
use crate::support::eventually;
use crate::support::wait::check;

/// One that serves, a request that is under way, and the backend that has not answered it.
async fn busy(flags: &[&str]) -> Option<(Sidecar, TcpStream, TcpStream)> {
    let mut sidecar = Sidecar::new().await?;
    sidecar.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    let backend = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to: SocketAddr = backend.local_addr().unwrap();
    let release = format!("location / {{ return 200 \"one\"; }} location /slow {{ proxy_pass http://{to}; }}");
    let first = sidecar.publish(&Release::server(&release));
    sidecar.start();
    sidecar.accepts(&first).await;
    sidecar.becomes_ready().await;
    let mut client = TcpStream::connect(sidecar.address()).await.unwrap();
    client.write_all(b"GET /slow HTTP/1.0\r\nHost: localhost\r\n\r\n").await.unwrap();
    let (backend, _) = backend.accept().await.unwrap();
    Some((sidecar, client, backend))
}

async fn finish(mut client: TcpStream, mut backend: TcpStream) -> String {
    // What is unread when a connection is closed resets it.
    let mut request = [0; 1024];
    assert!(backend.read(&mut request).await.unwrap() > 0);
    backend.write_all(b"HTTP/1.0 200 OK\r\n\r\nslow but whole").await.unwrap();
    drop(backend);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn refuses_connections(sidecar: &Sidecar) {
    eventually("no new connections", async || check(sidecar.get().await.is_err(), || "it still answers".to_owned()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stop_signal_lets_requests_finish() {
    for signal in [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT] {
        let Some((mut sidecar, client, backend)) = busy(&["--drain-timeout=60"]).await else { return };
        sidecar.signal(signal);
        refuses_connections(&sidecar).await;
        assert!(finish(client, backend).await.ends_with("slow but whole"), "{signal}");
        assert_eq!(sidecar.ended().await.code(), Some(0), "{signal}");
        sidecar.leaves_nothing().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_take_too_long_are_cut_when_the_time_is_over() {
    let Some((mut sidecar, mut client, _backend)) = busy(&["--drain-timeout=1"]).await else { return };
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.ended().await.code(), Some(0));
    let mut answer = String::new();
    let _ = client.read_to_string(&mut answer).await;
    assert_eq!(answer, "");
    sidecar.says("are cut (--drain-timeout)").await;
    sidecar.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_accepted_for_the_grace_period_though_the_pod_is_no_longer_ready() {
    let Some((mut sidecar, client, backend)) = busy(&["--shutdown-grace-period=3600", "--drain-timeout=60"]).await
    else {
        return;
    };
    sidecar.signal(Signal::SIGTERM);
    sidecar.readiness_is(503, "draining").await;
    for _ in 0..20 {
        assert_eq!(sidecar.get().await.as_deref(), Ok("one"));
    }
    assert!(finish(client, backend).await.ends_with("slow but whole"));
    // Process 1 is ended, and the hour with it.
    kill(sidecar.init(), Signal::SIGKILL).unwrap();
    sidecar.ended().await;
    sidecar.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_before_the_first_release_ends_at_once() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    sidecar.start();
    sidecar.readiness_is(503, "waiting").await;
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.ended().await.code(), Some(0));
    sidecar.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_ends_with_the_parent_whatever_ends_it() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.flags = vec!["--with-parent=$$".to_owned()];
    let line: Vec<_> = sidecar.arguments().iter().map(|argument| format!("\"{argument}\"")).collect();
    let mut parent = Command::new("sh");
    parent.arg("-c").arg(format!("{} {} & wait", env!("CARGO_BIN_EXE_coxswain"), line.join(" ")));
    sidecar.start_as(parent);
    sidecar.accepts(&first).await;
    let shell = sidecar.init();
    kill(shell, Signal::SIGKILL).unwrap();
    sidecar.ended().await;
    sidecar.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_parent_is_gone_already_does_not_start() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    // Nobody's parent: the process has ended and been waited for.
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    sidecar.flags = vec![format!("--with-parent={}", gone.id())];
    sidecar.publish(&Release::saying("one"));
    sidecar.start();
    assert_eq!(sidecar.ended().await.code(), Some(3));
    sidecar.leaves_nothing().await;
    assert_eq!(sidecar.current(), None);
}
