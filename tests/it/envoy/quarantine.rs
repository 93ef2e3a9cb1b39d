//! What becomes of objects that Envoy refuses. Our renderer leaves nothing for it to refuse, so a wrapper lowers Envoy's own
//! limit for the size of a regular expression, and Envoy itself refuses what is larger: a push as well as a trial.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use coxswain::volume::ProxyKind;

use crate::support::objects::service;
use crate::support::proxies::through;
use crate::support::run::Setup;
use crate::support::{Ingress, Pod, Run, eventually, net, wait};

fn limited(setup: Setup) -> Setup {
    let envoy = setup.bin().display();
    let script = format!(
        r#"#!/bin/sh
last= count=$#
while [ "$count" -gt 0 ]; do
  argument=$1
  shift
  if [ "$last" = -c ]; then
    copy=$PWD/limited-$$.json
    sed 's/"error_level": *[0-9]*/"error_level": 300/' "$argument" > "$copy"
    argument=$copy
  fi
  set -- "$@" "$argument"
  last=$argument count=$((count - 1))
done
exec {envoy} "$@"
"#
    );
    let path = setup.folder().join("envoy-wrapper");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    setup.proxy_bin(path)
}

/// So many Ingresses; the bad ones have an expression that is too large.
fn objects(count: usize, bad: &[usize]) -> String {
    let ingress = |n: usize| {
        let path = if bad.contains(&n) { "/(abcdefghij|klmnopqrst){40}" } else { "/" };
        let ingress = Ingress::new(&format!("i{n}")).host(&format!("h{n}.test")).ours("use-regex", "true");
        ingress.path("ImplementationSpecific", path, "web").yaml()
    };
    (0..count).map(ingress).collect()
}

async fn answers(run: &Run, host: &str, expected: u16) {
    eventually(&format!("{host}: {expected}"), async || {
        let status = run.http().try_get(host, "/").await?.status;
        wait::check(status == expected, || format!("{status}; {}", run.said()))
    })
    .await;
}

async fn is_told_of(run: &Run, bad: &[usize]) {
    for n in bad {
        run.says(&format!("Ingress default/i{n}: ")).await;
    }
    run.says("brings what the proxy refuses").await;
    for line in run.said().lines().filter(|line| line.contains("brings what the proxy refuses")) {
        assert!(bad.iter().any(|n| line.contains(&format!("default/i{n}:"))), "{line}");
        assert!(line.contains("max program size"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_envoy_refuses_is_found_and_held_back_and_all_else_goes_live() {
    through(ProxyKind::Envoy, "held back", async {
        let Some(setup) = Run::setup() else { return };
        let pod = Pod::start("web", net::port()).await;
        let setup = limited(setup).file("web.yaml", &service("web", &[&pod])).file("a.yaml", &objects(6, &[]));
        let run = setup.serve().await;
        answers(&run, "h5.test", 200).await;
        run.write("a.yaml", &objects(9, &[3]));
        answers(&run, "h8.test", 200).await;
        is_told_of(&run, &[3]).await;
        // It keeps what it had, until it is mended.
        answers(&run, "h3.test", 200).await;
        run.write("a.yaml", &objects(10, &[]));
        answers(&run, "h9.test", 200).await;
        answers(&run, "h3.test", 200).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_release_is_served_without_what_envoy_refuses() {
    through(ProxyKind::Envoy, "held back", async {
        let Some(setup) = Run::setup() else { return };
        let pod = Pod::start("web", net::port()).await;
        let setup = limited(setup).file("web.yaml", &service("web", &[&pod])).file("a.yaml", &objects(7, &[2, 4]));
        let run = setup.serve().await;
        answers(&run, "h6.test", 200).await;
        is_told_of(&run, &[2, 4]).await;
        answers(&run, "h2.test", 503).await;
    })
    .await;
}
