//! How long old workers live: as long as somebody needs them and there is room, then until `worker-shutdown-timeout`.

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use crate::support::objects::{config_map, service};
use crate::support::wait::check;
use crate::support::{Client, Ingress, Pod, Run, eventually, net};

const HOST: &str = "h.test";
const PATIENCE: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn websockets_live_until_the_fifth_generation_needs_their_room_and_they_have_had_their_time() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let settings = config_map("settings", &[("worker-shutdown-timeout", &format!("{}s", PATIENCE.as_secs()))]);
    let stable =
        settings + &service("web", &[&pod]) + &Ingress::new("stable").host(HOST).path("Prefix", "/", "web").yaml();
    let run = setup.flag("--configmap=default/settings").file("stable.yaml", &stable).serve().await;
    let http = run.http();
    let change = |number: usize| {
        let host = format!("n{number}.test");
        run.write("change.yaml", &Ingress::new("change").host(&host).path("Prefix", "/", "web").yaml());
        host
    };
    let serves = async |host: &str| {
        eventually(&format!("{host} is served"), async || {
            let who = http.try_get(host, "/").await?.who();
            check(who == "web", || who)
        })
        .await;
    };
    let metric = async |name: &str| -> Result<f64, String> {
        let page = Client::new(run.local(run.ports().healthz)).try_get("localhost", "/metrics").await?.text();
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.and_then(|number| number.parse().ok()).ok_or(page)
    };
    // Old workers are let go only after the new ones were seen to answer, which a new connection can do before.
    let settled = async |old: f64| {
        eventually(&format!("{old} old generations"), async || {
            let now = metric("coxswain_old_generations").await?;
            check(now == old, || now.to_string())
        })
        .await;
    };

    serves(HOST).await;
    let mut sockets = Vec::new();
    let mut superseded = Instant::now();
    for (number, old) in (1..=4).zip([1.0, 2.0, 3.0, 4.0]) {
        sockets.push(http.websocket(HOST, "/ws").await.unwrap());
        if number == 1 {
            superseded = Instant::now();
        }
        serves(&change(number)).await;
        settled(old).await;
    }
    sockets.push(http.websocket(HOST, "/ws").await.unwrap());
    assert_eq!(metric("coxswain_reload_wait_seconds_total").await, Ok(0.0));

    // There is no room for a fifth: it waits until the first socket has had its time.
    let fifth = change(5);
    let end = tokio::time::timeout(Duration::from_secs(90), sockets[0].next()).await.expect("it lives on");
    let lived = superseded.elapsed();
    assert!(!matches!(&end, Some(Ok(message)) if message.is_text()), "{end:?}");
    assert!(lived >= PATIENCE, "cut after {lived:?}");
    serves(&fifth).await;
    eventually("the wait is told", async || {
        let waited = metric("coxswain_reload_wait_seconds_total").await?;
        check(waited > 0.0, || waited.to_string())
    })
    .await;
    settled(4.0).await;
    for (number, socket) in sockets.iter_mut().enumerate().skip(1) {
        socket.send(Message::text("still here")).await.unwrap();
        let answer = socket.next().await.unwrap_or_else(|| panic!("socket {number} has ended")).unwrap();
        assert_eq!(answer.to_text().unwrap(), "web: still here", "socket {number}");
    }
}
