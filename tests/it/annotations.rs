//! The registry of annotations and settings as a whole: complete, documented, and true to its own examples.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use coxswain::annotations::known::{self, Known};
use coxswain::annotations::reference::{Form, reference};
use coxswain::annotations::spec::{Case, Expect, Key, OnInvalid, Scope};
use coxswain::annotations::{FAMILIES, GlobalPolicies, IngressPolicies, Policies, Source, known_settings};
use coxswain::annotations::{read_config_map, read_parameters, read_policies, read_service};
use coxswain::model::{ProxyConfig, Route};
use coxswain::problem::{Kind, Problem, Severity, Subject};
use coxswain::render::{History, render};
use coxswain::value::Value as _;
use coxswain::value::log_variable;
use coxswain::value::reference::ObjectName;
use coxswain::volume::{Protocol, ProxyKind};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::support::model::{self, Stage};
use crate::support::{parts, standalone};

const PREFIX: &str = "nginx.ingress.kubernetes.io";

#[test]
fn no_name_means_two_things() {
    let both: [fn(&'static Key) -> Vec<&'static str>; 2] = [annotations_of, settings_of];
    for names in both {
        let mut seen = BTreeSet::new();
        let again: Vec<_> = keys().flat_map(names).filter(|name| !seen.insert(*name)).collect();
        assert!(again.is_empty(), "claimed twice: {again:?}");
    }
}

#[test]
fn every_name_of_ingress_nginx_is_built_or_known_and_never_both() {
    let check = |whole: &str, built: BTreeSet<&str>, known: &[Known], extra: &[&str]| {
        let known: BTreeSet<_> = known.iter().map(|known| known.name).collect();
        let both: Vec<_> = built.intersection(&known).collect();
        assert!(both.is_empty(), "built, so no longer to be listed as not built: {both:?}");
        let here: BTreeSet<_> = built.union(&known).copied().filter(|name| !extra.contains(name)).collect();
        let whole: BTreeSet<_> = whole.lines().collect();
        let foreign: Vec<_> = here.difference(&whole).collect();
        let missing: Vec<_> = whole.difference(&here).collect();
        assert!(
            foreign.is_empty() && missing.is_empty(),
            "not of ingress-nginx: {foreign:?}, passed over: {missing:?}"
        );
    };
    check(
        include_str!("annotations/ingress-nginx-annotations.txt"),
        keys().flat_map(annotations_of).collect(),
        known::ANNOTATIONS,
        &[],
    );
    check(
        include_str!("annotations/ingress-nginx-settings.txt"),
        keys().flat_map(settings_of).collect(),
        known_settings::SETTINGS,
        // A name people expect beside `whitelist-source-range`.
        &["allowlist-source-range"],
    );
}

#[test]
fn every_key_is_described() {
    for key in keys() {
        assert!(key.doc.ends_with('.') && key.doc.len() > 20, "{}: its doc is no sentence", key.name);
        assert!(!key.grammar.is_empty() && !key.grammar.ends_with('.'), "{}: its grammar is no clause", key.name);
        assert!(!key.since.is_empty(), "{}", key.name);
        let protects = key.on_invalid == OnInvalid::Deny;
        assert!(!protects || key.default.is_empty(), "{}: what protects has no default", key.name);
    }
}

#[test]
fn every_key_has_a_good_and_a_bad_example() {
    for family in FAMILIES {
        let spec = family.spec();
        for key in spec.keys {
            let about = |case: &&Case| case.entries.iter().any(|(name, _)| names(key).contains(name));
            let (good, bad): (Vec<_>, Vec<_>) =
                spec.cases.iter().filter(about).partition(|case| case.expect == Expect::Accepted);
            assert!(!good.is_empty() && !bad.is_empty(), "{} needs a good and a bad example", key.name);
        }
    }
}

#[test]
fn every_example_does_what_it_says() {
    for case in FAMILIES.iter().flat_map(|family| family.spec().cases) {
        let (globals, policies, problems) = read_case(case);
        match case.expect {
            Expect::Accepted => {
                assert_eq!(problems, [], "{}", case.name);
                let is_default = case.entries.iter().all(|(name, text)| key_named(name).default == *text);
                let changes = (globals, policies) != Default::default();
                assert_eq!(changes, !is_default && !only_with_another(case), "{}", case.name);
            }
            Expect::Told(reason) => {
                let [problem] = &problems[..] else { panic!("{}: {problems:?}", case.name) };
                assert_eq!(problem.reason, reason, "{}", case.name);
                let (name, _) = case.entries[0];
                assert!(problem.message.starts_with(name), "{}: {}", case.name, problem.message);
                assert!(problem.field.ends_with(&format!("{name}]")), "{}: {}", case.name, problem.field);
                assert!(!problem.effect.is_empty(), "{}", case.name);
                let protects = key_named(name).on_invalid == OnInvalid::Deny;
                assert_eq!(policies.denied.contains(key_named(name).name), protects, "{}", case.name);
                assert_eq!(problem.severity == Severity::Rejected, protects || policies.canary, "{}", case.name);
            }
        }
    }
}

/// Keys that count only together with `use-forwarded-headers`.
fn only_with_another(case: &Case) -> bool {
    ["forwarded-for-header", "compute-full-forwarded-for"].contains(&case.entries[0].0)
}

#[test]
fn every_default_is_a_value_and_the_one_in_force() {
    for key in keys().filter(|key| !key.default.is_empty()) {
        let entries = BTreeMap::from([(key.name.to_owned(), key.default.to_owned())]);
        let read = read(key.scope == Scope::Global, &entries);
        assert_eq!(read, Default::default(), "{}", key.name);
    }
}

#[test]
fn the_charts_schema_knows_every_key_of_the_global_config_map() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/coxswain/values.schema.json");
    let entry = |key: &Key| json!({"type": ["string", "number", "boolean"], "description": key.grammar});
    let keys = FAMILIES.iter().flat_map(|family| family.spec().keys);
    let expected: serde_json::Map<String, Json> =
        keys.flat_map(|key| key.in_config_map().map(|name| (name.to_owned(), entry(key)))).collect();
    let schema: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let written = &schema["properties"]["controller"]["properties"]["config"]["properties"];
    // Sorted on both sides, whatever the order in the file.
    let sorted = |value: &Json| -> BTreeMap<String, Json> { serde_json::from_value(value.clone()).unwrap_or_default() };
    let expected = Json::Object(expected);
    assert_eq!(sorted(written), sorted(&expected), "{path}: `config` must have the properties\n{expected:#}");
}

