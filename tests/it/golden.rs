//! Every case in `tests/golden`: what becomes of its objects, as it was agreed to be.
//!
//! Beside each `<case>.yaml` lie snapshots: `model@…` has the problems and the model, `nginx@…` the rendered file,
//! `envoy@…` the same for Envoy, with what only Envoy's renderer tells.
//! `cargo insta review` shows what a change of the code does to them. What holds for all hosts is written out once, in
//! the case that serves nothing; elsewhere only what differs from it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use coxswain::model::ProxyConfig;
use coxswain::problem::Reason;
use coxswain::render::{History, RelativePath, Rendering, render};
use coxswain::settings::{Flags, Settings};
use coxswain::translate::{HeldBack, Translation, translate};
use coxswain::volume::ProxyKind;
use coxswain::watch::files;
use serde_json::{Value, json};

use crate::support::model::{Stage, value};
use crate::support::{parts, standalone};

/// The time of all cases, in seconds since 1970.
const NOW: i64 = 1_800_000_000;

/// The case that has nothing but what holds for all.
const SKELETON: &str = "nothing-to-serve.yaml";

#[test]
fn every_case_is_as_agreed_and_the_proxies_take_it() {
    let (nginx, envoy) = (parts::nginx(), parts::envoy());
    let rest_of_envoy = standalone::parts(&translated(&folder().join(SKELETON)).config).2;
    let skeleton = text(&rendered(&translated(&folder().join(SKELETON))));
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        insta::glob!(folder(), "*.yaml", |path| {
            let translation = translated(path);
            let rendering = rendered(&translation);
            let Translation { config, problems, ours: _ } = &translation;
            insta::assert_json_snapshot!("model", json!({ "problems": problems, "config": config }));
            let text = text(&rendering);
            let shown = if path.ends_with(SKELETON) { text } else { own(&text, &skeleton) };
            insta::assert_snapshot!("nginx", shown);
            if let Some(nginx) = &nginx
                && let Err(words) = Stage::new(&rendering).test(nginx, "nginx.conf")
            {
                panic!("{}: {words}", path.display());
            }
            insta::assert_json_snapshot!("envoy", of_envoy(config, path.ends_with(SKELETON), &rest_of_envoy));
            if let Some(envoy) = &envoy
                && let Err(words) = standalone::tested(envoy, config)
            {
                panic!("{}: {words}", path.display());
            }
        });
    });
}

/// What Envoy is told, and what is told of Envoy; of what holds for all only what the skeleton has not.
fn of_envoy(config: &ProxyConfig, is_skeleton: bool, skeleton: &Value) -> Value {
    let rendering = render(config, ProxyKind::Envoy, &History::default()).unwrap_or_else(|error| panic!("{error}"));
    let (clusters, hosts, rest) = standalone::parts(config);
    let mut shown = json!({ "problems": rendering.problems, "clusters": clusters, "hosts": hosts });
    if is_skeleton {
        shown["rest"] = rest;
    } else {
        let mut unusual = Vec::new();
        differences("", skeleton, &rest, &mut unusual);
        shown["unlike the usual"] = unusual.into();
    }
    shown
}

/// The places at which two values differ, with what the second has there.
fn differences(place: &str, usual: &Value, value: &Value, found: &mut Vec<String>) {
    match (usual, value) {
        (Value::Object(usual), Value::Object(value)) => {
            let names: BTreeSet<&String> = usual.keys().chain(value.keys()).collect();
            for name in names {
                let [usual, value] = [usual, value].map(|object| object.get(name).unwrap_or(&Value::Null));
                differences(&format!("{place}.{name}"), usual, value, found);
            }
        }
        (Value::Array(usual), Value::Array(value)) if usual.len() == value.len() => {
            for (n, (usual, value)) in usual.iter().zip(value).enumerate() {
                differences(&format!("{place}[{n}]"), usual, value, found);
            }
        }
        _ if usual == value => {}
        _ => found.push(format!("{place}: {value}")),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Reads a case as `-f` would. A mistake of form would make a case say nothing, so there may be none.
fn translated(path: &Path) -> Translation {
    let snapshot = files::load(&[path.to_owned()]);
    for problem in &snapshot.problems {
        let of_form =
            matches!(problem.reason, Reason::UnknownField | Reason::UnreadableInput | Reason::MalformedObject);
        assert!(!of_form, "{}: {problem} ({})", path.display(), problem.field);
    }
    // Without one in the case there is none to miss.
    let config_map = value("coxswain/coxswain");
    let flags =
        Flags { config_map: Some(config_map).filter(|c| snapshot.config_maps.contains_key(c)), ..Flags::default() };
    let (settings, problems) = Settings::read(&flags, &snapshot);
    let mut translation = translate(&snapshot, &settings, &HeldBack::default(), NOW);
    translation.problems.splice(0..0, problems);
    translation
}

fn rendered(translation: &Translation) -> Rendering {
    render(&translation.config, ProxyKind::Nginx, &History::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn text(rendering: &Rendering) -> String {
    String::from_utf8(rendering.release.files[&RelativePath::MAIN].bytes.clone()).expect("UTF-8")
}

/// The lines of the part for all hosts that `skeleton` has not, and the whole of the rest.
fn own(text: &str, skeleton: &str) -> String {
    let (all, rest) = text.split_at(begin_of_hosts(text));
    let usual: BTreeSet<&str> = skeleton[..begin_of_hosts(skeleton)].lines().collect();
    let unusual: Vec<&str> = all.lines().filter(|line| !usual.contains(line)).collect();
    format!(
        "# what holds for all, where it differs:\n{}\n# hosts:\n{}",
        unusual.join("\n"),
        rest.trim_start_matches('\n')
    )
}

fn begin_of_hosts(text: &str) -> usize {
    ["\n\tupstream ", "\n\tserver {", "\n\t# Ingress "].iter().filter_map(|begin| text.find(begin)).min().unwrap_or(0)
}
