//! What a machine may do to us: ports in use, no nginx or an old one, a full disk, nothing to read.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::objects::service;
use crate::support::proxies::through_each_proxy;
use crate::support::{Ingress, Pod, Run, eventually, net, wait};

fn web(name: &str, host: &str) -> String {
    Ingress::new(name).host(host).path("Prefix", "/", "web").yaml()
}

async fn serves(run: &Run, host: &str, expected: &str) {
    eventually(&format!("{host}: {expected}"), async || {
        let who = run.http().try_get(host, "/").await?.who();
        wait::check(who == expected, || who)
    })
    .await;
}

through_each_proxy!(a_port_in_use_is_nobodys_fault_and_heals_by_itself);

async fn a_port_in_use_is_nobodys_fault_and_heals_by_itself() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let port = setup.ports().http;
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    let mut run = setup.file("a.yaml", &(service("web", &[&pod]) + &web("a", "a.test"))).start().await;
    run.says(&port.to_string()).await;
    eventually("somebody says that it is in use", async || {
        wait::check(run.said().to_lowercase().contains("in use"), || run.said())
    })
    .await;
    let desired = eventually("a release is wanted", async || {
        fs::read_link(run.volume().desired()).map_err(|error| error.to_string())
    })
    .await;
    assert!(!run.said().contains("held back") && !run.said().contains("HeldBack"), "nobody is blamed");
    drop(taken);
    run.ready().await;
    serves(&run, "a.test", "web").await;
    assert_eq!(fs::read_link(run.volume().desired()).unwrap(), desired, "with the same release");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nginx_or_with_an_old_one_it_ends_with_a_sentence() {
    // What nginx says of itself (`None`: there is none), and what is said about that.
    for (version, told) in [
        (None, &["nginx-wrapper"][..]),
        (Some("1.22.1"), &["1.22.1", "1.30"]),
        (Some("1.30.2"), &["1.30.2", "CVE-2026-42533"]),
    ] {
        let Some(setup) = Run::setup() else { return };
        let wrapper = setup.folder().join("nginx-wrapper");
        if let Some(version) = version {
            write_script(&wrapper, &format!("echo 'nginx version: nginx/{version}' >&2"));
        }
        let mut run = setup.proxy_bin(&wrapper).start().await;
        assert_eq!(run.ended().await.code(), Some(3), "{version:?}");
        for text in told {
            run.says(text).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_nginx_that_is_accepted_by_its_version_serves_and_is_told() {
    let Some(setup) = Run::setup() else { return };
    let wrapper = setup.folder().join("nginx-wrapper");
    let nginx = setup.bin().display();
    let version = "echo 'nginx version: nginx/1.30.2' >&2";
    write_script(&wrapper, &format!("if [ \"$1\" = -v ]; then {version}; else exec {nginx} \"$@\"; fi"));
    let run = setup.proxy_bin(&wrapper).flag("--accept-proxy-version=1.30.2").serve().await;
    run.says("1.30.2").await;
}

fn write_script(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

through_each_proxy!(what_cannot_be_read_at_the_start_ends_it_with_a_sentence);

async fn what_cannot_be_read_at_the_start_ends_it_with_a_sentence() {
    let Some(setup) = Run::setup() else { return };
    fs::remove_dir(setup.manifests()).unwrap();
    let mut run = setup.start().await;
    assert_eq!(run.ended().await.code(), Some(3));
    run.says("manifests").await;
    assert!(!run.said().contains("panicked"), "{}", run.said());
}

through_each_proxy!(a_flag_that_cannot_be_read_is_wrong_use);

async fn a_flag_that_cannot_be_read_is_wrong_use() {
    let Some(setup) = Run::setup() else { return };
    let mut run = setup.flag("--http-port=no-port").start().await;
    assert_eq!(run.ended().await.code(), Some(2));
    run.says("no-port").await;
}

/// A small file system of memory, gone with the value. Only root may have one.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "tmpfs"])
            .arg(at)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("skipped: this user may not mount a tmpfs");
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

through_each_proxy!(a_full_volume_stops_changes_but_no_traffic_and_heals_by_itself);

async fn a_full_volume_stops_changes_but_no_traffic_and_heals_by_itself() {
    let Some(setup) = Run::setup() else { return };
    let volume = setup.volume();
    let Some(_tmpfs) = Tmpfs::mount(volume.root(), "4m") else { return };
    let pod = Pod::start("web", net::port()).await;
    let run = setup.file("a.yaml", &(service("web", &[&pod]) + &web("a", "a.test"))).serve().await;
    serves(&run, "a.test", "web").await;
    let release = run.current();
    let filler = volume.root().join("filler");
    // Fills what is left to the last byte, however much that is.
    let _ = fs::write(&filler, vec![b'x'; 8 << 20]);
    let hosts: String = (0..50).map(|n| web(&format!("n{n}"), &format!("n{n}.test"))).collect();
    run.write("b.yaml", &hosts);
    eventually("it is told", async || {
        let said = run.said().to_lowercase();
        wait::check(said.contains("no space") || said.contains("full"), || said)
    })
    .await;
    serves(&run, "a.test", "web").await;
    assert_eq!(run.current(), release);
    assert!(!run.said().contains("HeldBack"), "nobody is blamed");
    fs::remove_file(&filler).unwrap();
    serves(&run, "n49.test", "web").await;
    let whole =
        fs::read_dir(volume.releases()).unwrap().flatten().all(|entry| entry.path().join("release.json").exists());
    assert!(whole, "no half release stays");
    drop(run);
}
