//! Where requests are sent to, and what happens while the endpoints change.

use serde_json::json;

use crate::support::certificates::Authority;
use crate::support::load::Outcome;
use crate::support::objects::{document, service, service_at, service_with, slice};
use crate::support::proxies::{either, through_each_proxy};
use crate::support::{Client, Ingress, Load, Pod, Request, Run, eventually, net, wait};

const HOST: &str = "h.example.com";

/// Waits until `client` gets `expected` (a Service or a status code) from `host`.
async fn answers(client: &Client, request: &Request, expected: &str) {
    eventually(&format!("{expected} for {request:?}"), async || {
        let who = client.try_send(request).await?.who();
        wait::check(who == expected, || who)
    })
    .await;
}

through_each_proxy!(ports_are_found_by_number_and_by_name);

async fn ports_are_found_by_number_and_by_name() {
    let Some(setup) = Run::setup() else { return };
    let (main, admin) = (net::port(), net::port());
    let pod = Pod::start("main", main).await;
    let other = Pod::start_at("admin", std::net::SocketAddr::new(pod.address.ip(), admin), None).await;
    let ports = [("main", main), ("admin", admin)];
    let service = |name: &str, spec: serde_json::Value| {
        document(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}))
    };
    let two =
        json!([{"name": "main", "port": 80, "targetPort": main}, {"name": "admin", "port": 8080, "targetPort": "adm"}]);
    let manifest = service("two", json!({"ports": two}))
        + &slice("two", "a", &ports, &[(pod.address, Some(true))])
        + &service("headless", json!({"clusterIP": "None", "ports": two}))
        + &slice("headless", "a", &ports, &[(pod.address, None)])
        // A port without a name, and slices without a selector.
        + &service("nameless", json!({"ports": [{"port": 80}]}))
        + &document(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "nameless-x", "labels": {"kubernetes.io/service-name": "nameless"}},
            "addressType": "IPv4", "ports": [{"port": main}],
            "endpoints": [{"addresses": [pod.address.ip()]}],
        }));
    let mut ingress = Ingress::new("a").host(HOST);
    for (path, backend) in [
        ("/number", json!({"name": "two", "port": {"number": 80}})),
        ("/name", json!({"name": "two", "port": {"name": "main"}})),
        ("/other-number", json!({"name": "two", "port": {"number": 8080}})),
        ("/other-name", json!({"name": "two", "port": {"name": "admin"}})),
        ("/headless", json!({"name": "headless", "port": {"name": "admin"}})),
        ("/nameless", json!({"name": "nameless", "port": {"number": 80}})),
        ("/no-number", json!({"name": "two", "port": {"number": 81}})),
        ("/no-name", json!({"name": "two", "port": {"name": "nope"}})),
        ("/no-service", json!({"name": "nope", "port": {"number": 80}})),
    ] {
        ingress = ingress.path_to("Prefix", path, json!({"service": backend}));
    }
    let run = setup.file("a.yaml", &(manifest + &ingress.yaml())).serve().await;
    let http = run.http();
    for (path, expected) in [
        ("/number", "main"),
        ("/name", "main"),
        ("/other-number", "admin"),
        ("/other-name", "admin"),
        ("/headless", "admin"),
        ("/nameless", "main"),
        ("/no-number", "503"),
        ("/no-name", "503"),
        ("/no-service", "503"),
    ] {
        answers(&http, &Request::get(HOST, path), expected).await;
    }
    assert_eq!(http.get(HOST, "/else").await.status, 404);
    for told in ["81", "nope"] {
        run.says(told).await;
    }
    drop(other);
}

through_each_proxy!(endpoints_come_and_go_without_a_reload_and_without_a_lost_request);

