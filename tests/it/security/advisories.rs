//! The advisories of ingress-nginx, a test for each: what was the way in there is none here.
//!
//! Each is tried on what the core makes of it: nothing of the payload becomes a directive (read by a reader that shares
//! nothing with the renderer, and by nginx's own test where there is one), the author is told, and what protects is
//! closed. Traffic against a running proxy is the parent's. The webhook's two are in `webhook`.

use coxswain::model::{Action, ProxyConfig, SlotId};
use coxswain::problem::{Problem, Severity};
use coxswain::render::{History, RelativePath, Rendering, render};
use coxswain::settings::{Flags, Settings};
use coxswain::translate::{HeldBack, translate};
use coxswain::value::Value as _;
use coxswain::value::reference::ObjectName;
use coxswain::volume::ProxyKind;
use coxswain::watch::files;
use serde_json::json;

use crate::support::model::Stage;
use crate::support::objects::{config_map, document, service};
use crate::support::{Ingress, parts, tokens};

/// Every payload would become this directive.
const PWNED: &str = "pwned";

/// What the core makes of some objects.
struct Made {
    config: ProxyConfig,
    rendering: Rendering,
    problems: Vec<Problem>,
}

/// These objects, beside a Service that they may use. Nothing of them may become a directive.
fn made(objects: &str) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("objects.yaml");
    std::fs::write(&file, service("web", &[]) + objects).unwrap();
    let snapshot = files::load(&[file]);
    let flags = Flags { config_map: ObjectName::parse("default/settings").ok(), ..Flags::default() };
    let (settings, mut problems) = Settings::read(&flags, &snapshot);
    let translation = translate(&snapshot, &settings, &HeldBack::default(), 1_800_000_000);
    problems.extend(translation.problems);
    problems.extend(snapshot.problems);
    let config = translation.config;
    let rendering = render(&config, ProxyKind::Nginx, &History::default()).unwrap();
    let made = Made { config, rendering, problems };
    let pwned = tokens::directives(&made.text()).unwrap().into_iter().find(|directive| directive.name() == PWNED);
    assert_eq!(pwned, None);
    if let Some(nginx) = parts::nginx() {
        Stage::new(&made.rendering).test(&nginx, RelativePath::MAIN.as_str()).unwrap();
    }
    made
}

impl Made {
    fn text(&self) -> String {
        let file = &self.rendering.release.files[&RelativePath::MAIN];
        String::from_utf8(file.bytes.clone()).unwrap()
    }

    /// Somebody is told of this.
    fn tells(&self, text: &str) -> &Problem {
        let found = self.problems.iter().find(|problem| problem.message.contains(text));
        found.unwrap_or_else(|| panic!("nobody is told of {text:?}: {:#?}", self.problems))
    }

    /// The requests of the host are answered with 503 and nothing else.
    fn closes(&self, host: &str) {
        let host = self.config.hosts.iter().find(|known| known.host.to_string() == host).expect("the host is there");
        // What nobody claims of it is the controller's own 404.
        let open = host.routes.iter().find(|route| !matches!(route.action, Action::Respond(503 | 404)));
        assert_eq!(open, None);
        assert!(host.routes.iter().any(|route| route.action == Action::Respond(503)));
    }

    /// The host is served as if the payload were not there.
    fn serves(&self, host: &str) {
        let host = self.config.hosts.iter().find(|known| known.host.to_string() == host).expect("the host is there");
        assert!(host.routes.iter().any(|route| matches!(route.action, Action::Forward(_))));
    }
}

/// An Ingress of the host `a.test`.
fn ingress() -> Ingress {
    Ingress::new("a").host("a.test")
}

/// With an annotation.
fn annotated(name: &str, value: &str) -> Made {
    made(&ingress().path("Prefix", "/", "web").ours(name, value).yaml())
}

/// With a path, of each type, alone and with regular expressions or a rewrite asked for.
fn with_path(path: &str) {
    for kind in ["Exact", "Prefix", "ImplementationSpecific"] {
        for more in [None, Some(("use-regex", "true")), Some(("rewrite-target", "/$1"))] {
            let ingress = ingress().path(kind, path, "web").path("Exact", "/good", "web");
            let ingress = more.into_iter().fold(ingress, |ingress, (name, value)| ingress.ours(name, value));
            made(&ingress.yaml()).serves("a.test");
        }
    }
}

