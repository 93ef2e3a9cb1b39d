//! Every annotation that is built, by what it does to requests; and that what protects and cannot be honoured closes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::support::objects::{document, service};
use crate::support::proxies::{either, through_each_proxy};
use crate::support::{Ingress, Pod, Request, Run, net};

/// A Service `web`, one Ingress for each row on a host of its own name, and the run that serves them.
async fn serve(ingresses: impl IntoIterator<Item = Ingress>) -> Option<(Run, Vec<Pod>)> {
    let setup = Run::setup()?;
    let port = net::port();
    let pods = vec![Pod::start("web", port).await, Pod::start("other", port).await];
    let mut manifest = service("web", &[&pods[0]]) + &service("other", &[&pods[1]]);
    for ingress in ingresses {
        manifest += &ingress.yaml();
    }
    Some((setup.file("all.yaml", &manifest).serve().await, pods))
}

through_each_proxy!(rewrites_take_groups_and_regexes_match_in_either_case_from_the_start);

async fn rewrites_take_groups_and_regexes_match_in_either_case_from_the_start() {
    let specific = "ImplementationSpecific";
    let Some((run, _pods)) = serve([
        Ingress::new("groups").ours("rewrite-target", "/$2").host("groups.test").path(specific, "/app(/|$)(.*)", "web"),
        Ingress::new("plain").ours("rewrite-target", "/new").host("plain.test").path("Prefix", "/old", "web"),
        Ingress::new("root").ours("rewrite-target", "/").host("root.test").path("Prefix", "/foo", "web"),
        Ingress::new("same").ours("rewrite-target", "/same").host("same.test").path("Prefix", "/same", "web"),
        Ingress::new("regex")
            .ours("use-regex", "true")
            .host("regex.test")
            .path(specific, "/v[0-9]+/items", "web")
            .path("Prefix", "/v1", "other")
            .path("Exact", "/exact.", "other"),
        Ingress::new("two").ours("rewrite-target", "/x/$1/$2").host("two.test").path(
            specific,
            "/([a-z]+)/([0-9]+)$",
            "web",
        ),
        // A regex of one Ingress does not make regexes of another's paths.
        Ingress::new("two-b").host("two.test").path(specific, "/li.eral", "other").path("Prefix", "/pre", "other"),
        Ingress::new("long").ours("use-regex", "true").host("long.test").path(specific, "/[a-z]", "web").path(
            "Prefix",
            "/ab/cd/ef",
            "other",
        ),
        Ingress::new("bad")
            .ours("use-regex", "true")
            .host("bad.test")
            .path(specific, "/a(b", "web")
            .path("Prefix", "/good", "web"),
        Ingress::new("braces").ours("use-regex", "true").host("braces.test").path(specific, "/a{2}/\\d\"'$", "web"),
    ])
    .await
    else {
        return;
    };
    let mut wrong = Vec::new();
    for (host, target, expected) in [
        ("groups.test", "/app/foo/bar?q=1&r=/", "web /foo/bar?q=1&r=/"),
        ("groups.test", "/app", "web /"),
        ("groups.test", "/app/", "web /"),
        ("groups.test", "/APP/Foo", "web /Foo"),
        ("groups.test", "/appx", "404"),
        ("groups.test", "/app/a%20b", "web /a%20b"),
        ("plain.test", "/old", "web /new"),
        ("plain.test", "/old/sub?x", "web /new?x"),
        ("plain.test", "/older", "404"),
        ("root.test", "/foo", "web /"),
        ("root.test", "/foo/bar/baz", "web /"),
        ("same.test", "/same/x%2Fy", "web /same/x%2Fy"),
        ("regex.test", "/v2/items", "web /v2/items"),
        ("regex.test", "/V22/Items/more", "web /V22/Items/more"),
        ("regex.test", "/v1/items", "web /v1/items"),
        ("regex.test", "/v1/other", "other /v1/other"),
        ("regex.test", "/v1x", "404"),
        ("regex.test", "/V1", "404"),
        ("regex.test", "/exact.", "other /exact."),
        ("regex.test", "/exactx", "404"),
        ("regex.test", "/x/v2/items", "404"),
        ("two.test", "/abc/42", "web /x/abc/42"),
        ("two.test", "/abc/42/", "404"),
        ("two.test", "/li.eral", "other /li.eral"),
        ("two.test", "/literal", "404"),
        ("two.test", "/pre/x", "other /pre/x"),
        ("long.test", "/ab/cd/ef", "other /ab/cd/ef"),
        ("long.test", "/ab/cd/eff", "web /ab/cd/eff"),
        ("bad.test", "/good", "web /good"),
        ("bad.test", "/a(b", "404"),
        ("braces.test", "/aa/7%22'", "web /aa/7%22'"),
        ("braces.test", "/aa/7%22'x", "404"),
    ] {
        let got = match run.http().try_get(host, target).await {
            Ok(answer) => {
                answer.echo().map_or(answer.status.to_string(), |echo| format!("{} {}", echo.service, echo.target))
            }
            Err(why) => why,
        };
        if got != expected {
            wrong.push(format!("{host}{target}: {got} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    run.says("/a(b").await;
}

through_each_proxy!(sizes_and_times_hold_for_the_routes_of_their_ingress_alone);

async fn sizes_and_times_hold_for_the_routes_of_their_ingress_alone() {
    let Some((run, _pods)) = serve([
        Ingress::new("small").ours("proxy-body-size", "1k").host("small.test").path("Prefix", "/", "web"),
        Ingress::new("usual").host("small.test").path("Prefix", "/usual", "web"),
        Ingress::new("unlimited").ours("proxy-body-size", "0").host("unlimited.test").path("Prefix", "/", "web"),
        Ingress::new("wrong").ours("proxy-body-size", "1 MB").host("wrong.test").path("Prefix", "/", "web"),
        Ingress::new("read").ours("proxy-read-timeout", "1").host("read.test").path("Prefix", "/", "web"),
        Ingress::new("patient").host("read.test").path("Prefix", "/patient", "web"),
        Ingress::new("times")
            .ours("proxy-connect-timeout", "1")
            .ours("proxy-send-timeout", "7")
            .ours("backend-protocol", "GRPC")
            .host("times.test")
            .path("Prefix", "/", "web"),
    ])
    .await
    else {
        return;
    };
    let mut wrong = Vec::new();
    for (host, path, size, expected) in [
        ("small.test", "/", 1024, "web"),
        ("small.test", "/", 1025, "413"),
        ("small.test", "/usual", 1 << 20, "web"),
        ("small.test", "/usual", (1 << 20) + 1, "413"),
        ("unlimited.test", "/", 3 << 20, "web"),
        ("wrong.test", "/", 1 << 20, "web"),
        ("wrong.test", "/", (1 << 20) + 1, "413"),
    ] {
        let request = Request::new("POST", host, path).body(vec![b'x'; size]);
        // A proxy may answer before it has read all, and close.
        let who = run.http().try_send(&request).await.map_or_else(|why| why, |answer| answer.who());
        if who != expected {
            wrong.push(format!("{host}{path} with {size} bytes: {who} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    run.says("1 MB").await;
    assert_eq!(run.http().get("read.test", "/?delay=20000").await.status, 504);
    assert_eq!(run.http().get("read.test", "/patient?delay=1500").await.who(), "web");
    let grpc = run.https("times.test").http2().send(&Request::grpc("times.test", "/a.B/C")).await;
    assert_eq!(grpc.who(), "web");
}

through_each_proxy!(source_ranges_let_in_who_is_meant_and_close_when_they_cannot_be_read);

async fn source_ranges_let_in_who_is_meant_and_close_when_they_cannot_be_read() {
    let Some((run, _pods)) = serve([
        Ingress::new("allow")
            .ours("allowlist-source-range", "127.9.0.0/16, 10.0.0.1")
            .host("allow.test")
            .path("Prefix", "/", "web"),
        Ingress::new("open").host("allow.test").path("Prefix", "/open", "web"),
        Ingress::new("old").ours("whitelist-source-range", "127.9.0.1").host("old.test").path("Prefix", "/", "web"),
        Ingress::new("deny").ours("denylist-source-range", "127.9.0.0/16").host("deny.test").path("Prefix", "/", "web"),
        Ingress::new("both")
            .ours("denylist-source-range", "127.9.0.1")
            .ours("allowlist-source-range", "127.9.0.0/16")
            .host("both.test")
            .path("Prefix", "/", "web"),
        Ingress::new("broken")
            .ours("allowlist-source-range", "127.9.0.0/16, office")
            .host("broken.test")
            .path("Prefix", "/", "web"),
        Ingress::new("empty").ours("allowlist-source-range", "").host("empty.test").path("Prefix", "/", "web"),
        Ingress::new("nodeny").ours("denylist-source-range", "nobody").host("nodeny.test").path("Prefix", "/", "web"),
        Ingress::new("redirected")
            .ours("allowlist-source-range", "127.9.0.1")
            .ours("force-ssl-redirect", "true")
            .host("redirected.test")
            .path("Prefix", "/", "web"),
        Ingress::new("both-names")
            .ours("allowlist-source-range", "127.9.0.1")
            .ours("whitelist-source-range", "127.9.0.2")
            .host("both-names.test")
            .path("Prefix", "/", "web"),
    ])
    .await
    else {
        return;
    };
    let mut wrong = Vec::new();
    for (host, path, from, expected) in [
        ("allow.test", "/", "127.9.0.1", "web"),
        ("allow.test", "/", "127.9.255.255", "web"),
        ("allow.test", "/", "127.8.0.1", "403"),
        ("allow.test", "/open", "127.8.0.1", "web"),
        ("old.test", "/", "127.9.0.1", "web"),
        ("old.test", "/", "127.9.0.2", "403"),
        ("deny.test", "/", "127.9.0.1", "403"),
        ("deny.test", "/", "127.8.0.1", "web"),
        ("both.test", "/", "127.9.0.1", "403"),
        ("both.test", "/", "127.9.0.2", "web"),
        ("both.test", "/", "127.8.0.1", "403"),
        ("broken.test", "/", "127.9.0.1", "503"),
        ("empty.test", "/", "127.9.0.1", "503"),
        ("nodeny.test", "/", "127.9.0.1", "503"),
        ("both-names.test", "/", "127.9.0.1", "web"),
        ("both-names.test", "/", "127.9.0.2", "403"),
        ("redirected.test", "/", "127.8.0.1", "308"),
    ] {
        let from: IpAddr = from.parse().unwrap();
        let request = Request::get(host, path).header("x-forwarded-for", "127.9.0.1").header("x-real-ip", "127.9.0.1");
        let who = run.http().from(from).try_send(&request).await.map_or_else(|why| why, |answer| answer.who());
        if who != expected {
            wrong.push(format!("{host}{path} from {from}: {who} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for told in ["office", "nobody"] {
        run.says(told).await;
    }
}

through_each_proxy!(what_is_not_built_is_told_and_closes_only_where_it_protects);

async fn what_is_not_built_is_told_and_closes_only_where_it_protects() {
    let protecting = [
        ("auth-url", "http://auth.example/"),
        ("auth-type", "basic"),
        ("auth-secret", "credentials"),
        ("auth-tls-secret", "default/ca"),
        ("satisfy", "any"),
        ("enable-global-auth", "true"),
        ("configuration-snippet", "deny all;"),
    ];
    let harmless = [
        ("proxy-ssl-name", "x"),
        ("server-snippet", "add_header X-A b;"),
        ("limit-rps", "5"),
        ("no-such-annotation", "x"),
        ("rewrite-targett", "/"),
        ("canary-weight", "50"),
    ];
    let ingress = |(name, value): &(&str, &str)| {
        Ingress::new(name).ours(name, value).host(&format!("{name}.test")).path("Prefix", "/", "web")
    };
    let all = protecting.iter().chain(&harmless).map(ingress);
    let foreign =
        Ingress::new("foreign").annotation("example.com/auth-url", "x").host("foreign.test").path("Prefix", "/", "web");
    let Some((run, pods)) = serve(all.chain([foreign])).await else { return };
    for (name, _) in protecting {
        assert_eq!(run.http().get(&format!("{name}.test"), "/").await.status, 503, "{name}");
        run.says(name).await;
    }
    assert_eq!(pods[0].answered(), 0, "no request reached what was to be protected");
    for (name, _) in harmless {
        assert_eq!(run.http().get(&format!("{name}.test"), "/").await.who(), "web", "{name}");
        run.says(name).await;
    }
    assert_eq!(run.http().get("foreign.test", "/").await.who(), "web");
    assert!(!run.said().contains("example.com/auth-url"), "annotations of others are none of our business");
    assert!(run.said().contains("rewrite-target"), "did you mean …");
}

through_each_proxy!(load_is_spread_over_all_endpoints_in_either_way);

async fn load_is_spread_over_all_endpoints_in_either_way() {
    let Some(setup) = Run::setup() else { return };
    let port = net::port();
    let pods = [Pod::start("a", port).await, Pod::start("b", port).await, Pod::start("c", port).await];
    let web = service("web", &pods.each_ref());
    let by_service = document(&serde_json::json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "own", "annotations": {"nginx.ingress.kubernetes.io/load-balance": "ewma"}},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    }));
    let endpoints: Vec<_> = pods.iter().map(|pod| (pod.address, Some(true))).collect();
    let manifest = web
        + &by_service
        + &crate::support::objects::slice("own", "a", &[("http", port)], &endpoints)
        + &Ingress::new("turn").host("turn.test").path("Prefix", "/", "web").yaml()
        + &Ingress::new("ewma").ours("load-balance", "ewma").host("ewma.test").path("Prefix", "/", "web").yaml()
        + &Ingress::new("own").host("own.test").path("Prefix", "/", "own").yaml()
        + &Ingress::new("none").ours("load-balance", "sideways").host("none.test").path("Prefix", "/", "web").yaml();
    let run = setup.file("a.yaml", &manifest).serve().await;
    for host in ["turn.test", "ewma.test", "own.test", "none.test"] {
        let mut seen = BTreeSet::new();
        for _ in 0..60 {
            seen.insert(run.http().get(host, "/").await.who());
        }
        assert_eq!(seen.len(), 3, "{host}: {seen:?}");
    }
    run.says("sideways").await;
}

through_each_proxy!(redirects_send_every_request_where_they_say_before_anything_else);

async fn redirects_send_every_request_where_they_say_before_anything_else() {
    let there = "https://elsewhere.example.com/a?b=c";
    let ingress = |name: &str| Ingress::new(name).host(&format!("{name}.test")).path("Prefix", "/", "web");
    let Some((run, _pods)) = serve([
        ingress("permanent").ours("permanent-redirect", there),
        ingress("permanent-code").ours("permanent-redirect", there).ours("permanent-redirect-code", "308"),
        ingress("temporal").ours("temporal-redirect", there).ours("permanent-redirect", "https://x.example.com"),
        ingress("temporal-code").ours("temporal-redirect", there).ours("temporal-redirect-code", "307"),
        ingress("forced").ours("permanent-redirect", there).ours("force-ssl-redirect", "true"),
        ingress("closed").ours("permanent-redirect", there).ours("auth-url", "http://auth.example"),
        ingress("outside").ours("permanent-redirect", there).ours("allowlist-source-range", "10.0.0.1"),
        ingress("wrong-code").ours("permanent-redirect", there).ours("permanent-redirect-code", "200"),
        ingress("wrong").ours("permanent-redirect", "https://x.example.com/$request_uri"),
        // Beside a route that has to go to https first.
        ingress("beside").ours("permanent-redirect", there),
        Ingress::new("secure").ours("force-ssl-redirect", "true").host("beside.test").path("Prefix", "/s", "web"),
    ])
    .await
    else {
        return;
    };
    let mut wrong = Vec::new();
    for (host, path, expected) in [
        ("permanent.test", "/", format!("301 {there}")),
        ("permanent.test", "/deep?er", format!("301 {there}")),
        ("permanent-code.test", "/", format!("308 {there}")),
        ("temporal.test", "/", format!("302 {there}")),
        ("temporal-code.test", "/", format!("307 {there}")),
        ("forced.test", "/", format!("301 {there}")),
        ("closed.test", "/", "503 ".to_owned()),
        ("outside.test", "/", format!("301 {there}")),
        ("wrong-code.test", "/", format!("301 {there}")),
        ("wrong.test", "/", "200 ".to_owned()),
        ("beside.test", "/x", format!("301 {there}")),
        ("beside.test", "/s/x", "308 https://beside.test".to_owned()),
    ] {
        let answer = run.http().get(host, path).await;
        let location = answer.header("location").unwrap_or_default();
        let got = format!("{} {location}", answer.status);
        if got != expected && !(host == "beside.test" && got.starts_with(&expected)) {
            wrong.push(format!("{host}{path}: {got} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for told in ["wrong-code", "$request_uri"] {
        run.says(told).await;
    }
}

through_each_proxy!(further_endpoints_are_tried_as_often_and_after_what_is_said);

async fn further_endpoints_are_tried_as_often_and_after_what_is_said() {
    let Some(setup) = Run::setup() else { return };
    let port = net::port();
    let pods = [Pod::start("a", port).await, Pod::start("b", port).await, Pod::start("c", port).await];
    let ingress = |name: &str| Ingress::new(name).host(&format!("{name}.test")).path("Prefix", "/", "web");
    let manifest = service("web", &pods.each_ref())
        + &ingress("usual").yaml()
        + &ingress("busy").ours("proxy-next-upstream", "error timeout http_503").yaml()
        + &ingress("twice").ours("proxy-next-upstream", "http_503").ours("proxy-next-upstream-tries", "2").yaml()
        + &ingress("post").ours("proxy-next-upstream", "http_503 non_idempotent").yaml()
        + &ingress("off").ours("proxy-next-upstream", "off").yaml();
    let run = setup.file("a.yaml", &manifest).serve().await;
    for (host, method, query, tried) in [
        ("usual.test", "GET", "status=503", 1),
        ("usual.test", "GET", "drop", 3),
        ("busy.test", "GET", "status=503", 3),
        ("busy.test", "GET", "status=500", 1),
        ("busy.test", "POST", "status=503", 1),
        ("twice.test", "GET", "status=503", 2),
        ("post.test", "POST", "status=503", 3),
        ("off.test", "GET", "drop", 1),
    ] {
        let asked = || pods.iter().map(Pod::answered).sum::<usize>();
        let before = asked();
        run.http().send(&Request::new(method, host, &format!("/?{query}"))).await;
        assert_eq!(asked() - before, tried, "{method} {host} {query}");
    }
}

through_each_proxy!(headers_of_an_answer_must_fit_into_the_buffer_that_the_route_has);

async fn headers_of_an_answer_must_fit_into_the_buffer_that_the_route_has() {
    let ingress = |name: &str| Ingress::new(name).host(&format!("{name}.test")).path("Prefix", "/", "web");
    let Some((run, _pods)) = serve([
        ingress("usual"),
        ingress("large").ours("proxy-buffer-size", "16k"),
        ingress("buffered")
            .ours("proxy-buffer-size", "16k")
            .ours("proxy-buffering", "on")
            .ours("proxy-buffers-number", "2")
            .ours("proxy-busy-buffers-size", "16k")
            .ours("proxy-max-temp-file-size", "0")
            .ours("client-body-buffer-size", "1k")
            .ours("proxy-request-buffering", "off"),
        ingress("absurd").ours("proxy-buffer-size", "1g"),
    ])
    .await
    else {
        return;
    };
    let long = format!("/?location=/{}", "x".repeat(6000));
    let refused = either("the size of an answer's headers", 502, 200);
    for (host, status) in
        [("usual.test", refused), ("large.test", 200), ("buffered.test", 200), ("absurd.test", refused)]
    {
        assert_eq!(run.http().get(host, &long).await.status, status, "{host}");
    }
    let answer = run.http().get("buffered.test", "/?length=300000").await;
    assert_eq!((answer.status, answer.body.len()), (200, 300_000));
    let upload = Request::new("POST", "buffered.test", "/").body(vec![b'x'; 100_000]);
    assert_eq!(run.http().send(&upload).await.echo().unwrap().body, 100_000);
    run.says("proxy-buffer-size").await;
}

through_each_proxy!(a_client_gets_its_answer_no_faster_than_the_route_says);

async fn a_client_gets_its_answer_no_faster_than_the_route_says() {
    let ingress = |name: &str| Ingress::new(name).host(&format!("{name}.test")).path("Prefix", "/", "web");
    let Some((run, _pods)) = serve([
        ingress("slow").ours("limit-rate", "20").ours("proxy-buffering", "on"),
        ingress("late").ours("limit-rate", "20").ours("limit-rate-after", "1000").ours("proxy-buffering", "on"),
        ingress("unbuffered").ours("limit-rate", "20"),
    ])
    .await
    else {
        return;
    };
    let times = futures::future::join_all(["slow.test", "late.test", "unbuffered.test"].map(async |host| {
        let start = std::time::Instant::now();
        let answer = run.http().get(host, "/?length=81920").await;
        assert_eq!(answer.body.len(), 81_920, "{host}");
        start.elapsed().as_secs_f32()
    }))
    .await;
    // 80 KiB at 20 KiB in a second, of which the first 20 come at once.
    assert!(times[0] > 2.0, "{times:?}");
    assert_eq!(times[1] < times[0] / 2.0, either("what comes before limit-rate-after", true, false), "{times:?}");
    run.says("needs `proxy-buffering`").await;
}