async fn endpoints_come_and_go_without_a_reload_and_without_a_lost_request() {
    let Some(setup) = Run::setup() else { return };
    let port = net::port();
    let [a, b, c] = [Pod::start("a", port).await, Pod::start("b", port).await, Pod::start("c", port).await];
    let ingress = Ingress::new("a").host(HOST).path("Prefix", "/", "web").yaml();
    let run = setup.file("ingress.yaml", &ingress).file("web.yaml", &service("web", &[&a])).serve().await;
    let http = run.http();
    answers(&http, &Request::get(HOST, "/"), "a").await;
    let loaded = run.loaded();
    let load = Load::start(&http, &Request::get(HOST, "/"), 4);
    let all = async |names: &[&str]| {
        // Round robin over more requests than there are endpoints and workers shows every one.
        eventually(&format!("{names:?} answer and nobody else"), async || {
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..24 {
                seen.insert(http.try_get(HOST, "/").await?.who());
            }
            wait::check(seen.iter().map(String::as_str).eq(names.iter().copied()), || format!("{seen:?}"))
        })
        .await;
    };
    run.write("web.yaml", &service("web", &[&a, &b, &c]));
    all(&["a", "b", "c"]).await;
    // Gone unready: out at once, although it still answers.
    run.write(
        "web.yaml",
        &service_with("web", &[(a.address, Some(true)), (b.address, Some(false)), (c.address, None)]),
    );
    all(&["a", "c"]).await;
    run.write("web.yaml", &service("web", &[&b]));
    all(&["b"]).await;
    load.goes_on(50).await;
    run.write("web.yaml", &service("web", &[&a, &b, &c]));
    all(&["a", "b", "c"]).await;
    let Outcome { answers, failures, .. } = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert!(answers.keys().all(|who| ["a", "b", "c"].contains(&who.as_str())), "{answers:?}");
    assert_eq!(run.loaded(), loaded, "none of this needs a release");
}

through_each_proxy!(without_endpoints_every_protocol_answers_503_and_comes_back_at_once);

async fn without_endpoints_every_protocol_answers_503_and_comes_back_at_once() {
    let Some(setup) = Run::setup() else { return };
    let port = net::port();
    let plain = Pod::start("plain", port).await;
    let secure = Pod::start_tls("secure", port, &Authority::new().issue(&["internal"])).await;
    let hosts = [("http", "plain"), ("https", "secure"), ("grpc", "plain"), ("grpcs", "secure")];
    let mut ingresses = String::new();
    for (protocol, backend) in hosts {
        ingresses += &Ingress::new(protocol)
            .ours("backend-protocol", &protocol.to_uppercase())
            .host(&format!("{protocol}.example.com"))
            .path("Prefix", "/", backend)
            .yaml();
    }
    let full = service("plain", &[&plain]) + &service("secure", &[&secure]);
    let unready = service_with("plain", &[(plain.address, Some(false))])
        + &service_with("secure", &[(secure.address, Some(false))]);
    let empty = service_at("plain", &[]) + &service_at("secure", &[]);
    let run = setup.file("ingresses.yaml", &ingresses).file("services.yaml", &empty).serve().await;
    let ask = async |full: bool| {
        for (protocol, backend) in hosts {
            let host = format!("{protocol}.example.com");
            let (client, request) = if protocol.starts_with("grpc") {
                (run.https(&host).http2(), Request::grpc(&host, "/pkg.Service/Method"))
            } else {
                (run.http(), Request::get(&host, "/"))
            };
            let none = if protocol.starts_with("grpc") { either("errors of gRPC calls", "503", "200") } else { "503" };
            answers(&client, &request, if full { backend } else { none }).await;
        }
    };
    ask(false).await;
    run.write("services.yaml", &full);
    ask(true).await;
    let loaded = run.loaded();
    for none in [&unready, &empty] {
        run.write("services.yaml", none);
        ask(false).await;
        run.write("services.yaml", &full);
        ask(true).await;
    }
    assert_eq!(run.loaded(), loaded, "none of this needs a release");
}

