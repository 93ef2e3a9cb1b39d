//! `render`, `check` and what else a person types: data on standard output, the rest on standard error, exit codes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::objects::service_at;
use crate::support::{Ingress, Run, parts};

fn coxswain(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coxswain"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn ran(arguments: &[&str]) -> (Output, String, String) {
    let output = coxswain(arguments).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout).into(), String::from_utf8_lossy(&output.stderr).into());
    (output, out, err)
}

fn objects() -> String {
    service_at("web", &["127.0.0.9:80".parse().unwrap()])
        + &Ingress::new("web").host("a.test").path("Prefix", "/", "web").yaml()
}

/// A folder with one file.
fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), text).unwrap();
    folder
}

#[test]
fn render_prints_the_configuration_and_a_dry_run_the_same() {
    let folder = folder(&objects());
    let path = folder.path().to_str().unwrap();
    let (output, rendered, _) = ran(&["render", "-f", path]);
    assert!(output.status.success() && rendered.contains("server_name a.test;"), "{rendered}");
    assert_eq!(ran(&["run", "--dry-run", "-f", path]).1, rendered);
    let mut child = coxswain(&["render", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(objects().as_bytes()).unwrap();
    assert_eq!(String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout), rendered, "from standard input");
}

#[test]
fn what_render_writes_passes_the_proxys_own_test() {
    let Some(nginx) = parts::nginx() else { return };
    let folder = folder(&objects());
    let target = folder.path().join("target");
    let target = target.to_str().unwrap();
    for _ in 0..2 {
        let (output, out, err) = ran(&["render", "-f", folder.path().to_str().unwrap(), "-o", target]);
        assert!(output.status.success() && out.is_empty(), "{err}");
        let release = fs::canonicalize(Path::new(target).join("in/desired")).unwrap();
        assert!(err.contains(&format!("-t -p {}/ -c nginx.conf", release.display())), "{err}");
        let tested =
            Command::new(&nginx).arg("-t").arg("-p").arg(&release).args(["-c", "nginx.conf"]).output().unwrap();
        assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
    }
}

#[test]
fn check_exits_with_one_when_something_is_rejected_and_asks_the_proxy_only_when_told() {
    let Some(nginx) = parts::nginx() else { return };
    let nginx = nginx.to_str().unwrap();
    let good = folder(&objects());
    let good = good.path().to_str().unwrap();
    for flags in [&["check", "-f", good][..], &["check", "-f", good, "--proxy-bin", nginx]] {
        let (output, out, err) = ran(flags);
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{out}");
        assert!(out.starts_with("0 problems"), "{out}");
    }
    let bad = folder(&(objects() + &Ingress::new("bad").host("a_b!").path("Prefix", "/", "web").yaml()));
    let (output, out, _) = ran(&["check", "-f", bad.path().to_str().unwrap(), "--output", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["problems"][0]["name"], "bad");
    let missing = ran(&["check", "-f", good, "--proxy-bin", "/no/nginx/here"]);
    assert_eq!(missing.0.status.code(), Some(3));
    assert!(missing.2.contains("/no/nginx/here"), "{}", missing.2);
}

#[test]
fn wrong_use_and_what_cannot_be_done_have_codes_of_their_own() {
    for (arguments, code, words) in [
        (&["render", "-f", "/no/such/file"][..], 3, "/no/such/file"),
        (&["render", "--no-such-flag"], 2, "--no-such-flag"),
        (&["render", "-f", "x", "--configmap", "noslash"], 2, "it must be `namespace/name`"),
        (&["run", "--http-port=0", "-f", "x"], 2, "--http-port"),
        (&["check", "--proxy", "apache", "-f", "x"], 2, "it must be `nginx`"),
    ] {
        let (output, out, err) = ran(arguments);
        assert_eq!((output.status.code(), out.as_str()), (Some(code), ""), "{arguments:?}: {err}");
        assert!(err.contains(words), "{arguments:?}: {err}");
    }
}

#[test]
fn every_command_explains_itself() {
    for command in ["run", "agent", "render", "check", "annotations", "install"] {
        let (output, out, _) = ran(&[command, "--help"]);
        assert!(output.status.success() && out.contains("Usage: coxswain"), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_line_of_ingress_nginx_is_taken_and_what_does_nothing_is_named_once() {
    let Some(setup) = Run::setup() else { return };
    let run = setup
        .file("a.yaml", &objects())
        .flag("--profiling=false")
        .flag("--sync-rate-limit=0.5")
        .flag("--v=2")
        .flag("--http-port=1")
        .flag(String::new() + "--http-port=" + &crate::support::net::port().to_string());
    let run = run.serve().await;
    run.says("--profiling does nothing here").await;
    let said = run.said();
    assert_eq!(said.matches("does nothing here").count(), 3, "{said}");
    run.says("a.test").await;
}