#[test]
fn cve_2020_8553_names_with_hyphens_never_meet_in_one_file() {
    let slot = |name: &str| SlotId::of(&ObjectName::parse(name).unwrap());
    assert_ne!(slot("a-b/c"), slot("a/b-c"));
    annotated("auth-secret", "default/users").closes("a.test");
}

#[test]
fn cve_2021_25742_and_cve_2023_5043_a_snippet_is_told_and_never_rendered() {
    for name in ["configuration-snippet", "server-snippet", "stream-snippet", "modsecurity-snippet"] {
        let made = annotated(name, "pwned on;");
        made.tells(&format!("{name} is not supported yet"));
        made.serves("a.test");
    }
    annotated("auth-snippet", "pwned on;").closes("a.test");
    annotated("configuration-snippet", "pwned on; deny all;").closes("a.test");
    let settings = [("http-snippet", "pwned on;"), ("main-snippet", "pwned on;"), ("location-snippet", "pwned on;")];
    made(&config_map("settings", &settings)).tells("http-snippet is not supported yet");
}

#[test]
fn cve_2021_25745_a_path_does_not_break_out_of_its_location() {
    with_path("/x/ { pwned on; } location /y");
    with_path("/x; pwned on;");
}

#[test]
fn cve_2021_25746_no_annotation_ends_its_directive() {
    for name in [
        "proxy-body-size",
        "proxy-read-timeout",
        "proxy-buffer-size",
        "proxy-next-upstream",
        "limit-rate",
        "rewrite-target",
        "temporal-redirect",
        "backend-protocol",
        "load-balance",
    ] {
        for value in ["1; pwned on;", "1}\npwned on;", "/x;} pwned on; {", "1\" ; pwned on; \""] {
            annotated(name, value);
        }
    }
}

#[test]
fn cve_2021_25748_a_path_with_a_line_break_is_refused() {
    for line in ["\n", "\r", "\r\n", "\u{0}", "\u{2028}"] {
        let path = format!("/x{line}pwned on;{line}");
        with_path(&path);
        let made = made(&ingress().path("Prefix", &path, "web").yaml());
        assert_eq!(made.tells("path ").severity, Severity::Rejected);
    }
}

#[test]
fn cve_2022_4886_a_path_that_looks_like_directives_is_text() {
    with_path("/x log_format pwned $http_cookie; pwned on;");
    // Strict about the types that are plain text, as ingress-nginx is by now.
    let made = made(&ingress().path("Exact", "/a[0-9]{pwned on;}", "web").yaml());
    assert_eq!(made.tells("looks like a regular expression").severity, Severity::Rejected);
}

#[test]
fn cve_2023_5044_a_redirect_is_a_url_or_nothing() {
    for value in ["https://b.test;} pwned on; {", "https://b.test\npwned on;", "https://b.test\"; pwned on; \""] {
        let made = annotated("permanent-redirect", value);
        made.tells("permanent-redirect");
    }
}

#[test]
fn cve_2024_7646_a_carriage_return_hides_nothing_from_a_parser() {
    for (name, value) in [
        ("proxy-body-size", "1m\rpwned on;"),
        ("permanent-redirect", "https://b.test\r; pwned on;"),
        ("allowlist-source-range", "10.0.0.0/8\rpwned on;"),
        ("auth-tls-verify-client", "on\r; pwned on;"),
    ] {
        annotated(name, value).tells(name);
    }
}

#[test]
fn cve_2025_1097_client_certificates_are_not_built_and_close_what_they_would_protect() {
    annotated("auth-tls-match-cn", "CN=x) { pwned on; }").closes("a.test");
}

#[test]
fn cve_2025_1098_mirrors_are_told_and_metadata_is_never_rendered() {
    annotated("mirror-target", "http://b.test; pwned on;").tells("mirror-target is not supported yet");
    let uid = "x } pwned on; {";
    let made = made(&ingress().uid(uid).path("Prefix", "/", "web").yaml());
    made.serves("a.test");
    assert!(!made.text().contains(uid));
}

