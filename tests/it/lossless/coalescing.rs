//! Many changes, few reloads; and the last one always wins.

use std::time::{Duration, Instant};

use crate::support::objects::service;
use crate::support::proxies::through_each_proxy;
use crate::support::wait::check;
use crate::support::{Ingress, Pod, Run, eventually, net};

const HOST: &str = "h.test";

through_each_proxy!(a_thousand_changes_in_ten_seconds_are_about_a_reload_a_second_and_the_last_one_wins);

async fn a_thousand_changes_in_ten_seconds_are_about_a_reload_a_second_and_the_last_one_wins() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let change = |number: usize| {
        Ingress::new("a")
            .ours("temporal-redirect", &format!("http://{HOST}/{number}"))
            .host(HOST)
            .path("Prefix", "/", "web")
            .yaml()
    };
    let run = setup.file("web.yaml", &service("web", &[&pod])).file("a.yaml", &change(0)).serve().await;
    let http = run.http();
    let served = async || {
        let answer = http.try_get(HOST, "/").await?;
        answer.header("location").map(str::to_owned).ok_or_else(|| answer.status.to_string())
    };
    let reloads = || run.said().matches(" accepted ").count();
    eventually("the first", async || served().await.and_then(|to| check(to.ends_with("/0"), || to))).await;
    let (before, begin) = (reloads(), Instant::now());
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for number in 1..=1000 {
        ticks.tick().await;
        run.write("a.yaml", &change(number));
    }
    eventually("the last", async || served().await.and_then(|to| check(to.ends_with("/1000"), || to))).await;
    let (reloads, seconds) = (reloads() - before, begin.elapsed().as_secs());
    println!("1000 changes in {seconds} s were {reloads} reloads");
    // One at once, one for each second that a change may wait, one for the last; and a few more where this machine is so
    // busy that there was a quiet time after all. To the millisecond it is told in `watch::trigger`.
    assert!(reloads <= 2 * usize::try_from(seconds).unwrap(), "{reloads} reloads in {seconds} s");
    assert!(reloads >= 4, "{reloads} reloads: a change waits for a second or two and not for ever");
}
