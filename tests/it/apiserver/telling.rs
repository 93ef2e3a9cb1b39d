//! Statuses and Events, as kubectl shows them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coxswain::problem::{Kind, Problem, Reason, Severity, Subject};
use coxswain::status::address::{Address, Source};
use coxswain::status::{Outcome, Version, events, ingress as statuses};
use coxswain::watch::cluster::{Cluster, Options};
use serde_json::Value;
use tokio::sync::watch;

use crate::support::apiserver::ApiServer;
use crate::support::wait::eventually;

use super::{ingress, namespace, object};

fn ours(names: &[&str], content: u64) -> Outcome {
    let ours = names.iter().map(|name| (object(name), Version { uid: None, content })).collect();
    Outcome { ours, ..Outcome::default() }
}

fn address(server: &ApiServer, name: &str) -> Value {
    server.object("ingress", "shop", name)["status"]["loadBalancer"]["ingress"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_stand_in_our_ingresses_only_and_are_taken_over_from_ingress_nginx() {
    let Some(server) = ApiServer::start() else { return };
    server.apply(
        &(namespace("shop") + &ingress("shop", "mine", "a.example.com") + &ingress("shop", "foreign", "b.example.com")),
    );
    // ingress-nginx wrote by Update, as another manager.
    for name in ["mine", "foreign"] {
        let mut old = server.object("ingress", "shop", name);
        old["status"] = serde_json::json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}});
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), old.to_string()).expect("written");
        server.kubectl(&[
            "replace",
            "--subresource=status",
            "--field-manager=nginx-ingress-controller",
            "-f",
            &file.path().display().to_string(),
        ]);
    }
    let client = server.client().await;
    let cluster = Arc::new(Cluster::start(&client, Options::default()));
    eventually("listed", async || cluster.snapshot().ok_or_else(|| cluster.missing().join("; "))).await;
    let addresses = ["192.0.2.1", "lb.example.com"].iter().filter_map(|text| Address::parse(text)).collect();
    let (outcomes, seen) = watch::channel(Some(Arc::new(ours(&["shop/mine"], 1))));
    let (_leads, leads) = watch::channel(true);
    let writer = statuses::Writer {
        client: client.clone(),
        cluster: Arc::clone(&cluster),
        source: Source::Given(addresses),
        interval: Duration::from_secs(60),
    };
    let task = tokio::spawn(writer.run(seen, leads));
    let want = serde_json::json!([{"hostname": "lb.example.com"}, {"ip": "192.0.2.1"}]);
    eventually("the addresses stand there", async || {
        let found = address(&server, "mine");
        if found == want { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    assert_eq!(address(&server, "foreign"), serde_json::json!([{"ip": "192.0.2.9"}]), "what is not ours is left alone");
    let shown = server.kubectl(&["get", "ingress", "mine", "-n", "shop", "-o", "wide"]);
    assert!(shown.contains("lb.example.com") && shown.contains("192.0.2.1"), "{shown}");

    // No longer ours: the address goes. Another owner's stays.
    outcomes.send_replace(Some(Arc::new(ours(&[], 1))));
    eventually("the address is removed", async || {
        let found = address(&server, "mine");
        if found == Value::Null { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    assert_eq!(address(&server, "foreign"), serde_json::json!([{"ip": "192.0.2.9"}]));
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_statuses_are_written_while_new_outcomes_are_taken() {
    let Some(server) = ApiServer::start() else { return };
    let names: Vec<String> = (0..1000).map(|n| format!("web-{n}")).collect();
    let manifests: String = names.iter().map(|name| ingress("shop", name, &format!("{name}.example.com"))).collect();
    server.apply(&(namespace("shop") + &manifests));
    let client = server.client().await;
    let cluster = Arc::new(Cluster::start(&client, Options::default()));
    eventually("listed", async || cluster.snapshot().ok_or_else(|| cluster.missing().join("; "))).await;
    let all: Vec<String> = names.iter().map(|name| format!("shop/{name}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let (_outcomes, seen) = watch::channel(Some(Arc::new(ours(&all, 1))));
    let (_leads, leads) = watch::channel(true);
    let source = Source::Given(BTreeSet::from([Address::parse("192.0.2.1").expect("an address")]));
    let mut changes = cluster.changes();
    changes.mark_unchanged();
    let writer = statuses::Writer { client, cluster: Arc::clone(&cluster), source, interval: Duration::from_secs(60) };
    let task = tokio::spawn(writer.run(seen, leads));
    eventually("all statuses are written", async || {
        let written = cluster
            .ingresses()
            .values()
            .filter(|i| {
                i.status.as_ref().is_some_and(|s| s.load_balancer.as_ref().is_some_and(|l| l.ingress.is_some()))
            })
            .count();
        if written == 1000 { Ok(()) } else { Err(format!("{written}")) }
    })
    .await;
    assert!(!changes.has_changed().expect("the cluster lives"), "our own statuses wake no translation");
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_say_what_is_wrong_and_what_became_live() {
    let Some(server) = ApiServer::start() else { return };
    server.apply(&(namespace("shop") + &ingress("shop", "web", "a.example.com")));
    let uid = server.object("ingress", "shop", "web")["metadata"]["uid"].as_str().map(str::to_owned);
    let subject = Subject { kind: Kind::Ingress, object: object("shop/web"), uid };
    let problem = |message: &str| Problem {
        subject: subject.clone(),
        field: "metadata.annotations".to_owned(),
        severity: Severity::Degraded,
        reason: Reason::InvalidValue,
        message: message.to_owned(),
        effect: "using 60".to_owned(),
    };
    let (outcomes, seen) = watch::channel(None);
    let (lead, leads) = watch::channel(false);
    let task = tokio::spawn(events::Writer::new(server.client().await, "pod-1", true).run(seen, leads));
    let version = |content| Version { uid: subject.uid.clone(), content };
    let outcome = |content, problems| Outcome {
        ours: [(object("shop/web"), version(content))].into(),
        problems,
        ..Outcome::default()
    };
    outcomes.send_replace(Some(Arc::new(outcome(1, vec![problem("first is bad"), problem("second is bad")]))));
    // A follower tells nothing; the same problems are told when it leads.
    lead.send_replace(true);
    let described = async || server.kubectl(&["describe", "ingress", "web", "-n", "shop"]);
    eventually("the warning is there", async || {
        let text = described().await;
        let both = text.contains("first is bad; using 60") && text.contains("second is bad; using 60");
        if both && text.contains("Warning") && text.contains("InvalidValue") && text.contains("coxswain") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    assert!(!described().await.contains("Sync"), "what was live at the start is not told again");
    outcomes.send_replace(Some(Arc::new(outcome(2, vec![]))));
    eventually("the change is told", async || {
        let text = described().await;
        if text.contains("Normal") && text.contains("Sync") && text.contains("is live in the proxy") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    task.abort();
}
