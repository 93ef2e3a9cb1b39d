//! What holds for every input, shown on many: hostile text stays text, order does not matter, and nginx takes whatever
//! we accept.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use coxswain::annotations::rewrite::Rewrite;
use coxswain::model::{Action, PathMatch, ProxyConfig, Route, StaticFile, StaticFiles};
use coxswain::render::{History, RelativePath, RenderError, Rendering, render};
use coxswain::settings::{Flags, Settings};
use coxswain::translate::{HeldBack, translate};
use coxswain::value::Value;
use coxswain::volume::{Protocol, ProxyKind};
use coxswain::watch::files;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value as Json, json};

use crate::support::model::{Stage, config, host, route, upstream, value};
use crate::support::tokens::{self, Directive, Token, directives};
use crate::support::{parts, standalone};

/// Pieces of text that mean something to nginx, YAML, shells, terminals or regular expressions.
const PIECES: &[&str] = &[
    "\"",
    "'",
    "\\",
    ";",
    "{",
    "}",
    "$",
    "${",
    "$host",
    "#",
    "\n",
    "\r",
    "\r\n",
    "\t",
    " ",
    "\0",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "ü",
    "%22",
    "%0a",
    "%00",
    "%2e%2e",
    "/",
    "//",
    "..",
    "~",
    "^",
    "*",
    "(",
    ")",
    "[",
    "]",
    "|",
    "?",
    "+",
    ".",
    ",",
    ":",
    "=",
    "@",
    "&",
    "\\n",
    "\\\"",
    "\\\\",
    "a",
    "B",
    "0",
    "-",
    "_",
    "default",
    "include",
    "location / { return 200; }",
    "; } } server { listen 1; ",
    "\"; proxy_pass http://127.0.0.1; \"",
    "(?<host>.*)",
    "*/",
    "<!--",
    "\u{1b}[31m",
    "$(id)",
    "`id`",
    "true",
    "0s",
    "1m",
    "http://evil.test",
    "../../../etc/passwd",
];

fn hostile() -> impl Strategy<Value = String> {
    prop::collection::vec(select(PIECES), 1..6).prop_map(|pieces| pieces.concat())
}

fn text(rendering: &Rendering) -> String {
    String::from_utf8(rendering.release.files[&RelativePath::MAIN].bytes.clone()).unwrap()
}

fn runner(cases: u32) -> TestRunner {
    // Found cases are written down as tests; a file of seeds beside the source would be one more thing to keep.
    TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() })
}

/// A model with this text wherever the model has any. What a value type refuses is left out.
fn model(text: &str) -> ProxyConfig {
    let (web, upstream) = upstream("shop/web", Protocol::Http, &[]);
    let literal = |make: fn(_) -> PathMatch, text: String| value_or_none(&text).map(make);
    let at = |path: PathMatch| Route { path, ..route("/", web.clone()) };
    let file = StaticFile { sha256: "0".repeat(64), content_type: text.to_owned(), content: Default::default() };
    let files = StaticFiles { object: value("shop/files"), files: BTreeMap::from([("exact".to_owned(), file)]) };
    let mut routes = vec![route("=/static/exact", Action::Files(files))];
    routes.extend(literal(PathMatch::Exact, format!("/e{text}e")).map(at));
    routes.extend(literal(PathMatch::Prefix, format!("/p{text}p")).map(at));
    let mut rewritten = routes.clone();
    rewritten.extend(value_or_none(text).map(PathMatch::Regex).map(at));
    for route in &mut rewritten {
        let rewrite = value_or_none(text).zip(value_or_none(&format!("/{text}")));
        route.policies.rewrite = rewrite.map(|(pattern, target)| Rewrite { pattern, target });
    }
    for route in routes.iter_mut().chain(&mut rewritten) {
        route.backend.iter_mut().for_each(|backend| backend.port = text.to_owned());
        route.source.iter_mut().for_each(|source| source.uid = Some(text.to_owned()));
    }
    let mut hosts = vec![host("literal.test", routes), host("regex.test", rewritten)];
    hosts.extend(value_or_none(text).map(|name| coxswain::model::VirtualHost { host: name, ..host("x", []) }));
    let mut model = config(hosts, [upstream]);
    let globals = &mut model.globals;
    globals.tls_redirect.exempt = value_or_none(&format!("/{text}")).into_iter().collect();
    globals.logging.format = value_or_none(&format!("${{service_port}}{text}$location_path"));
    globals.logging.access_path = value_or_none(text);
    globals.client_tls.ciphers = value_or_none(text).unwrap_or_default();
    model
}

