//! Reconciling against an agent that refuses what it is told to: nginx itself takes everything that we render.

use std::fs;

use super::*;
use crate::problem::Kind;
use crate::value::Value as _;
use crate::volume::{Timings, Volume, release};
use crate::watch::{files, generated_certificate};

/// A reconciler on a volume of its own, and an agent.
struct Bench {
    reconciler: Reconciler,
    agent: Agent,
    folder: tempfile::TempDir,
}

struct Agent {
    volume: Volume,
    /// What may not stand in a configuration.
    bad: Vec<&'static str>,
    /// Only a reload finds it.
    only_reload: bool,
    /// It says in which line.
    names_line: bool,
    /// It cannot take up anything, for a reason that lies elsewhere.
    broken: bool,
    /// Why it cannot open the file of the access log.
    no_log: Option<&'static str>,
    tests: usize,
    /// How often it was asked for a release.
    releases: usize,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path().join("volume"));
        fs::create_dir_all(volume.reports()).unwrap();
        let setup = Setup {
            flags: Flags { config_map: ObjectName::parse("default/settings").ok(), ..Flags::default() },
            proxy: ProxyKind::Nginx,
            generated: Arc::new(generated_certificate().unwrap()),
            publisher: Publisher::open(volume.clone(), None).unwrap(),
        };
        let agent = Agent {
            volume,
            bad: Vec::new(),
            only_reload: false,
            names_line: false,
            broken: false,
            no_log: None,
            tests: 0,
            releases: 0,
        };
        Self { reconciler: Reconciler::new(setup), agent, folder }
    }

    fn take_up(&mut self, objects: &str) {
        let path = self.folder.path().join("objects.yaml");
        fs::write(&path, objects).unwrap();
        self.reconciler.take_up(files::load(&[path]));
    }

    /// Lets both sides work until neither has anything to do.
    fn settle(&mut self) {
        while self.agent.answer() {
            self.reconciler.look();
        }
    }

    /// What is told on the ConfigMap.
    fn told_of_settings(&self) -> Vec<String> {
        let view = self.reconciler.view();
        view.problems.iter().filter(|p| p.subject.kind == Kind::ConfigMap).map(Problem::to_string).collect()
    }

    /// What `proxy.json` says.
    fn tell_of_proxy(&self, generations: Vec<Digest>, full: BTreeMap<String, Digest>) {
        let (kind, version, pid, answered) = (ProxyKind::Nginx, "1.30.6".to_owned(), None, (0, 0));
        let info = ProxyInfo { kind, version, pid, generations, answered, full, old_generations: 0, waited: 0 };
        fs::write(self.agent.volume.proxy_info(), serde_json::to_vec(&info).unwrap()).unwrap();
    }

    fn held(&self) -> Vec<String> {
        self.reconciler.view().held.iter().map(|name| name.name.to_string()).collect()
    }

    fn served(&self) -> String {
        fs::read_to_string(self.agent.volume.current().join(release::MAIN)).unwrap_or_default()
    }
}

impl Agent {
    /// Answers one question of the controller, if there is one.
    fn answer(&mut self) -> bool {
        let desired = fs::read_link(self.volume.desired()).unwrap();
        let desired = Digest::parse(desired.file_name().unwrap().to_str().unwrap()).unwrap();
        // What is wanted goes before what is to be tested.
        if self.volume.report(&desired).exists() {
            return self.test();
        }
        self.releases += 1;
        let folder = self.volume.release(&desired);
        let taken = self.look(&folder, true);
        if taken.is_ok() {
            // Only one release is ever reported as accepted.
            fs::read_dir(self.volume.reports()).unwrap().for_each(|entry| {
                let path = entry.unwrap().path();
                if fs::read_to_string(&path).unwrap().contains("\"accepted\"") {
                    fs::remove_file(path).unwrap();
                }
            });
            let _ = fs::remove_file(self.volume.current());
            std::os::unix::fs::symlink(&folder, self.volume.current()).unwrap();
        }
        self.report(&desired, taken);
        true
    }

    fn test(&mut self) -> bool {
        let trials = fs::read_dir(self.volume.trials()).unwrap();
        let mut trials = trials.filter_map(|entry| Digest::parse(entry.unwrap().file_name().to_str()?));
        if let Some(trial) = trials.find(|trial| !self.volume.report(trial).exists()) {
            self.tests += 1;
            let tested = self.look(&self.volume.trial(&trial), !self.only_reload);
            self.report(&trial, tested);
            return true;
        }
        false
    }

