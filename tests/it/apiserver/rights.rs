//! The chart's Roles grant what coxswain does, and nothing else.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::apiserver::ApiServer;
use crate::support::net;
use crate::support::wait::{self, eventually};

use super::ingress;
use super::replica::{self, Replica};

#[tokio::test(flavor = "multi_thread")]
async fn every_right_that_the_chart_grants_is_used_and_nothing_more_is_asked_for() {
    let Some(server) = ApiServer::start_audited("system:serviceaccount:own:coxswain") else { return };
    let Some((server, nginx, pod)) = replica::beside(server).await else { return };
    // With all that needs a right: the nodes are asked for where no Service is published.
    let values = ["--set", "controller.publishService.enabled=false,controller.scope.namespaceSelector=name=shop"];
    replica::install(&server, &pod, &values);
    server.apply(&replica::chart(&[&["--show-only", "templates/admission.yaml"], &values[..]].concat()));
    server.apply(POD);
    for of in ["pod", "node"] {
        let status = if of == "pod" {
            READY
        } else {
            r#"{"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.7"}]}}"#
        };
        let namespace = if of == "pod" { "own" } else { "" };
        server.kubectl(&[
            "patch",
            of,
            &format!("{of}-1"),
            "-n",
            namespace,
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ]);
    }
    server.apply(&ingress("shop", "web", "shop.example.com"));
    let webhook = format!("--validating-webhook=127.0.0.1:{}", net::port());
    let flags = ["--publish-status-address=", "--watch-namespace-selector=name=shop", &webhook];
    let mut replica = Replica::start(&server, &nginx, "pod-1", &flags);
    replica.serves("shop.example.com").await;
    eventually("the address of the node stands there", async || {
        let status = server.object("ingress", "shop", "web")["status"].to_string();
        wait::check(status.contains("192.0.2.7"), || status)
    })
    .await;
    // An Event that is told again is patched.
    for wrong in ["a lot", "much"] {
        let annotation = format!("nginx.ingress.kubernetes.io/proxy-body-size={wrong}");
        server.kubectl(&["annotate", "--overwrite", "ingress", "web", "-n", "shop", &annotation]);
        eventually("the mistake is told", async || {
            let events = server.kubectl(&["get", "events.events.k8s.io", "-n", "shop", "-o", "json"]);
            wait::check(events.contains(wrong) || events.contains("series"), || events)
        })
        .await;
    }
    // A certificate that is deleted is made anew.
    certified(&server).await;
    server.kubectl(&["delete", "secret", "coxswain-admission", "-n", "own"]);
    certified(&server).await;
    replica.stop_controller();
    let granted = granted(&server);
    eventually("all that is granted is used", async || {
        let asked = server.asked();
        let unused: Vec<_> = granted.difference(&asked).collect();
        wait::check(unused.is_empty(), || format!("nobody needs {unused:?}"))
    })
    .await;
    assert!(!replica.said().contains("forbidden"), "the chart's Roles are too narrow:\n{}", replica.said());
}

/// Waits until the webhook's Secret holds a certificate.
async fn certified(server: &ApiServer) {
    eventually("the webhook has a certificate", async || {
        let (found, _) =
            server.try_kubectl(&["get", "secret", "coxswain-admission", "-n", "own", "-o", "jsonpath={.data}"])?;
        wait::check(found.contains("tls.key"), || found)
    })
    .await;
}

/// What the Roles of the chart allow, as `verb group/resource`.
fn granted(server: &ApiServer) -> BTreeSet<String> {
    let roles =
        server.kubectl(&["get", "clusterroles,roles", "-A", "-l", "app.kubernetes.io/part-of=coxswain", "-o", "json"]);
    let roles: Value = serde_json::from_str(&roles).expect("JSON");
    let list = |rule: &Value, field: &str| -> Vec<String> {
        let all = rule[field].as_array().into_iter().flatten();
        all.map(|text| text.as_str().expect("text").to_owned()).collect()
    };
    let mut granted = BTreeSet::new();
    for rule in
        roles["items"].as_array().expect("a list").iter().flat_map(|role| role["rules"].as_array().expect("rules"))
    {
        for group in list(rule, "apiGroups") {
            for resource in list(rule, "resources") {
                granted.extend(list(rule, "verbs").iter().map(|verb| format!("{verb} {group}/{resource}")));
            }
        }
    }
    assert!(granted.contains("patch networking.k8s.io/ingresses/status"), "{granted:?}");
    granted
}

/// The Pod that the replica is said to run in, and its node.
const POD: &str = "---
apiVersion: v1
kind: Node
metadata: {name: node-1}
---
apiVersion: v1
kind: Pod
metadata: {name: pod-1, namespace: own, labels: {app.kubernetes.io/name: coxswain}}
spec: {serviceAccountName: coxswain, nodeName: node-1, containers: [{name: proxy, image: none}]}
";

const READY: &str = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
