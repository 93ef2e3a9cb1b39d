//! Numbers for Prometheus: the controller's own (`coxswain_…`), and those of ingress-nginx that alerts in the field
//! stand on (`nginx_ingress_controller_…`), under their names and labels.
//!
//! What can be derived from the state of one pass is set at each pass ([`Metrics::state`]), so that nothing of a
//! removed object lingers, and nothing of one that stays is missing for a moment. Per-request series are the proxy's and
//! come later.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::model::ProxyConfig;
use crate::problem::{Kind, Problem, Reason};
use crate::volume::{Digest, FaultClass, Outcome, ProxyInfo, Report};

/// Who we are, as constant labels of ingress-nginx's series.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The namespace of our Pod.
    pub namespace: String,
    /// `--controller-class`.
    pub class: String,
    /// The name of our Pod.
    pub pod: String,
}

/// All metrics. Cheap to update, encoded on demand.
pub struct Metrics {
    registry: Registry,
    class: String,
    legacy: Legacy,
    own: Own,
}

/// ingress-nginx's series. Its two counters have no `_total`, which a counter cannot be without here: they are
/// exposed as gauges that only grow, and `rate()` works on them as ever.
#[derive(Default)]
struct Legacy {
    config_hash: Gauge<f64, AtomicU64>,
    last_reload_successful: Gauge<i64, AtomicI64>,
    last_reload_timestamp: Gauge<f64, AtomicU64>,
    success: Gauge<i64, AtomicI64>,
    errors: Gauge<i64, AtomicI64>,
    leader: Family<Leader, Gauge>,
    orphans: Series<Orphan>,
    expiry: Series<Expiry>,
    certificates: Series<CertificateLabels>,
}

/// The controller's own series.
struct Own {
    releases: Family<Release, Counter>,
    stages: Family<Stage, Histogram>,
    problems: Series<ProblemLabels>,
    held_back: Gauge,
    change_to_live: Histogram,
    names: Gauge,
    names_answered: Gauge,
    old_generations: Gauge,
    reload_wait: Counter<f64, AtomicU64>,
    /// What `reload_wait` has counted of the agent that lives now, in milliseconds.
    waited: AtomicU64,
    listed: Gauge,
}

/// Gauges of one name that follow from the state of a pass. A scrape finds all those that stay, at whatever moment.
struct Series<S> {
    family: Family<S, Gauge>,
    shown: Mutex<BTreeMap<S, i64>>,
}

impl<S: Clone + Eq + Hash> Default for Series<S> {
    fn default() -> Self {
        Self { family: Family::default(), shown: Mutex::default() }
    }
}

