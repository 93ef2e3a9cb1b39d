//! What passes through: WebSocket, HTTP/2, gRPC, streams, bodies; and the headers the backend sees.

use futures::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use crate::support::certificates::Authority;
use crate::support::objects::service;
use crate::support::proxies::through_each_proxy;
use crate::support::{Ingress, Pod, Request, Run, net};

through_each_proxy!(websockets_streams_bodies_and_both_versions_of_http_pass_through);

async fn websockets_streams_bodies_and_both_versions_of_http_pass_through() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let pair = Authority::new().issue(&["h.example.com"]);
    let manifest = service("web", &[&pod])
        + &pair.secret("pair")
        + &Ingress::new("a")
            .ours("ssl-redirect", "false")
            .tls(&["h.example.com"], "pair")
            .host("h.example.com")
            .path("Prefix", "/", "web")
            .yaml();
    let run = setup.file("a.yaml", &manifest).serve().await;
    let (http, https) = (run.http(), run.https("h.example.com"));

    for client in [&http, &https] {
        let mut socket = client.websocket("h.example.com", "/ws").await.unwrap();
        for text in ["one", "two"] {
            socket.send(Message::text(text)).await.unwrap();
            let back = socket.next().await.unwrap().unwrap();
            assert_eq!(back.to_text().unwrap(), format!("web: {text}"));
        }
    }

    // A WebSocket outlives a reload.
    let mut socket = http.websocket("h.example.com", "/ws").await.unwrap();
    let before = run.current();
    run.write("b.yaml", &Ingress::new("b").host("b.example.com").path("Prefix", "/", "web").yaml());
    crate::support::eventually("another release", async || {
        let who = http.try_get("b.example.com", "/").await?.who();
        crate::support::wait::check(who == "web", || who)
    })
    .await;
    assert_ne!(run.current(), before);
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().to_text().unwrap(), "web: still here");

    // HTTP/2 in front, HTTP/1.1 behind; many streams on one connection.
    let answer = https.clone().http2().get("h.example.com", "/foo?bar").await;
    let echo = answer.echo().unwrap();
    assert_eq!((echo.version.as_str(), echo.target.as_str()), ("HTTP/1.1", "/foo?bar"));
    assert_eq!(answer.certificate.as_deref(), Some(pair.der.as_slice()));
    assert_eq!(https.clone().without_alpn().get("h.example.com", "/").await.who(), "web", "a client without ALPN");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let versions: &'static [_] = Box::leak(Box::new([version]));
        assert_eq!(https.clone().versions(versions).get("h.example.com", "/").await.who(), "web", "{version:?}");
    }

    // Methods, bodies and statuses pass as they are; only an idempotent request is tried twice.
    for method in ["PUT", "POST", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let echo =
            http.send(&Request::new(method, "h.example.com", "/m").body(vec![b'x'; 100_000])).await.echo().unwrap();
        assert_eq!((echo.method.as_str(), echo.body), (method, 100_000));
    }
    let head = http.send(&Request::new("HEAD", "h.example.com", "/")).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    for status in [201, 204, 304, 401, 404, 500, 503] {
        assert_eq!(http.get("h.example.com", &format!("/?status={status}")).await.status, status);
    }
    let long = http.get("h.example.com", "/?length=5000000").await;
    assert_eq!(long.body.len(), 5_000_000);
    let lines = http.get("h.example.com", "/?stream=5").await;
    assert_eq!(lines.text(), "line 0\nline 1\nline 2\nline 3\nline 4\n");
    let redirect = http.get("h.example.com", "/?status=302&location=http://h.example.com/x").await;
    assert_eq!(redirect.header("location"), Some("http://h.example.com/x"), "a backend's redirect is its own");
}

through_each_proxy!(the_backend_sees_where_a_request_came_from_and_nothing_a_client_made_up);

