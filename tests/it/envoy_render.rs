//! What Envoy is told: by typed resources, the same bytes for the same model, and only what Envoy takes.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};

use coxswain::annotations::rate::Rate;
use coxswain::annotations::rewrite::Rewrite;
use coxswain::annotations::source_range::SourceRange;
use coxswain::model::{Action, ProxyConfig, Route};
use coxswain::problem::{Kind, Problem, Reason, Severity, Subject};
use coxswain::render::{Doublings, History, RelativePath, Release, render, render_trial};
use coxswain::value::Value as _;
use coxswain::value::number::{Count, Seconds};
use coxswain::value::regex::Regex;
use coxswain::value::tls::TlsVersion;
use coxswain::volume::{Certificates, Endpoints, Protocol, ProxyKind};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use prost::Message as _;
use serde_json::Value;

use crate::support::model::{config, host, ingress, path, route, upstream, value};
use crate::support::objects::service_at;
use crate::support::{Ingress, parts, standalone};

fn rendered(config: &ProxyConfig) -> (Release, Vec<Problem>) {
    let rendering = render(config, ProxyKind::Envoy, &History::default()).unwrap();
    (rendering.release, rendering.problems)
}

fn resources(release: &Release, path: &RelativePath) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse::decode(&*release.files[path].bytes).unwrap()
}

fn web() -> (Action, (coxswain::model::UpstreamId, coxswain::model::Upstream)) {
    upstream("shop/web", Protocol::Http, &[SocketAddr::from(([127, 0, 0, 1], 80))])
}

/// A route with everything of which Envoy has a map.
fn rich(action: Action) -> Route {
    let mut route = route("/rich", action);
    route.policies.rate = Rate { kilobytes: Count::new(7), after: Count::new(0) };
    route.policies.source_range = SourceRange { deny: vec![value("10.1.0.0/16")], allow: vec![value("10.0.0.0/8")] };
    route.policies.body_size.0 = value("8m");
    route
}

#[test]
fn equal_models_give_equal_bytes() {
    let (action, used) = web();
    let mut model = config([host("a.test", [rich(action.clone()), route("/", action)])], [used]);
    model.globals.logging.format = Some(value("$namespace $ingress_name $service_name $service_port $location_path"));
    let first = rendered(&model).0;
    for _ in 0..20 {
        assert_eq!(rendered(&model).0, first, "maps of messages have no order of their own");
    }
}

#[test]
fn a_change_of_endpoints_or_certificates_changes_no_byte() {
    let (action, (id, mut web)) = web();
    let model = |web| config([host("a.test", [route("/", action.clone())])], [(id.clone(), web)]);
    let before = rendered(&model(web.clone())).0;
    web.endpoints = Endpoints::Addresses(Vec::new());
    assert_eq!(rendered(&model(web)).0, before);
}

#[test]
fn one_more_host_changes_the_table_and_adds_a_cluster() {
    let (action, used) = web();
    let (other, other_used) = upstream("shop/other", Protocol::Https, &[]);
    let a = host("a.test", [route("/", action)]);
    let before = rendered(&config([a.clone()], [used.clone()])).0;
    let after = rendered(&config([a, host("b.test", [route("/", other)])], [used, other_used])).0;
    let versions = |release, path| {
        let response = resources(release, path);
        let versions = response.resources.into_iter().map(|resource| (resource.name, resource.version));
        versions.collect::<BTreeSet<_>>()
    };
    assert_eq!(versions(&before, &RelativePath::LISTENERS), versions(&after, &RelativePath::LISTENERS));
    let clusters = [&before, &after].map(|release| versions(release, &RelativePath::CLUSTERS));
    assert!(clusters[0].len() == 1 && clusters[1].len() == 2 && clusters[0].is_subset(&clusters[1]), "{clusters:?}");
    assert_ne!(versions(&before, &RelativePath::ROUTES), versions(&after, &RelativePath::ROUTES));
    assert_eq!(before.files[&RelativePath::BOOTSTRAP], after.files[&RelativePath::BOOTSTRAP], "needs a new Envoy");
}