#[test]
fn the_reference_in_the_repository_is_the_generated_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/annotations/README.md");
    let written = std::fs::read_to_string(file).unwrap_or_default();
    let same = written == reference(Form::Markdown);
    assert!(same, "run: cargo run -- annotations --markdown > src/annotations/README.md");
}

#[test]
fn the_command_prints_the_reference_for_a_terminal_or_as_a_page() {
    for (arguments, form) in [(&["annotations"][..], Form::Text), (&["annotations", "--markdown"], Form::Markdown)] {
        let output = Command::new(env!("CARGO_BIN_EXE_coxswain")).args(arguments).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), reference(form));
    }
}

#[test]
fn what_is_told_is_a_sentence_with_four_parts() {
    let told = |entries: &[(&str, &str)]| {
        let (_, _, problems) = read(false, &map(entries));
        problems.iter().map(|problem| format!("{} {problem}", problem.field)).collect::<Vec<_>>()
    };
    let field = |name: &str| format!("metadata.annotations[{PREFIX}/{name}] Ingress shop/web: ");
    for (name, text, want) in [
        (
            "proxy-body-size",
            "1 day",
            "proxy-body-size: \"1 day\" is not a size; it must be a number of bytes with an optional unit `k`, `m` or \
             `g`, up to `1024g`; using 1m",
        ),
        (
            "proxy-read-timeout",
            "0",
            "proxy-read-timeout: \"0\" is out of range; it must be a number of seconds, 1 at least; using 60s",
        ),
        (
            "allowlist-source-range",
            "10.0.0.0/8, office",
            "allowlist-source-range: \"10.0.0.0/8, office\" has \"office\", which is no network; it must be IP addresses \
             or networks such as `10.0.0.0/8`, separated by commas; every route of the Ingress answers 503",
        ),
        ("enable-cors", "true", "enable-cors is not supported yet; it has no effect"),
        (
            "auth-url",
            "http://auth.example",
            "auth-url is not supported yet, and it is meant to protect; every route of the Ingress answers 503",
        ),
        (
            "grpc-backend",
            "true",
            "grpc-backend is of the past; use `backend-protocol` with the value `GRPC`; it has no effect",
        ),
        (
            "opentracing-\u{1b}[2J",
            "x",
            "\"opentracing-\\u{1b}[2J\" is of the past; use `enable-opentelemetry`; it has no effect",
        ),
        (
            "hsts",
            "true",
            "hsts holds for the whole proxy; it is a key of the global ConfigMap, not an annotation; it has no effect",
        ),
        (
            "add-headers",
            "shop/headers",
            "add-headers holds for the whole proxy; it is a key of the global ConfigMap, not an annotation; it has no effect",
        ),
        (
            "rewrite-taget",
            "/",
            "\"rewrite-taget\" is no annotation that is known here; did you mean `rewrite-target`?; it has no effect",
        ),
        ("zzz", "", "\"zzz\" is no annotation that is known here; it has no effect"),
        (
            "http2-push-preload",
            "true",
            "http2-push-preload is not needed: no version of nginx since 1.25.1 has it, and browsers have dropped HTTP/2 \
             push; it has no effect",
        ),
        (
            "canary",
            "true",
            "canary is not supported yet; the Ingress is left out; the Ingresses of the same host and path get all requests",
        ),
    ] {
        let shown = if name.is_ascii() && !name.contains('\u{1b}') { name.to_owned() } else { format!("{name:?}") };
        assert_eq!(told(&[(name, text)]), [field(&shown) + want], "{name}");
    }
}