async fn the_backend_sees_where_a_request_came_from_and_nothing_a_client_made_up() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let manifest = service("web", &[&pod]) + &Ingress::new("a").host("h.example.com").path("Prefix", "/", "web").yaml();
    let run = setup.file("a.yaml", &manifest).serve().await;
    let forged = |request: Request| {
        [
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-proto",
            "x-forwarded-scheme",
            "x-scheme",
            "x-real-ip",
        ]
        .iter()
        .fold(request, |request, name| request.header(name, "6.6.6.6"))
        .header("proxy", "http://evil")
        .header("x-custom", "kept")
    };
    let from: std::net::IpAddr = "127.0.0.9".parse().unwrap();
    let request = forged(Request::get("H.example.com:81", "/foo%20bar?x=%2F"));
    let plain = run.http().from(from).send(&request).await.echo().unwrap();
    let secure = run.https("h.example.com").from(from).send(&request).await.echo().unwrap();
    for (echo, scheme, port) in [(&plain, "http", "80"), (&secure, "https", "443")] {
        let expect =
            |name: &str, value: &str| assert_eq!(echo.header(name), [value], "{name} over {scheme}: {echo:#?}");
        expect("host", "H.example.com:81");
        expect("x-real-ip", "127.0.0.9");
        expect("x-forwarded-for", "127.0.0.9");
        expect("x-original-forwarded-for", "6.6.6.6");
        expect("x-forwarded-host", "H.example.com:81");
        expect("x-forwarded-port", port);
        expect("x-forwarded-proto", scheme);
        expect("x-forwarded-scheme", scheme);
        expect("x-scheme", scheme);
        expect("x-custom", "kept");
        assert_eq!(echo.header("proxy"), [""; 0], "httpoxy");
        assert_eq!(echo.header("upgrade"), [""; 0]);
        assert_eq!(echo.target, "/foo%20bar?x=%2F", "the target goes on as it came");
        let id = echo.header("x-request-id");
        assert!(id.len() == 1 && id[0].len() == 32 && id[0].bytes().all(|b| b.is_ascii_hexdigit()), "{id:?}");
    }
    assert_ne!(plain.header("x-request-id"), secure.header("x-request-id"));
    let given =
        run.http().send(&Request::get("h.example.com", "/").header("x-request-id", "mine")).await.echo().unwrap();
    assert_eq!(given.header("x-request-id"), ["mine"]);
    // A header with an underscore is dropped, one with strange but legal characters is not.
    let odd = Request::get("h.example.com", "/").header("x_under", "1").header("x-odd!#$%&'*+.^`|~", "2");
    let odd = run.http().send(&odd).await.echo().unwrap();
    assert_eq!(odd.header("x_under"), [""; 0]);
}

through_each_proxy!(backends_may_speak_tls_and_grpc);

async fn backends_may_speak_tls_and_grpc() {
    let Some(setup) = Run::setup() else { return };
    let port = net::port();
    let pair = Authority::new().issue(&["internal"]);
    let plain = Pod::start("plain", port).await;
    let secure = Pod::start_tls("secure", port, &pair).await;
    let mut manifest = service("plain", &[&plain]) + &service("secure", &[&secure]);
    for (protocol, backend) in
        [("HTTP", "plain"), ("HTTPS", "secure"), ("GRPC", "plain"), ("GRPCS", "secure"), ("grpc", "plain")]
    {
        let name = format!("{}-{backend}", protocol.to_lowercase());
        let name = if protocol == "grpc" { "lower".to_owned() } else { name };
        manifest += &Ingress::new(&name)
            .ours("backend-protocol", protocol)
            .host(&format!("{name}.example.com"))
            .path("Prefix", "/", backend)
            .yaml();
    }
    let run = setup.file("a.yaml", &manifest).serve().await;
    let (http, h2) = (run.http(), run.https("any.example.com").http2());
    let echo = http.get("http-plain.example.com", "/x").await.echo().unwrap();
    assert_eq!((echo.service.as_str(), echo.version.as_str()), ("plain", "HTTP/1.1"));
    let echo = http.get("https-secure.example.com", "/x").await.echo().unwrap();
    assert_eq!((echo.service.as_str(), echo.version.as_str()), ("secure", "HTTP/1.1"));
    assert_eq!(echo.header("host"), ["https-secure.example.com"]);
    for (host, service) in
        [("grpc-plain.example.com", "plain"), ("grpcs-secure.example.com", "secure"), ("lower.example.com", "plain")]
    {
        let answer = h2.send(&Request::grpc(host, "/pkg.Service/Method")).await;
        let echo = answer.echo().unwrap();
        assert_eq!((echo.service.as_str(), echo.version.as_str()), (service, "HTTP/2.0"), "{host}");
        assert_eq!(answer.trailers.get("grpc-status").map(|v| v.as_bytes()), Some(&b"0"[..]), "{host}");
        assert_eq!(echo.header("x-forwarded-proto"), ["https"], "{host}");
        assert_eq!(echo.target, "/pkg.Service/Method");
    }
    let mut socket = http.websocket("https-secure.example.com", "/ws").await.unwrap();
    socket.send(Message::text("over TLS")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().to_text().unwrap(), "secure: over TLS");
}
