//! Whoever dies, whenever: what was served is served again, and an Envoy that lives is not disturbed.

use nix::sys::signal::{Signal, kill};

use super::fixture::{Release, answers, serving, stat, updates};
use crate::agent::fixture::Sidecar;
use crate::support::wait::check;
use crate::support::{Pod, eventually, net};

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_the_agent_proper_costs_no_request_and_the_next_one_tells_differences_only() {
    let Some(mut sidecar) = Sidecar::envoy().await else { return };
    let port = net::port();
    let (one, two) = (Pod::start("one", port).await, Pod::start("two", port).await);
    sidecar.endpoints("shop-web", &[one.address]);
    let first = sidecar.publish(&Release::to("shop-web"));
    sidecar.start();
    sidecar.accepts(&first).await;
    sidecar.becomes_ready().await;
    let (envoy, before) = (sidecar.master().await, updates(&sidecar).await);
    let traffic = sidecar.traffic();
    traffic.goes_on(20).await;
    let agent = sidecar.proper().await;
    kill(agent, Signal::SIGKILL).unwrap();
    // Nobody is there to tell of it.
    sidecar.endpoints("shop-web", &[two.address]);
    eventually("another agent", async || {
        let next = sidecar.proper().await;
        check(next != agent, || "the same".to_owned())
    })
    .await;
    let answered = two.answered();
    eventually("requests at the new pod", async || check(two.answered() > answered, || "none".to_owned())).await;
    sidecar.becomes_ready().await;
    traffic.lost_nothing().await;
    assert_eq!(sidecar.master().await, envoy);
    assert_eq!(updates(&sidecar).await, before);
    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
    assert_eq!(sidecar.get().await.unwrap(), "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_envoy_is_replaced_and_told_everything() {
    let Some(mut sidecar) = Sidecar::envoy().await else { return };
    let pod = Pod::start("shop", net::port()).await;
    sidecar.endpoints("shop-web", &[pod.address]);
    let first = sidecar.publish(&Release::to("shop-web").cluster("other"));
    sidecar.start();
    sidecar.accepts(&first).await;
    sidecar.becomes_ready().await;
    for _ in 0..2 {
        let envoy = sidecar.master().await;
        kill(envoy, Signal::SIGKILL).unwrap();
        eventually("another Envoy", async || {
            let next = sidecar.master().await;
            check(next != envoy, || "the same".to_owned())
        })
        .await;
        answers(&sidecar, 200).await;
        sidecar.becomes_ready().await;
        assert_eq!(stat(&sidecar, "cluster_manager.cds.update_success").await, 1);
    }
    assert_eq!(sidecar.current(), Some(first));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_may_die_after_each_step_of_a_change() {
    for point in ["after-aim", "after-taken", "after-report"] {
        let Some((sidecar, _)) = serving(&Release::saying("one")).await else { return };
        let envoy = sidecar.master().await;
        let traffic = sidecar.traffic();
        traffic.goes_on(20).await;
        let armed = sidecar.arm(point);
        let next = sidecar.publish(&Release::saying("two"));
        eventually(point, async || check(!armed.exists(), || "it goes on".to_owned())).await;
        sidecar.accepts(&next).await;
        sidecar.serves("two").await;
        traffic.lost_nothing().await;
        assert_eq!(sidecar.master().await, envoy, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_may_die_while_it_starts_envoy() {
    let Some(mut sidecar) = Sidecar::envoy().await else { return };
    let armed = sidecar.arm("after-start");
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start();
    eventually("a death", async || check(!armed.exists(), || "it goes on".to_owned())).await;
    sidecar.accepts(&first).await;
    sidecar.becomes_ready().await;
    assert_eq!(sidecar.get().await.unwrap(), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_process_1_ends_everything_and_a_start_on_the_same_volume_works() {
    let Some((mut sidecar, first)) = serving(&Release::saying("one")).await else { return };
    kill(sidecar.init(), Signal::SIGKILL).unwrap();
    sidecar.ended().await;
    sidecar.leaves_nothing().await;
    sidecar.start();
    sidecar.accepts(&first).await;
    sidecar.becomes_ready().await;
    assert_eq!(sidecar.get().await.unwrap(), "one");
}
