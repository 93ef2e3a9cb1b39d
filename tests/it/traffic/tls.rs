//! TLS: which certificate a client is shown, what happens when Secrets change, and who is sent to https.

use coxswain::volume::ProxyKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::envoy::fixture::admin;
use crate::support::certificates::{Authority, secret};
use crate::support::objects::{config_map, service};
use crate::support::proxies::through_each_proxy;
use crate::support::{Client, Ingress, Pod, Request, Run, eventually, net, wait};

/// Waits until `client` is shown the certificate `der`.
async fn shown(client: &Client, der: &[u8], what: &str) {
    eventually(what, async || {
        let shown = client.certificate().await?;
        wait::check(shown == der, || "another certificate is shown".to_owned())
    })
    .await;
}

through_each_proxy!(the_certificate_is_chosen_by_sni);

async fn the_certificate_is_chosen_by_sni() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let authority = Authority::new();
    let (one, two) =
        (authority.issue(&["one.example.com"]), authority.issue(&["two.example.com", "three.example.com"]));
    let wild = authority.issue(&["*.wild.example.com"]);
    let expired = authority.issue_expired(&["old.example.com"]);
    let default = authority.issue(&["default.example.com"]);
    let manifest = service("web", &[&pod])
        + &one.secret("one")
        + &two.secret("two")
        + &wild.secret("wild")
        + &expired.secret("expired")
        + &default.secret("default")
        + &secret("broken", "nonsense", &one.key)
        + &secret("mixed", &one.certificate, &two.key)
        + &Ingress::new("a").tls(&["one.example.com"], "one").host("one.example.com").path("Prefix", "/", "web").yaml()
        + &Ingress::new("b")
            .tls(&["two.example.com", "three.example.com"], "two")
            .host("two.example.com")
            .path("Prefix", "/", "web")
            .host("three.example.com")
            .path("Prefix", "/", "web")
            .yaml()
        + &Ingress::new("c")
            .tls(&["*.wild.example.com"], "wild")
            .host("*.wild.example.com")
            .path("Prefix", "/", "web")
            .yaml()
        + &Ingress::new("d")
            .tls(&["sub.wild.example.com"], "wild")
            .host("sub.wild.example.com")
            .path("Prefix", "/", "web")
            .yaml()
        + &Ingress::new("e")
            .tls(&["old.example.com"], "expired")
            .host("old.example.com")
            .path("Prefix", "/", "web")
            .yaml()
        + &Ingress::new("f")
            .tls(&["broken.example.com"], "broken")
            .host("broken.example.com")
            .path("Prefix", "/", "web")
            .yaml()
        + &Ingress::new("g")
            .tls(&["mixed.example.com"], "mixed")
            .host("mixed.example.com")
            .path("Prefix", "/", "web")
            .yaml()
        + &Ingress::new("h")
            .tls(&["missing.example.com"], "missing")
            .host("missing.example.com")
            .path("Prefix", "/", "web")
            .yaml()
        + &Ingress::new("i").tls(&["none.example.com"], "").host("none.example.com").path("Prefix", "/", "web").yaml()
        + &Ingress::new("j")
            .tls(&["foreign.example.com"], "one")
            .host("foreign.example.com")
            .path("Prefix", "/", "web")
            .yaml()
        + &Ingress::new("k")
            .tls(&["unused.example.com"], "one")
            .host("plain.example.com")
            .path("Prefix", "/", "web")
            .yaml();
    let run = setup.flag("--default-ssl-certificate=default/default").file("all.yaml", &manifest).serve().await;
    let mut wrong = Vec::new();
    for (sni, expected, pair) in [
        ("one.example.com", "one", &one),
        ("ONE.example.com", "one", &one),
        ("two.example.com", "two", &two),
        ("three.example.com", "two", &two),
        ("any.wild.example.com", "wild", &wild),
        ("sub.wild.example.com", "wild", &wild),
        ("wild.example.com", "default", &default),
        ("a.b.wild.example.com", "default", &default),
        ("old.example.com", "expired", &expired),
        ("broken.example.com", "default", &default),
        ("mixed.example.com", "default", &default),
        ("missing.example.com", "default", &default),
        ("none.example.com", "default", &default),
        ("foreign.example.com", "default", &default),
        ("plain.example.com", "default", &default),
        ("unknown.example.com", "default", &default),
    ] {
        // The route is that of the Host, whatever the SNI was; the certificate that of the SNI.
        match run.https(sni).try_get("one.example.com", "/").await {
            Ok(answer) if answer.certificate.as_ref() == Some(&pair.der) && answer.who() == "web" => {}
            Ok(answer) => wrong.push(format!("{sni}: not {expected}; {} answered", answer.who())),
            Err(why) => wrong.push(format!("{sni}: {why}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let nameless = Client::new(run.local(run.ports().https)).tls_without_sni();
    assert_eq!(nameless.certificate().await.unwrap(), default.der, "without SNI");
    for told in ["broken", "mixed", "missing", "foreign.example.com", "unused.example.com", "expired"] {
        run.says(told).await;
    }
    assert!(!run.said().contains("PRIVATE KEY"), "a key was printed");
}

through_each_proxy!(secrets_change_without_a_reload_and_a_broken_one_keeps_the_last_good);

async fn secrets_change_without_a_reload_and_a_broken_one_keeps_the_last_good() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let authority = Authority::new();
    let host = "h.example.com";
    let [first, second, third] = [(); 3].map(|()| authority.issue(&[host]));
    let ingress = Ingress::new("a").tls(&[host], "pair").host(host).path("Prefix", "/", "web").yaml();
    let run = setup.file("a.yaml", &(service("web", &[&pod]) + &ingress)).serve().await;
    let client = run.https(host);
    let generated = client.certificate().await.unwrap();
    assert_eq!(client.get(host, "/").await.who(), "web", "served with the default certificate meanwhile");
    let redirect = run.http().get(host, "/").await;
    assert_eq!(redirect.status, 308, "the redirect is on although the Secret is missing");

    run.write("secret.yaml", &first.secret("pair"));
    shown(&client, &first.der, "the Secret that came").await;
    let loaded = run.loaded();
    run.write("secret.yaml", &second.secret("pair"));
    shown(&client, &second.der, "the rotated one").await;
    assert_eq!(run.loaded(), loaded, "a rotation needs no release");

    for (n, broken) in [
        secret("pair", "garbage", &first.key),
        secret("pair", &first.certificate, &second.key),
        secret("pair", &first.certificate[..100], &first.key),
        secret("pair", "", ""),
    ]
    .iter()
    .enumerate()
    {
        run.write("secret.yaml", broken);
        // Something that comes later and is visible shows that the broken one has been looked at.
        let marker = format!("marker{n}.example.com");
        run.write("marker.yaml", &Ingress::new("marker").host(&marker).path("Prefix", "/", "web").yaml());
        eventually("the marker", async || {
            let who = run.http().try_get(&marker, "/").await?.who();
            wait::check(who == "web", || who)
        })
        .await;
        assert_eq!(client.certificate().await.unwrap(), second.der, "broken update {n}: the last good pair stays");
    }
    run.says("default/pair").await;

    run.write("secret.yaml", &third.secret("pair"));
    shown(&client, &third.der, "the mended one").await;
    run.remove("secret.yaml");
    shown(&client, &generated, "the default one after the Secret is gone").await;
}

through_each_proxy!(the_default_certificate_may_come_late_and_change);

async fn the_default_certificate_may_come_late_and_change() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let authority = Authority::new();
    let [first, second] = [(); 2].map(|()| authority.issue(&["default.example.com"]));
    let manifest = service("web", &[&pod]) + &Ingress::new("a").host("h.example.com").path("Prefix", "/", "web").yaml();
    let run = setup.flag("--default-ssl-certificate=default/late").file("a.yaml", &manifest).serve().await;
    let client = run.https("h.example.com");
    let generated = client.certificate().await.unwrap();
    run.write("secret.yaml", &first.secret("late"));
    shown(&client, &first.der, "the default certificate that came").await;
    assert_ne!(generated, first.der);
    run.write("secret.yaml", &second.secret("late"));
    shown(&client, &second.der, "the default certificate that changed").await;
    assert_eq!(client.get("h.example.com", "/").await.who(), "web");
}

through_each_proxy!(plain_requests_are_sent_to_https_where_there_is_tls);

async fn plain_requests_are_sent_to_https_where_there_is_tls() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let pair = Authority::new().issue(&["tls.example.com", "off.example.com", "mixed.example.com"]);
    let manifest = service("web", &[&pod])
        + &pair.secret("pair")
        + &Ingress::new("tls").tls(&["tls.example.com"], "pair").host("tls.example.com").path("Prefix", "/", "web").path("Exact", "/exact", "web").yaml()
        + &Ingress::new("off").ours("ssl-redirect", "false").tls(&["off.example.com"], "pair").host("off.example.com").path("Prefix", "/", "web").yaml()
        + &Ingress::new("forced").ours("force-ssl-redirect", "true").host("forced.example.com").path("Prefix", "/", "web").yaml()
        + &Ingress::new("plain").host("plain.example.com").path("Prefix", "/", "web").yaml()
        // Two Ingresses of one host: the redirect is a matter of each route.
        + &Ingress::new("mixed1").tls(&["mixed.example.com"], "pair").host("mixed.example.com").path("Prefix", "/", "web").yaml()
        + &Ingress::new("mixed2").ours("ssl-redirect", "false").host("mixed.example.com").path("Prefix", "/open", "web").yaml();
    let run = setup.file("all.yaml", &manifest).serve().await;
    let mut wrong = Vec::new();
    for (host, target, expected) in [
        ("tls.example.com", "/foo?a=b&c=/", "308 https://tls.example.com/foo?a=b&c=/"),
        ("tls.example.com", "/exact", "308 https://tls.example.com/exact"),
        ("tls.example.com", "/a%20b/%2F", "308 https://tls.example.com/a%20b/%2F"),
        ("TLS.example.com:80", "/foo", "308 https://tls.example.com/foo"),
        ("tls.example.com", "/.well-known/acme-challenge/token", "web"),
        ("tls.example.com", "/.well-known/other", "308 https://tls.example.com/.well-known/other"),
        ("off.example.com", "/foo", "web"),
        ("forced.example.com", "/foo", "308 https://forced.example.com/foo"),
        ("plain.example.com", "/foo", "web"),
        ("mixed.example.com", "/foo", "308 https://mixed.example.com/foo"),
        ("mixed.example.com", "/open", "web"),
        ("unknown.example.com", "/foo", "404"),
    ] {
        let got = run.http().try_get(host, target).await.map_or_else(
            |why| why,
            |answer| match answer.header("location") {
                Some(location) => format!("{} {location}", answer.status),
                None => answer.who(),
            },
        );
        if !got.eq_ignore_ascii_case(expected) {
            wrong.push(format!("{host}{target}: {got} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let post = run.http().send(&Request::new("POST", "tls.example.com", "/foo").body("body")).await;
    assert_eq!(post.status, 308);
    // Over TLS nobody is sent anywhere.
    assert_eq!(run.https("tls.example.com").get("tls.example.com", "/foo").await.who(), "web");
    assert_eq!(run.https("forced.example.com").get("forced.example.com", "/foo").await.who(), "web");
}

through_each_proxy!(code_exceptions_and_hsts_follow_the_config_map);

async fn code_exceptions_and_hsts_follow_the_config_map() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let pair = Authority::new().issue(&["tls.example.com"]);
    let manifest = service("web", &[&pod])
        + &pair.secret("pair")
        + &Ingress::new("tls")
            .tls(&["tls.example.com"], "pair")
            .host("tls.example.com")
            .path("Prefix", "/", "web")
            .yaml()
        + &Ingress::new("plain").host("plain.example.com").path("Prefix", "/", "web").yaml();
    let run = setup.flag("--configmap=default/settings").file("all.yaml", &manifest).serve().await;
    let (http, https) = (run.http(), run.https("tls.example.com"));
    let hsts = async |target: &str| {
        let answer = https.get("tls.example.com", target).await;
        answer.header("strict-transport-security").map(str::to_owned)
    };
    let usual = Some("max-age=31536000; includeSubDomains".to_owned());
    assert_eq!(hsts("/").await, usual);
    assert_eq!(hsts("/?hsts=max-age=1").await, usual, "the upstream's own is replaced");
    assert_eq!(hsts("/?status=500").await, usual, "on errors too");
    let unknown = https.get("unknown.example.com", "/").await;
    assert_eq!((unknown.status, unknown.header("strict-transport-security")), (404, usual.as_deref()));
    assert_eq!(http.get("plain.example.com", "/").await.header("strict-transport-security"), None);

    let settings = [
        ("http-redirect-code", "301"),
        ("no-tls-redirect-locations", "/open, /other"),
        ("hsts-max-age", "60"),
        ("hsts-include-subdomains", "false"),
        ("hsts-preload", "true"),
    ];
    run.write("settings.yaml", &config_map("settings", &settings));
    eventually("the ConfigMap is taken up", async || {
        let status = http.try_get("tls.example.com", "/x").await?.status;
        wait::check(status == 301, || status.to_string())
    })
    .await;
    assert_eq!(http.get("tls.example.com", "/open/x").await.who(), "web");
    assert_eq!(http.get("tls.example.com", "/other").await.who(), "web");
    assert_eq!(http.get("tls.example.com", "/.well-known/acme-challenge/x").await.status, 301, "the list is replaced");
    eventually("the new header", async || {
        let hsts = hsts("/").await;
        wait::check(hsts.as_deref() == Some("max-age=60; preload"), || format!("{hsts:?}"))
    })
    .await;

    run.write("settings.yaml", &config_map("settings", &[("hsts", "false"), ("ssl-redirect", "false")]));
    eventually("no header", async || {
        let hsts = hsts("/").await;
        wait::check(hsts.is_none(), || format!("{hsts:?}"))
    })
    .await;
    assert_eq!(http.get("tls.example.com", "/x").await.who(), "web", "no redirect by the ConfigMap");

    run.write("settings.yaml", &config_map("settings", &[("force-ssl-redirect", "true")]));
    eventually("all are sent to https", async || {
        let status = http.try_get("plain.example.com", "/x").await?.status;
        wait::check(status == 308, || status.to_string())
    })
    .await;
}

through_each_proxy!(the_public_port_stands_in_redirects_unless_it_is_443);

async fn the_public_port_stands_in_redirects_unless_it_is_443() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let manifest = service("web", &[&pod])
        + &Ingress::new("a").tls(&["h.example.com"], "none").host("h.example.com").path("Prefix", "/", "web").yaml();
    let run =
        setup.flag("--public-https-port=8443").flag("--public-http-port=8080").file("a.yaml", &manifest).serve().await;
    let redirect = run.http().get("h.example.com:8080", "/foo").await;
    assert_eq!(redirect.header("location"), Some("https://h.example.com:8443/foo"));
    let echo = run.https("h.example.com").get("h.example.com:8443", "/").await.echo().unwrap();
    assert_eq!(echo.header("x-forwarded-port"), ["8443"]);
    let echo = run.http().get("h.example.com", "/.well-known/acme-challenge/x").await.echo().unwrap();
    assert_eq!(echo.header("x-forwarded-port"), ["8080"]);
}

through_each_proxy!(a_server_name_that_no_host_can_have_harms_nobody);

async fn a_server_name_that_no_host_can_have_harms_nobody() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let authority = Authority::new();
    let pairs = ["a.test", "b.test", "c.test", "d.test"].map(|host| (host, authority.issue(&[host])));
    let mut manifest = service("web", &[&pod]);
    for (host, pair) in &pairs {
        let name = host.replace('.', "-");
        manifest += &(pair.secret(&name)
            + &Ingress::new(&name).tls(&[host], &name).host(host).path("Prefix", "/", "web").yaml());
    }
    let run = setup.file("all.yaml", &manifest).serve().await;
    let https = run.local(run.ports().https);
    // One that means all, one that begins a name of another kind, and what is no text.
    for (name, (host, pair)) in [&b"*"[..], b"xdstp://x/y", b"\xff\xfe", b"a b\n"].into_iter().zip(&pairs) {
        let mut stream = tokio::net::TcpStream::connect(https).await.unwrap();
        stream.write_all(&hello(name)).await.unwrap();
        // An alert, the default certificate or the end: all are answers.
        let mut answer = [0; 1];
        let answered = tokio::time::timeout(std::time::Duration::from_secs(60), stream.read(&mut answer)).await;
        assert!(answered.is_ok(), "{name:?} waits");
        shown(&run.https(host), &pair.der, host).await;
    }
    // What was shown before still follows its Secret.
    let next = authority.issue(&["a.test"]);
    run.write("next.yaml", &next.secret("a-test"));
    run.write("all.yaml", &manifest.replace(&pairs[0].1.secret("a-test"), ""));
    shown(&run.https("a.test"), &next.der, "the next certificate").await;
}

// Envoy keeps something for each name that it asks the agent for; nginx keeps nothing, and serves as well.
through_each_proxy!(names_that_clients_make_up_do_not_pile_up);

async fn names_that_clients_make_up_do_not_pile_up() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let pair = Authority::new().issue(&["a.test"]);
    let ingress = Ingress::new("a").tls(&["a.test"], "a").host("a.test").path("Prefix", "/", "web");
    let manifest = service("web", &[&pod]) + &pair.secret("a") + &ingress.yaml();
    let run = setup.file("all.yaml", &manifest).serve().await;
    shown(&run.https("a.test"), &pair.der, "the host").await;
    for n in 0..1200 {
        let made_up = Client::new(run.local(run.ports().https)).tls(&format!("n{n}.made-up.test"));
        assert_ne!(made_up.certificate().await.unwrap(), pair.der);
    }
    shown(&run.https("a.test"), &pair.der, "the host still").await;
    if run.proxy() == ProxyKind::Envoy {
        eventually("no more than a thousand and the host", async || {
            let counts = admin(&run.volume(), "/stats?format=text&filter=on_demand_secret.cert_active").await?;
            let held = counts.trim().rsplit_once(": ").and_then(|(_, count)| count.parse::<usize>().ok());
            wait::check(held.is_some_and(|held| held <= 1001), || counts)
        })
        .await;
    }
}

/// The beginning of a handshake that asks for `name`, whatever that is.
fn hello(name: &[u8]) -> Vec<u8> {
    let stand_in = "x".repeat(name.len());
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let server = stand_in.clone().try_into().unwrap();
    let mut connection = rustls::ClientConnection::new(config.into(), server).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    // Type and length of the name stand before it.
    let length = u16::try_from(name.len()).unwrap().to_be_bytes();
    let wanted = [&[0][..], &length, stand_in.as_bytes()].concat();
    let at = hello.windows(wanted.len()).position(|bytes| bytes == wanted).expect("the name is in it");
    hello[at + 3..at + wanted.len()].copy_from_slice(name);
    hello
}
