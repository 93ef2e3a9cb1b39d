//! Faults of the live channel: files that are broken or gone, more events than inotify holds, an agent that stands still.
//! The last good endpoints serve on, nothing fails, and what changed meanwhile is in force soon after.

use std::fs;
use std::time::{Duration, Instant};

use coxswain::volume::{EndpointSet, Endpoints, Protocol};
use nix::sys::signal::{Signal, kill};

use super::processes;
use crate::agent::fixture::{Release, Sidecar};
use crate::support::certificates::Authority;
use crate::support::objects::service;
use crate::support::wait::{check, lasting};
use crate::support::{Client, Ingress, Pod, Run, eventually, net};

const UPSTREAM: &str = "3fa9-default-web-80";

/// A sidecar that sends everything to the one upstream, and two pods for it, the first of which is its endpoint.
async fn serving() -> Option<(Sidecar, [Pod; 2])> {
    let mut sidecar = Sidecar::new().await?;
    let port = net::port();
    let pods = [Pod::start("a", port).await, Pod::start("b", port).await];
    let upstream = format!(
        "upstream {UPSTREAM} {{ zone u00 1m; server 3fa9.coxswain.internal service=ep resolve; keepalive 4; }}\n"
    );
    let mut release = Release::server(&format!("location / {{ proxy_pass http://{UPSTREAM}; }}")).http(&upstream);
    release.manifest.upstreams.push(UPSTREAM.to_owned());
    sidecar.endpoints(UPSTREAM, &[pods[0].address]);
    let first = sidecar.publish(&release);
    sidecar.start();
    sidecar.accepts(&first).await;
    sidecar.becomes_ready().await;
    Some((sidecar, pods))
}