through_each_proxy!(a_dead_endpoint_costs_no_request_but_a_dead_service_answers_in_the_five_hundreds);

async fn a_dead_endpoint_costs_no_request_but_a_dead_service_answers_in_the_five_hundreds() {
    let Some(setup) = Run::setup() else { return };
    let port = net::port();
    let (alive, dead) = (Pod::start("alive", port).await, Pod::start("dead", port).await);
    let ingress = Ingress::new("a").host(HOST).path("Prefix", "/", "web").yaml();
    let run = setup.file("a.yaml", &(service("web", &[&alive, &dead]) + &ingress)).serve().await;
    let http = run.http();
    eventually("both answer", async || {
        http.try_get(HOST, "/").await?;
        wait::check(alive.answered() > 0 && dead.answered() > 0, || "one only".to_owned())
    })
    .await;
    let load = Load::start(&http, &Request::get(HOST, "/"), 2);
    drop(dead);
    load.goes_on(100).await;
    let outcome = load.stop().await;
    assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
    assert!(outcome.answers.keys().all(|who| who == "alive" || who == "dead"), "{:?}", outcome.answers);
    // A request that may not be repeated is not: it fails rather than being done twice.
    let before = alive.answered();
    let post = http.send(&Request::new("POST", HOST, "/?drop").body("order")).await;
    assert_eq!(post.status, 502);
    assert_eq!(alive.answered() - before, 1, "a POST that was sent is not sent again");
    drop(alive);
    let status = http.get(HOST, "/").await.status;
    assert!((500..600).contains(&status), "{status}");
}

through_each_proxy!(a_config_map_as_backend_is_served_as_files);