fn value_or_none<T: Value>(text: &str) -> Option<T> {
    T::parse(text).ok()
}

/// The directives of a file, or that the last fence let nothing through.
fn shape_of(model: &ProxyConfig) -> Result<Vec<Directive>, RenderError> {
    render(model, ProxyKind::Nginx, &History::default())
        .map(|rendering| directives(&text(&rendering)).expect("a configuration"))
}

#[test]
fn hostile_text_never_changes_the_structure_of_a_file() {
    let known = tokens::shapes(
        ["plain", "/plain", "[a-z]", "1"]
            .map(|plain| text(&render(&model(plain), ProxyKind::Nginx, &History::default()).unwrap()))
            .iter()
            .map(String::as_str),
    );
    let fenced = RefCell::new(0);
    let taken = RefCell::new(0);
    runner(512)
        .run(&hostile(), |hostile| {
            match shape_of(&model(&hostile)) {
                Ok(directives) => {
                    *taken.borrow_mut() += 1;
                    for directive in &directives {
                        prop_assert!(known.contains(&directive.shape()), "{hostile:?}: {directive:?}");
                    }
                }
                Err(_) => *fenced.borrow_mut() += 1,
            }
            Ok(())
        })
        .unwrap();
    // Both must happen, or the generator has lost its teeth.
    let (fenced, taken) = (fenced.into_inner(), taken.into_inner());
    assert!(fenced > 10 && taken > 10, "{fenced} {taken}");
}