    fn look(&self, folder: &std::path::Path, finds: bool) -> Result<(), (String, Option<u64>)> {
        let text = fs::read_to_string(folder.join(release::MAIN)).unwrap();
        let bad = |line: &str| self.bad.iter().any(|bad| line.contains(bad));
        match text.lines().position(bad) {
            Some(n) if finds => Err(("refused here".to_owned(), self.names_line.then_some(n as u64 + 1))),
            _ => Ok(()),
        }
    }

    fn report(&self, digest: &Digest, taken: Result<(), (String, Option<u64>)>) {
        let (outcome, class) = match taken {
            _ if self.broken => (Outcome::Retrying, Some(FaultClass::Environment)),
            Ok(()) => (Outcome::Accepted, None),
            Err(_) => (Outcome::Rejected, Some(FaultClass::Content)),
        };
        let (message, line) = taken.err().unwrap_or_default();
        let file = line.map(|_| release::MAIN.to_owned());
        let timings = Timings::default();
        let report = Report {
            digest: digest.clone(),
            attempt: 1,
            outcome,
            class,
            file,
            line,
            message,
            access_log: self.no_log.map(str::to_owned),
            timings,
        };
        fs::write(self.volume.report(digest), serde_json::to_vec(&report).unwrap()).unwrap();
    }
}

/// An Ingress of one host of its own with one path.
fn ingress(n: usize, path: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: i{n:04}}}\nspec:\n  ingressClassName: \
         coxswain\n  rules: [{{host: h{n:04}.example, http: {{paths: [{{path: {path}, pathType: Exact, backend: {{service: \
         {{name: web, port: {{number: 80}}}}}}}}]}}}}]\n"
    )
}

const SERVICE: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n";

/// So many good Ingresses and these bad ones.
fn objects(count: usize, bad: &[usize]) -> String {
    let ingresses = (0..count).map(|n| ingress(n, if bad.contains(&n) { "/bad" } else { "/good" }));
    SERVICE.to_owned() + &ingresses.collect::<String>()
}

fn settings(data: &[(&str, &str)]) -> String {
    let data: String = data.iter().map(|(key, value)| format!("  {key}: \"{value}\"\n")).collect();
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata:\n{data}")
}

#[test]
fn unchanged_objects_publish_nothing_and_endpoints_need_no_release() {
    let mut bench = Bench::new();
    bench.take_up(&objects(3, &[]));
    bench.settle();
    assert!(bench.served().contains("h0002.example"));
    bench.take_up(&objects(3, &[]));
    let slice = |address: &str| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-1, labels: \
             {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nendpoints: [{{addresses: [{address}]}}]\nports: \
             [{{port: 80}}]\n"
        )
    };
    bench.take_up(&(objects(3, &[]) + &slice("127.0.0.5")));
    bench.settle();
    assert_eq!(bench.agent.releases, 1);
    let live = fs::read_dir(bench.agent.volume.endpoints()).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read_to_string(live).unwrap().contains("127.0.0.5:80"));
    let view = bench.reconciler.view();
    assert!(view.config == view.in_force, "what changed without a release is in force");
}

#[test]
fn the_line_that_the_proxy_names_leads_to_its_object() {
    let mut bench = Bench::new();
    (bench.agent.bad, bench.agent.names_line) = (vec!["/bad"], true);
    bench.take_up(&objects(20, &[4, 11]));
    bench.settle();
    assert_eq!(bench.held(), ["i0004", "i0011"]);
    assert_eq!((bench.agent.tests, bench.agent.releases), (0, 3));
    let view = bench.reconciler.view();
    let told: Vec<String> =
        view.problems.iter().filter(|p| p.subject.object.name.as_str() == "i0004").map(|p| p.to_string()).collect();
    assert_eq!(
        told[0],
        "Ingress default/i0004: brings what the proxy refuses: refused here; its routes answer 503 until it, or what it \
         refers to, changes"
    );
    assert!(bench.served().contains("h0004.example"), "its host stays, so that no other takes it over");
}