async fn a_config_map_as_backend_is_served_as_files() {
    let Some(setup) = Run::setup() else { return };
    let resource = |kind: &str, name: &str| json!({"resource": {"kind": kind, "name": name}});
    let files = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "site"},
        "data": {"index.html": "<h1>hello</h1>", "style.css": "body {}", "odd..name": "odd", "data.json": "{}"},
        "binaryData": {"pixel.png": "iVBORw0KGgo="},
    });
    let no_index =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bare"}, "data": {"a.txt": "a"}});
    let pod = Pod::start("web", net::port()).await;
    let manifest = document(&files)
        + &document(&no_index)
        + &service("web", &[&pod])
        + &Ingress::new("a")
            .host(HOST)
            .path_to("Prefix", "/site", resource("ConfigMap", "site"))
            .path_to("Exact", "/exact/style.css", resource("ConfigMap", "site"))
            .path_to("Prefix", "/bare", resource("ConfigMap", "bare"))
            .path_to("Prefix", "/gone", resource("ConfigMap", "gone"))
            .path_to(
                "Prefix",
                "/bucket",
                json!({"resource": {"apiGroup": "k8s.example.com", "kind": "StorageBucket", "name": "b"}}),
            )
            .path("Prefix", "/web", "web")
            .yaml()
        + &Ingress::new("root").host("root.example.com").path_to("Prefix", "/", resource("ConfigMap", "site")).yaml();
    let run = setup.file("a.yaml", &manifest).serve().await;
    let http = run.http();
    let mut wrong = Vec::new();
    for (host, target, status, kind, body) in [
        (HOST, "/site/", 200, "text/html", "<h1>hello</h1>"),
        (HOST, "/site", 200, "text/html", "<h1>hello</h1>"),
        (HOST, "/site/index.html", 200, "text/html", "<h1>hello</h1>"),
        (HOST, "/site/style.css", 200, "text/css", "body {}"),
        (HOST, "/site/style.css?v=1", 200, "text/css", "body {}"),
        (HOST, "/site/data.json", 200, "application/json", "{}"),
        (HOST, "/site/odd..name", 200, "", "odd"),
        (HOST, "/exact/style.css", 200, "text/css", "body {}"),
        (HOST, "/site/none.css", 404, "", ""),
        (HOST, "/site/a/style.css", 404, "", ""),
        (HOST, "/site/../web/x", 200, "application/json", ""),
        (HOST, "/site/%2e%2e/style.css", 404, "", ""),
        (HOST, "/site/..%2f..%2f..%2fetc%2fpasswd", 400, "", ""),
        (HOST, "/bare/a.txt", 200, "text/plain", "a"),
        (HOST, "/bare/", 404, "", ""),
        (HOST, "/bare", 404, "", ""),
        (HOST, "/gone/a.txt", 503, "", ""),
        (HOST, "/bucket/x", 503, "", ""),
        ("root.example.com", "/", 200, "text/html", "<h1>hello</h1>"),
        ("root.example.com", "/style.css", 200, "text/css", "body {}"),
        ("root.example.com", "/x/style.css", 404, "", ""),
    ] {
        let answer = match http.try_get(host, target).await {
            Ok(answer) => answer,
            Err(why) => {
                wrong.push(format!("{target}: {why}"));
                continue;
            }
        };
        let kind_fits =
            answer.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().starts_with(kind);
        if answer.status != status || !kind_fits || (!body.is_empty() && answer.text() != body) {
            wrong.push(format!(
                "{host}{target}: {} {:?} {}",
                answer.status,
                answer.headers.get("content-type"),
                answer.text()
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let png = http.get(HOST, "/site/pixel.png").await;
    assert_eq!((png.header("content-type"), &png.body[..]), (Some("image/png"), &b"\x89PNG\r\n\x1a\n"[..]));

    // Conditional requests, HEAD, and what is not allowed.
    let get = http.get(HOST, "/site/style.css").await;
    let etag = get.header("etag").expect("an ETag").to_owned();
    let same = http.send(&Request::get(HOST, "/site/style.css").header("if-none-match", &etag)).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    let head = http.send(&Request::new("HEAD", HOST, "/site/style.css")).await;
    assert_eq!(
        (head.status, head.header("etag"), head.header("content-length")),
        (200, Some(etag.as_str()), Some("7"))
    );
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        assert_eq!(http.send(&Request::new(method, HOST, "/site/style.css")).await.status, 405, "{method}");
    }
    run.says("StorageBucket").await;

    // A change of the content is a change of the ETag; the rest of the host goes on.
    let changed = manifest.replace("body {}", "body { color: red }");
    run.write("a.yaml", &changed);
    eventually("the new content", async || {
        let answer = http.try_get(HOST, "/site/style.css").await?;
        wait::check(answer.text() == "body { color: red }", || answer.text())
    })
    .await;
    assert_ne!(http.get(HOST, "/site/style.css").await.header("etag"), Some(etag.as_str()));
    assert_eq!(http.get(HOST, "/web").await.who(), "web");
}

through_each_proxy!(reload_after_reload_under_load_loses_no_request);

async fn reload_after_reload_under_load_loses_no_request() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let stable = service("web", &[&pod]) + &Ingress::new("stable").host(HOST).path("Prefix", "/", "web").yaml();
    let run = setup.file("stable.yaml", &stable).serve().await;
    let http = run.http();
    let pair =
        [Load::start(&http, &Request::get(HOST, "/"), 3), Load::start(&run.https(HOST), &Request::get(HOST, "/"), 2)];
    let mut releases = std::collections::BTreeSet::new();
    for n in 0..15 {
        let host = format!("new{n}.example.com");
        run.write("new.yaml", &Ingress::new("new").host(&host).path("Prefix", "/", "web").yaml());
        answers(&http, &Request::get(&host, "/"), "web").await;
        releases.insert(run.current());
    }
    assert!(releases.len() >= 10, "{} releases", releases.len());
    for load in pair {
        load.goes_on(20).await;
        let outcome = load.stop().await;
        assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
        assert_eq!(outcome.answers.keys().collect::<Vec<_>>(), ["web"]);
    }
}
