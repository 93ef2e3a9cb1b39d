//! `coxswain check` as a person or a script runs it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value as Json;

use crate::support::parts;

fn check(manifest: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("objects.yaml");
    std::fs::write(&file, manifest).unwrap();
    run(&file, arguments)
}

fn run(file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coxswain"));
    command.arg("check").arg("-f").arg(file).args(arguments).env_clear().output().unwrap()
}

fn ingress(host: &str, service: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: web}}, spec: {{ingressClassName: coxswain,
           rules: [{{host: '{host}', http: {{paths: [{{path: /, pathType: Prefix,
             backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}]}}}}]}}}}\n"
    )
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_exit_code_tells_whether_anything_is_rejected() {
    for (host, expected, code) in [("good.example.com", "0 rejected, 1 degraded", 0), ("bad;host", "1 rejected", 1)] {
        let output = check(&ingress(host, "missing"), &[]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text(&output.stdout).contains(expected), "{output:?}");
    }
    let output = run(Path::new("/nowhere/at/all"), &[]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(3), ""));
    assert!(text(&output.stderr).contains("/nowhere/at/all"), "{output:?}");
    assert_eq!(check("", &["--no-such-flag"]).status.code(), Some(2));
}

#[test]
fn machines_get_json_and_nothing_else() {
    let output = check(&ingress("bad;host", "missing"), &["--output", "json"]);
    let json: Json = serde_json::from_slice(&output.stdout).unwrap();
    let problem = &json["problems"][0];
    assert_eq!(problem["name"], "web");
    assert_eq!(problem["field"], "spec.rules[0].host");
    assert_eq!((&problem["severity"], &problem["reason"]), (&"rejected".into(), &"InvalidHost".into()));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_file_that_is_no_yaml_is_told_with_its_place() {
    let output = check("kind: [", &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).contains("line 1"), "{output:?}");
}

#[test]
fn the_proxy_is_asked_where_it_is_named() {
    let Some(nginx) = parts::nginx() else { return };
    let flag = format!("--proxy-bin={}", nginx.display());
    let output = check(&ingress("good.example.com", "missing"), &[&flag]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = check(&ingress("good.example.com", "missing"), &["--proxy-bin=/nowhere/nginx"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}
