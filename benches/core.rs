//! The core's speed: from a snapshot to what the proxy shall do, and from there to the files of a release.
//!
//! Each Ingress has a host of its own, two paths, TLS with a Secret of its own, and a Service with three endpoints.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use coxswain::model::Certificate;
use coxswain::model::certificate::PrivateBytes;
use coxswain::render::render;
use coxswain::settings::{Flags, Settings};
use coxswain::snapshot::{Snapshot, TlsSecret};
use coxswain::translate::{HeldBack, translate};
use coxswain::value::Value as _;
use coxswain::value::reference::ObjectName;
use coxswain::volume::ProxyKind;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::json;

const NOW: i64 = 1_800_000_000;

fn snapshot(ingresses: usize) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for n in 0..ingresses {
        let name = |what: &str| ObjectName::parse(&format!("ns{}/{what}-{n}", n % 100)).unwrap();
        let host = format!("host-{n}.example.com");
        let backend = json!({"service": {"name": format!("web-{n}"), "port": {"number": 80}}});
        let ingress: Ingress = serde_json::from_value(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": format!("ingress-{n}"), "annotations": {
                "nginx.ingress.kubernetes.io/proxy-body-size": "8m",
                "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"ingressClassName": "coxswain",
                "tls": [{"hosts": [host], "secretName": format!("tls-{n}")}],
                "rules": [{"host": host, "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": backend},
                    {"path": "/api", "pathType": "Prefix", "backend": backend}]}}]},
        }))
        .unwrap();
        let service: Service = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("web-{n}")},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        }))
        .unwrap();
        let addresses = (1..4).map(|k| json!({"addresses": [format!("10.{k}.{}.{}", n / 250, n % 250 + 1)]}));
        let slice: EndpointSlice = serde_json::from_value(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("web-{n}"), "labels": {"kubernetes.io/service-name": format!("web-{n}")}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
            "endpoints": addresses.collect::<Vec<_>>(),
        }))
        .unwrap();
        let certificate = Certificate {
            digest: format!("{n:064x}"),
            names: vec![host],
            not_before: NOW - 1,
            not_after: NOW + 1,
            serial: "01".to_owned(),
            issuer: "bench".to_owned(),
            pem: PrivateBytes::new(vec![b'x'; 1500]),
        };
        let secret = TlsSecret { uid: None, certificate: Ok(Arc::new(certificate)) };
        snapshot.ingresses.insert(name("ingress"), Arc::new(ingress));
        snapshot.services.insert(name("web"), Arc::new(service));
        snapshot.endpoint_slices.insert(name("web"), Arc::new(slice));
        snapshot.secrets.insert(name("tls"), Arc::new(secret));
    }
    snapshot
}

fn core(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("core");
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    let held = HeldBack(BTreeMap::new());
    for size in [100, 1_000, 10_000] {
        let snapshot = snapshot(size);
        let settings = Settings::read(&Flags::default(), &snapshot).0;
        let translation = translate(&snapshot, &settings, &held, NOW);
        assert_eq!(translation.problems, [], "the benchmark is of what is served");
        assert_eq!(translation.config.hosts.len(), size + 1);
        let config = translation.config;
        group.bench_with_input(BenchmarkId::new("translate", size), &snapshot, |bencher, snapshot| {
            bencher.iter(|| translate(black_box(snapshot), &settings, &held, NOW));
        });
        group.bench_with_input(BenchmarkId::new("render", size), &config, |bencher, config| {
            bencher.iter(|| render(black_box(config), ProxyKind::Nginx, None));
        });
        group.bench_with_input(BenchmarkId::new("both", size), &snapshot, |bencher, snapshot| {
            bencher.iter(|| {
                let translation = translate(black_box(snapshot), &settings, &held, NOW);
                render(&translation.config, ProxyKind::Nginx, None)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, core);
criterion_main!(benches);