/// Objects that use every field of which text could reach a file.
static OBJECTS: LazyLock<Json> = LazyLock::new(|| {
    let annotation = |name: &str, text: &str| (format!("nginx.ingress.kubernetes.io/{name}"), Json::from(text));
    let annotations: serde_json::Map<_, _> = [
        annotation("rewrite-target", "/new/$1"),
        annotation("use-regex", "true"),
        annotation("ssl-redirect", "true"),
        annotation("proxy-body-size", "8m"),
        annotation("proxy-read-timeout", "60"),
        annotation("backend-protocol", "HTTP"),
        annotation("load-balance", "round_robin"),
        annotation("allowlist-source-range", "10.0.0.0/8"),
        annotation("denylist-source-range", "10.1.0.0/16"),
        annotation("proxy-next-upstream", "error timeout"),
        annotation("proxy-buffer-size", "4k"),
        ("other.example.com/annotation".to_owned(), "x".into()),
    ]
    .into_iter()
    .collect();
    let backend = |port: Json| json!({"service": {"name": "web", "port": port}});
    let path = |kind: &str, path: &str, port: Json| json!({"pathType": kind, "path": path, "backend": backend(port)});
    json!([
        {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "coxswain"},
         "spec": {"controller": "coxswain.dev/ingress", "parameters":
            {"kind": "ConfigMap", "name": "class", "scope": "Namespace", "namespace": "shop"}}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
         "metadata": {"name": "web", "namespace": "shop", "uid": "00000000-0000-0000-0000-000000000001",
            "annotations": annotations},
         "spec": {"ingressClassName": "coxswain",
            "tls": [{"hosts": ["a.example.com", "*.b.example.com"], "secretName": "tls"}],
            "rules": [
                {"host": "a.example.com", "http": {"paths": [
                    path("ImplementationSpecific", "/v([0-9]+)", json!({"number": 80})),
                    path("Exact", "/exact/", json!({"name": "http"})),
                    path("Prefix", "/prefix", json!({"number": 80}))]}},
                {"host": "*.b.example.com", "http": {"paths": [path("Prefix", "/", json!({"number": 80}))]}}]}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
         "metadata": {"name": "rest", "namespace": "shop", "annotations":
            {"nginx.ingress.kubernetes.io/permanent-redirect": "https://elsewhere.example.com/"}},
         "spec": {"ingressClassName": "coxswain", "rules": [
            {"host": "c.example.com", "http": {"paths": [path("Prefix", "/", json!({"number": 80}))]}}]}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "files", "namespace": "shop"},
         "spec": {"ingressClassName": "coxswain", "rules": [{"host": "d.example.com", "http": {"paths": [
            {"pathType": "Prefix", "path": "/docs", "backend": {"resource": {"kind": "ConfigMap", "name": "docs"}}},
            path("Prefix", "/", json!({"number": 80}))]}}]}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop", "annotations":
            {"nginx.ingress.kubernetes.io/proxy-connect-timeout": "5"}},
         "spec": {"ports": [{"name": "http", "port": 80}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
         "ports": [{"name": "http", "port": 8080}],
         "endpoints": [{"addresses": ["10.0.0.3"]}, {"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "docs", "namespace": "shop"},
         "data": {"index.html": "<p>", "app.js": "x"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "class", "namespace": "shop"},
         "data": {"proxy-send-timeout": "30"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coxswain", "namespace": "coxswain"},
         "data": {"ssl-protocols": "TLSv1.2 TLSv1.3", "ssl-ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256",
            "use-forwarded-headers": "true", "forwarded-for-header": "X-Forwarded-For",
            "proxy-real-ip-cidr": "10.0.0.0/8", "large-client-header-buffers": "4 8k", "keep-alive": "75",
            "log-format-upstream": "$status $location_path", "error-log-level": "notice",
            "no-tls-redirect-locations": "/plain", "hsts-max-age": "1", "worker-processes": "2",
            "http-redirect-code": "308", "upstream-keepalive-connections": "8"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls", "namespace": "shop"},
         "type": "kubernetes.io/tls", "data": {"tls.crt": "eA==", "tls.key": "eA=="}},
    ])
});

/// Where the texts are: values of fields, and keys of annotations and data.
fn places(json: &Json, at: &str, into: &mut Vec<String>) {
    match json {
        Json::String(_) => into.push(at.to_owned()),
        Json::Array(items) => items.iter().enumerate().for_each(|(n, item)| places(item, &format!("{at}/{n}"), into)),
        Json::Object(fields) => {
            for (key, field) in fields {
                let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                into.extend((at.contains("annotations/") || at.contains("data/")).then(|| format!("key {at}")));
                places(field, &at, into);
            }
        }
        _ => {}
    }
}

/// Puts a text into a place: instead of what is there, before it or after it.
fn put(objects: &mut Json, place: &str, text: &str, how: u8) {
    let mixed = |old: &str| match how {
        0 => text.to_owned(),
        1 => format!("{text}{old}"),
        _ => format!("{old}{text}"),
    };
    if let Some(key) = place.strip_prefix("key ") {
        let (parent, name) = key.rsplit_once('/').unwrap();
        let name = name.replace("~1", "/").replace("~0", "~");
        // An earlier text may have taken it away.
        if let Some(Json::Object(fields)) = objects.pointer_mut(parent)
            && let Some(field) = fields.remove(&name)
        {
            fields.insert(mixed(&name), field);
        }
    } else if let Some(Json::String(old)) = objects.pointer_mut(place) {
        *old = mixed(old);
    }
}

/// The model of these objects, read as `-f` reads them.
fn translated(objects: &[Json], folder: &Path) -> ProxyConfig {
    let file = folder.join("objects.json");
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).unwrap();
    let snapshot = files::load(&[file]);
    let flags = Flags { config_map: Some(value("coxswain/coxswain")), ..Flags::default() };
    let (settings, _) = Settings::read(&flags, &snapshot);
    translate(&snapshot, &settings, &HeldBack::default(), 1_800_000_000).config
}

/// What a directive may say where a wrong word would reach something that is not a tenant's.
fn is_harmless(directive: &Directive, model: &ProxyConfig) -> bool {
    let words: Vec<&str> = directive.words.iter().map(String::as_str).collect();
    match words[..] {
        ["include", path] => path.starts_with("../../../out/local-"),
        ["root", path] => path == "../../live/files",
        ["alias" | "load_module" | "env" | "ssl_engine" | "perl_modules", ..] => false,
        ["try_files", file, "=404"] => file.len() == 65 && file[1..].bytes().all(|b| b.is_ascii_hexdigit()),
        ["ssl_certificate" | "ssl_certificate_key", path] => path == "../../live/tls/$tls.pem",
        ["proxy_pass" | "grpc_pass", to] => {
            let upstream = to.split_once("://").map(|(_, upstream)| upstream);
            model.upstreams.keys().any(|id| Some(id.as_str()) == upstream)
        }
        ["access_log", to, ..] => to == "off",
        ["listen", port, ..] => port == "8080" || port == "8443",
        _ => true,
    }
}

#[test]
fn hostile_objects_give_files_of_the_usual_shape_that_nginx_takes() {
    let (nginx, envoy) = (parts::nginx(), parts::envoy());
    let folder = tempfile::tempdir().unwrap();
    let objects: Vec<Json> = OBJECTS.as_array().unwrap().clone();
    let mut all = Vec::new();
    places(&OBJECTS, "", &mut all);
    // What directives look like with nobody's bad will: this model, a bare one, and the golden cases.
    let goldens = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")).unwrap();
    let goldens =
        goldens.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "yaml"));
    let model_of = |path| {
        let snapshot = files::load(&[path]);
        let flags = Flags { config_map: Some(value("coxswain/coxswain")), ..Flags::default() };
        translate(&snapshot, &Settings::read(&flags, &snapshot).0, &HeldBack::default(), 0).config
    };
    let mut models: Vec<_> = goldens.map(model_of).collect();
    models.push(translated(&objects, folder.path()));
    let texts: Vec<_> =
        models.iter().map(|model| text(&render(model, ProxyKind::Nginx, &History::default()).unwrap())).collect();
    let known: BTreeSet<_> = tokens::shapes(texts.iter().map(String::as_str)).into_iter().map(any_number).collect();

    let everything = RefCell::new(String::new());
    let turn = Cell::new(0_u32);
    let strategy = prop::collection::vec((any::<Index>(), hostile(), 0..3_u8), 1..5);
    runner(192)
        .run(&strategy, |changes| {
            let mut hostile = Json::Array(objects.clone());
            for (place, text, how) in &changes {
                let place: &String = place.get(&all);
                put(&mut hostile, place, text, *how);
            }
            let model = translated(hostile.as_array().unwrap(), folder.path());
            let rendering = render(&model, ProxyKind::Nginx, &History::default());
            let rendering =
                rendering.map_err(|error| TestCaseError::fail(format!("the last fence was needed: {error}")))?;
            let text = text(&rendering);
            for directive in directives(&text).map_err(TestCaseError::fail)? {
                prop_assert!(known.contains(&any_number(directive.shape())), "{directive:?}");
                prop_assert!(is_harmless(&directive, &model), "{directive:?}");
            }
            if let Some(nginx) = &nginx {
                Stage::new(&rendering).test(nginx, "nginx.conf").map_err(TestCaseError::fail)?;
            }
            // Envoy takes its time to start: it sees every fourth.
            if let Some(envoy) = envoy.as_ref().filter(|_| turn.replace(turn.get() + 1).is_multiple_of(4)) {
                standalone::tested(envoy, &model).map_err(TestCaseError::fail)?;
            }
            everything.borrow_mut().push_str(&text);
            Ok(())
        })
        .unwrap();

    // Two readers that share no code must read the same.
    let Some(crossplane) = parts::part("lint", "crossplane") else { return };
    let everything = everything.into_inner();
    let plain = |token: Token| match token {
        Token::Word(word) => Token::Word(word.replace('\\', "")),
        token => token,
    };
    let ours: Vec<_> = tokens::tokens(&everything).unwrap().into_iter().map(plain).collect();
    let theirs: Vec<_> = tokens::of_crossplane(&crossplane, &everything).into_iter().map(plain).collect();
    if let Some(at) = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs) {
        panic!(
            "we read {:?}, crossplane {:?}",
            &ours[at.saturating_sub(5)..][..9],
            &theirs[at.saturating_sub(5)..][..9]
        );
    }
    assert_eq!(ours.len(), theirs.len());
}

