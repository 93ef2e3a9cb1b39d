//! What is rendered from models made by hand, before a real nginx: it is taken, and it means what the model says.

use std::collections::BTreeSet;

use coxswain::annotations::forwarded::Trust;
use coxswain::annotations::rewrite::Rewrite;
use coxswain::model::{Action, PathMatch, ProxyConfig, Route, SlotId, VirtualHost};
use coxswain::render::{Base, Doublings, History, RelativePath, Rendering, render, render_trial};
use coxswain::value::log_variable;
use coxswain::value::number::{Count, Seconds};
use coxswain::value::tls::TlsVersion;
use coxswain::volume::{Protocol, ProxyKind};

use crate::support::model::{Stage, config, host, ingress, last, route, upstream, value};
use crate::support::parts;

/// Has nginx test every file of a rendering.
#[track_caller]
fn test(rendering: &Rendering) {
    let Some(nginx) = parts::nginx() else { return };
    let stage = Stage::new(rendering);
    for (file, text) in [("nginx.conf", text(rendering)), ("changed.conf", changed(rendering))] {
        if let Err(words) = stage.test(&nginx, file).or_else(|words| if text.is_empty() { Ok(()) } else { Err(words) })
        {
            panic!("{words}\n{text}");
        }
    }
}

#[track_caller]
fn tested(config: &ProxyConfig) -> Rendering {
    let rendering = render(config, ProxyKind::Nginx, &History::default()).unwrap();
    test(&rendering);
    rendering
}

fn text(rendering: &Rendering) -> String {
    String::from_utf8(rendering.release.files[&RelativePath::MAIN].bytes.clone()).unwrap()
}

fn changed(rendering: &Rendering) -> String {
    rendering.release.changed.as_ref().map(|file| String::from_utf8(file.bytes.clone()).unwrap()).unwrap_or_default()
}

/// The names of the servers in a file, in order.
fn servers(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.trim().strip_prefix("server_name ")?.strip_suffix(';')).collect()
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

#[test]
fn nginx_takes_every_setting() {
    let (web, upstream) = upstream("shop/web", Protocol::Http, &[]);
    let mut extreme = route("~/(.)\"\\\\$", web.clone());
    extreme.redirect_to_https = true;
    extreme.policies.body_size.0 = value("0");
    extreme.policies.timeouts.read = value("0");
    extreme.policies.rewrite =
        Some(Rewrite { pattern: value("/(.)\"\\\\$"), target: value(&format!("$1/{}", "~%:".repeat(300))) });
    extreme.policies.source_range.deny = vec![value("::/0")];
    extreme.policies.source_range.allow = vec![value("10.0.0.0/8"), value("2001:db8::1")];
    let mut model = config([host("a.test", [extreme, route("/", web)])], [upstream]);
    model.listeners.ipv6 = true;
    let globals = &mut model.globals;
    globals.process.workers = Some(Count::new(2));
    globals.client_tls.protocols = vec![TlsVersion::V1_0, TlsVersion::V1_3];
    globals.client_tls.http2 = false;
    globals.connections.keep_alive = Seconds::new(0);
    globals.connections.upstream_connections = Count::new(0);
    globals.connections.underscores_in_headers = true;
    globals.connections.server_tokens = true;
    globals.forwarded.request_id = false;
    globals.forwarded.trust =
        Some(Trust { header: value("CF-Connecting_IP"), from: value("0.0.0.0/0,::1"), append: true });
    globals.hsts.enabled = false;
    globals.tls_redirect.exempt = vec![value("/a\"{}$"), value(&format!("/{}", "\\".repeat(999)))];
    globals.logging.access_path = Some(value("/dev/null"));
    globals.logging.format = Some(value(&format!("escape=json{}\"$status", "\\".repeat(1900))));
    tested(&model);
    model.globals.forwarded.trust =
        Some(Trust { header: value("X-Real-IP"), from: value("10.0.0.0/8"), append: false });
    tested(&model);
}

#[test]
fn nginx_takes_the_longest_path_of_the_worst_characters() {
    let routes = || {
        ["\\", "\"", "(", "ü"].map(|c| {
            let path = format!("/{}", c.repeat(999 / c.len()));
            Route { path: PathMatch::Prefix(value(&path)), ..route("/", Action::Respond(404)) }
        })
    };
    let mut by_regex: Vec<_> = routes().into();
    by_regex.push(route(&format!("~/{}", "\\\\".repeat(511)), Action::Respond(404)));
    tested(&config([host("a.test", routes()), host("b.test", by_regex)], []));
}

#[test]
fn paths_that_mean_the_same_become_one_location_of_the_first_route() {
    let routes = [
        route("=/a", Action::Respond(411)),
        route("=/a", Action::Respond(412)),
        route("/a/", Action::Respond(413)),
        route("/a", Action::Respond(414)),
        route("/", Action::Respond(415)),
    ];
    let text = text(&tested(&config([host("a.test", routes.clone()), host("", routes)], [])));
    for (status, times) in [(411, 2), (412, 0), (413, 2), (414, 0), (415, 2)] {
        assert_eq!(text.matches(&format!("return {status};")).count(), times, "{status}");
    }
}