#[test]
fn what_asks_for_nothing_is_not_told() {
    for (name, text) in [
        ("enable-cors", "false"),
        ("auth-url", ""),
        ("limit-rps", "0"),
        ("proxy-cookie-path", "off"),
        ("rewrite-target", ""),
    ] {
        assert_eq!(read(false, &map(&[(name, text)])), Default::default(), "{name}: {text}");
    }
}

#[test]
fn annotations_of_others_are_none_of_our_business() {
    let annotations = BTreeMap::from([
        ("kubectl.kubernetes.io/last-applied-configuration".to_owned(), "{}".to_owned()),
        ("nginx.ingress.kubernetes.io.example/auth-url".to_owned(), "x".to_owned()),
        ("nginx.org/rewrite-target".to_owned(), "x".to_owned()),
    ]);
    let mut problems = vec![];
    let source = Source { subject: &subject(Kind::Ingress), annotations: Some(&annotations) };
    let base = IngressPolicies::default();
    let policies = read_policies(PREFIX, &base, source, &mut problems).into_owned();
    assert_eq!((policies, problems), Default::default());
}

#[test]
fn the_nearest_layer_counts_and_a_bad_value_leaves_the_next_one_in_force() {
    let mut problems = vec![];
    let global = map(&[("proxy-read-timeout", "10"), ("proxy-body-size", "10m"), ("proxy-send-timeout", "10")]);
    let (_, base) = read_config_map(&subject(Kind::ConfigMap), Some(&global), &mut problems);
    let class = map(&[("proxy-read-timeout", "20"), ("proxy-body-size", "20m")]);
    let class = read_parameters(&base, &subject(Kind::ConfigMap), Some(&class), &mut problems);
    let of_ingress =
        annotations(&[("proxy-read-timeout", "30"), ("proxy-body-size", "large"), ("backend-protocol", "GRPC")]);
    let ingress = Source { subject: &subject(Kind::Ingress), annotations: Some(&of_ingress) };
    let ingress = read_policies(PREFIX, &class, ingress, &mut problems);
    let of_service = annotations(&[("proxy-read-timeout", "40"), ("proxy-body-size", "40m")]);
    let service = Source { subject: &subject(Kind::Service), annotations: Some(&of_service) };
    let route = read_service(PREFIX, &ingress, service, &mut problems);

    let timeouts = |policies: &IngressPolicies| policies.policies.timeouts.read.get();
    assert_eq!([&base, &class, &ingress, &route].map(timeouts), [10, 20, 30, 40]);
    assert_eq!(route.policies.timeouts.send.get(), 10);
    assert_eq!(route.policies.body_size.0.to_string(), "20m");
    assert_eq!(route.backend_protocol.to_string(), "GRPC");
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "Ingress shop/web: proxy-body-size: \"large\" is not a size; it must be a number of bytes with an optional unit \
             `k`, `m` or `g`, up to `1024g`; using 20m",
            "Service shop/web: proxy-body-size does not concern the way to the endpoints; it belongs on the Ingress, not on \
             its Service; it has no effect",
        ]
    );
}

