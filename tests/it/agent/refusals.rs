//! When the agent does not start at all, and what it says then; and `install`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};

use super::fixture::{Release, Sidecar};
use crate::support::eventually;
use crate::support::wait::check;

/// Starts an agent that must end by itself with this exit code, and gives what it said.
async fn refused(sidecar: &mut Sidecar, code: i32) -> String {
    sidecar.start();
    let status = sidecar.ended().await;
    assert_eq!(status.code(), Some(code), "{status}: {}", sidecar.said());
    // The reader may be a moment behind.
    eventually("its last words", async || check(sidecar.said().contains("error: "), || sidecar.said())).await;
    sidecar.said()
}

fn script(path: &Path, text: &str) -> String {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// A proxy that says it is nginx of this version, and otherwise is the real one.
fn nginx_of_version(sidecar: &mut Sidecar, version: &str) {
    let real = sidecar.command[0].clone();
    let text = format!("[ \"$1\" = -v ] && {{ echo 'nginx version: nginx/{version}' >&2; exit; }}\nexec {real} \"$@\"");
    sidecar.command = vec![script(&sidecar.folder().join("old-nginx"), &text)];
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_volume_is_refused_and_the_first_serves_on() {
    let Some((sidecar, _)) = Sidecar::serving("one").await else { return };
    // The holder that is named is the one of this moment, not the one before.
    let former = sidecar.proper().await;
    kill(former, Signal::SIGKILL).unwrap();
    sidecar.says("going on with the nginx that runs").await;
    let proper = sidecar.proper().await;
    assert_ne!(proper, former);
    let traffic = sidecar.traffic();
    let second = Command::new(env!("CARGO_BIN_EXE_coxswain")).args(sidecar.arguments()).output().unwrap();
    assert_eq!(second.status.code(), Some(3));
    let said = String::from_utf8_lossy(&second.stderr);
    let expected = format!("error: another agent (process {proper}) serves {}", sidecar.volume.root().display());
    assert!(said.contains(&expected), "{said}");
    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nginx_that_is_too_old_is_refused_by_name() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    nginx_of_version(&mut sidecar, "1.28.1");
    let said = refused(&mut sidecar, 3).await;
    assert!(said.contains("error: nginx 1.28.1 is too old: the configuration needs nginx 1.30.0 or later"), "{said}");
    sidecar.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vulnerable_nginx_is_refused_unless_it_is_accepted_and_then_named_at_each_start() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    nginx_of_version(&mut sidecar, "1.30.3");
    let said = refused(&mut sidecar, 3).await;
    assert!(said.contains("error: nginx 1.30.3 has CVE-2026-42945"), "{said}");
    assert!(said.contains("--accept-proxy-version 1.30.3"), "{said}");

    sidecar.flags.push("--accept-proxy-version=1.30.3".to_owned());
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start();
    sidecar.accepts(&first).await;
    sidecar.says("used all the same because of --accept-proxy-version 1.30.3").await;
    assert_eq!(sidecar.proxy_info().unwrap().version, "1.30.3");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_nginx_and_something_else_are_told_apart() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    sidecar.command = vec!["no-such-nginx".to_owned()];
    let said = refused(&mut sidecar, 3).await;
    assert!(said.contains("error: there is no no-such-nginx here: install nginx 1.30 or later"), "{said}");

    sidecar.command = vec![script(&sidecar.folder().join("apache"), "echo 'Server version: Apache/2.4' >&2")];
    let said = refused(&mut sidecar, 3).await;
    assert!(
        said.contains("is not nginx: asked for its version (-v), it says \"Server version: Apache/2.4\""),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_are_refused_with_the_right_ones() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    sidecar.command.extend(["-g".to_owned(), "daemon off;".to_owned()]);
    let said = refused(&mut sidecar, 3).await;
    assert!(said.contains("not to be a daemon: leave out \"daemon off;\""), "{said}");
    sidecar.command.truncate(1);
    sidecar.flags = vec!["--proxy-user=nobody-at-all".to_owned()];
    if nix::unistd::geteuid().is_root() {
        let said = refused(&mut sidecar, 3).await;
        assert!(said.contains("--proxy-user: there is no user \"nobody-at-all\" on this machine"), "{said}");
    }
    sidecar.flags = vec!["--accept-proxy-version=new".to_owned()];
    let said = refused(&mut sidecar, 3).await;
    assert!(said.contains("--accept-proxy-version: \"new\" is not a version of nginx; say it as 1.30.3"), "{said}");
}

#[test]
fn install_copies_an_executable_that_runs_also_over_a_running_one() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("bin");
    let install = |from: &Path| Command::new(from).arg("install").arg(&target).output().unwrap();
    assert!(install(Path::new(env!("CARGO_BIN_EXE_coxswain"))).status.success());
    let installed = target.join("coxswain");
    assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o777, 0o755);
    // The copy copies itself onto itself while it runs.
    assert!(install(&installed).status.success());
    assert_eq!(fs::read_dir(&target).unwrap().count(), 1);

    fs::write(folder.path().join("file"), "").unwrap();
    let refused = Command::new(&installed).arg("install").arg(folder.path().join("file/below")).output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("error: making ") && said.contains("file/below"), "{said}");
}
