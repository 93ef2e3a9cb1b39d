//! What is nobody's fault: it is tried again, and works by itself when the cause has gone.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use coxswain::volume::{Digest, FaultClass, Outcome, Report};

use super::fixture::{Release, Sidecar};
use crate::support::wait::check;
use crate::support::{eventually, net};

/// Waits until a release has been tried this often, in vain and without blame.
async fn tried(sidecar: &Sidecar, digest: &Digest, attempts: u64) -> Report {
    eventually("attempts", async || {
        let report = sidecar.reports(digest, Outcome::Retrying).await;
        assert_eq!(report.class, Some(FaultClass::Environment));
        check(report.attempt >= attempts, || format!("{report:?}"))?;
        Ok(report)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_at_the_first_start_is_waited_for() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, sidecar.port)).unwrap();
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start();
    let report = tried(&sidecar, &first, 2).await;
    assert!(report.message.contains("bind() to 127.0.0.1") && report.message.contains("98:"), "{report:?}");
    sidecar.readiness_is(503, "bind() to 127.0.0.1").await;

    drop(taken);
    let report = sidecar.accepts(&first).await;
    assert!(report.attempt > 2 && report.message.is_empty(), "{report:?}");
    sidecar.becomes_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_at_a_reload_is_waited_for_while_the_former_release_serves() {
    let Some((sidecar, first)) = Sidecar::serving("one").await else { return };
    let other = net::port();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, other)).unwrap();
    let traffic = sidecar.traffic();
    let next = sidecar.publish(&Release::saying("two").http(&format!("server {{ listen 127.0.0.1:{other}; }}")));
    let report = tried(&sidecar, &next, 2).await;
    assert!(report.message.contains(&format!("bind() to 127.0.0.1:{other} failed (98:")), "{report:?}");
    assert_eq!((sidecar.current(), sidecar.get().await), (Some(first), Ok("one".to_owned())));
    // The refused reloads have started no workers.
    assert_eq!(sidecar.proxy_info().unwrap().generations.len(), 1);

    drop(taken);
    sidecar.accepts(&next).await;
    assert_eq!(sidecar.get().await.as_deref(), Ok("two"));
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_wish_does_not_wait_for_the_pause_of_a_release_that_cannot_be_taken_up() {
    let Some((sidecar, _)) = Sidecar::serving("one").await else { return };
    let other = net::port();
    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, other)).unwrap();
    let stuck = sidecar.publish(&Release::saying("two").http(&format!("server {{ listen 127.0.0.1:{other}; }}")));
    tried(&sidecar, &stuck, 1).await;
    let next = sidecar.publish(&Release::saying("three"));
    sidecar.accepts(&next).await;
    let attempts = sidecar.report(&stuck).unwrap().attempt;
    let last = sidecar.publish(&Release::saying("four"));
    sidecar.accepts(&last).await;
    assert_eq!(sidecar.report(&stuck).unwrap().attempt, attempts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_test_blames_nobody() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let real = sidecar.command[0].clone();
    let kills = sidecar.folder().join("kills");
    let text = format!(
        "#!/bin/sh\nfor a; do [ \"$a\" = -t ] && [ -e {} ] && kill -9 $$; done\nexec {real} \"$@\"\n",
        kills.display()
    );
    let wrapper = sidecar.folder().join("nginx-wrapper");
    fs::write(&wrapper, text).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    sidecar.command = vec![wrapper.display().to_string()];
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start();
    sidecar.accepts(&first).await;

    fs::write(&kills, "").unwrap();
    let next = sidecar.publish(&Release::saying("two"));
    let report = tried(&sidecar, &next, 1).await;
    assert!(report.message.contains("signal: 9"), "{report:?}");
    fs::remove_file(&kills).unwrap();
    sidecar.accepts(&next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_cannot_be_read_is_tried_again() {
    let Some((sidecar, _)) = Sidecar::serving("one").await else { return };
    let next = sidecar.write(&Release::saying("two"));
    let manifest = sidecar.volume.release(&next).join("release.json");
    let good = fs::read(&manifest).unwrap();
    fs::write(&manifest, "{").unwrap();
    sidecar.desire(&next);
    let report = tried(&sidecar, &next, 1).await;
    assert!(report.message.contains("reading ") && report.message.contains("release.json"), "{report:?}");
    fs::write(&manifest, good).unwrap();
    sidecar.accepts(&next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readiness_port_in_use_keeps_no_traffic_away() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, sidecar.ready)).unwrap();
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start();
    sidecar.accepts(&first).await;
    sidecar.says("cannot answer /readyz (--ready-port)").await;
    drop(taken);
    sidecar.becomes_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_is_told_and_survived() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let out = sidecar.volume.output();
    fs::create_dir_all(&out).unwrap();
    let Some(_mounted) = Tmpfs::mount(&out, "256k") else { return };
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start();
    sidecar.accepts(&first).await;
    let traffic = sidecar.traffic();

    // Every page is taken; names still fit.
    let filler = out.join("filler");
    let status = Command::new("dd")
        .args(["if=/dev/zero", "bs=4096", "status=none"])
        .arg(format!("of={}", filler.display()))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&status.stderr).contains("No space left"), "{status:?}");
    let next = sidecar.publish(&Release::saying("two"));
    sidecar.says("No space left on device").await;
    assert_eq!(sidecar.current(), Some(first));

    fs::remove_file(&filler).unwrap();
    sidecar.accepts(&next).await;
    assert_eq!(sidecar.get().await.as_deref(), Ok("two"));
    traffic.lost_nothing().await;
}

/// A small file system of its own.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    /// `None`, and the reason printed, where mounting is not allowed.
    fn mount(folder: &std::path::Path, size: &str) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "tmpfs"])
            .arg(folder)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder.to_owned())),
            other => {
                eprintln!("skipped: cannot mount a tmpfs here: {other:?}");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: whoever runs there ends with the sidecar, which is dropped later.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