#[test]
fn without_a_line_one_of_a_thousand_is_found_by_twelve_tests() {
    let mut bench = Bench::new();
    bench.agent.bad = vec!["/bad"];
    bench.take_up(&objects(1000, &[333]));
    bench.settle();
    assert_eq!(bench.held(), ["i0333"]);
    assert!(bench.agent.tests <= 12, "{} tests", bench.agent.tests);
    assert_eq!(bench.agent.releases, 2);
    assert!(bench.served().contains("h0999.example") && !bench.served().contains("/bad"));
}

#[test]
fn many_bad_ones_are_found_and_the_others_go_live_before_all_are() {
    for bad in [&[3, 290][..], &[0, 33, 66, 99, 132, 165, 198, 231, 264, 299]] {
        let mut bench = Bench::new();
        bench.agent.bad = vec!["/bad"];
        bench.take_up(&objects(300, bad));
        let mut tests_before_live = None;
        while bench.agent.answer() {
            bench.reconciler.look();
            if tests_before_live.is_none() && !bench.served().is_empty() {
                tests_before_live = Some(bench.agent.tests);
            }
        }
        let names: Vec<String> = bad.iter().map(|n| format!("i{n:04}")).collect();
        assert_eq!(bench.held(), names);
        let (before, tests) = (tests_before_live.unwrap(), bench.agent.tests);
        assert!(before <= 12, "{before} tests passed before anything was live");
        assert!(tests <= 150, "{tests} tests");
        let suspicions = bench.reconciler.view().problems.iter().filter(|p| p.message.contains("may bring")).count();
        assert_eq!(suspicions, 0, "nobody stays under suspicion");
    }
}

#[test]
fn what_only_a_reload_refuses_is_found_by_reloads_with_the_rest_live() {
    let mut bench = Bench::new();
    (bench.agent.bad, bench.agent.only_reload) = (vec!["/bad"], true);
    bench.take_up(&objects(100, &[]));
    bench.settle();
    // Twenty change, one of them badly.
    let changed = |n| ingress(n, if n == 37 { "/bad" } else { "/new" });
    let mut objects = objects(100, &[]);
    for n in 30..50 {
        objects = objects.replace(&ingress(n, "/good"), &changed(n));
    }
    bench.take_up(&objects);
    bench.settle();
    assert_eq!(bench.held(), ["i0037"]);
    assert_eq!(bench.agent.tests, 2, "the skeleton and the whole");
    let served = bench.served();
    assert_eq!(served.matches("= \"/new\"").count(), 19);
    assert!(bench.agent.releases < 15, "{} releases", bench.agent.releases);
    assert_eq!(served.matches("= \"/good\"").count(), 81, "the bad one is served as it was last accepted");
}

#[test]
fn a_held_object_is_tried_again_when_it_changes_and_not_before() {
    let mut bench = Bench::new();
    (bench.agent.bad, bench.agent.names_line) = (vec!["/bad"], true);
    bench.take_up(&objects(3, &[]));
    bench.settle();
    bench.take_up(&objects(3, &[1]));
    bench.settle();
    assert_eq!(bench.held(), ["i0001"]);
    assert_eq!(bench.served().matches("= \"/good\"").count(), 3, "served as last accepted");
    let releases = bench.agent.releases;
    bench.take_up(&(objects(3, &[1]) + &ingress(3, "/other")));
    bench.settle();
    assert_eq!((bench.held().len(), bench.agent.releases), (1, releases + 1), "somebody else's change is one release");
    bench.take_up(&objects(3, &[]));
    bench.settle();
    assert!(bench.held().is_empty());
}

#[test]
fn a_global_part_that_is_refused_blames_nobody() {
    let mut bench = Bench::new();
    bench.agent.bad = vec!["http {"];
    bench.take_up(&objects(3, &[]));
    bench.settle();
    assert_eq!((bench.held().len(), bench.agent.tests), (0, 1));
    let faults = bench.reconciler.view().faults.clone();
    assert!(faults.iter().any(|fault| fault.contains("refuses what holds for all")), "{faults:?}");
    bench.agent.bad.clear();
    bench.take_up(&objects(4, &[]));
    bench.settle();
    assert!(bench.served().contains("h0003.example") && bench.reconciler.view().faults.is_empty());
}

