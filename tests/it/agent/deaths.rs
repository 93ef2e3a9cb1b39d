//! Whatever is killed, at whatever moment: what traffic it costs, and that what comes after works.

use nix::sys::signal::{Signal, kill};

use super::fixture::{Release, Sidecar};
use crate::support::eventually;
use crate::support::run::processes_of;
use crate::support::wait::check;

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
    // Stopped first, or the agent would end nginx when process 1 dies.
    kill(proper, Signal::SIGSTOP).unwrap();
    kill(init, Signal::SIGKILL).unwrap();
    kill(proper, Signal::SIGKILL).unwrap();
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

fn titles(sidecar: &Sidecar) -> Vec<String> {
    let pids = processes_of(sidecar.folder());
    let title = |pid: nix::unistd::Pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.into_iter()
        .map(|pid| String::from_utf8_lossy(&title(pid)).replace('\0', " "))
        .filter(|title| !title.is_empty())
        .collect()
}
