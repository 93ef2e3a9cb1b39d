//! What is nobody's fault: it is tried again, and works by itself when the cause has gone.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use coxswain::volume::{Digest, FaultClass, Outcome, Report};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fixture::{Release, Sidecar};
use super::releases::hold;
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

    // An agent that cannot even start leaves a serving proxy alone.
    let proper = sidecar.proper().await;
    kill(proper, Signal::SIGKILL).unwrap();
    sidecar.says("starting another agent").await;
    traffic.goes_on(100).await;

    fs::remove_file(&filler).unwrap();
    sidecar.accepts(&next).await;
    assert_eq!(sidecar.get().await.as_deref(), Ok("two"));
    traffic.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_does_not_come_to_an_end_is_taken_back() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    sidecar.flags.push("--reload-timeout=1".to_owned());
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start();
    sidecar.accepts(&first).await;
    let master = sidecar.master().await;
    // A worker that does not hear that it should go.
    let stuck = workers(master)[0];
    kill(stuck, Signal::SIGSTOP).unwrap();
    let next = sidecar.publish(&Release::saying("two"));
    let report = tried(&sidecar, &next, 1).await;
    assert!(report.message.ends_with("the former workers serve on"), "{report:?}");
    eventually("the former release in force", async || {
        check(sidecar.current() == Some(first.clone()), || format!("{:?}", sidecar.current()))
    })
    .await;

    kill(stuck, Signal::SIGCONT).unwrap();
    sidecar.accepts(&next).await;
    assert_eq!(sidecar.get().await.as_deref(), Ok("two"));
    assert_eq!(sidecar.master().await, master);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nginx_that_answers_nothing_any_more_is_started_anew() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    sidecar.flags.push("--reload-timeout=1".to_owned());
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start();
    sidecar.accepts(&first).await;
    let master = sidecar.master().await;
    kill(master, Signal::SIGSTOP).unwrap();
    let next = sidecar.publish(&Release::saying("two"));
    sidecar.accepts(&next).await;
    assert_ne!(sidecar.master().await, master);
    sidecar.serves("two").await;
    sidecar.becomes_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_waits_for_memory_that_would_not_be_there() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let Some(group) = Cgroup::new("memory", &[("memory.limit_in_bytes", "268435456")]) else { return };
    let large = large();
    let first = sidecar.publish(&Release::saying("one").http(&large));
    sidecar.start_as(group.command(&sidecar));
    sidecar.accepts(&first).await;

    let ballast = group.leave(16);
    let next = sidecar.publish(&Release::saying("two").http(&large));
    let report = tried(&sidecar, &next, 1).await;
    assert!(report.message.starts_with("a reload takes about "), "{report:?}");
    assert_eq!(sidecar.get().await.as_deref(), Ok("one"));

    drop(ballast);
    sidecar.accepts(&next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_memory_is_short_the_oldest_workers_make_room() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let Some(group) = Cgroup::new("memory", &[("memory.limit_in_bytes", "268435456")]) else { return };
    let backend = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = backend.local_addr().unwrap();
    let release = |number: usize| {
        let server = format!("location /n {{ return 200 \"{number}\"; }} location / {{ proxy_pass http://{to}; }}");
        Release::server(&server).http(&large())
    };
    let first = sidecar.publish(&release(1));
    sidecar.start_as(group.command(&sidecar));
    sidecar.accepts(&first).await;
    let _held = hold(sidecar.address(), &backend).await;
    let second = sidecar.publish(&release(2));
    sidecar.accepts(&second).await;
    assert_eq!(sidecar.proxy_info().unwrap().old_generations, 1);

    let ballast = group.leave(16);
    let third = sidecar.publish(&release(3));
    sidecar.says("ending old workers: a reload takes about ").await;
    eventually("the old workers are gone", async || {
        let old = sidecar.proxy_info().unwrap().old_generations;
        check(old == 0, || old.to_string())
    })
    .await;
    // Whatever is still missing after that is no reason to end those who serve.
    drop(ballast);
    sidecar.accepts(&third).await;
}

