//! What is watched becomes a snapshot, and what an API server does not do to it.

use std::collections::BTreeSet;

use coxswain::problem::{Kind, Reason};
use coxswain::snapshot::Snapshot;
use coxswain::watch::cluster::{Cluster, Options};

use crate::support::apiserver::ApiServer;
use crate::support::certificates::Authority;
use crate::support::wait::eventually;

use super::{ingress, name, namespace, object};

async fn listed(cluster: &Cluster) -> Snapshot {
    eventually("everything is listed", async || cluster.snapshot().ok_or_else(|| cluster.missing().join("; "))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_taken_over_and_an_api_server_that_is_gone_removes_none() {
    let Some(server) = ApiServer::start() else { return };
    let pair = Authority::new().issue(&["shop.example.com"]);
    server.apply(&(namespace("shop") + &ingress("shop", "web", "shop.example.com")));
    server.apply(&pair.secret("tls").replacen("name: tls", "name: tls\n  namespace: shop", 1));
    server.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "pull",
        "-n",
        "shop",
        "--docker-username=a",
        "--docker-password=b",
        "--docker-server=c",
    ]);
    let cluster = Cluster::start(&server.client().await, Options::default());
    let snapshot = listed(&cluster).await;
    assert!(snapshot.ingresses.contains_key(&object("shop/web")));
    assert_eq!(snapshot.ingresses[&object("shop/web")].metadata.managed_fields, None);
    assert!(snapshot.secrets[&object("shop/tls")].certificate.is_ok());
    assert!(!snapshot.secrets.contains_key(&object("shop/pull")), "registry logins are not even sent to us");
    assert!(snapshot.ingress_classes.is_some());

    // Gone: nothing is removed. Back, with a change made meanwhile: it is taken over.
    let mut changes = cluster.changes();
    server.interrupt();
    assert!(cluster.snapshot().expect("still there").ingresses.contains_key(&object("shop/web")));
    server.resume();
    server.apply(&ingress("shop", "api", "api.example.com"));
    server.kubectl(&["delete", "ingress", "web", "-n", "shop"]);
    eventually("the changes after the return", async || {
        let ingresses = cluster.snapshot().expect("stays listed").ingresses;
        let names: Vec<_> = ingresses.keys().map(ToString::to_string).collect();
        if names == ["shop/api"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    assert!(changes.has_changed().expect("the cluster lives"));

    // A status alone wakes nobody who translates.
    changes.mark_unchanged();
    let mut touched = cluster.touched();
    touched.mark_unchanged();
    server.kubectl(&[
        "patch",
        "ingress",
        "api",
        "-n",
        "shop",
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}"#,
    ]);
    eventually("the status is seen", async || {
        touched.has_changed().map_err(|e| e.to_string())?.then_some(()).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    assert!(!changes.has_changed().expect("the cluster lives"));
}

/// Rights in one namespace, and none to the cluster's own kinds.
const NAMESPACED: &str = "---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot, namespace: own}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: robot, namespace: shop}
rules:
  - {apiGroups: ['', networking.k8s.io, discovery.k8s.io], resources: [services, secrets, configmaps, ingresses, endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: robot, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: robot}
subjects: [{kind: ServiceAccount, name: robot, namespace: own}]
";

#[tokio::test(flavor = "multi_thread")]
async fn namespaced_roles_are_enough_and_a_namespace_that_refuses_is_left_out_and_told() {
    let Some(server) = ApiServer::start() else { return };
    server.apply(&(namespace("own") + &namespace("shop") + &namespace("closed") + NAMESPACED));
    server.apply(&(ingress("shop", "web", "a.example.com") + &ingress("closed", "web", "b.example.com")));
    let client = server.client_of("own", "robot").await;
    let namespaces = BTreeSet::from([name("shop"), name("closed")]);
    let cluster = Cluster::start(&client, Options { namespaces, ..Options::default() });
    eventually("the refusal is noticed", async || {
        let missing = cluster.missing();
        let refused =
            missing.iter().any(|s| s.contains("in namespace closed cannot be listed") && s.contains("forbidden"));
        if refused { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
    assert!(
        cluster.snapshot().is_none(),
        "a namespace in force that was never listed holds everything up, for a while"
    );
    let snapshot = listed(&cluster).await;
    assert_eq!(snapshot.ingresses.keys().map(ToString::to_string).collect::<Vec<_>>(), ["shop/web"]);
    assert!(snapshot.ingress_classes.is_none(), "classes are out of reach of namespaced Roles");
    let told: Vec<_> =
        snapshot.problems.iter().map(|p| (p.subject.kind, p.subject.object.to_string(), p.reason)).collect();
    assert!(told.contains(&(Kind::Namespace, "closed".to_owned(), Reason::NamespaceUnreadable)), "{told:?}");

    // The right comes later: the namespace is taken in.
    server.apply(&NAMESPACED.replace("namespace: shop", "namespace: closed"));
    eventually("the namespace is in force", async || {
        let snapshot = cluster.snapshot().ok_or("nothing")?;
        if snapshot.ingresses.len() == 2 && snapshot.problems.is_empty() {
            Ok(())
        } else {
            Err(format!("{:?}", snapshot.problems))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_chosen_by_their_labels_as_these_change() {
    let Some(server) = ApiServer::start() else { return };
    server.apply(
        &(namespace("a")
            + &namespace("b")
            + &ingress("a", "web", "a.example.com")
            + &ingress("b", "web", "b.example.com")),
    );
    let options = Options { namespace_selector: Some("name=a".to_owned()), ..Options::default() };
    let cluster = Cluster::start(&server.client().await, options);
    let names = |snapshot: Snapshot| snapshot.ingresses.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(listed(&cluster).await), ["a/web"]);
    server.kubectl(&["label", "namespace", "b", "name=a", "--overwrite"]);
    eventually("the other namespace is taken in", async || {
        let names = names(cluster.snapshot().expect("stays listed"));
        if names == ["a/web", "b/web"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
}
