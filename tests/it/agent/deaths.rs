//! Whatever is killed, at whatever moment: what traffic it costs, and that what comes after works.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fixture::{Release, Sidecar};
use crate::support::run::processes_of;
use crate::support::wait::check;
use crate::support::{Pod, eventually, net};

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_the_agent_proper_costs_no_request_and_the_next_one_goes_on() {
    let Some((sidecar, first)) = Sidecar::serving("one").await else { return };
    let traffic = sidecar.traffic();
    let (proper, master) = (sidecar.proper().await, sidecar.master().await);
    kill(proper, Signal::SIGKILL).unwrap();
    // Adopted and reloaded, so that the workers ask where somebody answers.
    eventually("a second attempt", async || {
        let attempt = sidecar.report(&first).map_or(0, |report| report.attempt);
        check(attempt == 2, || format!("attempt {attempt}"))
    })
    .await;
    assert_ne!(sidecar.proper().await, proper);
    assert_eq!(sidecar.master().await, master);
    sidecar.says("going on with the nginx that runs").await;

    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
    assert_eq!((sidecar.master().await, sidecar.get().await.as_deref()), (master, Ok("two")));
    sidecar.becomes_ready().await;
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_agent_takes_up_what_was_wanted_meanwhile() {
    let Some((sidecar, _)) = Sidecar::serving("one").await else { return };
    let traffic = sidecar.traffic();
    kill(sidecar.proper().await, Signal::SIGKILL).unwrap();
    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_master_is_replaced_and_its_workers_do_not_keep_the_port() {
    let Some((sidecar, first)) = Sidecar::serving("one").await else { return };
    let master = sidecar.master().await;
    kill(master, Signal::SIGKILL).unwrap();
    eventually("another master", async || {
        let now = sidecar.proxy_info().and_then(|info| info.pid).ok_or("none")?;
        check(now != master.as_raw().cast_unsigned(), || "the same".to_owned())
    })
    .await;
    sidecar.serves("one").await;
    sidecar.becomes_ready().await;
    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
    assert_ne!(first, next);
    eventually("one nginx", async || {
        let masters = titles(&sidecar).into_iter().filter(|title| title.starts_with("nginx: master")).count();
        check(masters == 1, || format!("{:?}", titles(&sidecar)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_without_master_and_agent_are_ended_before_the_next_start() {
    let Some((mut sidecar, _)) = Sidecar::serving("one").await else { return };
    let (init, proper, master) = (sidecar.init(), sidecar.proper().await, sidecar.master().await);
    for pid in [init, proper, master] {
        kill(pid, Signal::SIGSTOP).unwrap();
    }
    for pid in [init, proper, master] {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    sidecar.ended().await;
    assert!(titles(&sidecar).iter().all(|title| title.starts_with("nginx: worker")), "{:?}", titles(&sidecar));
    assert!(!titles(&sidecar).is_empty());
    sidecar.start();
    sidecar.becomes_ready().await;
    sidecar.serves("one").await;
    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nginx_that_outlived_everybody_is_gone_on_with() {
    let Some((mut sidecar, _)) = Sidecar::serving("one").await else { return };
    let traffic = sidecar.traffic();
    let (init, proper, master) = (sidecar.init(), sidecar.proper().await, sidecar.master().await);
    // Stopped, process 1 starts no other agent; and the agent dies first, or it would end nginx when process 1 dies.
    kill(init, Signal::SIGSTOP).unwrap();
    eventually("a standstill", async || {
        let stat = fs::read_to_string(format!("/proc/{init}/stat")).unwrap();
        check(stat.contains(") T "), || stat)
    })
    .await;
    kill(proper, Signal::SIGKILL).unwrap();
    kill(init, Signal::SIGKILL).unwrap();
    sidecar.ended().await;
    sidecar.start();
    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
    assert_eq!(sidecar.master().await, master);
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_process_1_ends_everything_and_a_start_on_the_same_volume_works() {
    let Some((mut sidecar, first)) = Sidecar::serving("one").await else { return };
    kill(sidecar.init(), Signal::SIGKILL).unwrap();
    sidecar.ended().await;
    sidecar.leaves_nothing().await;
    sidecar.start();
    sidecar.becomes_ready().await;
    assert_eq!((sidecar.current(), sidecar.get().await), (Some(first), Ok("one".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_works_after_everything_was_killed_at_once() {
    let Some((mut sidecar, _)) = Sidecar::serving("one").await else { return };
    let all = processes_of(sidecar.folder());
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        for pid in &all {
            let _ = kill(*pid, signal);
        }
    }
    sidecar.ended().await;
    sidecar.leaves_nothing().await;
    // Sockets and the pid file are still there.
    assert!(sidecar.volume.output().join("status.sock").exists());
    sidecar.start();
    sidecar.becomes_ready().await;
    sidecar.serves("one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_may_die_after_each_step_of_a_reload() {
    let Some((sidecar, _)) = Sidecar::serving("one").await else { return };
    let traffic = sidecar.traffic();
    let master = sidecar.master().await;
    let points = [
        "after-test",
        "after-include",
        "after-includes",
        "after-flip",
        "after-signal",
        "after-observe",
        "after-report",
    ];
    for (at, point) in points.into_iter().enumerate() {
        let armed = sidecar.arm(point);
        let proper = sidecar.proper().await;
        let next = sidecar.publish(&Release::saying(&format!("{point} {at}")));
        eventually(point, async || check(!armed.exists(), || "nobody came by".to_owned())).await;
        eventually("its death", async || check(kill(proper, None).is_err(), || "it lives".to_owned())).await;
        // `current` is whole at every moment.
        assert!(sidecar.volume.current().join("nginx.conf").exists(), "{point}");
        sidecar.accepts(&next).await;
        sidecar.serves(&format!("{point} {at}")).await;
        sidecar.becomes_ready().await;
    }
    assert_eq!(sidecar.master().await, master);
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_may_die_on_its_way_back_to_the_former_release() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    sidecar.flags.push("--reload-timeout=1".to_owned());
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start();
    sidecar.accepts(&first).await;
    let (master, proper) = (sidecar.master().await, sidecar.proper().await);
    // A worker that does not hear that it should go: the reload comes to no end.
    let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap();
    let stuck = Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap());
    kill(stuck, Signal::SIGSTOP).unwrap();
    let armed = sidecar.arm("before-roll-back-reload");
    let next = sidecar.publish(&Release::saying("two"));
    eventually("the way back", async || check(!armed.exists(), || "nobody came by".to_owned())).await;
    eventually("its death", async || check(kill(proper, None).is_err(), || "it lives".to_owned())).await;
    assert!(sidecar.volume.current().join("nginx.conf").exists());
    kill(stuck, Signal::SIGCONT).unwrap();
    sidecar.accepts(&next).await;
    sidecar.serves("two").await;
    sidecar.becomes_ready().await;
    assert_eq!(sidecar.master().await, master);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_may_die_after_each_step_of_the_first_start() {
    for point in ["after-include", "after-includes", "after-flip", "after-start", "after-report"] {
        let Some(mut sidecar) = Sidecar::new().await else { return };
        let armed = sidecar.arm(point);
        let first = sidecar.publish(&Release::saying(point));
        sidecar.start();
        eventually(point, async || check(!armed.exists(), || "nobody came by".to_owned())).await;
        sidecar.accepts(&first).await;
        sidecar.becomes_ready().await;
        sidecar.serves(point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_may_die_between_the_flip_and_the_signal_and_the_accepted_release_is_served_again() {
    let Some((mut sidecar, first)) = Sidecar::serving("one").await else { return };
    let armed = sidecar.arm("after-flip");
    // Stopped, it starts no other agent in the moment until it is killed itself.
    kill(sidecar.init(), Signal::SIGSTOP).unwrap();
    let next = sidecar.publish(&Release::saying("two"));
    eventually("the flip", async || check(!armed.exists(), || "nobody came by".to_owned())).await;
    kill(sidecar.init(), Signal::SIGKILL).unwrap();
    sidecar.ended().await;
    for pid in processes_of(sidecar.folder()) {
        let _ = kill(pid, Signal::SIGKILL);
    }
    sidecar.leaves_nothing().await;
    assert_eq!(sidecar.current().as_ref(), Some(&next));
    sidecar.start();
    sidecar.accepts(&next).await;
    // What was known to be good came first, and was reported once more.
    let told = sidecar.said().matches(first.short()).count();
    assert_eq!(told, 2, "{}", sidecar.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_change_while_no_agent_lives_are_used_by_the_next_one() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let (old, new) = (net::address(), net::address());
    let backends =
        [Pod::start_at("old", (old, 8080).into(), None).await, Pod::start_at("new", (new, 8080).into(), None).await];
    let mut release = Release::server("location / { proxy_pass http://web-default-web-80; }");
    release
        .http
        .push_str("upstream web-default-web-80 { zone u0 1m; server web.coxswain.internal service=ep resolve; }");
    release.manifest.upstreams.push("web-default-web-80".to_owned());
    sidecar.endpoints("web-default-web-80", &[backends[0].address]);
    let first = sidecar.publish(&release);
    sidecar.start();
    sidecar.accepts(&first).await;
    let served_by = async |name: &str| {
        eventually(name, async || {
            let echo = sidecar.get().await?;
            check(echo.contains(name), || echo)
        })
        .await;
    };
    served_by("old").await;

    let proper = sidecar.proper().await;
    kill(proper, Signal::SIGSTOP).unwrap();
    sidecar.endpoints("web-default-web-80", &[backends[1].address]);
    kill(proper, Signal::SIGKILL).unwrap();
    served_by("new").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_ipv6_endpoint_is_used_without_anybody_asking_for_a_reload() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let backend = Pod::start_at("six", (std::net::Ipv6Addr::LOCALHOST, net::port()).into(), None).await;
    let mut release = Release::server("location / { proxy_pass http://web-default-web-80; }");
    release
        .http
        .push_str("upstream web-default-web-80 { zone u0 1m; server web.coxswain.internal service=ep resolve; }");
    release.manifest.upstreams.push("web-default-web-80".to_owned());
    sidecar.endpoints("web-default-web-80", &[]);
    let first = sidecar.publish(&release);
    sidecar.start();
    sidecar.accepts(&first).await;
    assert_eq!(sidecar.get().await.unwrap_err().split(' ').next(), Some("503"));
    sidecar.endpoints("web-default-web-80", &[backend.address]);
    eventually("six", async || {
        let echo = sidecar.get().await?;
        check(echo.contains("six"), || echo)
    })
    .await;
    eventually("the report on that reload", async || {
        let report = sidecar.accepts(&first).await;
        check(report.attempt == 2, || format!("{report:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn process_1_of_a_container_is_all_that_it_needs_to_be() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let mut container = Command::new("unshare");
    container.args(["--pid", "--fork", "--mount-proc", "--kill-child", env!("CARGO_BIN_EXE_coxswain")]);
    if !Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).status().is_ok_and(|s| s.success()) {
        eprintln!("skipped: no namespace of processes can be made here");
        return;
    }
    container.args(sidecar.arguments());
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start_as(container);
    sidecar.accepts(&first).await;
    let with_title = async |start: &str| {
        eventually(start, async || {
            let found = titled(&sidecar).into_iter().find(|(_, title)| title.contains(start));
            found.map(|(pid, _)| pid).ok_or_else(|| format!("{:?}", titles(&sidecar)))
        })
        .await
    };
    // The agent dies, and so does the master: each is restarted, and nothing else is left.
    kill(with_title("--proper=1").await, Signal::SIGKILL).unwrap();
    sidecar.says("going on with the nginx that runs").await;
    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
    kill(with_title("nginx: master").await, Signal::SIGKILL).unwrap();
    sidecar.says("nginx has ended by itself").await;
    sidecar.serves("two").await;

    // From outside, process 1 gets the signals of its container's runtime.
    let one = Pid::from_raw(
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", sidecar.init())).unwrap().trim().parse().unwrap(),
    );
    kill(one, Signal::SIGTERM).unwrap();
    assert_eq!(sidecar.ended().await.code(), Some(0));
    sidecar.leaves_nothing().await;
}

fn titles(sidecar: &Sidecar) -> Vec<String> {
    titled(sidecar).into_iter().map(|(_, title)| title).collect()
}

fn titled(sidecar: &Sidecar) -> Vec<(Pid, String)> {
    let title = |pid: Pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, String::from_utf8_lossy(&line).replace('\0', " "))
    };
    processes_of(sidecar.folder()).into_iter().map(title).filter(|(_, title)| !title.is_empty()).collect()
}