#[test]
fn what_protects_closes_wherever_it_stands() {
    let denied = |policies: &IngressPolicies| policies.denied.iter().copied().collect::<Vec<_>>();
    let (config_map, service) = (subject(Kind::ConfigMap), subject(Kind::Service));
    let mut problems = vec![];

    let global = map(&[("global-auth-url", "http://auth"), ("whitelist-source-range", "everybody")]);
    let (_, base) = read_config_map(&config_map, Some(&global), &mut problems);
    assert_eq!(denied(&base), ["allowlist-source-range", "global-auth-url"]);

    // An Ingress with a list of its own does not need the global one; nothing on it stands for `global-auth-url`.
    let of_ingress = annotations(&[("whitelist-source-range", "10.0.0.0/8")]);
    let ingress = Source { subject: &subject(Kind::Ingress), annotations: Some(&of_ingress) };
    assert_eq!(denied(&read_policies(PREFIX, &base, ingress, &mut problems)), ["global-auth-url"]);

    for key in ["auth-url", "global-auth-url"] {
        let class = map(&[(key, "http://auth")]);
        let class = read_parameters(&IngressPolicies::default(), &config_map, Some(&class), &mut problems);
        assert_eq!(denied(&class), [key]);
    }
    for (key, text) in [("auth-type", "basic"), ("denylist-source-range", "10.0.0.0/8")] {
        let of_service = annotations(&[(key, text)]);
        let service = Source { subject: &service, annotations: Some(&of_service) };
        let open = IngressPolicies::default();
        assert_eq!(denied(&read_service(PREFIX, &open, service, &mut problems)), [key]);
    }
    assert!(problems.iter().all(|problem| problem.severity == Severity::Rejected), "{problems:#?}");
}

#[test]
fn an_old_name_counts_only_where_the_new_one_is_silent() {
    let allow = |entries: &[(&str, &str)]| {
        let (_, policies, problems) = read(false, &map(entries));
        (policies.policies.source_range.allow.iter().map(ToString::to_string).collect::<Vec<_>>(), problems)
    };
    let (networks, problems) = allow(&[("allowlist-source-range", ""), ("whitelist-source-range", "10.0.0.0/8")]);
    assert_eq!((networks, problems), (vec!["10.0.0.0/8".to_owned()], vec![]));
    let (networks, problems) =
        allow(&[("allowlist-source-range", "10.0.0.1"), ("whitelist-source-range", "10.0.0.0/8")]);
    assert_eq!(networks, ["10.0.0.1"]);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].severity, Severity::Notice);
}

#[test]
fn trust_that_cannot_be_read_is_no_trust() {
    let trust = |entries: &[(&str, &str)]| {
        let (globals, _, problems) = read(true, &map(entries));
        (globals.globals.forwarded.trust, problems.len())
    };
    let on = ("use-forwarded-headers", "true");
    let (all, told) = trust(&[on]);
    assert_eq!((all.map(|trust| trust.from.0.len()), told), (Some(1), 0));
    assert_eq!(trust(&[on, ("proxy-real-ip-cidr", "10.0.0.0/99")]), (None, 1));
    assert_eq!(trust(&[on, ("forwarded-for-header", "x y")]), (None, 1));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stands where, reading ends, and what is told can be shown to anybody.
    #[test]
    fn hostile_text_is_taken_as_a_value_or_told_in_harmless_words(
        names in prop::collection::vec(some_name(), 1..4),
        texts in prop::collection::vec(some_text(), 4),
        global: bool,
    ) {
        let entries: BTreeMap<_, _> = names.into_iter().zip(texts).collect();
        let (_, policies, problems) = read(global, &entries);
        for problem in problems {
            let shown = format!("{}{}{}", problem.field, problem.message, problem.effect);
            prop_assert!(!shown.chars().any(|c| c.is_control() || "\u{202e}\u{2028}".contains(c)), "{shown:?}");
            prop_assert!(shown.len() < 4000, "{shown:?}");
            prop_assert!(!problem.effect.is_empty());
            let closes = problem.effect.contains("answers 503");
            prop_assert!(!closes || !policies.denied.is_empty(), "{shown:?}");
        }
    }
}

