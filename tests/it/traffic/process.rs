//! `run -f` as a process: how it ends, and that nothing of it stays behind.

use std::net::{Ipv4Addr, TcpListener};

use nix::sys::signal::Signal;

use crate::support::objects::service;
use crate::support::proxies::through_each_proxy;
use crate::support::{Ingress, Pod, Request, Run, eventually, net, wait};

async fn serve() -> Option<(Run, Pod)> {
    let setup = Run::setup()?;
    let pod = Pod::start("web", net::port()).await;
    let manifest = service("web", &[&pod]) + &Ingress::new("a").host("h.test").path("Prefix", "/", "web").yaml();
    Some((setup.file("a.yaml", &manifest).serve().await, pod))
}

/// Nothing runs any more, and the ports can be had.
async fn nothing_is_left(run: &Run) {
    eventually("no process is left", async || {
        let left: Vec<String> = run
            .processes()
            .into_iter()
            .map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " "))
            .collect();
        wait::check(left.is_empty(), || format!("{left:?}"))
    })
    .await;
    let ports = run.ports();
    for port in [ports.http, ports.https, ports.ready, ports.healthz] {
        assert!(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok(), "port {port} is still taken");
    }
}

through_each_proxy!(killed_hard_it_leaves_no_process_and_no_port);

async fn killed_hard_it_leaves_no_process_and_no_port() {
    let Some((mut run, _pod)) = serve().await else { return };
    assert!(run.processes().len() >= 4, "run, process 1, the agent proper, nginx: {:?}", run.processes());
    run.signal(Signal::SIGKILL);
    run.ended().await;
    nothing_is_left(&run).await;
}

through_each_proxy!(told_to_stop_it_finishes_what_it_has_begun);

async fn told_to_stop_it_finishes_what_it_has_begun() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let Some((mut run, pod)) = serve().await else { return };
        let http = run.http();
        let slow = tokio::spawn(async move { http.try_get("h.test", "/?stream=15").await });
        eventually("the slow request has begun", async || wait::check(pod.answered() > 0, || "not yet".to_owned()))
            .await;
        run.signal(signal);
        let answer = slow.await.unwrap().unwrap();
        assert!(answer.text().ends_with("line 14\n"), "{signal}: cut after {:?}", answer.text());
        let status = run.ended().await;
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
        nothing_is_left(&run).await;
    }
}

through_each_proxy!(a_request_that_never_ends_is_cut_after_the_drain_time);

async fn a_request_that_never_ends_is_cut_after_the_drain_time() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let manifest = service("web", &[&pod]) + &Ingress::new("a").host("h.test").path("Prefix", "/", "web").yaml();
    let mut run = setup.flag("--drain-timeout=1").file("a.yaml", &manifest).serve().await;
    let http = run.http();
    let endless = tokio::spawn(async move { http.try_send(&Request::get("h.test", "/?stream=100000")).await });
    eventually("the endless request has begun", async || wait::check(pod.answered() > 0, || "not yet".to_owned()))
        .await;
    run.signal(Signal::SIGTERM);
    run.ended().await;
    nothing_is_left(&run).await;
    assert!(endless.await.unwrap().is_err(), "it was cut");
}

through_each_proxy!(a_second_one_on_the_same_volume_is_refused_and_does_no_harm);

async fn a_second_one_on_the_same_volume_is_refused_and_does_no_harm() {
    let Some((run, _pod)) = serve().await else { return };
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_coxswain"))
        .arg("run")
        .arg("-f")
        .arg(run.manifests())
        .args(
            [net::port(), net::port()]
                .iter()
                .zip(["http", "https"])
                .map(|(port, name)| format!("--{name}-port={port}")),
        )
        .args(
            [net::port(), net::port()]
                .iter()
                .zip(["ready", "healthz"])
                .map(|(port, name)| format!("--{name}-port={port}")),
        )
        .arg(format!("--proxy-dir={}", run.volume().root().display()))
        .arg(format!("--proxy-bin={}", crate::support::parts::nginx().unwrap().display()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(run.http().get("h.test", "/").await.who(), "web");
}
