//! Reloads one after the other, under every kind of load: with what we render nothing is lost, and with nginx's defaults
//! something is, or all of this would measure nothing.
//!
//! `COXSWAIN_RELOADS` says how many (hack/bench-live asks for 200); both tests print what they counted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use coxswain::volume::ProxyKind;

use super::fleet::{Fleet, Kind, Outcome, Site};
use super::relay::Relay;
use crate::support::certificates::Authority;
use crate::support::objects::{config_map, service};
use crate::support::proxies::{of_this_test, through_each_proxy};
use crate::support::run::Setup;
use crate::support::{Ingress, Pod, Run, net};

const WORK: &str = "work.test";
const GENERATION: &str = "generation.test";

/// How far away the far clients are, one way.
const FAR: Duration = Duration::from_millis(20);

/// How many reloads, unless the environment says otherwise.
const RELOADS: usize = 25;

fn reloads() -> usize {
    std::env::var("COXSWAIN_RELOADS").ok().and_then(|number| number.parse().ok()).unwrap_or(RELOADS)
}

/// An Ingress that says its number.
fn generation(number: usize) -> String {
    Ingress::new("generation")
        .ours("temporal-redirect", &format!("http://{GENERATION}/{number}"))
        .host(GENERATION)
        .path("Prefix", "/", "work")
        .yaml()
}

/// Reloads as often as `goes_on` says, with every client on the newest generation before the next.
async fn reload(setup: Setup, goes_on: impl Fn(usize, &Fleet) -> bool) -> (usize, Outcome) {
    let port = net::port();
    let pods = [Pod::start("work", port).await, Pod::start("work", port).await];
    let stable = service("work", &[&pods[0], &pods[1]])
        + &Authority::new().issue(&[WORK]).secret("pair")
        // WebSockets are not what this is about: they stay with the first generation.
        + &config_map("settings", &[("worker-shutdown-timeout", "3600s")])
        + &Ingress::new("work").ours("ssl-redirect", "false").tls(&[WORK], "pair").host(WORK).path("Prefix", "/", "work").yaml();
    let setup = setup.flag("--configmap=default/settings");
    let run = setup.file("stable.yaml", &stable).file("generation.yaml", &generation(0)).serve().await;
    let near = run.local(run.ports().http);
    let relay = Relay::start(near, FAR).await.unwrap();
    let (far, tls) = (relay.address, run.local(run.ports().https));
    let fleet = Fleet::start(&Site { near, far, tls, work: WORK.to_owned(), generation: GENERATION.to_owned() }).await;
    let mut number = 0;
    while goes_on(number, &fleet) {
        number += 1;
        run.write("generation.yaml", &generation(number));
        fleet.sees(number).await;
    }
    (number, fleet.stop().await)
}

through_each_proxy!(reloads_under_every_kind_of_load_lose_nothing);

async fn reloads_under_every_kind_of_load_lose_nothing() {
    let Some(setup) = Run::setup() else { return };
    let (reloads, outcome) = reload(setup, |number, _| number < reloads()).await;
    println!("{reloads} reloads\n{outcome}");
    assert!(outcome.failures().is_empty(), "{:#?}\n{outcome}", outcome.failures());
    assert!(outcome.generations().len() > reloads, "{outcome}");
    assert!(outcome.0.values().all(|tally| tally.asked > 0), "{outcome}");
    // nginx has its clients of HTTP/2 move with GOAWAY; Envoy changes what it serves without moving anybody.
    let http2 = &outcome.0[&Kind::Http2];
    assert_eq!(http2.refused + http2.unsent > 0, of_this_test() == ProxyKind::Nginx, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nginxs_defaults_the_same_clients_lose_requests() {
    let Some(setup) = Run::setup() else { return };
    // What we render is changed before nginx reads it: the test of a release comes first, in its own folder.
    let wrapper = setup.folder().join("nginx-by-default");
    let script = format!(
        "#!/bin/sh\nfor a; do [ \"$last\" = -p ] && folder=$a; last=$a; done\n\
         [ -z \"$folder\" ] || sed -i '/keepalive_min_timeout/d' \"$folder\"/*.conf\nexec {} \"$@\"\n",
        setup.bin().display()
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let all = std::env::var_os("COXSWAIN_RELOADS").is_some();
    let goes_on = |number: usize, fleet: &Fleet| number < reloads() && (all || fleet.failed() == 0);
    let (reloads, outcome) = reload(setup.proxy_bin(&wrapper), goes_on).await;
    println!("{reloads} reloads\n{outcome}");
    assert!(!outcome.failures().is_empty(), "this would not notice a loss\n{outcome}");
    for tally in [Kind::Download, Kind::Upload, Kind::WebSocket].map(|kind| &outcome.0[&kind]) {
        assert!(tally.failures.is_empty(), "it is about idle connections alone\n{outcome}");
    }
}
