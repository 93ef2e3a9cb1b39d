//! What a rendered file does to requests, in a real nginx: models made by hand, without translation, agent or reload.
//! The whole way from manifests is tested in `traffic`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use coxswain::annotations::forwarded::Trust;
use coxswain::annotations::rewrite::Rewrite;
use coxswain::annotations::source_range::SourceRange;
use coxswain::model::{Action, Route, SlotId, StaticFile, StaticFiles, VirtualHost};
use coxswain::value::cidr::Cidr;
use coxswain::volume::Protocol;

use crate::support::certificates::Authority;
use crate::support::client::{Request, raw};
use crate::support::model::{config, host, route, upstream, value};
use crate::support::pod::Echo;
use crate::support::rendered::Rendered;
use crate::support::{Answer, Pod, eventually, net, wait};

/// A route that answers with a status.
fn status(path: &str, status: u16) -> Route {
    route(path, Action::Respond(status))
}

async fn statuses(proxy: &Rendered, host: &str, expected: &[(&str, u16)]) {
    for (target, status) in expected {
        assert_eq!(proxy.client().get(host, target).await.status, *status, "{host} {target}");
    }
}

fn echo(answer: &Answer) -> Echo {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn literal_paths_match_element_by_element() {
    let pod = Pod::start("slash", net::port()).await;
    let (slash, upstream) = upstream("shop/slash", Protocol::Http, &[pod.address]);
    let routes = [
        status("=/foo", 211),
        route("=/bar/", slash.clone()),
        route("=/aaa/bar/", slash),
        status("/aaa/bbb", 214),
        status("/foo/", 213),
        status("/aaa", 215),
        status("/a;b \"{}\\$x", 217),
        status("/", 216),
    ];
    let Some(proxy) = Rendered::start(config([host("a.test", routes)], [upstream]), &[]).await else { return };
    let expected = [
        ("/", 216),
        ("/foo", 211),
        ("/foo/", 213),
        ("/foo/x", 213),
        ("/foobar", 216),
        ("/FOO", 216),
        ("/bar/", 200),
        ("/aaa/bar/", 200),
        // Not nginx's own redirect to `/bar/`.
        ("/bar", 216),
        ("/aaa/bar", 215),
        ("/aaa", 215),
        ("/aaa/bbb", 214),
        ("/aaa/bbb/", 214),
        ("/aaa/bbb/ccc", 214),
        ("/aaa/bbbxyz", 215),
        ("/aaa//bbb", 214),
        ("/aaa/x/../bbb", 214),
        ("/%61aa/bb%62", 214),
        ("/aaa%2Fbbb", 214),
        ("/aaa/../ccc", 216),
        ("/a;b%20%22%7B%7D%5C$x", 217),
        ("/a;b%20%22%7B%7D%5C$x/y", 217),
        ("/a;b%20%22%7B%7D%5C$xy", 216),
    ];
    statuses(&proxy, "a.test", &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_are_anchored_as_a_whole_and_keep_their_rank() {
    let pod = Pod::start("slash", net::port()).await;
    let (slash, upstream) = upstream("shop/slash", Protocol::Http, &[pod.address]);
    let routes = [
        status("=/v1/exact", 210),
        route("=/slash/", slash),
        status("~/v[0-9]+/long|/w", 221),
        status("/v1/lo", 222),
        status("/v1", 223),
        status("/a.b", 224),
        status("/", 225),
    ];
    let Some(proxy) = Rendered::start(config([host("a.test", routes)], [upstream]), &[]).await else { return };
    let expected = [
        ("/v1/exact", 210),
        ("/v1/exact/", 223),
        ("/slash/", 200),
        ("/slash", 225),
        ("/v1/long", 221),
        ("/V22/LONGer", 221),
        ("/wx", 221),
        ("/x/w", 225),
        ("/v1/lo", 222),
        ("/v1/lo/x", 222),
        ("/v1/lox", 223),
        ("/v1", 223),
        ("/v11", 225),
        ("/V1", 225),
        ("/v1%0a", 225),
        ("/a.b/c", 224),
        ("/axb", 225),
    ];
    statuses(&proxy, "a.test", &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_exact_or_one_label_more_or_all_others() {
    let hosts = [
        host("foo.com", [status("/", 210)]),
        host("exact.foo.com", [status("/", 211)]),
        host("*.foo.com", [status("/", 212)]),
        host("default", [status("/", 213)]),
        host("", [status("/healthz", 215), status("/", 214)]),
    ];
    let Some(proxy) = Rendered::start(config(hosts, []), &[]).await else { return };
    let expected = [
        ("foo.com", 210),
        ("FOO.com", 210),
        ("foo.com:8080", 210),
        ("foo.com.", 210),
        ("exact.foo.com", 211),
        ("bar.foo.com", 212),
        ("BAR.foo.com.:80", 212),
        ("baz.bar.foo.com", 214),
        ("default", 213),
        ("other.com", 214),
        ("_", 214),
        ("[::1]:80", 214),
        ("127.0.0.1", 214),
    ];
    for (host, status) in expected {
        statuses(&proxy, host, &[("/", status)]).await;
    }
    statuses(&proxy, "other.com", &[("/healthz", 200), ("/healthz/", 215)]).await;
    let answer = raw(proxy.address(), b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(answer.status, 214);
    assert!(!proxy.access_log().contains("/healthz HTTP"), "{}", proxy.access_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_redirected_to_https_and_https_is_remembered() {
    let secure = |path: &str, code| Route { redirect_to_https: true, ..status(path, code) };
    let hosts = [
        host("all.test", [secure("/", 211)]),
        host("some.test", [secure("/in", 212), status("/", 213)]),
        host("", [secure("/", 214)]),
    ];
    let mut model = config(hosts, []);
    model.listeners.public_https = 9443;
    let Some(proxy) = Rendered::start(model, &[]).await else { return };
    let locations = [
        ("all.test", "/", "https://all.test:9443"),
        ("ALL.test:80", "/a/?b=/", "https://all.test:9443/a/?b=/"),
        ("all.test", "/a%20b/", "https://all.test:9443/a%20b"),
        ("all.test", "//evil.test/", "https://all.test:9443//evil.test"),
        ("some.test", "/in/x", "https://some.test:9443/in/x"),
        ("other.test", "/x", "https://other.test:9443/x"),
        ("[::1]:80", "/x", "https://[::1]:9443/x"),
    ];
    for (host, target, location) in locations {
        let answer = proxy.client().get(host, target).await;
        assert_eq!((answer.status, answer.header("location")), (308, Some(location)), "{host} {target}");
        assert_eq!(answer.header("strict-transport-security"), None);
    }
    let stays =
        [("all.test", "/.well-known/acme-challenge/x", 211), ("some.test", "/", 213), ("other.test", "/healthz", 200)];
    for (host, target, status) in stays {
        statuses(&proxy, host, &[(target, status)]).await;
    }
    let answer = proxy.tls("all.test").get("all.test", "/").await;
    assert_eq!(answer.status, 211);
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=31536000; includeSubDomains"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_that_of_the_asked_name() {
    let authority = Authority::new();
    let (one, two) = (authority.issue(&["shop.test"]), authority.issue(&["*.dev.test"]));
    let slots = [SlotId::of(&value("shop/one")), SlotId::of(&value("shop/two"))];
    let tls = |name: &str, slot: &SlotId| VirtualHost { tls: Some(slot.clone()), ..host(name, [status("/", 211)]) };
    let hosts = [tls("shop.test", &slots[0]), tls("*.dev.test", &slots[1]), tls("default", &slots[0])];
    let pairs = [(slots[0].as_str(), &one), (slots[1].as_str(), &two)];
    let Some(proxy) = Rendered::start(config(hosts, []), &pairs).await else { return };
    for (name, pair) in [
        ("shop.test", Some(&one)),
        ("SHOP.test", Some(&one)),
        ("a.dev.test", Some(&two)),
        ("A.DEV.test", Some(&two)),
        ("a.b.dev.test", None),
        ("dev.test", None),
        ("default", Some(&one)),
        ("include", None),
    ] {
        let shown = proxy.tls(name).certificate().await.unwrap();
        let which = [&one, &two].into_iter().find(|pair| pair.der == shown).map(|pair| &pair.der);
        assert_eq!(which, pair.map(|pair| &pair.der), "{name}");
    }
    assert_eq!(proxy.tls("shop.test").http2().get("shop.test", "/").await.status, 211);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_upstream_with_our_headers_and_not_the_clients() {
    let pod = Pod::start("web", net::port()).await;
    let (web, upstream) = upstream("shop/web", Protocol::Http, &[pod.address]);
    let Some(proxy) = Rendered::start(config([host("a.test", [route("/", web)])], [upstream]), &[]).await else {
        return;
    };
    let request = Request::get("A.test:81", "/a%20b/../c?d=%20")
        .header("X-Forwarded-For", "1.2.3.4")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "evil.test")
        .header("X-Forwarded-Port", "1")
        .header("X-Real-IP", "1.2.3.4")
        .header("X-Scheme", "gopher")
        .header("Proxy", "http://evil.test");
    let plain = echo(&proxy.client().send(&request).await);
    assert_eq!(plain.target, "/a%20b/../c?d=%20");
    let expected: [(&str, &[&str]); 13] = [
        ("host", &["A.test:81"]),
        ("x-forwarded-for", &["127.0.0.1"]),
        ("x-forwarded-proto", &["http"]),
        ("x-forwarded-scheme", &["http"]),
        ("x-scheme", &["http"]),
        ("x-forwarded-host", &["A.test:81"]),
        ("x-forwarded-port", &["80"]),
        ("x-real-ip", &["127.0.0.1"]),
        ("x-original-forwarded-for", &["1.2.3.4"]),
        ("x-original-forwarded-host", &["evil.test"]),
        ("proxy", &[]),
        ("connection", &[]),
        ("upgrade", &[]),
    ];
    for (name, values) in expected {
        assert_eq!(plain.header(name), values, "{name}");
    }
    assert_eq!(plain.header("x-request-id")[0].len(), 32);
    let mine = proxy.client().send(&Request::get("a.test", "/").header("X-Request-ID", "mine")).await;
    assert_eq!(echo(&mine).header("x-request-id"), ["mine"]);
    let secure = echo(&proxy.tls("a.test").get("a.test", "/").await);
    assert_eq!((secure.header("x-forwarded-proto"), secure.header("x-forwarded-port")), (vec!["https"], vec!["443"]));

    // A request line may name another host than the header: what goes upstream is what the route was chosen by.
    let answer = raw(proxy.address(), b"GET http://a.test/ HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(echo(&answer).header("host"), ["a.test"]);
    // And nobody talks HTTP/2 with an endpoint past our rules.
    let upgrade = Request::get("a.test", "/").header("Connection", "Upgrade, HTTP2-Settings").header("Upgrade", "h2c");
    assert_eq!(echo(&proxy.client().send(&upgrade).await).header("upgrade"), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_front_is_believed_only_at_its_own_address() {
    let pod = Pod::start("web", net::port()).await;
    let (web, upstream) = upstream("shop/web", Protocol::Http, &[pod.address]);
    let secure = Route { redirect_to_https: true, ..route("/secure", web.clone()) };
    let mut model = config([host("a.test", [secure, route("/", web)])], [upstream]);
    let (front, other) = (net::address(), net::address());
    let from = coxswain::value::cidr::Cidrs(vec![value::<Cidr>(&front.to_string())]);
    model.globals.forwarded.trust = Some(Trust { header: value("X-Forwarded-For"), from, append: true });
    let Some(proxy) = Rendered::start(model, &[]).await else { return };
    let request = |path: &str| {
        Request::get("a.test", path)
            .header("X-Forwarded-For", "1.2.3.4")
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", "public.test:444, inner.test")
            .header("X-Forwarded-Port", "444")
    };
    let headers = ["x-real-ip", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-host", "host"];
    let full = format!("1.2.3.4, {front}");
    let other_text = other.to_string();
    for (from, expected) in [
        (front, ["1.2.3.4", &full, "https", "444", "public.test:444", "public.test:444"]),
        (other, [&other_text, &other_text, "http", "80", "a.test", "a.test"]),
    ] {
        let client = proxy.client().from(from.into());
        let echo = echo(&client.send(&request("/")).await);
        assert_eq!(headers.map(|name| echo.header(name)[0]), expected, "{from}");
        let redirected = client.send(&request("/secure")).await.status == 308;
        assert_eq!(redirected, from == other, "{from}");
    }
    let plain = request("/secure").header("X-Forwarded-Proto", "http");
    let answer = proxy.client().from(front.into()).send(&plain).await;
    assert_ne!(answer.status, 200, "two contradictory headers are not believed: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_reaches_its_endpoints_and_retries_on_another() {
    let pair = Authority::new().issue(&["pod.test"]);
    let (plain, tls) = (Pod::start("plain", net::port()).await, Pod::start_tls("tls", net::port(), &pair).await);
    let nobody = SocketAddr::new(net::address().into(), net::port());
    let kinds = [
        ("/http", Protocol::Http, plain.address),
        ("/https", Protocol::Https, tls.address),
        ("/grpc", Protocol::Grpc, plain.address),
        ("/grpcs", Protocol::Grpcs, tls.address),
    ];
    let (routes, upstreams): (Vec<_>, Vec<_>) = kinds
        .iter()
        .map(|(path, protocol, address)| {
            let (action, upstream) = upstream(&format!("shop{path}"), *protocol, &[*address, nobody]);
            (route(path, action), upstream)
        })
        .unzip();
    let Some(proxy) = Rendered::start(config([host("a.test", routes)], upstreams), &[]).await else { return };
    for _ in 0..6 {
        for (target, version) in [("/http", "HTTP/1.1"), ("/https", "HTTP/1.1")] {
            let answer = proxy.client().get("a.test", target).await;
            assert_eq!((answer.status, echo(&answer).version.as_str()), (200, version), "{target}");
        }
        for target in ["/grpc/x.Y/Z", "/grpcs/x.Y/Z"] {
            let answer = proxy.tls("a.test").http2().send(&Request::grpc("a.test", target)).await;
            assert_eq!(answer.status, 200, "{target}: {answer:?}");
        }
    }
    assert!(proxy.client().websocket("a.test", "/http/ws").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_rewritten_as_a_whole_and_the_query_stays() {
    let pod = Pod::start("web", net::port()).await;
    let (web, upstream) = upstream("shop/web", Protocol::Http, &[pod.address]);
    let rewritten = |path: &str, pattern: &str, target: &str| {
        let mut route = route(path, web.clone());
        route.policies.rewrite = Some(Rewrite { pattern: value(pattern), target: value(target) });
        route
    };
    let hosts = [
        host("regex.test", [rewritten("~/a(/|$)(.*)", "/a(/|$)(.*)", "/new/$2"), route("/", web.clone())]),
        host("literal.test", [rewritten("/a", "/a", "/new")]),
    ];
    let Some(proxy) = Rendered::start(config(hosts, [upstream]), &[]).await else { return };
    for (host, target, upstream) in [
        ("regex.test", "/a/b/c?x=/a/", "/new/b/c?x=/a/"),
        ("regex.test", "/A", "/new/"),
        ("regex.test", "/a/b%20c", "/new/b%20c"),
        ("regex.test", "/b/a/b", "/b/a/b"),
        ("literal.test", "/a/b?x", "/new?x"),
    ] {
        assert_eq!(echo(&proxy.client().get(host, target).await).target, upstream, "{host}{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_bodies_and_waits_are_those_of_the_route() {
    let pod = Pod::start("web", net::port()).await;
    let (web, upstream) = upstream("shop/web", Protocol::Http, &[pod.address]);
    let (friend, foe) = (net::address(), net::address());
    let ranged = |path: &str, deny: &[&str], allow: &[&str]| {
        let mut route = route(path, web.clone());
        let parse = |list: &[&str]| list.iter().map(|text| value(text)).collect();
        route.policies.source_range = SourceRange { deny: parse(deny), allow: parse(allow) };
        route
    };
    let mut large = route("/large", web.clone());
    large.policies.body_size.0 = value("2m");
    let mut quick = route("/quick", web.clone());
    quick.policies.timeouts.read = value("1");
    let (friend_text, foe_text) = (friend.to_string(), foe.to_string());
    let routes = [
        ranged("/allow", &[], &[&friend_text]),
        ranged("/deny", &[&foe_text], &[]),
        ranged("/both", &[&foe_text], &["127.0.0.0/8"]),
        large,
        quick,
        route("/", web.clone()),
    ];
    let Some(proxy) = Rendered::start(config([host("a.test", routes)], [upstream]), &[]).await else { return };
    for (from, path, status) in [
        (friend, "/allow", 200),
        (foe, "/allow", 403),
        (friend, "/deny", 200),
        (foe, "/deny", 403),
        (friend, "/both", 200),
        (foe, "/both", 403),
    ] {
        assert_eq!(proxy.client().from(from.into()).get("a.test", path).await.status, status, "{from} {path}");
    }
    let body = |path: &str| Request::new("POST", "a.test", path).body(vec![0; 3 << 19]);
    assert_eq!(proxy.client().send(&body("/large")).await.status, 200);
    assert_eq!(proxy.client().send(&body("/")).await.status, 413);
    assert_eq!(proxy.client().get("a.test", "/quick?delay=3000").await.status, 504);
    assert_eq!(proxy.client().get("a.test", "/?delay=1500").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_served_by_name_and_nothing_else_is() {
    let file = |content: &'static str, content_type: &str| {
        use sha2::Digest;
        let sha256 = sha2::Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect();
        StaticFile { sha256, content_type: content_type.to_owned(), content: content.as_bytes().into() }
    };
    let files = || {
        let files = BTreeMap::from([
            ("index.html".to_owned(), file("<p>hello", "text/html")),
            ("app.js".to_owned(), file("let x", "text/javascript")),
        ]);
        Action::Files(StaticFiles { object: value("shop/files"), files })
    };
    let mut closed = route("/closed", files());
    closed.policies.source_range.allow = vec![value("192.0.2.1")];
    let literal = [
        route("=/one/app.js", files()),
        route("=/one/other.js", files()),
        status("/files/app.js", 219),
        route("/files", files()),
        closed,
        status("/", 216),
    ];
    let by_regex =
        [status("=/exact", 210), route("~/v[0-9]/files", files()), route("/files", files()), status("/", 216)];
    let hosts = [host("a.test", literal), host("regex.test", by_regex), host("root.test", [route("/", files())])];
    let Some(proxy) = Rendered::start(config(hosts, []), &[]).await else { return };
    for (host, target, status, body) in [
        ("a.test", "/one/app.js", 200, "let x"),
        ("a.test", "/one/other.js", 404, ""),
        ("a.test", "/files", 200, "<p>hello"),
        ("a.test", "/files/", 200, "<p>hello"),
        ("a.test", "/files/index.html", 200, "<p>hello"),
        ("a.test", "/files/app.js", 219, ""),
        ("a.test", "/files/nothing", 404, ""),
        ("a.test", "/files/app.js/", 219, ""),
        ("a.test", "/files/..%2fetc/passwd", 216, ""),
        ("a.test", "/filesx", 216, ""),
        ("a.test", "/closed/app.js", 403, ""),
        ("regex.test", "/files/app.js", 200, "let x"),
        ("regex.test", "/files/APP.js", 404, ""),
        ("regex.test", "/files", 200, "<p>hello"),
        ("regex.test", "/V1/files/app.js", 200, "let x"),
        ("regex.test", "/v1/files", 200, "<p>hello"),
        ("regex.test", "/v1/files/x", 404, ""),
        ("root.test", "/", 200, "<p>hello"),
        ("root.test", "/app.js", 200, "let x"),
        ("root.test", "/x", 404, ""),
    ] {
        let answer = proxy.client().get(host, target).await;
        assert_eq!(answer.status, status, "{host}{target}: {answer:?}");
        assert!(body.is_empty() || answer.text() == body, "{host}{target}: {answer:?}");
    }
    let answer = proxy.tls("a.test").get("a.test", "/files").await;
    assert_eq!(answer.header("content-type"), Some("text/html"));
    assert!(answer.header("strict-transport-security").is_some());
    assert_eq!(answer.header("last-modified"), None);
    let etag = answer.header("etag").unwrap().to_owned();
    for tags in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_owned()] {
        let again = Request::get("a.test", "/files").header("If-None-Match", &tags);
        let answer = proxy.client().send(&again).await;
        assert_eq!((answer.status, answer.header("etag")), (304, Some(etag.as_str())), "{tags}");
    }
    for (target, method, status) in [
        ("/files/", "HEAD", 200),
        ("/files/", "POST", 405),
        ("/files/nothing", "DELETE", 405),
        ("/one/app.js", "PUT", 405),
    ] {
        let answer = proxy.client().send(&Request::new(method, "a.test", target)).await;
        assert_eq!(answer.status, status, "{method} {target}");
        assert_eq!(answer.header("allow").is_some(), status == 405);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_names_ingress_service_and_upstream() {
    let pod = Pod::start("web", net::port()).await;
    let (web, upstream) = upstream("shop/web", Protocol::Http, &[pod.address]);
    let mut model = config([host("a.test", [route("/a$b\"", web)])], [upstream]);
    let format = "<$namespace|$ingress_name|$service_name|$service_port|$location_path|$proxy_upstream_name>";
    model.globals.logging.format = Some(value(format));
    let Some(proxy) = Rendered::start(model, &[]).await else { return };
    assert_eq!(proxy.client().get("a.test", "/a$b%22").await.status, 200);
    assert_eq!(proxy.client().get("b.test", "/").await.status, 404);
    // What a client or an object could have put there is escaped by nginx; it logs after it has answered.
    eventually("both requests are logged", async || {
        let log = proxy.access_log();
        wait::check(log == "<shop|web|web|80|/a$b\\x22|shop-web-80>\n<||||/|>\n", || log)
    })
    .await;
}