/// Waits until this pod answers, and nobody else; says how long that took.
async fn answers(sidecar: &Sidecar, pod: &Pod) -> Duration {
    let begin = Instant::now();
    let client = Client::new(sidecar.address());
    eventually("another pod answers", async || {
        for _ in 0..10 {
            let answered = client.try_get("localhost", "/").await?.echo()?.pod;
            check(answered == pod.address, || answered.to_string())?;
        }
        Ok(())
    })
    .await;
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_endpoints_that_is_cut_garbage_or_gone_changes_nothing() {
    let Some((sidecar, pods)) = serving().await else { return };
    let traffic = sidecar.traffic();
    let file = sidecar.volume.endpoint_set(UPSTREAM);
    let good = fs::read(&file).unwrap();
    let faults: [(&str, &dyn Fn()); 4] = [
        ("cut", &|| fs::write(&file, &good[..good.len() / 2]).unwrap()),
        ("empty", &|| fs::write(&file, "").unwrap()),
        ("garbage", &|| fs::write(&file, [0xff; 4096]).unwrap()),
        ("gone", &|| fs::remove_file(&file).unwrap()),
    ];
    for (turn, (fault, make)) in faults.into_iter().enumerate() {
        make();
        if fault == "gone" {
            traffic.goes_on(100).await;
        } else {
            sidecar.says("the last good ones stay").await;
        }
        answers(&sidecar, &pods[turn % 2]).await;
        let next = &pods[(turn + 1) % 2];
        sidecar.endpoints(UPSTREAM, &[next.address]);
        println!("{fault}: the next good one after {:?}", answers(&sidecar, next).await);
    }
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_renames_than_inotify_holds_while_the_agent_stands_still_lose_no_change() {
    let Some((sidecar, pods)) = serving().await else { return };
    let traffic = sidecar.traffic();
    let agent = sidecar.proper().await;
    kill(agent, Signal::SIGSTOP).unwrap();
    let set = EndpointSet { protocol: Protocol::Http, endpoints: Endpoints::Addresses(vec![pods[0].address]) };
    let text = serde_json::to_vec(&set).unwrap();
    // Each is several events, and the queue holds 16 384.
    for number in 0..10_000 {
        let new = sidecar.volume.endpoints().join(".new");
        fs::write(&new, &text).unwrap();
        fs::rename(new, sidecar.volume.endpoint_set(&format!("other{number}"))).unwrap();
    }
    sidecar.endpoints(UPSTREAM, &[pods[1].address]);
    traffic.goes_on(100).await;
    assert_eq!(pods[1].answered(), 0, "nobody could know");
    kill(agent, Signal::SIGCONT).unwrap();
    println!("in force {:?} after the return", answers(&sidecar, &pods[1]).await);
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stands_still_for_a_minute_costs_nothing_and_knows_everything_on_its_return() {
    let Some((sidecar, pods)) = serving().await else { return };
    let traffic = sidecar.traffic();
    let agent = sidecar.proper().await;
    kill(agent, Signal::SIGSTOP).unwrap();
    sidecar.endpoints(UPSTREAM, &[pods[1].address]);
    // The minute is the fault itself: after it nginx has given up its question and would ask again after another one.
    lasting(Duration::from_secs(62)).await;
    traffic.goes_on(100).await;
    assert_eq!(pods[1].answered(), 0, "nobody could know");
    kill(agent, Signal::SIGCONT).unwrap();
    let after = answers(&sidecar, &pods[1]).await;
    println!("in force {after:?} after the return");
    assert!(after < Duration::from_secs(30), "{after:?}: nginx waited until it asked by itself");
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_cut_garbage_or_gone_is_soon_whole_again() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let pair = Authority::new().issue(&["h.test"]);
    let ingress = Ingress::new("a").tls(&["h.test"], "pair").host("h.test").path("Prefix", "/", "web").yaml();
    let run = setup.file("a.yaml", &(service("web", &[&pod]) + &pair.secret("pair") + &ingress)).serve().await;
    let client = run.https("h.test");
    let before = processes(&run);
    let mut slots = fs::read_dir(run.volume().tls()).unwrap().map(|entry| entry.unwrap().path());
    let slot = slots.find(|path| path.file_stem().is_some_and(|name| name != "default")).unwrap();
    let good = fs::read(&slot).unwrap();
    let faults: [&dyn Fn(); 3] =
        [&|| fs::write(&slot, &good[..good.len() / 2]).unwrap(), &|| fs::write(&slot, [0xff; 4096]).unwrap(), &|| {
            fs::remove_file(&slot).unwrap()
        }];
    for fault in faults {
        fault();
        eventually("the file is whole", async || {
            let there = fs::read(&slot).map_err(|error| error.to_string())?;
            check(there == good, || "it is damaged".to_owned())
        })
        .await;
        eventually("the certificate", async || {
            let shown = client.certificate().await?;
            check(shown == pair.der, || "another one".to_owned())
        })
        .await;
    }
    run.says("they are written again").await;
    assert_eq!(processes(&run), before, "none of this needs a reload");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_while_the_agent_stands_still() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let authority = Authority::new();
    let pairs = [authority.issue(&["h.test"]), authority.issue(&["h.test"])];
    let ingress = Ingress::new("a").tls(&["h.test"], "pair").host("h.test").path("Prefix", "/", "web").yaml();
    let stable = service("web", &[&pod]) + &ingress;
    let run = setup.file("stable.yaml", &stable).file("pair.yaml", &pairs[0].secret("pair")).serve().await;
    let client = run.https("h.test");
    let shown = async |pair: usize| {
        eventually("the certificate", async || {
            let shown = client.certificate().await?;
            check(shown == pairs[pair].der, || "another one".to_owned())
        })
        .await;
    };
    shown(0).await;
    let agent = run.processes().into_iter().find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("--proper")
    });
    let agent = agent.expect("an agent proper");
    kill(agent, Signal::SIGSTOP).unwrap();
    run.write("pair.yaml", &pairs[1].secret("pair"));
    shown(1).await;
    kill(agent, Signal::SIGCONT).unwrap();
}
