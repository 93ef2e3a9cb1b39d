//! Death at any moment: after each step of the volume's protocol, and at random under continuous change; and an agent's
//! side that lies. Whatever dies, nothing is half-written, a start on the same volume works, and traffic is lost only
//! where nginx itself, process 1 or `run -f` (with which everything ends) was killed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coxswain::volume::{Digest, EndpointSet, Manifest, ProxyInfo, Report, Volume};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::certificates::Authority;
use crate::support::objects::service;
use crate::support::{Ingress, Load, Pod, Request, Run, eventually, net, wait};

const STABLE: &str = "stable.test";

/// Points after which the controller, and `run -f` with it, dies.
const CONTROLLER: &[&str] = &["live-written", "publish-file", "publish-written", "publish-renamed", "publish-flipped"];

/// Points after which the agent proper dies, and nobody else.
const AGENT: &[&str] =
    &["after-include", "after-includes", "after-test", "after-flip", "after-signal", "after-observe", "after-report"];

/// Points of the agent that a change of nginx's does not come by; `agent/deaths.rs` has a test for each, and
/// `envoy/deaths.rs` for those of Envoy.
const ELSEWHERE: &[&str] = &["after-start", "before-roll-back-reload", "after-aim", "after-taken"];

#[test]
fn every_fault_point_has_its_test() {
    let mut known: Vec<String> = [CONTROLLER, AGENT, ELSEWHERE].concat().iter().map(|&name| name.to_owned()).collect();
    let mut points = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            points.extend(
                text.split("fault::point(\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())),
            );
        }
    }
    known.sort();
    points.sort();
    points.dedup();
    assert_eq!(points, known);
}

/// The manifests of a world that is always the same but for one host: `stable.test`, and `n<N>.test` with a
/// certificate and endpoints of its own.
struct World {
    pods: [Pod; 2],
    authority: Authority,
}

impl World {
    async fn new() -> Self {
        let port = net::port();
        Self { pods: [Pod::start("web", port).await, Pod::start("web", port).await], authority: Authority::new() }
    }

    /// What never changes.
    fn stable(&self) -> String {
        service("web", &[&self.pods[0]]) + &Ingress::new("stable").host(STABLE).path("Prefix", "/", "web").yaml()
    }

    /// What changes: a release, a certificate and endpoints, all at once.
    fn changing(&self, n: usize) -> String {
        let host = format!("n{n}.test");
        let pods = if n.is_multiple_of(2) { vec![&self.pods[0]] } else { vec![&self.pods[0], &self.pods[1]] };
        service("changing", &pods)
            + &self.authority.issue(&[&host]).secret("pair")
            + &Ingress::new("changing")
                .ours("ssl-redirect", "false")
                .tls(&[&host], "pair")
                .host(&host)
                .path("Prefix", "/", "changing")
                .yaml()
    }
}

async fn serves(run: &Run, host: &str) {
    eventually(&format!("{host} is served"), async || {
        let who = run.http().try_get(host, "/").await?.who();
        wait::check(who == "web", || who)
    })
    .await;
}

