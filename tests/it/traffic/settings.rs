//! The keys of the global ConfigMap, by what they do to requests; each takes effect while everything runs.

use crate::support::certificates::Authority;
use crate::support::objects::{config_map, document, service};
use crate::support::proxies::{either, through_each_proxy};
use crate::support::{Answer, Client, Ingress, Load, Pod, Request, Run, eventually, net, wait};

const HOST: &str = "h.test";

/// A running one with an empty ConfigMap, one Service and one host.
async fn serve() -> Option<(Run, Pod)> {
    let setup = Run::setup()?;
    let pod = Pod::start("web", net::port()).await;
    let manifest = service("web", &[&pod]) + &Ingress::new("a").host(HOST).path("Prefix", "/", "web").yaml();
    let run = setup.flag("--configmap=default/settings").file("a.yaml", &manifest);
    Some((run.file("settings.yaml", &config_map("settings", &[])).serve().await, pod))
}

/// Whether the backend was shown a header with an underscore.
fn has_underscore(answer: &Answer) -> bool {
    answer.echo().is_ok_and(|echo| echo.header("x_under_score") == ["yes"])
}

/// Writes the ConfigMap and waits until an answer is as it should be.
async fn with(
    run: &Run,
    data: &[(&str, &str)],
    client: &Client,
    request: &Request,
    good: impl Fn(&Answer) -> bool,
) -> Answer {
    run.write("settings.yaml", &config_map("settings", data));
    eventually(&format!("{data:?}"), async || {
        let answer = client.try_send(request).await?;
        if good(&answer) {
            Ok(answer)
        } else {
            Err(format!("{} {:?} {}", answer.status, answer.headers, answer.text()))
        }
    })
    .await
}

through_each_proxy!(forwarded_headers_are_believed_when_and_from_whom_it_is_said);

async fn forwarded_headers_are_believed_when_and_from_whom_it_is_said() {
    let Some((run, _pod)) = serve().await else { return };
    let http = run.http();
    let request = Request::get(HOST, "/")
        .header("x-forwarded-for", "1.2.3.4, 5.6.7.8")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "public.test")
        .header("x-forwarded-port", "9443")
        .header("x-request-id", "mine");
    let header =
        |answer: &Answer, name: &str| answer.echo().map(|echo| echo.header(name).join("|")).unwrap_or_default();

    assert_eq!(header(&http.send(&request).await, "x-real-ip"), "127.0.0.1");
    let trusted = [("use-forwarded-headers", "true"), ("proxy-real-ip-cidr", "127.0.0.0/8")];
    let answer = with(&run, &trusted, &http, &request, |answer| header(answer, "x-forwarded-proto") == "https").await;
    assert_eq!(header(&answer, "x-real-ip"), "5.6.7.8");
    assert_eq!(header(&answer, "x-forwarded-for"), "5.6.7.8");
    assert_eq!(header(&answer, "x-forwarded-port"), "9443");
    assert_eq!(header(&answer, "x-forwarded-host"), "public.test");

    let full = [trusted[0], trusted[1], ("compute-full-forwarded-for", "true")];
    let answer =
        with(&run, &full, &http, &request, |answer| header(answer, "x-forwarded-for").contains("1.2.3.4")).await;
    assert_eq!(header(&answer, "x-forwarded-for"), "1.2.3.4, 5.6.7.8, 127.0.0.1");

    // Another header, and somebody who is not trusted.
    let other = [trusted[0], trusted[1], ("forwarded-for-header", "CF-Connecting-IP")];
    let cloud = request.clone().header("cf-connecting-ip", "9.9.9.9");
    with(&run, &other, &http, &cloud, |answer| header(answer, "x-real-ip") == "9.9.9.9").await;
    let strangers = [trusted[0], ("proxy-real-ip-cidr", "10.0.0.0/8")];
    with(&run, &strangers, &http, &request, |answer| header(answer, "x-real-ip") == "127.0.0.1").await;

    // A value that cannot be read believes nobody.
    let broken = [trusted[0], ("proxy-real-ip-cidr", "10.0.0.0/33")];
    with(&run, &broken, &http, &request, |answer| header(answer, "x-forwarded-proto") == "http").await;
    run.says("10.0.0.0/33").await;

    let none = [("generate-request-id", "false")];
    let plain = Request::get(HOST, "/");
    with(&run, &none, &http, &plain, |answer| header(answer, "x-request-id").is_empty()).await;
}

