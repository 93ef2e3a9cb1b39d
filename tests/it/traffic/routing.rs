//! Which request goes where: hosts, paths, who wins, and what answers when nothing matches.

use crate::support::objects::{config_map, service, service_at};
use crate::support::proxies::through_each_proxy;
use crate::support::{Ingress, Pod, Request, Run, eventually, net, raw, wait};

/// Pods of three services, `s0` to `s2`, and the manifest of the services.
async fn three_services() -> (Vec<Pod>, String) {
    let port = net::port();
    let mut pods = Vec::new();
    let mut manifest = String::new();
    for name in ["s0", "s1", "s2"] {
        let pod = Pod::start(name, port).await;
        manifest += &service(name, &[&pod]);
        pods.push(pod);
    }
    (pods, manifest)
}

/// Asks for each target of each host and compares who answered: a Service, or a status code.
async fn expect(run: &Run, answers: &[(&str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (host, target, expected) in answers {
        let who = run.http().try_get(host, target).await.map_or_else(|why| why, |answer| answer.who());
        if who != *expected {
            wrong.push(format!("{host} {target}: {who} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Rules (kind and path, to `s0`, `s1`, … in order), and who answers which request.
type PathRow = (&'static [(&'static str, &'static str)], &'static [(&'static str, &'static str)]);

/// The path table of the Ingress documentation, row by row, and what its text adds.
const PATHS: &[PathRow] = &[
    (&[("Prefix", "/")], &[("/", "s0"), ("/any/path?x=/y", "s0"), ("//", "s0")]),
    (&[("Exact", "/foo")], &[("/foo", "s0"), ("/bar", "404"), ("/foo/", "404"), ("/foo?x", "s0"), ("/FOO", "404")]),
    (&[("Exact", "/foo/")], &[("/foo", "404"), ("/foo/", "s0"), ("/foo/x", "404")]),
    (&[("Prefix", "/foo")], &[("/foo", "s0"), ("/foo/", "s0"), ("/foo?a=b", "s0"), ("/Foo", "404"), ("/", "404")]),
    (&[("Prefix", "/foo/")], &[("/foo", "s0"), ("/foo/", "s0"), ("/foo/bar", "s0"), ("/foobar", "404")]),
    (&[("Prefix", "/aaa/bb")], &[("/aaa/bbb", "404"), ("/aaa/bb", "s0"), ("/aaa", "404")]),
    (
        &[("Prefix", "/aaa/bbb")],
        &[("/aaa/bbb", "s0"), ("/aaa/bbb/", "s0"), ("/aaa/bbb/ccc", "s0"), ("/aaa/bbbxyz", "404")],
    ),
    (&[("Prefix", "/aaa/bbb/")], &[("/aaa/bbb", "s0"), ("/aaa/bbb/ccc", "s0"), ("/aaa/bbbxyz", "404")]),
    (&[("Prefix", "/"), ("Prefix", "/aaa")], &[("/aaa/ccc", "s1"), ("/aaa", "s1"), ("/aa", "s0")]),
    (
        &[("Prefix", "/"), ("Prefix", "/aaa"), ("Prefix", "/aaa/bbb")],
        &[("/aaa/bbb", "s2"), ("/ccc", "s0"), ("/aaa/bbb/c", "s2"), ("/aaa/bb", "s1"), ("/aaa/bbbb", "s1")],
    ),
    (&[("Prefix", "/aaa")], &[("/ccc", "404"), ("/", "404")]),
    (&[("Prefix", "/foo"), ("Exact", "/foo")], &[("/foo", "s1"), ("/foo/", "s0"), ("/foo/x", "s0")]),
    // Several match: the longest wins, whatever its kind; at the same length Exact.
    (
        &[("Exact", "/a/b"), ("Prefix", "/a"), ("Prefix", "/a/b/c")],
        &[("/a/b", "s0"), ("/a/b/", "s1"), ("/a/b/c/d", "s2")],
    ),
    (&[("Prefix", "/a/"), ("Exact", "/a"), ("Exact", "/a/")], &[("/a", "s1"), ("/a/", "s2"), ("/a/x", "s0")]),
    (&[("Exact", "/"), ("Prefix", "/")], &[("/", "s0"), ("/?q", "s0"), ("/x", "s1")]),
    // An Exact path with a slash is no invitation to redirect to it.
    (&[("Exact", "/p/"), ("Prefix", "/")], &[("/p/", "s0"), ("/p", "s1"), ("/p/x", "s1")]),
    // ImplementationSpecific, also by omission, is Prefix; a rule without a path is all paths.
    (
        &[("ImplementationSpecific", "/i"), ("", "/j"), ("", "")],
        &[("/i/x", "s0"), ("/ix", "s2"), ("/j", "s1"), ("/jx", "s2")],
    ),
    // Paths are compared decoded, once.
    (
        &[("Exact", "/a b"), ("Exact", "/%C3%A4"), ("Prefix", "/c%2525")],
        &[("/a%20b", "s0"), ("/%c3%a4", "s1"), ("/c%2525/x", "s2"), ("/c%25/x", "404")],
    ),
    // What nginx reads as syntax is text here.
    (
        &[("Prefix", "/a;b{c}\"d'$e\\"), ("Exact", "/$uri"), ("Exact", "/#")],
        &[("/a;b%7Bc%7D%22d'$e%5C/x", "s0"), ("/$uri", "s1"), ("/%23", "404"), ("/", "404")],
    ),
    // Dot segments and double slashes are gone before anything is compared.
    (
        &[("Prefix", "/a"), ("Exact", "/b")],
        &[("/x/../a", "s0"), ("/a/../b", "s1"), ("/a/%2e%2e/b", "s1"), ("//a//b", "s0"), ("/./b", "s1")],
    ),
];

through_each_proxy!(every_row_of_the_path_table_holds);

async fn every_row_of_the_path_table_holds() {
    let Some(setup) = Run::setup() else { return };
    let (_pods, mut manifest) = three_services().await;
    for (row, (rules, _)) in PATHS.iter().enumerate() {
        let ingress = Ingress::new(&format!("row{row}")).host(&format!("row{row}.example.com"));
        let ingress = rules
            .iter()
            .enumerate()
            .fold(ingress, |ingress, (service, (kind, path))| ingress.path(kind, path, &format!("s{service}")));
        manifest += &ingress.yaml();
    }
    let run = setup.file("all.yaml", &manifest).serve().await;
    let mut wrong = Vec::new();
    for (row, (rules, requests)) in PATHS.iter().enumerate() {
        for (target, expected) in *requests {
            let host = format!("row{row}.example.com");
            let who = run.http().try_get(&host, target).await.map_or_else(|why| why, |answer| answer.who());
            if who != *expected {
                wrong.push(format!("{rules:?}: {target}: {who} instead of {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

through_each_proxy!(every_row_of_the_host_table_holds_for_every_form_of_a_host);

async fn every_row_of_the_host_table_holds_for_every_form_of_a_host() {
    let Some(setup) = Run::setup() else { return };
    let (_pods, services) = three_services().await;
    let manifest = services
        + &Ingress::new("wild").host("*.foo.com").path("Prefix", "/", "s0").yaml()
        + &Ingress::new("exact").host("exact.foo.com").path("Prefix", "/only", "s1").yaml()
        + &Ingress::new("other").host("foo.bar.com").path("Prefix", "/", "s2").yaml();
    let run = setup.file("all.yaml", &manifest).serve().await;
    expect(
        &run,
        &[
            ("bar.foo.com", "/", "s0"),
            ("baz.bar.foo.com", "/", "404"),
            ("foo.com", "/", "404"),
            (".foo.com", "/", "404"),
            // An exact host is better than a wildcard, even where none of its paths matches.
            ("exact.foo.com", "/only", "s1"),
            ("exact.foo.com", "/else", "404"),
            // Case, port, trailing dot.
            ("BAR.Foo.Com", "/", "s0"),
            ("bar.foo.com:80", "/", "s0"),
            ("bar.foo.com:65535", "/", "s0"),
            ("bar.foo.com.", "/", "s0"),
            ("Foo.Bar.Com.:8080", "/", "s2"),
            ("foo.bar.com", "/", "s2"),
            ("xfoo.bar.com", "/", "404"),
            ("fooxbar.com", "/", "404"),
            ("barxfoo.com", "/", "404"),
            ("*.foo.com", "/", "s0"),
            ("unknown.example", "/", "404"),
            ("127.0.0.1", "/", "404"),
            ("[::1]", "/", "404"),
        ],
    )
    .await;
    // Over HTTP/2 the host is `:authority`.
    for (host, expected) in [("bar.foo.com", "s0"), ("baz.bar.foo.com", "404"), ("FOO.bar.com:8443", "s2")] {
        let answer = run.https("bar.foo.com").http2().get(host, "/").await;
        assert_eq!(answer.who(), expected, "{host} over HTTP/2");
    }
    // No Host at all: nobody's in HTTP/1.0, an error in HTTP/1.1. An absolute target beats the header.
    let http = run.local(run.ports().http);
    let ask = async |text: &str| raw(http, text).await.unwrap().who();
    assert_eq!(ask("GET / HTTP/1.0\r\n\r\n").await, "404");
    assert_eq!(ask("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await, "400");
    assert_eq!(ask("GET http://foo.bar.com/ HTTP/1.1\r\nHost: bar.foo.com\r\nConnection: close\r\n\r\n").await, "s2");
    assert_eq!(ask("GET / HTTP/1.1\r\nHost: a.foo.com\r\nHost: b.foo.com\r\nConnection: close\r\n\r\n").await, "400");
    assert_eq!(ask("GET / HTTP/1.1\r\nHost: a.foo.com/x\r\nConnection: close\r\n\r\n").await, "400");
}

through_each_proxy!(fan_out_names_and_the_host_without_a_name_work_as_the_documentation_shows);

async fn fan_out_names_and_the_host_without_a_name_work_as_the_documentation_shows() {
    let Some(setup) = Run::setup() else { return };
    let (_pods, services) = three_services().await;
    let manifest = services
        + &Ingress::new("fan-out").host("fan.bar.com").path("Prefix", "/foo", "s0").path("Prefix", "/bar", "s1").yaml()
        + &Ingress::new("names")
            .host("first.bar.com")
            .path("Prefix", "/", "s0")
            .host("second.bar.com")
            .path("Prefix", "/", "s1")
            .host("")
            .path("Prefix", "/", "s2")
            .yaml();
    let run = setup.file("all.yaml", &manifest).serve().await;
    expect(
        &run,
        &[
            ("fan.bar.com", "/foo", "s0"),
            ("fan.bar.com", "/bar/x", "s1"),
            // The rule without a host takes what no host of a rule takes, not what is left over of another host.
            ("fan.bar.com", "/else", "404"),
            ("first.bar.com", "/", "s0"),
            ("second.bar.com", "/x", "s1"),
            ("third.bar.com", "/", "s2"),
            ("127.0.0.1", "/any", "s2"),
        ],
    )
    .await;
    let http = run.local(run.ports().http);
    assert_eq!(raw(http, "GET / HTTP/1.0\r\n\r\n").await.unwrap().who(), "s2");
}

through_each_proxy!(of_several_ingresses_on_one_host_the_oldest_wins_path_by_path);

async fn of_several_ingresses_on_one_host_the_oldest_wins_path_by_path() {
    let Some(setup) = Run::setup() else { return };
    let (_pods, services) = three_services().await;
    let manifest = services
        + &Ingress::new("a-young").created("2026-01-02T00:00:00Z").host("h.example.com")
            .path("Prefix", "/", "s0").path("Prefix", "/young", "s0").yaml()
        + &Ingress::new("z-old").created("2026-01-01T00:00:00Z").host("h.example.com")
            .path("Prefix", "/", "s1").path("Exact", "/old", "s1").yaml()
        // Equal times: by namespace, then by name.
        + &Ingress::new("b").host("same.example.com").path("Prefix", "/", "s0").yaml()
        + &Ingress::new("a").host("same.example.com").path("Prefix", "/", "s2").yaml();
    let run = setup.file("all.yaml", &manifest).serve().await;
    expect(
        &run,
        &[
            ("h.example.com", "/", "s1"),
            ("h.example.com", "/young", "s0"),
            ("h.example.com", "/old", "s1"),
            ("same.example.com", "/", "s2"),
        ],
    )
    .await;
    // The loser is told, and by whom it lost.
    run.says("default/z-old").await;
    // The winner gone, the other takes over.
    let rest = services_of(&manifest, &["z-old"]);
    run.write("all.yaml", &rest);
    eventually("the younger one serves", async || {
        let who = run.http().try_get("h.example.com", "/").await?.who();
        wait::check(who == "s0", || who)
    })
    .await;
}

/// The documents of a manifest that do not have one of these names.
fn services_of(manifest: &str, without: &[&str]) -> String {
    manifest
        .split_inclusive("---\n")
        .filter(|document| !without.iter().any(|name| document.contains(&format!("\"name\": \"{name}\""))))
        .collect()
}

through_each_proxy!(a_default_backend_answers_what_no_rule_takes);

async fn a_default_backend_answers_what_no_rule_takes() {
    let Some(setup) = Run::setup() else { return };
    let (_pods, services) = three_services().await;
    let manifest = services
        // With rules: for the hosts of its rules. Without rules: for everything else.
        + &Ingress::new("with-rules").host("ruled.example.com").path("Prefix", "/foo", "s0").default_backend("s1").yaml()
        + &Ingress::new("alone").default_backend("s2").yaml()
        + &Ingress::new("none").host("none.example.com").path("Prefix", "/foo", "s0").yaml();
    let run = setup.file("all.yaml", &manifest).serve().await;
    expect(
        &run,
        &[
            ("ruled.example.com", "/foo", "s0"),
            ("ruled.example.com", "/bar", "s1"),
            ("unknown.example.com", "/", "s2"),
            ("none.example.com", "/foo", "s0"),
        ],
    )
    .await;
}

through_each_proxy!(the_controllers_default_backend_answers_where_no_ingress_says_otherwise);

async fn the_controllers_default_backend_answers_where_no_ingress_says_otherwise() {
    let Some(setup) = Run::setup() else { return };
    let (_pods, services) = three_services().await;
    let manifest = services
        + &Ingress::new("with").host("with.example.com").path("Prefix", "/foo", "s0").default_backend("s1").yaml()
        + &Ingress::new("without").host("without.example.com").path("Prefix", "/foo", "s0").yaml();
    let run = setup.flag("--default-backend-service=default/s2").file("all.yaml", &manifest).serve().await;
    expect(
        &run,
        &[
            ("with.example.com", "/bar", "s1"),
            ("without.example.com", "/bar", "s2"),
            ("unknown.example.com", "/", "s2"),
        ],
    )
    .await;
    // It may come and go like any other Service. Without it the default backend of an Ingress answers for hosts that
    // nobody names, and nobody for the paths of a host that somebody else names.
    run.write("all.yaml", &services_of(&manifest, &["s2"]));
    eventually("404 without it", async || {
        let who = run.http().try_get("without.example.com", "/bar").await?.who();
        wait::check(who == "404", || who)
    })
    .await;
    assert_eq!(run.http().get("unknown.example.com", "/").await.who(), "s1");
    run.write("all.yaml", &manifest);
    eventually("back again", async || {
        let who = run.http().try_get("unknown.example.com", "/").await?.who();
        wait::check(who == "s2", || who)
    })
    .await;
}

through_each_proxy!(hundreds_of_hosts_and_the_longest_names_are_all_served);

async fn hundreds_of_hosts_and_the_longest_names_are_all_served() {
    let Some(setup) = Run::setup() else { return };
    let (_pods, services) = three_services().await;
    let label = "l".repeat(63);
    let long = format!("{label}.{label}.{label}.{}", "m".repeat(61));
    assert_eq!(long.len(), 253);
    let mut manifest = services + &config_map("unrelated", &[("a", "b")]) + &service_at("empty", &[]);
    for n in 0..300 {
        manifest += &Ingress::new(&format!("i{n}"))
            .host(&format!("h{n}.example.com"))
            .path("Prefix", "/", &format!("s{}", n % 3))
            .yaml();
    }
    manifest += &Ingress::new("long").host(&long).path("Prefix", "/", "s1").yaml();
    let long_path = format!("/{}", "p/".repeat(450));
    manifest += &Ingress::new("long-path").host("path.example.com").path("Prefix", &long_path, "s2").yaml();
    let run = setup.file("all.yaml", &manifest).serve().await;
    let mut connection = run.http().connect().await.unwrap();
    for n in 0..300 {
        let answer = connection.send(&Request::get(&format!("h{n}.example.com"), "/")).await.unwrap();
        assert_eq!(answer.who(), format!("s{}", n % 3));
    }
    expect(
        &run,
        &[(&long, "/", "s1"), ("path.example.com", &format!("{long_path}x"), "s2"), ("path.example.com", "/p", "404")],
    )
    .await;
}
