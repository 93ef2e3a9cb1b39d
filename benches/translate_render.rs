//! The core's speed and memory: from a snapshot to the bytes of a release, for a growing number of Ingresses.
//!
//! Each Ingress has a host, two paths to a Service of its own with three endpoints, and a certificate of its own, which
//! is parsed before (as `watch` does, once on arrival). Beside the times, the peak of memory is printed.
//!
//! ```text
//! cargo bench --bench translate_render
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coxswain::model::Certificate;
use coxswain::render::{History, Rendering, render};
use coxswain::settings::{Flags, Settings};
use coxswain::snapshot::{Snapshot, TlsSecret};
use coxswain::translate::{HeldBack, Translation, translate};
use coxswain::value::Value as _;
use coxswain::value::reference::{Name, ObjectName};
use coxswain::volume::ProxyKind;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

const SIZES: [usize; 3] = [100, 1_000, 10_000];
/// Seconds since 1970.
const NOW: i64 = 1_800_000_000;

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(10));
    targets = core
}
criterion_main!(benches);

fn core(criterion: &mut Criterion) {
    // The smallest first: memory that was freed is not always given back.
    let mut group = criterion.benchmark_group("core");
    for size in SIZES {
        let before = memory("VmRSS");
        let snapshot = snapshot(size);
        let held = memory("VmRSS");
        let settings = Settings::read(&Flags::default(), &snapshot).0;
        reset_peak();
        let once = (translated(&snapshot, &settings), rendered(&translated(&snapshot, &settings)));
        let peak = memory("VmHWM");
        assert_eq!(once.0.config.hosts.len(), size + 1, "{:?}", once.0.problems.first());
        let bytes: usize = once.1.release.files.values().map(|file| file.bytes.len()).sum();
        println!(
            "{size} Ingresses: {bytes} bytes of configuration; {} MB hold the objects, {} MB more make it at most",
            megabytes(held - before),
            megabytes(peak - held),
        );
        drop(once);
        group.bench_with_input(BenchmarkId::new("translate", size), &snapshot, |b, snapshot| {
            b.iter(|| translated(snapshot, &settings));
        });
        let translation = translated(&snapshot, &settings);
        group.bench_with_input(BenchmarkId::new("render", size), &translation, |b, translation| {
            b.iter(|| rendered(translation));
        });
        group.bench_with_input(BenchmarkId::new("both", size), &snapshot, |b, snapshot| {
            b.iter(|| rendered(&translated(snapshot, &settings)));
        });
    }
    group.finish();
}

fn translated(snapshot: &Snapshot, settings: &Settings) -> Translation {
    translate(snapshot, settings, &HeldBack::default(), NOW)
}

fn rendered(translation: &Translation) -> Rendering {
    render(&translation.config, ProxyKind::Nginx, &History::default())
        .expect("the escaper refuses nothing that was parsed")
}

/// An installation of so many Ingresses.
fn snapshot(size: usize) -> Snapshot {
    let class = json!({ "metadata": { "name": "coxswain" }, "spec": { "controller": "coxswain.dev/ingress" } });
    let class = serde_json::from_value(class).expect("an IngressClass");
    let classes = BTreeMap::from([(ObjectName::cluster(Name::parse("coxswain").expect("a name")), Arc::new(class))]);
    let mut snapshot = Snapshot { ingress_classes: Some(classes), ..Snapshot::default() };
    let key = rcgen::KeyPair::generate().expect("a key pair");
    for n in 0..size {
        // A namespace has some 50 Ingresses.
        let (namespace, name) = (format!("team-{:03}", n / 50), format!("app-{n:05}"));
        let (full, host) = (format!("{namespace}/{name}"), format!("{name}.{namespace}.example.com"));
        enter(&mut snapshot.ingresses, &full, ingress(&namespace, &name, &host));
        enter(&mut snapshot.services, &full, service(&namespace, &name));
        enter(&mut snapshot.endpoint_slices, &full, endpoint_slice(&namespace, &name, n));
        let secret = TlsSecret { uid: None, certificate: Ok(Arc::new(certificate(&host, &key))) };
        snapshot.secrets.insert(object_name(&full), Arc::new(secret));
    }
    snapshot
}

fn ingress(namespace: &str, name: &str, host: &str) -> Json {
    let backend = json!({ "service": { "name": name, "port": { "number": 80 } } });
    json!({
        "metadata": { "namespace": namespace, "name": name },
        "spec": {
            "ingressClassName": "coxswain",
            "tls": [{ "hosts": [host], "secretName": name }],
            "rules": [{ "host": host, "http": { "paths": [
                { "path": "/", "pathType": "Prefix", "backend": backend },
                { "path": "/api", "pathType": "Prefix", "backend": backend },
            ] } }],
        },
    })
}

fn service(namespace: &str, name: &str) -> Json {
    json!({
        "metadata": { "namespace": namespace, "name": name },
        "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" }] },
    })
}

fn endpoint_slice(namespace: &str, name: &str, n: usize) -> Json {
    let endpoints: Vec<_> = (0..3)
        .map(|pod| {
            let [_, a, b, c] = u32::try_from(3 * n + pod + 1).expect("few enough").to_be_bytes();
            json!({ "addresses": [format!("10.{a}.{b}.{c}")], "conditions": { "ready": true } })
        })
        .collect();
    json!({
        "metadata": { "namespace": namespace, "name": name, "labels": { "kubernetes.io/service-name": name } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": endpoints,
    })
}

fn certificate(host: &str, key: &rcgen::KeyPair) -> Certificate {
    let params = rcgen::CertificateParams::new([host.to_owned()]).expect("a host name");
    let pem = params.self_signed(key).expect("a certificate").pem();
    Certificate::parse(pem.as_bytes(), key.serialize_pem().as_bytes()).expect("a pair that fits")
}

fn enter<K: DeserializeOwned>(table: &mut BTreeMap<ObjectName, Arc<K>>, name: &str, object: Json) {
    table.insert(object_name(name), Arc::new(serde_json::from_value(object).expect("an object of its kind")));
}

fn object_name(text: &str) -> ObjectName {
    ObjectName::parse(text).expect("a name")
}

/// A figure of this process in kB.
fn memory(figure: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or_default()
}

/// Begins a new peak. Where this may not be written, the peak of the whole process is shown.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn megabytes(kilobytes: usize) -> usize {
    kilobytes / 1024
}