#[test]
fn settings_that_are_refused_keep_nothing_else_waiting() {
    let mut bench = Bench::new();
    bench.agent.bad = vec!["ssl_ciphers \"AES256-SHA\""];
    bench.take_up(&(objects(3, &[]) + &settings(&[("keep-alive", "33")])));
    bench.settle();
    assert!(bench.served().contains("keepalive_timeout 33s;"));
    // Alone, with another change, and with an object that is bad too.
    for (count, bad) in [(3, &[][..]), (4, &[]), (5, &[1])] {
        bench.take_up(&(objects(count, bad) + &settings(&[("keep-alive", "44"), ("ssl-ciphers", "AES256-SHA")])));
        bench.agent.bad = vec!["ssl_ciphers \"AES256-SHA\"", "/bad"];
        bench.settle();
        let served = bench.served();
        assert!(served.contains("keepalive_timeout 33s;"), "the settings are as last accepted");
        assert!(served.contains(&format!("h{:04}.example", count - 1)), "and the rest is new: {count}");
        assert_eq!(bench.held(), bad.iter().map(|n| format!("i{n:04}")).collect::<Vec<_>>());
        let told = bench.told_of_settings();
        assert!(told[0].contains("brings what the proxy refuses: refused here"), "{told:?}");
        assert!(bench.reconciler.view().faults.is_empty());
    }
    // Another ConfigMap is tried again.
    bench.take_up(&(objects(5, &[]) + &settings(&[("keep-alive", "44")])));
    bench.settle();
    assert!(bench.served().contains("keepalive_timeout 44s;"));
    assert_eq!((bench.held().len(), bench.told_of_settings().len()), (0, 0));
}

#[test]
fn settings_that_only_a_reload_refuses_close_nobody() {
    let mut bench = Bench::new();
    bench.take_up(&objects(3, &[]));
    bench.settle();
    (bench.agent.bad, bench.agent.only_reload) = (vec!["keepalive_timeout 44s;"], true);
    for count in [3, 4] {
        bench.take_up(&(objects(count, &[]) + &settings(&[("keep-alive", "44")])));
        bench.settle();
        assert_eq!(bench.served().matches("= \"/good\"").count(), count);
        assert!(bench.held().is_empty());
        assert_eq!(bench.told_of_settings().len(), 1);
    }
}

#[test]
fn settings_that_were_never_accepted_leave_the_defaults_in_force() {
    let mut bench = Bench::new();
    bench.agent.bad = vec!["keepalive_timeout 44s;"];
    bench.take_up(&(objects(3, &[]) + &settings(&[("keep-alive", "44")])));
    bench.settle();
    assert!(bench.served().contains("keepalive_timeout 75s;") && bench.served().contains("h0002.example"));
    assert!(bench.held().is_empty());
}

#[test]
fn an_access_log_that_cannot_be_opened_is_told_until_it_can() {
    let mut bench = Bench::new();
    bench.agent.no_log = Some("No such file or directory (os error 2)");
    bench.take_up(&(objects(1, &[]) + &settings(&[("access-log-path", "/logs/access.log")])));
    bench.settle();
    assert_eq!(
        bench.told_of_settings(),
        ["ConfigMap default/settings: access-log-path: the proxy cannot open \"/logs/access.log\": No such file or \
          directory (os error 2); it must be a file that can be written in the proxy's container, in a folder that \
          exists there; access is logged to the standard output of the proxy's container until it can be opened"]
    );
    // The agent looks by itself.
    bench.agent.no_log = None;
    fs::remove_file(bench.agent.volume.report(&bench.reconciler.asked.as_ref().unwrap().digest)).unwrap();
    bench.settle();
    assert!(bench.told_of_settings().is_empty());
    assert_eq!(bench.reconciler.asked.as_ref().unwrap().report.as_ref().unwrap().outcome, Outcome::Accepted);
}

#[test]
fn what_only_the_agent_is_told_goes_live_too() {
    let mut bench = Bench::new();
    let mut change = |key, value, expect: fn(&crate::volume::Manifest) -> bool| {
        let releases = bench.agent.releases;
        bench.take_up(&(objects(1, &[]) + &settings(&[(key, value)])));
        bench.settle();
        assert_eq!(bench.agent.releases, releases + 1, "{key}");
        let digest = bench.reconciler.good.as_ref().unwrap().0.clone();
        assert!(expect(&bench.reconciler.setup.publisher.manifest(&digest).unwrap()), "{key}");
    };
    change("error-log-level", "error", |manifest| manifest.error_log_level == crate::volume::LogLevel::Error);
    change("error-log-level", "warn", |manifest| manifest.error_log_level == crate::volume::LogLevel::Warn);
    change("worker-shutdown-timeout", "10s", |manifest| manifest.worker_shutdown_timeout == 10);
    change("access-log-path", "/dev/null", |manifest| manifest.access_log.as_deref() == Some("/dev/null"));
}