/// What takes some 30 MB in each process of nginx.
fn large() -> String {
    let entries: String = (0..100_000).map(|number| format!("/path/{number} {number};\n")).collect();
    format!("map_hash_max_size 262144;\nmap $uri $number {{ {entries} }}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_workers_run_as_the_container_may_use_processors() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        eprintln!("skipped: one worker is all that this machine has room for anyway");
        return;
    }
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let quota = [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "100000")];
    let Some(group) = Cgroup::new("cpu", &quota) else { return };
    let first = sidecar.publish(&Release::saying("one"));
    sidecar.start_as(group.command(&sidecar));
    sidecar.accepts(&first).await;
    assert_eq!(workers(sidecar.master().await).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_log_that_cannot_be_opened_costs_the_log_and_nothing_else() {
    let Some((sidecar, _)) = Sidecar::serving("one").await else { return };
    let folder = sidecar.folder().join("logs");
    let file = folder.join("access.log");
    let mut wanted = Release::saying("two");
    wanted.manifest.access_log = Some(file.display().to_string());
    let next = sidecar.publish(&wanted);
    let report = sidecar.accepts(&next).await;
    assert_eq!(report.access_log.as_deref(), Some("No such file or directory (os error 2)"));
    assert_eq!(sidecar.get().await.as_deref(), Ok("two"));
    // To the standard output meanwhile.
    sidecar.says("GET / HTTP/1.1").await;

    // It is used as soon as it can be, and nothing but the report tells so.
    fs::create_dir(&folder).unwrap();
    eventually("the log", async || {
        sidecar.get().await?;
        let log = fs::read_to_string(&file).map_err(|err| err.to_string())?;
        check(log.contains("GET / HTTP/1.1"), || log)
    })
    .await;
    eventually("a good report", async || {
        let report = sidecar.reports(&next, Outcome::Accepted).await;
        check(report.access_log.is_none() && report.attempt == 2, || format!("{report:?}"))
    })
    .await;

    // A restart in a container where the folder has gone.
    let master = sidecar.master().await;
    fs::remove_dir_all(&folder).unwrap();
    kill(master, Signal::SIGKILL).unwrap();
    eventually("a start without it", async || {
        let report = sidecar.reports(&next, Outcome::Accepted).await;
        check(report.access_log.is_some(), || format!("{report:?}"))
    })
    .await;
    sidecar.serves("two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_of_upstreams_that_is_full_is_told_by_its_name() {
    let Some((sidecar, first)) = Sidecar::serving("one").await else { return };
    let upstream = |size: &str| {
        let mut release = Release::saying("two")
            .http(&format!("upstream web {{ zone u07 {size}; server web.coxswain.internal service=ep resolve; }}\n"));
        release.manifest.upstreams = vec!["web".to_owned()];
        release
    };
    // Too small for what stands in the configuration: the reload finds it.
    let many: String = (1..250).map(|n| format!("server 127.0.0.{n};\n")).collect();
    let refused = sidecar.publish(&Release::saying("two").http(&format!("upstream many {{ zone u09 64k; {many} }}\n")));
    let report = tried(&sidecar, &refused, 1).await;
    assert!(report.message.contains("no memory in upstream zone \"u09\""), "{report:?}");
    let full = async |zone: &str, with: &Digest| {
        eventually(zone, async || {
            let full = sidecar.proxy_info().unwrap().full;
            check(full.get(zone) == Some(with), || format!("{full:?}"))
        })
        .await;
    };
    full("u09", &refused).await;
    assert_eq!(sidecar.current(), Some(first));

    // Too small for what a worker learns while it serves.
    let next = sidecar.publish(&upstream("64k"));
    sidecar.accepts(&next).await;
    let endpoints: Vec<_> = (1..250).map(|n| std::net::SocketAddr::from(([127, 0, 1, n], 80))).collect();
    sidecar.endpoints("web", &endpoints);
    full("u07", &next).await;
    let last = sidecar.publish(&upstream("1m"));
    sidecar.accepts(&last).await;
    assert_eq!(sidecar.get().await.as_deref(), Ok("two"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_may_open_as_many_files_as_the_container() {
    let Some(mut sidecar) = Sidecar::new().await else { return };
    let first = sidecar.publish(&Release::saying("one"));
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -Sn 512 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_coxswain")])
        .args(sidecar.arguments());
    sidecar.start_as(command);
    sidecar.accepts(&first).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", workers(sidecar.master().await)[0])).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let numbers: Vec<_> = line.split_whitespace().take(2).collect();
    assert!(numbers[0] != "512" && numbers[0] == numbers[1], "{line}");
}

fn workers(master: Pid) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap();
    children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

/// A cgroup of version 1, with limits.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    /// `None`, and the reason printed, where none can be made.
    fn new(controller: &str, limits: &[(&str, &str)]) -> Option<Self> {
        let folder = std::path::Path::new("/sys/fs/cgroup").join(controller);
        let name = format!("coxswain-test-{}-{}", std::process::id(), net::port());
        let made = || {
            fs::metadata(folder.join("cgroup.procs"))?;
            fs::create_dir(folder.join(&name))?;
            limits.iter().try_for_each(|(file, value)| fs::write(folder.join(&name).join(file), value))
        };
        match made() {
            Ok(()) => Some(Self(folder.join(name))),
            Err(err) => {
                eprintln!("skipped: cannot make a cgroup ({controller}, version 1) here: {err}");
                None
            }
        }
    }

    /// A command that runs in it.
    fn run(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("echo $$ > {}/cgroup.procs && exec {line} \"$@\"", self.0.display())).arg("sh");
        command
    }

    /// Takes all memory but so many MiB, by something that the kernel cannot drop, until the value is dropped.
    fn leave(&self, mebibytes: u64) -> tempfile::TempDir {
        let ballast = tempfile::tempdir_in("/dev/shm").unwrap();
        let number = |name| fs::read_to_string(self.0.join(name)).unwrap().trim().parse::<u64>().unwrap();
        let free = number("memory.limit_in_bytes") - number("memory.usage_in_bytes");
        let count = (free >> 20).saturating_sub(mebibytes);
        let fill = format!("dd if=/dev/zero of={}/ballast bs=1M count={count} status=none", ballast.path().display());
        assert!(self.run(&fill).status().unwrap().success());
        ballast
    }

    /// The agent, in it.
    fn command(&self, sidecar: &Sidecar) -> Command {
        let mut command = self.run(env!("CARGO_BIN_EXE_coxswain"));
        command.args(sidecar.arguments());
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Whoever is in it ends with the sidecar, which is dropped later; an empty one costs nothing.
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().split_whitespace() {
            let _ = fs::write(self.0.parent().expect("a controller").join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
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
