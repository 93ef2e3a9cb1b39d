//! An agent that is not root, as it runs in a Pod.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;

use nix::sys::signal::Signal;

use super::fixture::{Release, Sidecar};
use crate::support::run::processes_of;

/// Whom the stock image's nginx runs as, and every container of the Pod.
const NGINX: u32 = 101;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_and_a_proxy_without_rights_start_reload_and_end() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let Some(mut command) = unprivileged(&sidecar) else { return };
    for folder in [sidecar.folder(), &sidecar.folder().join("faults"), sidecar.volume.root()] {
        chown(folder, Some(NGINX), Some(NGINX)).unwrap();
    }
    command.arg(env!("CARGO_BIN_EXE_coxswain")).args(sidecar.arguments());
    sidecar.publish(&Release::saying("one"));
    sidecar.start_as(command);
    sidecar.becomes_ready().await;
    let traffic = sidecar.traffic();
    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
    assert_eq!(sidecar.get().await.as_deref(), Ok("two"));
    // A refusal is understood, and what serves goes on.
    let bad = sidecar.publish(&Release::server("no_such_directive;"));
    let report = sidecar.reports(&bad, coxswain::volume::Outcome::Rejected).await;
    assert!(report.message.contains("no_such_directive"), "{report:?}");
    traffic.lost_nothing().await;

    let owners =
        processes_of(sidecar.folder()).into_iter().map(|pid| fs::metadata(format!("/proc/{pid}")).unwrap().uid());
    let owners: Vec<_> = owners.collect();
    assert!(owners.len() >= 4 && owners.iter().all(|uid| *uid == NGINX), "{owners:?}");
    let written = fs::read_dir(sidecar.volume.output()).unwrap().map(|entry| entry.unwrap());
    for entry in written {
        assert_eq!(entry.metadata().unwrap().uid(), NGINX, "{:?}", entry.path());
    }
    assert!(!sidecar.said().contains("the \"user\" directive"), "{}", sidecar.said());

    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.ended().await.code(), Some(0));
    sidecar.leaves_nothing().await;
}

/// What runs a command as that user; `None`, and the reason printed, where that is not possible. It may still look into
/// every folder: a part of this machine may lie in somebody's home.
fn unprivileged(sidecar: &Sidecar) -> Option<Command> {
    let command = || {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={NGINX}"), &format!("--regid={NGINX}"), "--clear-groups"]);
        command.args(["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]);
        command
    };
    match command().args(&sidecar.command).arg("-v").output() {
        Ok(output) if output.status.success() => Some(command()),
        other => {
            eprintln!("skipped: nothing can be run as user {NGINX} here: {other:?}");
            None
        }
    }
}