/// Lists have as many words as they have items.
fn any_number(shape: (Vec<String>, String, usize, bool)) -> (Vec<String>, String, usize, bool) {
    let (within, name, words, opens) = shape;
    let list = name == "ssl_protocols" || name.ends_with("_next_upstream");
    (within, name, if list { 0 } else { words }, opens)
}

#[test]
fn the_order_of_the_input_never_changes_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let objects: Vec<Json> = OBJECTS.as_array().unwrap().clone();
    let expected = text(&render(&translated(&objects, folder.path()), ProxyKind::Nginx, &History::default()).unwrap());
    let envoy = |model: &_| render(model, ProxyKind::Envoy, &History::default()).unwrap().release.digest;
    let expected_of_envoy = envoy(&translated(&objects, folder.path()));
    let slices = objects.iter().position(|object| object["kind"] == "EndpointSlice").unwrap();
    let endpoints = objects[slices]["endpoints"].as_array().unwrap().clone();
    let ingress = objects.iter().position(|object| object["metadata"]["name"] == "web").unwrap();
    let rules = objects[ingress]["spec"]["rules"].as_array().unwrap().clone();
    let shuffled = |items: Vec<Json>| Just(items).prop_shuffle();
    runner(64)
        .run(&(shuffled(objects), shuffled(endpoints), shuffled(rules)), |(mut objects, endpoints, rules)| {
            for object in &mut objects {
                match object["kind"].as_str() {
                    Some("EndpointSlice") => object["endpoints"] = endpoints.clone().into(),
                    Some("Ingress") if object["metadata"]["name"] == "web" => {
                        object["spec"]["rules"] = rules.clone().into()
                    }
                    _ => {}
                }
            }
            let model = translated(&objects, folder.path());
            let rendering = render(&model, ProxyKind::Nginx, &History::default()).unwrap();
            prop_assert_eq!(text(&rendering), expected.as_str());
            prop_assert_eq!(envoy(&model), expected_of_envoy.clone());
            Ok(())
        })
        .unwrap();
}

#[test]
fn our_reader_reads_as_nginx_does() {
    let word = |text: &str| Token::Word(text.to_owned());
    let read = tokens::tokens("a \"b;{ \\\" c\" 'd}' ${x}y\\;z {#;\n} ; e;").unwrap();
    let want = [
        word("a"),
        word("b;{ \\\" c"),
        word("d}"),
        word("${x}y\\;z"),
        Token::Open,
        Token::Close,
        Token::End,
        word("e"),
        Token::End,
    ];
    assert_eq!(read, want);
    for bad in ["\"a", "'", "\"a\"b", "\\"] {
        assert!(tokens::tokens(bad).is_err(), "{bad}");
    }
    for bad in ["a", "a {", "}", "a }", ";"] {
        assert!(directives(bad).is_err(), "{bad}");
    }
}