fn some_name() -> impl Strategy<Value = String> {
    let known = keys().flat_map(names).chain(known::ANNOTATIONS.iter().map(|known| known.name)).collect::<Vec<_>>();
    prop_oneof![4 => prop::sample::select(known).prop_map(str::to_owned), 1 => some_text()]
}

fn some_text() -> impl Strategy<Value = String> {
    let pieces = vec![
        "1",
        "0",
        "8k",
        "10.0.0.0/8",
        ",",
        " ",
        "/",
        "$",
        "$1",
        "${status}",
        ";",
        "}",
        "{",
        "\n",
        "\r",
        "\0",
        "\"",
        "'",
        "\\",
        "#",
        "true",
        "off",
        "\u{1b}[2J",
        "\u{202e}",
        "\u{2028}",
        "é",
        "https",
        ":",
        "-",
        "@STRENGTH",
        "99999999999999999999",
    ];
    let long = prop::sample::select(vec![1, 1, 1, 500]);
    (prop::collection::vec(prop::sample::select(pieces), 0..6), long).prop_map(|(pieces, n)| pieces.concat().repeat(n))
}

/// All of them in one file: each on a host of its own, or (global ones) one after the other.
#[test]
fn real_proxies_take_every_good_example() {
    let Some(nginx) = parts::nginx() else { return };
    let envoy = parts::envoy();
    let good = || FAMILIES.iter().flat_map(|family| family.spec().cases).filter(|case| case.expect == Expect::Accepted);
    let protocols = [Protocol::Http, Protocol::Grpcs];
    let (actions, upstreams): (Vec<_>, Vec<_>) =
        protocols.map(|protocol| model::upstream("shop/web", protocol, &[])).into_iter().unzip();
    let host = |n: usize, policies: &Policies| {
        let routes = ["/http", "/grpc"].iter().zip(&actions);
        let routes =
            routes.map(|(path, action)| Route { policies: policies.clone(), ..model::route(path, action.clone()) });
        model::host(&format!("case-{n}.example.com"), routes)
    };
    let check = |config: &ProxyConfig, what: &str| {
        let rendering = render(config, ProxyKind::Nginx, &History::default()).unwrap();
        let taken = Stage::new(&rendering).test(&nginx, "nginx.conf");
        assert_eq!(taken, Ok(()), "{what}");
    };
    let check_envoy = |config: &ProxyConfig, what: &str| {
        let Some(envoy) = &envoy else { return };
        assert_eq!(standalone::tested(envoy, config), Ok(()), "{what}");
    };
    let hosts: Vec<_> = good().enumerate().map(|(n, case)| host(n, &read_case(case).1.policies)).collect();
    let all = model::config(hosts, upstreams.clone());
    check(&all, "all of the routes");
    check_envoy(&all, "all of the routes");
    for case in good() {
        let (globals, policies, _) = read_case(case);
        if globals == GlobalPolicies::default() {
            // Alone it becomes what holds for all, and is written once.
            let alone = model::config([host(0, &policies.policies)], upstreams.clone());
            check(&alone, case.name);
        } else {
            let config = ProxyConfig { globals: globals.globals, ..model::config([], []) };
            check(&config, case.name);
            check_envoy(&config, case.name);
        }
    }
}

#[test]
fn real_nginx_has_every_variable_of_the_table() {
    let families = log_variable::FAMILIES.iter().map(|family| format!("${family}x"));
    let stock = log_variable::STOCK.iter().map(|name| format!("${name}"));
    let format: Vec<_> = stock.chain(families).map(|name| format!("'{name} '")).collect();
    let http = format!("log_format all {};\naccess_log logs all;", format.join("\n"));
    if let Some(output) = nginx_test(&http) {
        assert!(output.is_empty(), "{output}");
    }
}