#[test]
fn changed_conf_holds_the_default_server_and_what_differs_from_the_base() {
    let (web, web_upstream) = upstream("shop/web", Protocol::Http, &[]);
    let (old, old_upstream) = upstream("shop/old", Protocol::Http, &[]);
    let hosts = |b: u16| {
        [
            host("a.test", [route("/", web.clone())]),
            host("b.test", [route("/", Action::Respond(b))]),
            host("c.test", [route("/", old.clone())]),
        ]
    };
    let before = config(hosts(404), [web_upstream.clone(), old_upstream.clone()]);
    let digest = render(&before, ProxyKind::Nginx, &History::default()).unwrap().release.digest;
    let base = Some(Base { config: &before, digest: digest.clone() });
    let history = History { base, ..History::default() };
    let with = |config: &ProxyConfig| {
        let rendering = render(config, ProxyKind::Nginx, &history).unwrap();
        test(&rendering);
        assert_eq!(
            rendering.release.digest,
            render(config, ProxyKind::Nginx, &History::default()).unwrap().release.digest
        );
        assert_eq!(rendering.release.manifest.base.as_ref(), Some(&digest));
        rendering
    };

    assert_eq!(servers(&changed(&with(&before))), ["_"]);
    let after = with(&config(hosts(403), [web_upstream.clone(), old_upstream]));
    assert_eq!(servers(&changed(&after)), ["b.test", "_"]);
    assert!(!changed(&after).contains("\n\tupstream "), "{}", changed(&after));
    assert_eq!(servers(&text(&after)), ["a.test", "b.test", "c.test", "_"]);

    let new = host("d.test", [route("/", web.clone())]);
    let [first, ..] = hosts(404);
    let after = with(&config([first, new], [web_upstream]));
    assert_eq!(servers(&changed(&after)), ["d.test", "_"]);
    assert!(changed(&after).contains("-shop-web-80 {"));
    assert_eq!(after.release.manifest.upstreams.len(), 1);
}

#[test]
fn a_trial_holds_what_the_suspects_bring_and_nothing_of_others() {
    let (web, web_upstream) = upstream("shop/web", Protocol::Http, &[]);
    let (other, other_upstream) = upstream("team/other", Protocol::Http, &[]);
    let theirs = |route: Route| Route { source: Some(ingress("team/other")), ..route };
    let hosts = [
        host("a.test", [route("/mine", web.clone()), theirs(route("/theirs", other.clone()))]),
        VirtualHost { source: Some(ingress("team/other")), ..host("b.test", [theirs(route("/", other))]) },
    ];
    let model = config(hosts, [web_upstream, other_upstream]);
    let trial = |suspects: &[&str]| {
        let suspects: BTreeSet<_> = suspects.iter().map(|name| ingress(name)).collect();
        let rendering = render_trial(&model, ProxyKind::Nginx, &suspects, &Doublings::default()).unwrap();
        test(&rendering);
        text(&rendering)
    };
    let skeleton = trial(&[]);
    assert_eq!(servers(&skeleton), ["_"]);
    assert!(!skeleton.contains("\n\tupstream "));
    let mine = trial(&["shop/web"]);
    assert_eq!(servers(&mine), ["a.test", "_"]);
    assert!(mine.contains("/mine") && mine.contains("-shop-web-80") && !mine.contains("team"), "{mine}");
    let both = trial(&["shop/web", "team/other"]);
    assert_eq!(servers(&both), ["a.test", "b.test", "_"]);
}

#[test]
fn every_line_is_blamed_on_the_object_that_brought_it() {
    let (web, web_upstream) = upstream("shop/web", Protocol::Http, &[]);
    let (other, other_upstream) = upstream("team/other", Protocol::Http, &[]);
    let theirs = Route { source: Some(ingress("team/other")), ..route("/theirs", other) };
    let model = config([host("a.test", [route("/mine", web), theirs])], [web_upstream, other_upstream]);
    let rendering = tested(&model);
    let text = text(&rendering);
    let blame = |what: &str| {
        let line = text.lines().position(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what} in {text}"));
        rendering.source_map.blame("nginx.conf", line as u64 + 1).map(ToString::to_string)
    };
    let (mine, theirs) = (Some("Ingress shop/web".to_owned()), Some("Ingress team/other".to_owned()));
    assert_eq!(blame("pcre_jit"), None);
    assert_eq!(blame("-shop-web-80 {"), mine);
    assert_eq!(blame("-team-other-80 {"), theirs);
    assert_eq!(blame("server_name a.test"), mine);
    assert_eq!(blame("\"/mine\""), mine);
    assert_eq!(blame("\"/theirs/\""), theirs);
    assert_eq!(blame("# Ingress team/other"), theirs);
    assert_eq!(blame("server_name _"), None);
    assert_eq!(rendering.source_map.blame("nginx.conf", 0), None);
    assert_eq!(rendering.source_map.blame("changed.conf", 1), None);
}

#[test]
fn what_most_routes_agree_on_is_said_once() {
    let (web, web_upstream) = upstream("shop/web", Protocol::Http, &[]);
    let sized = |path: &str, size: &str| {
        let mut route = route(path, web.clone());
        route.policies.body_size.0 = value(size);
        route
    };
    let routes = [sized("=/a", "8m"), sized("=/b", "8m"), sized("=/c", "8m"), sized("=/d", "1m"), last()];
    let text = text(&tested(&config([host("a.test", routes)], [web_upstream])));
    assert_eq!(text.matches("client_max_body_size 8m;").count(), 1);
    assert_eq!(text.matches("client_max_body_size 1m;").count(), 1);
}