/// Everything that has its final name is whole.
fn whole(volume: &Volume) {
    for link in [volume.desired(), volume.current()] {
        if fs::symlink_metadata(&link).is_ok() {
            assert!(link.join("nginx.conf").exists(), "{} leads to no release", link.display());
        }
    }
    for path in listed(&volume.releases()) {
        if name(&path).and_then(|name| Digest::parse(&name)).is_some() {
            read::<Manifest>(&path.join("release.json"));
            assert!(
                fs::metadata(path.join("nginx.conf")).map_or(true, |file| file.len() > 0),
                "{} is empty",
                path.display()
            );
        }
    }
    for path in listed(&volume.endpoints()) {
        if visible(&path) {
            read::<EndpointSet>(&path);
        }
    }
    for path in listed(&volume.tls()) {
        let Ok(pem) = fs::read_to_string(&path) else { continue };
        assert!(!visible(&path) || pem.trim_end().ends_with("KEY-----"), "{} is cut", path.display());
    }
    for path in listed(&volume.reports()) {
        if visible(&path) {
            read::<Report>(&path);
        }
    }
    read::<ProxyInfo>(&volume.proxy_info());
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

fn name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

fn visible(path: &Path) -> bool {
    name(path).is_some_and(|name| !name.starts_with('.') && !name.ends_with(".tmp"))
}

/// Parses a document that may be gone, but not cut.
fn read<T: serde::de::DeserializeOwned>(path: &Path) {
    if let Ok(text) = fs::read_to_string(path) {
        assert!(serde_json::from_str::<T>(&text).is_ok(), "{} is half-written: {text:?}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_after_any_step_costs_nothing_that_was_whole_before() {
    let Some(setup) = Run::setup() else { return };
    let world = World::new().await;
    let faults = setup.folder().join("faults");
    fs::create_dir(&faults).unwrap();
    let mut run = setup
        .env("COXSWAIN_FAULTS", &faults.display().to_string())
        .file("stable.yaml", &world.stable())
        .file("changing.yaml", &world.changing(0))
        .serve()
        .await;
    serves(&run, "n0.test").await;
    let load = Load::start(&run.http(), &Request::get(STABLE, "/"), 2);
    for (n, point) in AGENT.iter().enumerate() {
        let failed = load.failed();
        fs::write(faults.join(point), "").unwrap();
        let host = format!("n{}.test", n + 1);
        run.write("changing.yaml", &world.changing(n + 1));
        eventually(&format!("death {point}"), async || wait::check(!faults.join(point).exists(), || "alive".into()))
            .await;
        whole(&run.volume());
        // The next agent takes up what this one left.
        serves(&run, &host).await;
        whole(&run.volume());
        load.goes_on(10).await;
        assert_eq!(load.failed(), failed, "requests were lost when the agent died {point}");
    }
    for (n, point) in CONTROLLER.iter().enumerate() {
        fs::write(faults.join(point), "").unwrap();
        let host = format!("n{}.test", n + 101);
        run.write("changing.yaml", &world.changing(n + 101));
        run.ended().await;
        assert!(!faults.join(point).exists(), "it ended for another reason than {point}");
        eventually("nothing is left of it", async || {
            wait::check(run.processes().is_empty(), || format!("{:?}", run.processes()))
        })
        .await;
        whole(&run.volume());
        run.restart();
        serves(&run, STABLE).await;
        serves(&run, &host).await;
        whole(&run.volume());
    }
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_in_the_middle_of_the_very_first_start_is_no_obstacle() {
    let Some(setup) = Run::setup() else { return };
    let world = World::new().await;
    let faults = setup.folder().join("faults");
    fs::create_dir(&faults).unwrap();
    let mut run =
        setup.env("COXSWAIN_FAULTS", &faults.display().to_string()).file("stable.yaml", &world.stable()).start().await;
    run.ready().await;
    for point in CONTROLLER.iter().chain(AGENT).chain(["after-start"].iter()) {
        // `after-test` and what is about reloads may not be on the way of a first start: then nobody dies.
        run.kill_all();
        fs::remove_dir_all(run.volume().root()).unwrap();
        fs::write(faults.join(point), "").unwrap();
        run.restart();
        if CONTROLLER.contains(point) {
            run.ended().await;
            whole(&run.volume());
            run.kill_all();
            run.restart();
        }
        serves(&run, STABLE).await;
        whole(&run.volume());
        let _ = fs::remove_file(faults.join(point));
    }
}

/// Whom the kills hit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Victim {
    Run,
    Init,
    Agent,
    Master,
}

/// A small generator: the same seed gives the same kills.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn find(run: &Run, victim: Victim) -> Option<Pid> {
    if victim == Victim::Run {
        return Some(run.pid());
    }
    run.processes().into_iter().find(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        match victim {
            Victim::Master => command.starts_with("nginx: master"),
            Victim::Agent => command.contains(" agent ") && command.contains("--proper"),
            Victim::Init | Victim::Run => command.contains(" agent ") && !command.contains("--proper"),
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_random_deaths_under_continuous_change() {
    let Some(setup) = Run::setup() else { return };
    let seed = std::env::var("COXSWAIN_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_124);
    println!("seed {seed} (COXSWAIN_CHAOS_SEED)");
    let mut dice = Dice(seed);
    let world = World::new().await;
    let mut run = setup.file("stable.yaml", &world.stable()).file("changing.yaml", &world.changing(0)).serve().await;
    let load = Load::start(&run.http(), &Request::get(STABLE, "/"), 2);
    let mut n = 0;
    let mut deaths = std::collections::BTreeMap::new();
    let mut round = 0;
    while round < 100 {
        // Changes follow each other closely; the kill comes at any moment of taking one up.
        for _ in 0..=dice.roll(3) {
            n += 1;
            run.write("changing.yaml", &world.changing(n));
            tokio::time::sleep(Duration::from_millis(dice.roll(250))).await;
        }
        let victim = [Victim::Run, Victim::Init, Victim::Agent, Victim::Master, Victim::Agent][dice.roll(5) as usize];
        // An agent or a master that is just being restarted cannot be killed: somebody else, then.
        let Some(pid) = find(&run, victim) else { continue };
        let failed = load.failed();
        if kill(pid, Signal::SIGKILL).is_err() {
            continue;
        }
        round += 1;
        *deaths.entry(format!("{victim:?}")).or_insert(0) += 1;
        whole(&run.volume());
        match victim {
            Victim::Agent => {
                load.goes_on(10).await;
                assert_eq!(load.failed(), failed, "round {round}, seed {seed}: the death of an agent lost requests");
            }
            // What its workers still answer is no proof: they are ended before the next master starts.
            Victim::Master => {
                eventually("another master", async || {
                    let master = find(&run, Victim::Master);
                    wait::check(master.is_some_and(|master| master != pid), || format!("{master:?}"))
                })
                .await;
            }
            Victim::Run | Victim::Init => {
                run.ended().await;
                eventually("nothing is left", async || {
                    wait::check(run.processes().is_empty(), || format!("{:?}", run.processes()))
                })
                .await;
                whole(&run.volume());
                run.restart();
            }
        }
        serves(&run, STABLE).await;
        if round % 10 == 0 {
            serves(&run, &format!("n{n}.test")).await;
            whole(&run.volume());
        }
    }
    println!("{deaths:?}, {n} changes");
    serves(&run, &format!("n{n}.test")).await;
    load.goes_on(10).await;
    load.stop().await;
    assert!(!run.said().contains("panicked"));
    // Nothing piles up, however often we died in the middle.
    eventually("what nobody needs is removed", async || {
        let releases = listed(&run.volume().releases()).len();
        wait::check(releases <= 12, || format!("{releases} releases"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_killed_at_once_starts_again_over_stale_sockets_and_pids() {
    let Some(setup) = Run::setup() else { return };
    let world = World::new().await;
    let mut run = setup.file("stable.yaml", &world.stable()).serve().await;
    for n in 1..4 {
        run.write("changing.yaml", &world.changing(n));
        serves(&run, &format!("n{n}.test")).await;
        let all = run.processes();
        assert!(all.len() >= 4, "run, process 1, agent, nginx: {all:?}");
        for pid in all {
            let _ = kill(pid, Signal::SIGKILL);
        }
        run.ended().await;
        run.kill_all();
        run.restart();
        serves(&run, STABLE).await;
        serves(&run, &format!("n{n}.test")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_agents_side_neither_stops_the_controller_nor_reaches_a_terminal() {
    let Some(setup) = Run::setup() else { return };
    let world = World::new().await;
    let secret = setup.folder().join("secret");
    fs::write(&secret, "TOP SECRET").unwrap();
    // An nginx that fails a test with terminal escapes in its words, whenever the configuration has the size 4711.
    let nginx = setup.bin().display().to_string();
    let wrapper = setup.folder().join("nginx-wrapper");
    let script = format!(
        "#!/bin/sh\nfor a in \"$@\"; do p=$q; q=$a; [ \"$p\" = -p ] && dir=$a; [ \"$p\" = -c ] && conf=$a; [ \"$a\" = -t ] && test=1; done\n\
         if [ \"$test\" ] && grep -qw 4711 \"$dir/$conf\"; then\n\
         printf 'nginx: [emerg] \\033[31mred\\033]0;title\\007\\r\\bbad \\302\\233 words in %s/%s:3\\n' \"$dir\" \"$conf\" >&2; exit 1; fi\n\
         exec {nginx} \"$@\"\n"
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let run = setup.proxy_bin(&wrapper).file("stable.yaml", &world.stable()).serve().await;
    serves(&run, STABLE).await;
    let out = run.volume();
    let hostile = |path: &Path, kind: usize| {
        let _ = fs::remove_file(path);
        match kind % 3 {
            0 => symlink(&secret, path).unwrap(),
            1 => nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap(),
            _ => fs::File::create(path).unwrap().set_len(1 << 30).unwrap(),
        }
    };
    for n in 0..6 {
        for (kind, report) in listed(&out.reports()).into_iter().enumerate() {
            hostile(&report, n + kind);
        }
        hostile(&out.proxy_info(), n);
        hostile(&out.reports().join(format!("{}.json", "0".repeat(64))), n + 1);
        hostile(&out.reports().join("not a digest"), n + 2);
        run.write("changing.yaml", &world.changing(n));
        serves(&run, &format!("n{n}.test")).await;
    }
    run.write(
        "evil.yaml",
        &Ingress::new("evil").ours("proxy-body-size", "4711").host("evil.test").path("Prefix", "/", "web").yaml(),
    );
    run.says("bad").await;
    run.write("changing.yaml", &world.changing(100));
    serves(&run, "n100.test").await;
    let said = run.said();
    assert!(!said.contains("TOP SECRET"), "the controller followed a link");
    let control = said.chars().find(|c| c.is_control() && *c != '\n' && *c != '\t');
    assert_eq!(control, None, "a control character reached the log");
    let memory = fs::read_to_string(format!("/proc/{}/status", run.pid())).unwrap();
    let peak =
        memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").trim();
    assert!(peak.parse::<u64>().unwrap() < 300_000, "the controller read a huge file: {peak} kB");
}