#[test]
fn real_nginx_takes_every_list_of_ciphers_that_we_take() {
    use proptest::test_runner::{Config, TestRunner};
    if parts::nginx().is_none() {
        return;
    }
    let term = prop::sample::select(vec![
        "ALL",
        "HIGH",
        "ECDHE",
        "DHE",
        "kRSA",
        "RSA",
        "aRSA",
        "ECDSA",
        "AES",
        "AES128",
        "AES256",
        "AESGCM",
        "CHACHA20",
        "SHA1",
        "SHA256",
        "SHA384",
        "TLSv1",
        "TLSv1.2",
        "SSLv3",
        "3DES",
        "EXPORT",
        "DSS",
        "aNULL",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "AES128-SHA",
        "DES-CBC3-SHA",
        "TLS_AES_128_GCM_SHA256",
    ]);
    let element = (prop::sample::select(vec!["", "", "!", "-", "+"]), prop::collection::vec(term, 1..3))
        .prop_map(|(op, terms)| format!("{op}{}", terms.join("+")));
    let lists = prop::collection::vec(element, 1..5).prop_map(|elements| elements.join(":"));
    let config = Config { cases: 100, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&lists, |list| {
            if coxswain::value::tls::Ciphers::parse(&list).is_ok() {
                let output = nginx_test(&format!("access_log off; ssl_ciphers \"{list}\";")).unwrap_or_default();
                prop_assert!(output.is_empty(), "{list}: {output}");
            }
            Ok(())
        })
        .unwrap();
}

/// What the real nginx says against this piece of an `http` block; `None` without an nginx.
fn nginx_test(http: &str) -> Option<String> {
    let nginx = parts::nginx()?;
    let folder = tempfile::tempdir().unwrap();
    let temp: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {name};\n")).concat();
    let listen = "server { listen unix:socket ssl; ssl_certificate $host; ssl_certificate_key $host; }";
    let text = format!("pid pid; error_log stderr;\nevents {{}}\nhttp {{\n{temp}{http}\n{listen} }}\n");
    std::fs::write(folder.path().join("nginx.conf"), text).unwrap();
    let output =
        Command::new(nginx).arg("-q").arg("-t").arg("-p").arg(folder.path()).args(["-c", "nginx.conf"]).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // What the package compiled in, before the file is read, is of no interest.
    let said: String = said.lines().filter(|line| line.contains("[emerg]")).map(|line| format!("{line}\n")).collect();
    assert_eq!(output.status.success(), said.is_empty(), "{output:?}");
    Some(said)
}

fn keys() -> impl Iterator<Item = &'static Key> {
    FAMILIES.iter().flat_map(|family| family.spec().keys).copied()
}

fn annotations_of(key: &'static Key) -> Vec<&'static str> {
    key.annotations().collect()
}

fn settings_of(key: &'static Key) -> Vec<&'static str> {
    key.in_config_map().collect()
}

fn names(key: &'static Key) -> Vec<&'static str> {
    key.annotations().chain(key.in_config_map()).collect()
}

fn key_named(name: &str) -> &'static Key {
    keys().find(|key| names(key).contains(&name)).unwrap_or_else(|| panic!("{name} is no key"))
}

fn subject(kind: Kind) -> Subject {
    Subject { kind, object: ObjectName::parse("shop/web").unwrap(), uid: None }
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn annotations(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(name, text)| (format!("{PREFIX}/{name}"), (*text).to_owned())).collect()
}

fn read_case(case: &Case) -> (GlobalPolicies, IngressPolicies, Vec<Problem>) {
    read(key_named(case.entries[0].0).scope == Scope::Global, &map(case.entries))
}

/// Reads entries as keys of the global ConfigMap, or as annotations of an Ingress.
fn read(global: bool, entries: &BTreeMap<String, String>) -> (GlobalPolicies, IngressPolicies, Vec<Problem>) {
    let mut problems = vec![];
    if global {
        let (globals, policies) = read_config_map(&subject(Kind::ConfigMap), Some(entries), &mut problems);
        return (globals, policies, problems);
    }
    let entries = entries.iter().map(|(name, text)| (format!("{PREFIX}/{name}"), text.clone())).collect();
    let source = Source { subject: &subject(Kind::Ingress), annotations: Some(&entries) };
    let base = IngressPolicies::default();
    let policies = read_policies(PREFIX, &base, source, &mut problems).into_owned();
    (GlobalPolicies::default(), policies, problems)
}