impl<S: Clone + Eq + Hash + Ord> Series<S> {
    /// Shows exactly these.
    fn set(&self, now: BTreeMap<S, i64>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (labels, value) in now.iter().filter(|(labels, value)| shown.get(*labels) != Some(*value)) {
            self.family.get_or_create(labels).set(*value);
        }
        for labels in shown.keys().filter(|labels| !now.contains_key(*labels)) {
            self.family.remove(labels);
        }
        *shown = now;
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Leader {
    name: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Orphan {
    namespace: String,
    ingress: String,
    r#type: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Expiry {
    class: String,
    host: String,
    secret_name: String,
    namespace: String,
    identifier: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct CertificateLabels {
    class: String,
    host: String,
    namespace: String,
    secret_name: String,
    identifier: String,
    issuer_common_name: String,
    serial_number: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Release {
    outcome: &'static str,
    class: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Stage {
    stage: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct ProblemLabels {
    reason: &'static str,
    severity: String,
}

impl Metrics {
    /// Registers everything.
    pub fn new(identity: &Identity) -> Self {
        let mut registry = Registry::default();
        let legacy = Legacy::default();
        let labels = [
            ("controller_namespace".into(), identity.namespace.clone().into()),
            ("controller_class".into(), identity.class.clone().into()),
            ("controller_pod".into(), identity.pod.clone().into()),
        ];
        let old =
            registry.sub_registry_with_prefix("nginx_ingress_controller").sub_registry_with_labels(labels.into_iter());
        let build = Family::<Vec<(&'static str, &'static str)>, Gauge>::default();
        let version = env!("CARGO_PKG_VERSION");
        build.get_or_create(&vec![("release", version), ("build", version), ("repository", "coxswain")]).set(1);
        old.register("build_info", "The version of this controller", build);
        old.register("config_hash", "Digest of the configuration in force", legacy.config_hash.clone());
        old.register(
            "config_last_reload_successful",
            "Whether the last configuration was accepted",
            legacy.last_reload_successful.clone(),
        );
        old.register(
            "config_last_reload_successful_timestamp_seconds",
            "When a configuration was last accepted",
            legacy.last_reload_timestamp.clone(),
        );
        old.register("success", "Configurations that were accepted", legacy.success.clone());
        old.register("errors", "Configurations that were not accepted", legacy.errors.clone());
        old.register("leader_election_status", "Whether this replica leads", legacy.leader.clone());
        old.register(
            "orphan_ingress",
            "Ingresses whose backend has no Service or no endpoint",
            legacy.orphans.family.clone(),
        );
        old.register("ssl_expire_time_seconds", "When a certificate expires", legacy.expiry.family.clone());
        old.register("ssl_certificate_info", "The certificates in use", legacy.certificates.family.clone());
        let own = Own::new();
        own.register(registry.sub_registry_with_prefix("coxswain"));
        Self { registry, class: identity.class.clone(), legacy, own }
    }

    /// The whole page, in OpenMetrics' text format.
    ///
    /// # Errors
    /// A label cannot be written; none of ours can fail.
    pub fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }

    /// Sets what follows from the state after one pass.
    pub fn state(&self, config: &ProxyConfig, problems: &[Problem], held_back: usize) {
        let (mut counts, mut orphans) = (BTreeMap::new(), BTreeMap::new());
        for problem in problems {
            let labels = ProblemLabels { reason: problem.reason.snake_case(), severity: problem.severity.to_string() };
            *counts.entry(labels).or_default() += 1;
            orphans.extend(orphan(problem).map(|labels| (labels, 1)));
        }
        self.own.problems.set(counts);
        self.legacy.orphans.set(orphans);
        self.own.held_back.set(i64::try_from(held_back).unwrap_or(i64::MAX));
        self.certificates(config);
    }

    fn certificates(&self, config: &ProxyConfig) {
        let (mut expiries, mut infos) = (BTreeMap::new(), BTreeMap::new());
        for host in &config.hosts {
            let Some(slot) = host.tls.as_ref().and_then(|slot| config.slots.get(slot)) else { continue };
            let Some(certificate) = &slot.certificate else { continue };
            let secret = slot.secret.as_ref();
            let namespace = secret.and_then(|secret| secret.namespace.as_ref()).map(ToString::to_string);
            let info = CertificateLabels {
                class: self.class.clone(),
                host: host.host.to_string(),
                namespace: namespace.unwrap_or_default(),
                secret_name: secret.map(|secret| secret.name.to_string()).unwrap_or_default(),
                identifier: certificate.serial.clone(),
                issuer_common_name: certificate.issuer.clone(),
                serial_number: certificate.serial.clone(),
            };
            let expiry = Expiry {
                class: info.class.clone(),
                host: info.host.clone(),
                secret_name: info.secret_name.clone(),
                namespace: info.namespace.clone(),
                identifier: info.identifier.clone(),
            };
            expiries.insert(expiry, certificate.not_after);
            infos.insert(info, 1);
        }
        self.legacy.expiry.set(expiries);
        self.legacy.certificates.set(infos);
    }

    /// Counts what became of a release. `now`: seconds since 1970.
    pub fn report(&self, report: &Report, now: f64) {
        let class = match report.class {
            None => "",
            Some(FaultClass::Content) => "content",
            Some(FaultClass::Environment) => "environment",
        };
        let outcome = match report.outcome {
            Outcome::Accepted => "accepted",
            Outcome::Rejected => "rejected",
            Outcome::Retrying => "retrying",
        };
        self.own.releases.get_or_create(&Release { outcome, class }).inc();
        let accepted = report.outcome == Outcome::Accepted;
        self.legacy.last_reload_successful.set(i64::from(accepted));
        if accepted {
            self.legacy.success.inc();
            self.legacy.last_reload_timestamp.set(now);
            self.legacy.config_hash.set(short(&report.digest));
        } else {
            self.legacy.errors.inc();
        }
        for (stage, milliseconds) in [
            ("validate", report.timings.validate),
            ("reload", report.timings.reload),
            ("observe", report.timings.observe),
        ] {
            self.stage(stage, Duration::from_millis(milliseconds));
        }
    }

    /// Notes how long a stage of the pipeline took.
    pub fn stage(&self, stage: &'static str, took: Duration) {
        self.own.stages.get_or_create(&Stage { stage }).observe(took.as_secs_f64());
    }

    /// Notes how long a change took from its arrival until it was live.
    pub fn live(&self, took: Duration) {
        self.own.change_to_live.observe(took.as_secs_f64());
    }

    /// What the proxy's side says of itself.
    pub fn proxy(&self, info: &ProxyInfo) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (answered, all) = info.answered;
        self.own.names_answered.set(gauge(answered));
        self.own.names.set(gauge(all));
        self.own.old_generations.set(gauge(info.old_generations));
        // An agent that was started anew begins at zero.
        let before = self.own.waited.swap(info.waited, Ordering::Relaxed);
        let more = info.waited.checked_sub(before).unwrap_or(info.waited);
        self.own.reload_wait.inc_by(Duration::from_millis(more).as_secs_f64());
    }

    /// Whether every kind of object has been listed.
    pub fn listed(&self, listed: bool) {
        self.own.listed.set(i64::from(listed));
    }

    /// Whether this replica leads.
    pub fn leads(&self, lease: &str, leads: bool) {
        self.legacy.leader.get_or_create(&Leader { name: lease.to_owned() }).set(i64::from(leads));
    }
}

impl Own {
    fn new() -> Self {
        Self {
            releases: Family::default(),
            stages: Family::new_with_constructor(durations),
            problems: Series::default(),
            held_back: Gauge::default(),
            change_to_live: durations(),
            names: Gauge::default(),
            names_answered: Gauge::default(),
            old_generations: Gauge::default(),
            reload_wait: Counter::default(),
            waited: AtomicU64::new(0),
            listed: Gauge::default(),
        }
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "releases",
            "Answers of the proxy's side, by outcome and by who is at fault",
            self.releases.clone(),
        );
        registry.register("stage_duration_seconds", "How long each stage took", self.stages.clone());
        registry.register(
            "problems",
            "Problems of objects at this moment, by reason and severity",
            self.problems.family.clone(),
        );
        registry.register("held_back", "Objects that the quarantine holds back", self.held_back.clone());
        registry.register(
            "change_to_live_seconds",
            "From the arrival of a change until it was live",
            self.change_to_live.clone(),
        );
        registry.register("upstream_names", "Upstreams whose endpoints the proxy asks for", self.names.clone());
        registry.register(
            "upstream_names_answered",
            "Upstreams whose endpoints the proxy knows",
            self.names_answered.clone(),
        );
        registry.register(
            "old_generations",
            "Generations of old workers that finish what they have begun",
            self.old_generations.clone(),
        );
        registry.register(
            "reload_wait_seconds",
            "How long reloads have waited for old workers to finish",
            self.reload_wait.clone(),
        );
        registry.register("listed", "Whether every kind of object has been listed", self.listed.clone());
    }
}

/// The labels of an Ingress whose backend this problem says to be missing.
fn orphan(problem: &Problem) -> Option<Orphan> {
    let kind = match problem.reason {
        Reason::ServiceNotFound => "no-service",
        Reason::NoEndpoints => "no-endpoint",
        _ => return None,
    };
    let object = &problem.subject.object;
    let namespace = object.namespace.as_ref().map(ToString::to_string).unwrap_or_default();
    let ours = problem.subject.kind == Kind::Ingress;
    ours.then(|| Orphan { namespace, ingress: object.name.to_string(), r#type: kind })
}

/// Milliseconds to a minute: what a pass can take.
fn durations() -> Histogram {
    Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}

/// The first 48 bits of a digest: what a double holds exactly.
fn short(digest: &Digest) -> f64 {
    let bits = u64::from_str_radix(digest.short(), 16).unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "48 bits fit the 53 of a double")]
    let value = bits as f64;
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Severity, Subject};
    use crate::value::Value as _;
    use crate::value::reference::ObjectName;
    use crate::volume::Timings;

    fn report(outcome: Outcome, class: Option<FaultClass>) -> Report {
        Report {
            digest: Digest::parse(&"0123456789abcdef".repeat(4)).unwrap(),
            attempt: 1,
            outcome,
            class,
            file: None,
            line: None,
            message: String::new(),
            access_log: None,
            timings: Timings::default(),
        }
    }

    fn metrics() -> Metrics {
        let identity =
            Identity { namespace: "ns".to_owned(), class: "coxswain.dev/ingress".to_owned(), pod: "pod".to_owned() };
        Metrics::new(&identity)
    }

    #[test]
    fn alerts_written_for_ingress_nginx_find_their_series() {
        let metrics = metrics();
        metrics.report(&report(Outcome::Accepted, None), 1000.0);
        metrics.report(&report(Outcome::Rejected, Some(FaultClass::Content)), 2000.0);
        metrics.leads("lease", true);
        let page = metrics.page().unwrap();
        let labels = r#"controller_namespace="ns",controller_class="coxswain.dev/ingress",controller_pod="pod""#;
        for line in [
            format!("nginx_ingress_controller_config_last_reload_successful{{{labels}}} 0"),
            format!("nginx_ingress_controller_config_last_reload_successful_timestamp_seconds{{{labels}}} 1000.0"),
            format!("nginx_ingress_controller_success{{{labels}}} 1"),
            format!("nginx_ingress_controller_errors{{{labels}}} 1"),
            format!("nginx_ingress_controller_leader_election_status{{{labels},name=\"lease\"}} 1"),
            r#"coxswain_releases_total{outcome="rejected",class="content"} 1"#.to_owned(),
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }

    #[test]
    fn waiting_for_old_workers_is_counted_over_restarts_of_the_agent() {
        let metrics = metrics();
        let info = |waited| ProxyInfo {
            kind: crate::volume::ProxyKind::Nginx,
            version: String::new(),
            pid: None,
            generations: Vec::new(),
            answered: (2, 3),
            full: BTreeMap::new(),
            old_generations: 4,
            waited,
        };
        for waited in [1000, 1500, 1500, 0, 250] {
            metrics.proxy(&info(waited));
        }
        let page = metrics.page().unwrap();
        for line in [
            "coxswain_reload_wait_seconds_total 1.75",
            "coxswain_old_generations 4",
            "coxswain_upstream_names_answered 2",
            "coxswain_upstream_names 3",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }

    #[test]
    fn problems_that_are_gone_leave_no_series() {
        let metrics = metrics();
        let problem = Problem {
            subject: Subject { kind: Kind::Ingress, object: ObjectName::parse("a/b").unwrap(), uid: None },
            field: String::new(),
            severity: Severity::Degraded,
            reason: Reason::NoEndpoints,
            message: String::new(),
            effect: String::new(),
        };
        let config = crate::model::ProxyConfig {
            listeners: crate::model::Listeners { http: 1, https: 2, public_http: 80, public_https: 443, ipv6: false },
            globals: crate::annotations::Globals::default(),
            globals_source: None,
            hosts: Vec::new(),
            upstreams: std::collections::BTreeMap::new(),
            slots: std::collections::BTreeMap::new(),
        };
        metrics.state(&config, std::slice::from_ref(&problem), 1);
        let page = metrics.page().unwrap();
        assert!(page.contains(r#"namespace="a",ingress="b",type="no-endpoint"} 1"#), "{page}");
        // Nor is one that stays missing while the next state is set.
        std::thread::scope(|scope| {
            let passes =
                scope.spawn(|| (0..2000).for_each(|_| metrics.state(&config, std::slice::from_ref(&problem), 1)));
            while !passes.is_finished() {
                assert!(metrics.page().unwrap().contains("no-endpoint"));
            }
        });
        assert!(page.contains(r#"coxswain_problems{reason="no_endpoints",severity="degraded"} 1"#), "{page}");
        metrics.state(&config, &[], 0);
        let page = metrics.page().unwrap();
        assert!(!page.contains("no-endpoint") && !page.contains("no_endpoints"), "{page}");
    }
}