#[test]
fn a_zone_that_is_full_is_doubled_for_as_long_as_it_is() {
    let mut bench = Bench::new();
    bench.take_up(&objects(1, &[]));
    bench.settle();
    let zone = |served: &str| {
        let line = served.lines().find(|line| line.contains("zone u")).unwrap();
        let mut words = line.trim().trim_end_matches(';').split(' ').skip(1).map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    };
    let (name, size) = zone(&bench.served());
    assert_eq!(size, "1m");
    for larger in ["2m", "4m"] {
        let digest = bench.reconciler.good.as_ref().unwrap().0.clone();
        bench.tell_of_proxy(vec![digest.clone()], BTreeMap::from([(name.clone(), digest)]));
        bench.reconciler.look();
        bench.settle();
        assert_eq!(zone(&bench.served()), (name.clone(), larger.to_owned()));
        // What is said of a former release is over.
        bench.reconciler.look();
        bench.settle();
        assert_eq!(zone(&bench.served()).1, larger);
    }
    assert_eq!(bench.agent.releases, 3);
}

#[test]
fn the_environment_blames_nobody_and_the_same_release_goes_live_when_it_can() {
    let mut bench = Bench::new();
    bench.agent.broken = true;
    bench.take_up(&objects(3, &[]));
    bench.settle();
    assert_eq!((bench.held().len(), bench.agent.tests), (0, 0));
    assert!(bench.reconciler.view().faults[0].contains("cannot take up"));
    let digest = bench.reconciler.asked.as_ref().unwrap().digest.clone();
    bench.agent.broken = false;
    fs::remove_file(bench.agent.volume.report(&digest)).unwrap();
    bench.settle();
    assert_eq!(bench.reconciler.good.as_ref().unwrap().0, digest);
    assert!(bench.reconciler.view().faults.is_empty());
}

#[test]
fn a_suspect_that_is_repaired_during_the_search_goes_live() {
    let mut bench = Bench::new();
    bench.agent.bad = vec!["/bad"];
    bench.take_up(&objects(64, &[5]));
    for _ in 0..4 {
        bench.agent.answer();
        bench.reconciler.look();
    }
    bench.take_up(&objects(64, &[]));
    bench.settle();
    assert!(bench.held().is_empty());
    assert_eq!(bench.served().matches("= \"/good\"").count(), 64);
}

#[test]
fn old_releases_go_and_those_that_workers_serve_stay() {
    let mut bench = Bench::new();
    let mut digests = Vec::new();
    for n in 1..6 {
        bench.take_up(&objects(n, &[]));
        bench.settle();
        digests.push(bench.reconciler.good.as_ref().unwrap().0.clone());
        let generations = vec![digests[0].clone(), digests[n - 1].clone()];
        bench.tell_of_proxy(generations, BTreeMap::new());
    }
    // What was in force before the last one may still be served: the agent had not said otherwise.
    let there: Vec<bool> = digests.iter().map(|digest| bench.agent.volume.release(digest).exists()).collect();
    assert_eq!(there, [true, false, false, true, true]);
}

#[test]
fn a_new_controller_on_the_same_volume_publishes_nothing_anew() {
    let mut bench = Bench::new();
    bench.take_up(&objects(3, &[]));
    bench.settle();
    let Bench { reconciler, agent, folder } = bench;
    let Setup { flags, proxy, generated, publisher } = reconciler.setup;
    drop(publisher);
    let publisher = Publisher::open(agent.volume.clone(), None).unwrap();
    let reconciler = Reconciler::new(Setup { flags, proxy, generated, publisher });
    let mut bench = Bench { reconciler, agent, folder };
    bench.take_up(&objects(3, &[]));
    bench.settle();
    assert_eq!(bench.agent.releases, 1);
    assert!(bench.reconciler.good.is_some(), "the former answer counts");
}