#[test]
fn every_name_has_the_slot_of_the_host_that_asks_for_it() {
    let mut hosts = [host("a.test", []), host("*.b.test", []), host("c.test", [])];
    let slot = |name| coxswain::model::SlotId::of(&value(name));
    hosts[0].tls = Some(slot("shop/a"));
    hosts[1].tls = Some(slot("shop/b"));
    let release = rendered(&config(hosts, [])).0;
    let certificates: Certificates = serde_json::from_slice(&release.files[&RelativePath::CERTIFICATES].bytes).unwrap();
    for (name, wanted) in [
        ("A.test", slot("shop/a").as_str()),
        ("x.b.test", slot("shop/b").as_str()),
        ("x.y.b.test", "default"),
        ("b.test", "default"),
        ("c.test", "default"),
        ("_", "default"),
    ] {
        assert_eq!(certificates.slot(name), wanted, "{name}");
    }
}

/// What the last route of Envoy for a host does, before the final 404.
fn answers(model: &ProxyConfig, host: &str) -> Vec<(String, String)> {
    let release = rendered(model).0;
    let table = resources(&release, &RelativePath::ROUTES).resources.remove(0).resource.unwrap();
    let table = RouteConfiguration::decode(&*table.value).unwrap();
    let host = table.virtual_hosts.into_iter().find(|found| found.name == host).unwrap();
    let shown = |route: &envoy_types::pb::envoy::config::route::v3::Route| {
        (format!("{:?}", route.r#match.as_ref().unwrap().path_specifier), format!("{:?}", route.action))
    };
    host.routes.iter().map(shown).collect()
}

#[test]
fn an_expression_that_envoy_cannot_read_is_told_and_closes_where_it_protects() {
    let (action, used) = web();
    let open = route("~/api/(?!admin)", action.clone());
    let mut closed = open.clone();
    closed.policies.source_range.allow = vec![value("10.0.0.0/8")];
    closed.source = Some(ingress("shop/closed"));
    let model = config([host("a.test", [open]), host("b.test", [closed])], [used]);
    let (_, problems) = rendered(&model);
    let told: Vec<_> = problems.iter().map(|p| (p.severity, p.reason, p.message.as_str(), p.effect.as_str())).collect();
    let message = r#"path "/api/(?!admin)" has look-around, which Envoy's regular expressions have not"#;
    let (rejected, cannot) = (Severity::Rejected, Reason::ProxyCannot);
    assert_eq!(
        told,
        [
            (rejected, cannot, message, r#"whatever begins with "/api/" answers 503"#),
            (rejected, cannot, message, "the path is not served; its requests belong to what matches them next"),
        ]
    );
    assert_eq!(answers(&model, "a.test").len(), 1, "only the final 404");
    let closed = answers(&model, "b.test");
    assert!(closed[0].0.contains("/api/.*") && closed[0].1.contains("status: 503"), "{closed:?}");
}

#[test]
fn a_rewrite_that_envoy_cannot_read_closes_the_route() {
    let (action, used) = web();
    let mut rewriting = route("~/api", action);
    rewriting.policies.rewrite = Some(Rewrite { pattern: value(r"/(a)\1"), target: value("/$1") });
    let (_, problems) = rendered(&config([host("a.test", [rewriting.clone()])], [used.clone()]));
    assert!(problems.iter().any(|p| p.reason == Reason::ProxyCannot && p.effect.contains("503")), "{problems:?}");
    let answers = answers(&config([host("a.test", [rewriting])], [used]), "a.test");
    assert!(answers[0].1.contains("status: 503"), "{answers:?}");
}

#[test]
fn what_envoy_does_otherwise_is_told_once_on_the_object_that_asks() {
    let (action, used) = web();
    let usual = route("/usual", action.clone());
    let mut unusual = route("/unusual", action.clone());
    unusual.source = Some(ingress("shop/unusual"));
    unusual.policies.rate = Rate { kilobytes: Count::new(7), after: Count::new(3) };
    unusual.policies.buffering.responses = true;
    unusual.policies.retries.timeout = Seconds::new(9);
    unusual.policies.timeouts.connect = Seconds::new(2);
    unusual.policies.timeouts.send = Seconds::new(30);
    let again = Route { path: path("/again"), ..unusual.clone() };
    let (_, problems) = rendered(&config([host("a.test", [usual, unusual, again])], [used]));
    let told: Vec<_> = problems.iter().map(|problem| (problem.severity, problem.message.as_str())).collect();
    let notice = Severity::Notice;
    assert_eq!(
        told,
        [
            (notice, "limit-rate-after: Envoy cannot send the first 3 KiB of an answer faster"),
            (notice, "proxy-connect-timeout is 2s here and 5s elsewhere, but Envoy has one for each Service"),
            (notice, "proxy-next-upstream-timeout: Envoy cannot end all tries together after 9s"),
            (notice, "proxy-send-timeout is 30s and proxy-read-timeout 60s, but Envoy has one for both directions"),
        ]
    );
    assert!(problems.iter().all(|problem| problem.subject == ingress("shop/unusual")), "{problems:?}");
}

#[test]
fn settings_that_envoy_cannot_follow_are_told_on_the_config_map() {
    let mut model = config([], []);
    let map = Subject { kind: Kind::ConfigMap, object: value("ops/settings"), uid: None };
    model.globals_source = Some(map.clone());
    model.globals.client_tls.protocols = vec![TlsVersion::V1_0, TlsVersion::V1_2, TlsVersion::V1_3];
    model.globals.client_tls.ciphers = value("DHE-RSA-AES128-GCM-SHA256");
    model.globals.connections.server_tokens = true;
    model.globals.logging.format = Some(value("$status $pid"));
    let (_, problems) = rendered(&model);
    let fields: BTreeSet<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
    let wanted = ["data[log-format-upstream]", "data[server-tokens]", "data[ssl-ciphers]", "data[ssl-protocols]"];
    assert_eq!(fields, wanted.into());
    assert!(problems.iter().all(|problem| problem.subject == map && problem.reason == Reason::ProxyCannot));
    let text = standalone::parts(&model).2.to_string();
    assert!(text.contains(r#""tls_minimum_protocol_version":"TLSv1_2""#), "no version that nobody asked for: {text}");
}

#[test]
fn real_envoy_takes_every_expression_that_is_not_told() {
    let Some(envoy) = parts::envoy() else { return };
    let (action, used) = web();
    let pieces = [
        "/",
        "a",
        "B",
        "ü",
        ".",
        r"\.",
        "*",
        "+",
        "?",
        "*?",
        "{2}",
        "{2,}",
        "{1,3}",
        "{0,}",
        "{,3}",
        "{",
        "}",
        "(",
        ")",
        "(?:",
        "(?i)",
        "(?-i)",
        "(?s:",
        "(?m)",
        "(?U)",
        "(?x)",
        "|",
        "[a-z]",
        "[^/]",
        "[]a]",
        "[[:alpha:]]",
        "[a&&b]",
        "[a-]",
        r"[\w-]",
        r"\d",
        r"\W",
        r"\b",
        r"\B",
        r"\A",
        r"\z",
        r"\Z",
        "^",
        "$",
        r"\/",
        r"\-",
        r"\_",
        r"\x41",
        r"\x{42}",
        r"\x{e4}",
        r"\t",
        r"\n",
        r"\e",
        r"\a",
        r"\f",
        r"\v",
        r"\h",
        r"\R",
        r"\pL",
        r"\Q",
        r"\E",
        r"\1",
        "(?=",
        "(?!",
        "(?<=",
        "(?>",
        "++",
        "~",
        "@",
        "%20",
        " ",
        "#",
        "\"",
        r"\ ",
        r"\<",
        r"\%",
        r"\@",
        r"\~",
    ];
    // Every pair, and then chains of five by a walk that visits all pieces.
    let pairs = pieces.iter().flat_map(|a| pieces.iter().map(move |b| format!("/x{a}{b}y")));
    let step = |n: usize, k: usize| pieces[(n * 7 + k * k * 31 + n / 13) % pieces.len()];
    let chains = (0..4000).map(|n| (0..5).map(|k| step(n, k)).collect::<String>());
    let good: Vec<String> = pairs.chain(chains).filter(|text| Regex::parse(text).is_ok()).collect();
    let routes = good.iter().map(|text| route(&format!("~{text}"), action.clone()));
    let whole = config([host("a.test", routes)], [used.clone()]);
    let told = rendered(&whole).1.len();
    assert!(told > 100 && good.len() - told > 1000, "{told} of {} are told", good.len());
    assert_eq!(standalone::tested(&envoy, &whole), Ok(()));
}

#[test]
fn a_percent_sign_of_a_users_is_no_command_of_envoys() {
    let mut redirecting = route("/", Action::Respond(404));
    redirecting.policies.redirect.permanent = Some(value("https://x.test/a%20b?q=%REQ(COOKIE)%"));
    let model = config([host("a.test", [redirecting])], []);
    let text = standalone::parts(&model).1.to_string();
    assert!(text.contains("https://x.test/a%%20b?q=%%REQ(COOKIE)%%"), "{text}");
}

#[test]
fn a_trial_is_one_bootstrap_with_what_the_suspects_bring() {
    let Some(envoy) = parts::envoy() else { return };
    let (action, used) = web();
    let mut other = host("b.test", [route("/other", action.clone())]);
    other.source = Some(ingress("shop/other"));
    other.routes[0].source = Some(ingress("shop/other"));
    let model = config([host("a.test", [route("/mine", action)]), other], [used]);
    let trial = |suspects: &[&str]| {
        let suspects = suspects.iter().map(|name| ingress(name)).collect();
        let release = render_trial(&model, ProxyKind::Envoy, &suspects, &Doublings::default()).unwrap().release;
        assert_eq!(release.files.keys().map(RelativePath::as_str).collect::<Vec<_>>(), ["bootstrap.json"]);
        String::from_utf8(release.files[&RelativePath::BOOTSTRAP].bytes.clone()).unwrap()
    };
    let text = trial(&["shop/other"]);
    assert!(text.contains("b.test") && !text.contains("a.test") && !text.contains("dynamic_resources"), "{text}");
    assert!(!trial(&[]).contains("b.test"), "the skeleton has nobody's host");
    assert_eq!(standalone::tested(&envoy, &model), Ok(()));
}

fn coxswain(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coxswain")).args(arguments).output().unwrap()
}

fn objects() -> String {
    service_at("web", &["127.0.0.9:80".parse().unwrap()])
        + &Ingress::new("web").host("a.test").path("Prefix", "/", "web").yaml()
}

#[test]
fn render_prints_one_bootstrap_with_the_endpoints_of_the_moment() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), objects()).unwrap();
    let output = coxswain(&["render", "--proxy", "envoy", "-f", folder.path().to_str().unwrap()]);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = printed.to_string();
    assert!(text.contains("127.0.0.9") && text.contains("../in/live/tls/default.pem"), "{text}");
    assert!(!text.contains("PRIVATE KEY"), "keys are named, never printed");
}

#[test]
fn what_render_writes_passes_envoys_own_test_and_check_asks_it() {
    let Some(envoy) = parts::envoy() else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), objects()).unwrap();
    let (input, target) = (folder.path().join("a.yaml"), folder.path().join("target"));
    let (input, target) = (input.to_str().unwrap(), target.to_str().unwrap());
    let output = coxswain(&["render", "--proxy=envoy", "-f", input, "-o", target]);
    let told = String::from_utf8(output.stderr).unwrap();
    let test = told.split("to have it tested: ").nth(1).unwrap_or_else(|| panic!("{told}")).trim();
    let test = test.replace("&& envoy ", &format!("&& {} ", envoy.display()));
    let tested = Command::new("sh").args(["-c", &test]).output().unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
    for file in ["bootstrap.json", "certificates.json", "clusters.pb", "listeners.pb", "routes.pb", "release.json"] {
        assert!(folder.path().join("target/in/desired").join(file).is_file(), "{file}");
    }
    let bin = format!("--proxy-bin={}", envoy.display());
    let output = coxswain(&["check", "--proxy=envoy", &bin, "-f", input]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
