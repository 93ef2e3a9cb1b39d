//! What a hostile tenant or client may try: objects that want to become configuration, requests that want to go where
//! they must not. One bad object harms only itself; nobody reaches what is not theirs.

mod advisories;
mod webhook;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::certificates::Authority;
use crate::support::objects::{config_map, document, service, service_at};
use crate::support::{Client, Ingress, Pod, Request, Run, eventually, net, raw, wait};

/// What an injected directive would answer.
const PWNED: u16 = 418;

/// Texts that would become a directive in a careless renderer.
const PAYLOADS: &[&str] = &[
    "/x; } location /pwned { return 418; } location /y {",
    "/x\n} location /pwned { return 418; }\n#",
    "/x\r} location /pwned { return 418; }\r#",
    "/x\" { return 418; } location \"/pwned",
    "/x' { return 418; } location '/pwned",
    "/x\\\" { return 418; } #",
    "/x$(return 418){",
    "/x${uri}\u{2028}return 418;",
    "/x\u{0}return 418;",
    "/x\u{85}return 418;",
    "/x # return 418;",
    "/(?:x)\"{0} ; return 418; \"",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_an_object_becomes_a_directive_and_the_innocent_are_served() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let innocent =
        service("web", &[&pod]) + &Ingress::new("innocent").host("innocent.test").path("Prefix", "/", "web").yaml();
    let mut hostile = String::new();
    let mut hosts = Vec::new();
    for (n, payload) in PAYLOADS.iter().enumerate() {
        let mut add = |kind: &str, make: &dyn Fn(Ingress) -> Ingress| {
            let host = format!("{kind}{n}.test");
            hostile.push_str(&make(Ingress::new(&format!("{kind}{n}")).host(&host)).yaml());
            hosts.push(host);
        };
        for kind in ["Exact", "Prefix", "ImplementationSpecific"] {
            add(&kind.to_lowercase(), &|ingress| ingress.path(kind, payload, "web"));
        }
        let specific = "ImplementationSpecific";
        add("regex", &|ingress| ingress.ours("use-regex", "true").path(specific, payload, "web"));
        add("rewritten", &|ingress| ingress.ours("rewrite-target", "/$1").path(specific, payload, "web"));
        for annotation in [
            "rewrite-target",
            "proxy-body-size",
            "proxy-read-timeout",
            "backend-protocol",
            "load-balance",
            "ssl-redirect",
            "allowlist-source-range",
            "denylist-source-range",
            "whitelist-source-range",
            "use-regex",
            "permanent-redirect",
            "temporal-redirect",
            "configuration-snippet",
            "server-snippet",
            "auth-url",
            "auth-method",
            "auth-signin",
            "auth-snippet",
            "auth-tls-match-cn",
            "auth-tls-verify-client",
            "mirror-target",
            "mirror-host",
            "auth-proxy-set-headers",
            "server-alias",
            "app-root",
            "custom-http-errors",
            "upstream-vhost",
            "canary-by-header-pattern",
        ] {
            add(annotation, &|ingress| ingress.ours(annotation, payload).path("Prefix", "/", "web"));
        }
        add("tls-host", &|ingress| ingress.tls(&[payload], "none").path("Prefix", "/", "web"));
        add("secret", &|ingress| ingress.tls(&["h.test"], payload).path("Prefix", "/", "web"));
        add("service", &|ingress| ingress.path("Prefix", "/", payload));
        add("port", &|ingress| {
            ingress.path_to("Prefix", "/", json!({"service": {"name": "web", "port": {"name": payload}}}))
        });
        add("resource", &|ingress| {
            ingress.path_to("Prefix", "/", json!({"resource": {"kind": payload, "name": payload}}))
        });
        hostile += &Ingress::new(&format!("host{n}"))
            .host(&format!("{}.test", payload.trim_start_matches('/')))
            .path("Prefix", "/", "web")
            .yaml();
        hostile += &Ingress::new(payload).host("named.test").path("Prefix", "/", "web").yaml();
        hostile += &Ingress::new("ns").namespace(payload).host("spaced.test").path("Prefix", "/", "web").yaml();
        hostile += &Ingress::new(&format!("class{n}"))
            .class(Some(payload))
            .host("class.test")
            .path("Prefix", "/", "web")
            .yaml();
        let mut uid: Value = serde_json::from_str(
            Ingress::new(&format!("uid{n}"))
                .host(&format!("uid{n}.test"))
                .path("Prefix", "/", "web")
                .yaml()
                .trim_end_matches("---\n"),
        )
        .unwrap();
        uid["metadata"]["uid"] = json!(format!("../../{payload}"));
        hostile += &document(&uid);
        hostile += &config_map(&format!("files{n}"), &[(payload, payload)]);
    }
    let settings: Vec<(&str, &str)> = [
        "http-redirect-code",
        "no-tls-redirect-locations",
        "ssl-protocols",
        "ssl-ciphers",
        "proxy-real-ip-cidr",
        "forwarded-for-header",
        "log-format-upstream",
        "access-log-path",
        "error-log-level",
        "worker-processes",
        "proxy-body-size",
        "hsts-max-age",
        "large-client-header-buffers",
        "upstream-keepalive-time",
        "server-snippet",
        "http-snippet",
        "main-snippet",
        "location-snippet",
    ]
    .iter()
    .enumerate()
    .map(|(n, key)| (*key, PAYLOADS[n % PAYLOADS.len()]))
    .collect();
    let run = setup
        .flag("--configmap=default/settings")
        .file("innocent.yaml", &innocent)
        .file("hostile.yaml", &hostile)
        .file("settings.yaml", &config_map("settings", &settings))
        .serve()
        .await;
    let mut wrong = Vec::new();
    let named = ["named.test", "spaced.test", "class.test", "h.test", "innocent.test"].map(str::to_owned);
    for host in hosts.iter().chain(&named) {
        let mut connection = run.http().connect().await.unwrap();
        for target in ["/pwned", "/x", "/"] {
            let answer = connection.send(&Request::get(host, target)).await.unwrap();
            if answer.status == PWNED || answer.who() == PWNED.to_string() {
                wrong.push(format!("{host}{target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "injected: {wrong:#?}");
    assert_eq!(run.http().get("innocent.test", "/x").await.who(), "web");
    // Later changes go through: nothing is frozen.
    run.write("later.yaml", &Ingress::new("later").host("later.test").path("Prefix", "/", "web").yaml());
    eventually("a later change", async || {
        let who = run.http().try_get("later.test", "/").await?.who();
        wait::check(who == "web", || who)
    })
    .await;
    let said = run.said();
    assert!(
        !said.contains('\u{0}') && !said.contains('\u{2028}') && !said.contains('\r'),
        "control characters in the log"
    );
    assert!(!said.contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_reaches_the_pods_own_ports_or_another_tenant() {
    let Some(setup) = Run::setup() else { return };
    let port = net::port();
    let (web, admin, foreign) =
        (Pod::start("web", port).await, Pod::start("admin", port).await, Pod::start("foreign", port).await);
    let ports = setup.ports();
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let external = |name: &str, host: &str| {
        document(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "ExternalName", "externalName": host, "ports": [{"port": 80, "targetPort": ports.healthz}]},
        }))
    };
    let in_namespace =
        |manifest: String| manifest.replace("\"metadata\": {", "\"metadata\": {\"namespace\": \"other\",");
    let mut manifest = service("web", &[&web])
        + &service("admin", &[&admin])
        + &in_namespace(service("foreign", &[&foreign]))
        + &Ingress::new("open").host("h.test").path("Prefix", "/", "web").yaml()
        + &Ingress::new("guarded")
            .ours("allowlist-source-range", "10.0.0.0/8")
            .host("h.test")
            .path("Prefix", "/admin", "admin")
            .yaml()
        + &Ingress::new("cross")
            .host("cross.test")
            .path("Prefix", "/", "foreign")
            .path("Prefix", "/slash", "other/foreign")
            .yaml();
    let own = [("http", ports.http), ("https", ports.https), ("ready", ports.ready), ("healthz", ports.healthz)];
    for (name, port) in own {
        manifest += &service_at(name, &[local(port)]);
        manifest += &Ingress::new(name).host(&format!("{name}.test")).path("Prefix", "/", name).yaml();
    }
    let names = [
        "localhost",
        "localhost.",
        "LOCALHOST",
        "127.0.0.1",
        "127.1",
        "0",
        "0.0.0.0",
        "2130706433",
        "[::1]",
        "::1",
        "ip6-localhost",
        "foo.localhost",
        "unix:/tmp/x.sock",
        "a b",
        "h.test:80",
        "",
    ];
    for (n, host) in names.iter().enumerate() {
        manifest += &external(&format!("ext{n}"), host);
        manifest += &Ingress::new(&format!("ext{n}"))
            .host(&format!("ext{n}.test"))
            .path("Prefix", "/", &format!("ext{n}"))
            .yaml();
    }
    let run = setup.file("a.yaml", &manifest).serve().await;
    let http = run.http();
    let mut wrong = Vec::new();
    let mut refused: Vec<String> = own.iter().map(|(name, _)| format!("{name}.test")).collect();
    refused.extend((0..names.len()).map(|n| format!("ext{n}.test")));
    refused.push("cross.test".to_owned());
    for host in &refused {
        let who = http.get(host, "/healthz").await.who();
        if who != "503" {
            wrong.push(format!("{host}: {who}"));
        }
    }
    assert_eq!(http.get("cross.test", "/slash").await.status, 503);
    // By Host: nothing but names of rules is known.
    for host in [
        "localhost",
        "127.0.0.1",
        &format!("127.0.0.1:{}", ports.healthz),
        "default-web-80",
        "ep.coxswain.internal",
        "_",
        "*",
        "~.",
        "h.test.evil",
        "unix",
    ] {
        let who = http.try_get(host, "/").await.map_or_else(|why| why, |answer| answer.who());
        if who != "404" && who != "400" {
            wrong.push(format!("Host {host}: {who}"));
        }
    }
    // By the spelling of a path: what nginx takes for `/admin` is guarded, what it does not is not admin's.
    for target in [
        "/admin",
        "/admin/",
        "/%61dmin",
        "//admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x/..%2fadmin",
        "/./admin",
        "/admin/.",
        "/admin/x/..",
        "/%2fadmin",
        "/admin?x",
        "/admin/%2e",
        "/a/../../admin",
        "http://h.test/admin",
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: h.test\r\nConnection: close\r\n\r\n");
        let who = raw(run.local(ports.http), text).await.map_or_else(|why| why, |answer| answer.who());
        if who != "403" && who != "400" {
            wrong.push(format!("{target}: {who} instead of 403"));
        }
    }
    for target in ["/ADMIN", "/admin%3Fx", "/admin;x", "/administrator", "/admin%20", "/\\admin", "/admin%00"] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: h.test\r\nConnection: close\r\n\r\n");
        let who = raw(run.local(ports.http), text).await.map_or_else(|why| why, |answer| answer.who());
        if who != "web" && who != "400" {
            wrong.push(format!("{target}: {who}"));
        }
    }
    // By upgrading past the rules: a tunnel that nobody looks into.
    let tunnel = Request::get("h.test", "/")
        .header("connection", "Upgrade, HTTP2-Settings")
        .header("upgrade", "h2c")
        .header("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA");
    let echo = http.send(&tunnel).await.echo().unwrap();
    if !echo.header("upgrade").is_empty() || !echo.header("connection").is_empty() {
        wrong.push(format!("h2c goes through: {:?}", echo.headers));
    }
    // By two lengths of one request.
    let smuggled = "POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: h.test\r\n\r\n";
    let who = raw(run.local(ports.http), smuggled).await.map_or_else(|why| why, |answer| answer.who());
    if who != "400" {
        wrong.push(format!("two lengths: {who}"));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!((admin.answered(), foreign.answered()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sni_opens_a_file_and_no_key_can_be_read_by_others() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let authority = Authority::new();
    let (pair, default) = (authority.issue(&["h.test"]), authority.issue(&["default.test"]));
    let manifest = service("web", &[&pod])
        + &pair.secret("pair")
        + &default.secret("default")
        + &Ingress::new("a").tls(&["h.test"], "pair").host("h.test").path("Prefix", "/", "web").yaml();
    let run = setup.flag("--default-ssl-certificate=default/default").file("a.yaml", &manifest).serve().await;
    assert_eq!(run.https("h.test").certificate().await.unwrap(), pair.der);
    let slots: Vec<String> = fs::read_dir(run.volume().tls())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().trim_end_matches(".pem").to_owned())
        .collect();
    assert!(slots.len() >= 2, "{slots:?}");
    let long = "a".repeat(255);
    let tries = [
        "../../releases/x",
        "default",
        "/etc/passwd",
        "h.test\0.evil",
        "h.test/../default",
        "..",
        "$tls",
        "data:x",
        "engine:x:y",
        &long,
        "*.test",
        "~h",
    ];
    for sni in tries.iter().map(|text| (*text).to_owned()).chain(slots) {
        let shown = hello(run.local(run.ports().https), &sni).await;
        let holds = |der: &[u8]| shown.windows(der.len()).any(|window| window == der);
        assert!(!holds(&pair.der), "{sni:?} is shown h.test's certificate");
        // Refused with an alert, or answered with the default certificate.
        assert!(
            holds(&default.der) || shown.first() == Some(&21) || shown.is_empty(),
            "{sni:?}: {:?}",
            &shown[..shown.len().min(8)]
        );
    }
    assert_eq!(run.https("h.test").get("h.test", "/").await.who(), "web", "and nothing broke");

    let mut keys = 0;
    visit(run.volume().root(), &mut |path| {
        let Ok(content) = fs::read(path) else { return };
        if String::from_utf8_lossy(&content).contains("PRIVATE KEY") {
            keys += 1;
            let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
            // The agent's own responders have a key of their own.
            let good = path.starts_with(run.volume().tls()) || path == run.volume().output().join("responders.pem");
            assert!(good, "a key outside of live/tls: {}", path.display());
        }
    });
    assert!(keys >= 2);
    assert!(!run.said().contains("PRIVATE"));
}

/// Calls `look` for every regular file below `folder`.
fn visit(folder: &std::path::Path, look: &mut impl FnMut(&std::path::Path)) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            visit(&entry.path(), look);
        } else if kind.is_file() {
            look(&entry.path());
        }
    }
}

/// Sends a TLS 1.2 ClientHello with any text as server name, and gives what the server says first: an alert, or its
/// hello and its certificates, which TLS 1.2 sends in plain text.
async fn hello(to: SocketAddr, sni: &str) -> Vec<u8> {
    let block = |size: usize, content: &[u8]| {
        let mut out = content.len().to_be_bytes()[8 - size..].to_vec();
        out.extend(content);
        out
    };
    let extension = |number: u16, content: &[u8]| [&number.to_be_bytes()[..], &block(2, content)].concat();
    let name = [&[0][..], &block(2, sni.as_bytes())].concat();
    let extensions = [
        extension(0, &block(2, &name)),
        extension(10, &block(2, &[0, 29, 0, 23])),
        extension(13, &block(2, &[4, 3, 8, 4, 4, 1])),
        extension(23, &[]),
    ]
    .concat();
    let suites = [0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30];
    let hello = [&[3, 3][..], &[7; 32], &[0], &block(2, &suites), &[1, 0], &block(2, &extensions)].concat();
    let handshake = [&[1][..], &block(3, &hello)].concat();
    let record = [&[22, 3, 1][..], &block(2, &handshake)].concat();
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // ServerHelloDone (an empty handshake message of type 14) ends what the server says, an alert or the end does too.
    while !answer.ends_with(&[14, 0, 0, 0]) && answer.first() != Some(&21) {
        let read = tokio::time::timeout(wait::PATIENCE, stream.read(&mut buffer)).await.expect("an answer");
        match read {
            Ok(0) | Err(_) => break,
            Ok(read) => answer.extend(&buffer[..read]),
        }
    }
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_run_without_rights() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let manifest = service("web", &[&pod]) + &Ingress::new("a").host("h.test").path("Prefix", "/", "web").yaml();
    let run = setup.file("a.yaml", &manifest).serve().await;
    let mut workers = 0;
    for pid in run.processes() {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if !command.starts_with("nginx: worker") {
            continue;
        }
        workers += 1;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap().split_whitespace().next().unwrap();
        assert_ne!(uid, "0", "a worker runs as root");
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
        assert_eq!(u64::from_str_radix(capabilities, 16), Ok(0), "a worker has capabilities");
    }
    assert!(workers > 0, "no worker was found");
    let unknown = Client::new(run.local(run.ports().http)).get("unknown.test", "/").await;
    assert_eq!(unknown.header("server"), Some("nginx"), "no version is told to strangers");
}