through_each_proxy!(a_proxy_in_front_that_ends_tls_is_no_reason_for_a_redirect);

async fn a_proxy_in_front_that_ends_tls_is_no_reason_for_a_redirect() {
    let Some((run, _pod)) = serve().await else { return };
    let http = run.http();
    run.write(
        "b.yaml",
        &Ingress::new("b").tls(&["tls.test"], "none").host("tls.test").path("Prefix", "/", "web").yaml(),
    );
    let plain = Request::get("tls.test", "/x");
    let forwarded = plain.clone().header("x-forwarded-proto", "https").header("x-forwarded-host", "public.test");
    with(&run, &[], &http, &plain, |answer| answer.status == 308).await;
    assert_eq!(http.send(&forwarded).await.status, 308, "a client may not say so itself");
    let trust = [("use-forwarded-headers", "true")];
    with(&run, &trust, &http, &forwarded, |answer| answer.who() == "web").await;
    assert_eq!(http.send(&plain).await.status, 308);
}

through_each_proxy!(limits_headers_and_versions_follow_the_config_map);

async fn limits_headers_and_versions_follow_the_config_map() {
    let Some((run, _pod)) = serve().await else { return };
    let http = run.http();
    let header =
        |answer: &Answer, name: &str| answer.echo().map(|echo| echo.header(name).join("|")).unwrap_or_default();

    let body = Request::new("POST", HOST, "/").body(vec![b'x'; 3000]);
    with(&run, &[("proxy-body-size", "2k")], &http, &body, |answer| answer.status == 413).await;
    let slow = Request::get(HOST, "/?delay=2500");
    with(&run, &[("proxy-read-timeout", "1")], &http, &slow, |answer| answer.status == 504).await;

    let under = Request::get(HOST, "/").header("x_under_score", "yes");
    assert_eq!(header(&http.send(&under).await, "x_under_score"), "");
    with(&run, &[("enable-underscores-in-headers", "true")], &http, &under, |answer| {
        header(answer, "x_under_score") == "yes"
    })
    .await;

    let large = Request::get(HOST, "/").header("x-large", &"x".repeat(20_000));
    assert_eq!(http.send(&large).await.status, either("the size of one header", 400, 200));
    let larger = Request::get(HOST, "/").header("x-large", &"x".repeat(40_000));
    assert_eq!(http.send(&larger).await.status, either("headers that are too large", 400, 431));
    with(&run, &[("large-client-header-buffers", "4 32k")], &http, &large, |answer| answer.who() == "web").await;

    let unknown = Request::get("unknown.test", "/");
    let name = run.proxy().to_string();
    assert_eq!(http.send(&unknown).await.header("server"), Some(name.as_str()));
    let named = either("the version in the server header", "nginx/1.", "envoy");
    with(&run, &[("server-tokens", "true")], &http, &unknown, |answer| {
        answer.header("server").is_some_and(|server| server.starts_with(named))
    })
    .await;

    with(&run, &[("keep-alive", "0")], &http, &Request::get(HOST, "/"), |answer| {
        answer.header("connection") == Some("close")
    })
    .await;

    // No connection to an endpoint is kept.
    let close = either("the header that ends a connection to an endpoint", "close", "");
    with(&run, &[("upstream-keepalive-connections", "0")], &http, &Request::get(HOST, "/"), |answer| {
        answer.who() == "web" && header(answer, "connection") == close
    })
    .await;

    // What cannot be read is told and has its default.
    let wrong = [("proxy-body-size", "much"), ("keep-alive", "-1"), ("no-such-key", "1"), ("enable-brotli", "true")];
    with(&run, &wrong, &http, &body, |answer| answer.who() == "web").await;
    for (key, _) in wrong {
        run.says(key).await;
    }
}

through_each_proxy!(tls_and_http2_follow_the_config_map);