#[test]
fn cve_2025_24513_no_file_is_named_by_a_uid() {
    let uid = "../../../../tmp/pwned";
    let made = made(&ingress().uid(uid).tls(&["a.test"], "none").path("Prefix", "/", "web").yaml());
    assert!(!made.text().contains("tmp/pwned"));
    let manifest = &made.rendering.release.manifest;
    let names = manifest.upstreams.iter().chain(&manifest.slots).chain(&manifest.files);
    assert!(names.into_iter().all(|name| !name.contains(['/', '.'])), "{manifest:?}");
}

#[test]
fn cve_2025_24514_and_cve_2026_1580_authentication_elsewhere_closes_what_it_would_protect() {
    annotated("auth-url", "http://b.test/#;} pwned on; {").closes("a.test");
    annotated("auth-method", "GET; pwned on;").closes("a.test");
}

#[test]
fn cve_2025_15566_what_a_config_map_says_is_no_more_trusted() {
    let headers = config_map("headers", &[("X-A", "a'; pwned on; #")]);
    let protected = ingress().path("Prefix", "/", "web").ours("auth-proxy-set-headers", "default/headers");
    made(&(headers + &protected.yaml())).closes("a.test");

    let content = [("a'; pwned on; #", "x"), ("b.html\n} pwned on; {", "x"), ("index.html", "'; pwned on; #")];
    let backend = json!({"resource": {"kind": "ConfigMap", "name": "page"}});
    made(&(config_map("page", &content) + &ingress().path_to("Prefix", "/", backend).yaml()));
}

#[test]
fn cve_2026_24512_and_cve_2026_3288_no_quote_ends_a_path_in_any_place_it_stands_in() {
    for path in ["/x\" { pwned on; } #", "/x' pwned", "/x\\\" { pwned on; }", "/x {pwned}", "/(x)\" pwned; rewrite \""]
    {
        with_path(path);
    }
    let hosts = ["a.test\" pwned; \"", "a.test; pwned on;", "a.test { pwned on; }", "~^a\" pwned"];
    for host in hosts {
        let ingress = Ingress::new("a").host(host).path("Prefix", "/", "web").yaml();
        let made = made(&ingress);
        made.tells("host ");
        assert_eq!(made.config.hosts.len(), 1, "only what answers all other hosts");
    }
}

#[test]
fn cve_2026_24513_errors_of_an_authentication_are_never_turned_into_a_page() {
    let errors = config_map("settings", &[("custom-http-errors", "401,403")]);
    let protected = ingress().path("Prefix", "/", "web").ours("auth-url", "http://auth.test/");
    let made = made(&(errors + &protected.yaml()));
    made.tells("custom-http-errors is not supported yet");
    made.closes("a.test");
}

#[test]
fn a_uid_that_is_none_harms_nothing() {
    for uid in ["", "not-a-uid", "\u{0}", "x\n} pwned on; {"] {
        made(&ingress().uid(uid).path("Prefix", "/", "web").yaml()).serves("a.test");
    }
}

#[test]
fn an_alias_protects_as_what_it_stands_for() {
    annotated("whitelist-source-range", "10.0.0.0/8; pwned on;").closes("a.test");
    let made = annotated("whitelist-source-range", "10.0.0.0/8");
    let allows = |route: &coxswain::model::Route| route.policies.source_range.allow.len() == 1;
    let routes = made.config.hosts.iter().flat_map(|host| &host.routes);
    assert_eq!(routes.filter(|route| allows(route)).count(), 1);
}

#[test]
fn cve_2026_4342_comments_are_the_renderers_own() {
    let plain = made(&ingress().path("Prefix", "/plain", "web").yaml());
    let comments = |made: &Made| -> Vec<String> {
        let text = made.text();
        let comments = text.lines().map(str::trim).filter(|line| line.starts_with('#')).map(str::to_owned);
        comments.collect()
    };
    let hostile = ingress()
        .path("Prefix", "/x#pwned", "web")
        .path("ImplementationSpecific", "/plain\npwned on;", "web")
        .host("x\npwned on;")
        .path("Prefix", "/", "web");
    let hostile =
        made(&(hostile.yaml() + &document(&json!({"kind": "Ingress", "metadata": {"name": "#\npwned on;"}}))));
    assert_eq!(comments(&hostile), comments(&plain));
}
