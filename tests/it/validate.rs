//! What is rendered from models made by hand, before a real nginx: it is taken, and it means what the model says.

use std::collections::BTreeSet;

use coxswain::annotations::Globals;
use coxswain::model::{Action, SlotId, VirtualHost};
use coxswain::render::{Base, Rendering, render, render_trial};
use coxswain::value::log_variable;
use coxswain::volume::{Protocol, ProxyKind};

use crate::support::model::{Stage, config, host, ingress, route, upstream, value};
use crate::support::parts;

/// Renders, and has nginx test every file.
#[track_caller]
fn tested(config: &coxswain::model::ProxyConfig) -> Option<Rendering> {
    let nginx = parts::nginx()?;
    let rendering = render(config, ProxyKind::Nginx, None).unwrap();
    let stage = Stage::new(&rendering);
    if let Err(words) = stage.test(&nginx, "nginx.conf") {
        let text = String::from_utf8_lossy(&rendering.release.files.values().next().unwrap().bytes).into_owned();
        panic!("{words}\n{text}");
    }
    Some(rendering)
}

fn text(rendering: &Rendering) -> String {
    rendering.release.files.values().map(|file| String::from_utf8(file.bytes.clone()).unwrap()).collect()
}

#[test]
fn nginx_takes_the_skeleton() {
    tested(&config([], []));
}

#[test]
fn nginx_takes_every_kind_of_host_path_and_upstream() {
    let protocols = [Protocol::Http, Protocol::Https, Protocol::Grpc, Protocol::Grpcs];
    let (actions, upstreams): (Vec<_>, Vec<_>) =
        protocols.map(|protocol| upstream("shop/web", protocol, &[])).into_iter().unzip();
    let forward = |n: usize| actions[n].clone();
    let routes = || {
        [
            route("=/exact", forward(0)),
            route("=/exact/", forward(1)),
            route("/a b;{}\"'\\$x", forward(2)),
            route("/api", forward(3)),
            route("/", forward(0)),
        ]
    };
    let mut regex: Vec<_> = routes().into();
    regex.insert(2, route("~/v[0-9]+|/\"w\"", forward(0)));
    let tls = |name: &str, host: VirtualHost| VirtualHost { tls: Some(SlotId::of(&value(name))), ..host };
    let hosts = [
        tls("shop/cert", host("shop.example.com", routes())),
        tls("shop/cert", host("*.shop.example.com", routes())),
        tls("shop/cert", host("default", regex)),
        tls(
            "shop/cert",
            host(
                &format!("{}.com", ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(57)].join(".")),
                routes(),
            ),
        ),
        host("", routes()),
    ];
    tested(&config(hosts, upstreams));
}

#[test]
fn nginx_has_every_variable_that_a_log_format_may_name() {
    for names in [log_variable::OURS, log_variable::STOCK] {
        let mut model = config([], []);
        model.globals.logging.format = Some(value(&names.iter().map(|name| format!("${name} ")).collect::<String>()));
        tested(&model);
    }
}