async fn tls_and_http2_follow_the_config_map() {
    let Some((run, _pod)) = serve().await else { return };
    let https = run.https(HOST);
    let request = Request::get(HOST, "/");
    let version = |version| -> &'static [&'static rustls::SupportedProtocolVersion] { Box::leak(Box::new([version])) };
    let tls12 = https.clone().versions(version(&rustls::version::TLS12));
    let tls13 = https.clone().versions(version(&rustls::version::TLS13));
    assert_eq!((tls12.send(&request).await.who(), tls13.send(&request).await.who()), ("web".into(), "web".into()));

    run.write("settings.yaml", &config_map("settings", &[("ssl-protocols", "TLSv1.3"), ("use-http2", "false")]));
    eventually("TLS 1.2 is refused", async || match tls12.try_send(&request).await {
        Err(why) if why.contains("ProtocolVersion") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(tls13.send(&request).await.who(), "web");
    let why = https.clone().http2().try_send(&request).await.map(|answer| answer.who());
    assert!(why.is_err(), "HTTP/2 is not offered: {why:?}");

    let ciphers =
        [("ssl-protocols", "TLSv1.2"), ("ssl-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384")];
    run.write("settings.yaml", &config_map("settings", &ciphers));
    eventually("TLS 1.3 is refused", async || match tls13.try_send(&request).await {
        Err(why) if why.contains("ProtocolVersion") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(tls12.send(&request).await.who(), "web");
    assert_eq!(https.clone().http2().send(&request).await.who(), "web", "HTTP/2 is back");
}

through_each_proxy!(the_log_says_what_it_is_told_to);

async fn the_log_says_what_it_is_told_to() {
    let Some((run, _pod)) = serve().await else { return };
    let http = run.http();
    http.get(HOST, "/usual?a=b").await;
    run.says("GET /usual?a=b HTTP/1.1").await;
    run.says("[default-web-80]").await;

    let format = r#"LINE {"status":$status,"ns":"$namespace","ing":"$ingress_name","svc":"$service_name","port":"$service_port","uri":"$request_uri"}"#;
    let request = Request::get(HOST, "/formatted");
    run.write("settings.yaml", &config_map("settings", &[("log-format-upstream", format)]));
    let line = r#"LINE {"status":200,"ns":"default","ing":"a","svc":"web","port":"80","uri":"/formatted"}"#;
    eventually("a line of that form", async || {
        http.try_send(&request).await?;
        wait::check(run.said().contains(line), || run.said())
    })
    .await;

    // Text of a client stays text: neither a second line nor an escape of a terminal.
    let evil = Request::get(HOST, "/evil").header("user-agent", "a\tb\u{9b}31m");
    run.write("settings.yaml", &config_map("settings", &[("log-format-upstream", "AGENT $http_user_agent END")]));
    eventually("the agent in the log", async || {
        http.try_send(&evil).await?;
        let said = run.said();
        let line = said.lines().find(|line| line.contains("AGENT") && !line.contains("$http")).ok_or("no line yet")?;
        assert!(line.contains("END") && !line.contains('\u{9b}') && !line.contains('\t'), "{line:?}");
        Ok(())
    })
    .await;

    let path = run.folder().join("access.log");
    std::fs::write(&path, "").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    // A path with a variable, or a variable nobody has, is told; the log goes on.
    run.write(
        "settings.yaml",
        &config_map("settings", &[("log-format-upstream", "$no_such_variable"), ("access-log-path", "relative")]),
    );
    run.says("no_such_variable").await;
    run.says("relative").await;
    let text = path.display().to_string();
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b)) {
        run.write("settings.yaml", &config_map("settings", &[("access-log-path", &text)]));
        eventually("the file", async || {
            http.try_get(HOST, "/to-the-file").await?;
            wait::check(std::fs::read_to_string(&path).is_ok_and(|log| log.contains("/to-the-file")), || "empty".into())
        })
        .await;
    }
}

through_each_proxy!(an_access_log_in_a_folder_that_does_not_exist_harms_only_itself);

async fn an_access_log_in_a_folder_that_does_not_exist_harms_only_itself() {
    let Some((run, pod)) = serve().await else { return };
    let http = run.http();
    let text = run.folder().join("missing/access.log").display().to_string();
    let settings = [("access-log-path", text.as_str()), ("enable-underscores-in-headers", "true")];
    let under = Request::get(HOST, "/").header("x_under_score", "yes");
    with(&run, &settings, &http, &under, has_underscore).await;
    run.says(&format!("ConfigMap default/settings: access-log-path: the proxy cannot open {text:?}: No such file"))
        .await;
    // Nor is anything after it kept waiting.
    run.write(
        "b.yaml",
        &(service("other", &[&pod]) + &Ingress::new("b").host("b.test").path("Prefix", "/", "other").yaml()),
    );
    eventually("another host", async || {
        let answer = http.try_get("b.test", "/").await?;
        wait::check(answer.status == 200, || answer.text())
    })
    .await;
}

through_each_proxy!(every_setting_at_once_and_none_again_is_taken_up_under_load);

async fn every_setting_at_once_and_none_again_is_taken_up_under_load() {
    let Some((run, pod)) = serve().await else { return };
    let http = run.http();
    let load = Load::start(&http, &Request::get(HOST, "/"), 3);
    let all = [
        ("proxy-body-size", "0"),
        ("proxy-connect-timeout", "2"),
        ("proxy-send-timeout", "30"),
        ("proxy-read-timeout", "30"),
        ("ssl-redirect", "true"),
        ("http-redirect-code", "302"),
        ("no-tls-redirect-locations", "/a,/b"),
        ("hsts", "true"),
        ("hsts-max-age", "1"),
        ("hsts-include-subdomains", "true"),
        ("hsts-preload", "true"),
        ("ssl-protocols", "TLSv1.2 TLSv1.3"),
        ("ssl-ciphers", "HIGH:!aNULL"),
        ("use-http2", "true"),
        ("use-forwarded-headers", "true"),
        ("forwarded-for-header", "X-Real-IP"),
        ("proxy-real-ip-cidr", "10.0.0.0/8,fd00::/8"),
        ("compute-full-forwarded-for", "true"),
        ("generate-request-id", "true"),
        ("enable-underscores-in-headers", "true"),
        ("large-client-header-buffers", "8 16k"),
        ("server-tokens", "true"),
        ("worker-processes", "3"),
        ("worker-shutdown-timeout", "10s"),
        ("error-log-level", "info"),
        ("load-balance", "ewma"),
        ("keep-alive", "30"),
        ("upstream-keepalive-connections", "7"),
        ("upstream-keepalive-time", "5m"),
        ("upstream-keepalive-timeout", "5"),
        ("upstream-keepalive-requests", "100"),
        ("strict-validate-path-type", "false"),
    ];
    let under = Request::get(HOST, "/").header("x_under_score", "yes");
    with(&run, &all, &http, &under, has_underscore).await;
    with(&run, &[], &http, &under, |answer| answer.status == 200 && !has_underscore(answer)).await;
    load.goes_on(20).await;
    let outcome = load.stop().await;
    assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
    assert_eq!(outcome.answers.keys().collect::<Vec<_>>(), ["web"]);
    drop(pod);
}

through_each_proxy!(paths_that_are_no_plain_text_need_their_type_unless_the_config_map_says_otherwise);

async fn paths_that_are_no_plain_text_need_their_type_unless_the_config_map_says_otherwise() {
    let Some((run, _pod)) = serve().await else { return };
    let http = run.http();
    run.write(
        "b.yaml",
        &Ingress::new("b").host("strict.test").path("Prefix", "/a(b).*", "web").path("Prefix", "/good", "web").yaml(),
    );
    let strange = Request::get("strict.test", "/a(b).*");
    with(&run, &[], &http, &Request::get("strict.test", "/good"), |answer| answer.who() == "web").await;
    assert_eq!(http.send(&strange).await.status, 404);
    run.says("/a(b).*").await;
    with(&run, &[("strict-validate-path-type", "false")], &http, &strange, |answer| answer.who() == "web").await;
}

through_each_proxy!(a_config_map_that_is_not_there_means_defaults_and_a_foreign_one_nothing);

async fn a_config_map_that_is_not_there_means_defaults_and_a_foreign_one_nothing() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let pair = Authority::new().issue(&[HOST]);
    let other = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "other"},
        "data": {"proxy-body-size": "1"},
    });
    let manifest = service("web", &[&pod])
        + &pair.secret("pair")
        + &document(&other)
        + &Ingress::new("a").host(HOST).path("Prefix", "/", "web").yaml();
    let run = setup.flag("--configmap=default/settings").file("a.yaml", &manifest).serve().await;
    let body = Request::new("POST", HOST, "/").body(vec![b'x'; 1000]);
    assert_eq!(run.http().send(&body).await.who(), "web");
}
