//! An API server that breaks off, comes back with another past, refuses, or is slow to take what we write.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coxswain::problem::Reason;
use coxswain::status::address::{Address, Source};
use coxswain::status::{Outcome, Version, ingress as statuses};
use coxswain::watch::cluster::{Cluster, Options};
use hyper::Request;
use kube::client::Body;
use tokio::sync::watch;

use crate::support::apiserver::{ApiServer, Fault};
use crate::support::wait::{self, eventually};

use super::{ingress, name, namespace, object};

/// The Ingresses of the snapshot; none while there is no snapshot.
fn names(cluster: &Cluster) -> BTreeSet<String> {
    let ingresses = cluster.snapshot().map(|snapshot| snapshot.ingresses).unwrap_or_default();
    ingresses.keys().map(ToString::to_string).collect()
}

/// Waits for exactly these Ingresses. `always` stands there at every moment until then.
async fn holds(cluster: &Cluster, want: &[&str], always: &[&str]) {
    eventually(&format!("{want:?} are known"), async || {
        let names = names(cluster);
        assert!(always.iter().all(|name| names.contains(*name)), "{always:?} must stay: {names:?}");
        wait::check(names.iter().map(String::as_str).eq(want.iter().copied()), || {
            format!("{names:?}; {}", cluster.missing().join("; "))
        })
    })
    .await;
}

fn lists_ingresses(request: &Request<Body>) -> bool {
    request.uri().path().ends_with("/ingresses") && !request.uri().query().unwrap_or_default().contains("watch=true")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_breaks_off_adds_and_removes_nothing_until_one_is_whole() {
    let Some(server) = ApiServer::start() else { return };
    server
        .apply(&(namespace("shop") + &ingress("shop", "a", "a.example.com") + &ingress("shop", "b", "b.example.com")));
    let (cuts, left) = (Arc::new(AtomicUsize::new(2)), |cuts: &AtomicUsize| cuts.load(Ordering::Relaxed));
    let counter = Arc::clone(&cuts);
    let client = server
        .client_with(move |request| {
            let mut cut = |n: usize| n.checked_sub(1).filter(|_| lists_ingresses(request));
            counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, &mut cut).is_ok().then_some(Fault::Cut)
        })
        .await;
    let cluster = Cluster::start(&client, Options::default());
    holds(&cluster, &["shop/a", "shop/b"], &[]).await;
    assert_eq!(left(&cuts), 0, "two lists broke off");
    // The same when everything is listed anew: the API server was away.
    server.interrupt();
    cuts.store(2, Ordering::Relaxed);
    server.resume();
    server.apply(&ingress("shop", "c", "c.example.com"));
    holds(&cluster, &["shop/a", "shop/b", "shop/c"], &["shop/a", "shop/b"]).await;
    assert_eq!(left(&cuts), 0, "two lists broke off again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_does_not_fit_its_kind_is_told_and_left_out_and_no_other() {
    let Some(server) = ApiServer::start() else { return };
    server
        .apply(&(namespace("shop") + &ingress("shop", "a", "a.example.com") + &ingress("shop", "b", "b.example.com")));
    // The API server stores no such object: of a later version of Kubernetes, perhaps.
    let client = server
        .client_with(|request| {
            lists_ingresses(request).then_some(Fault::Rewritten("\"host\":\"a.example.com\"", "\"host\":{\"a\":1}"))
        })
        .await;
    let cluster = Cluster::start(&client, Options::default());
    holds(&cluster, &["shop/b"], &[]).await;
    let problems = cluster.snapshot().expect("listed").problems;
    let [only] = &problems[..] else { panic!("one problem: {problems:?}") };
    assert_eq!((only.reason, only.subject.object.to_string()), (Reason::MalformedObject, "shop/a".to_owned()));
    assert!(only.subject.uid.is_some() && only.message.contains("Expected a string"), "{only:?}");
    // As soon as it fits, it is there.
    server.kubectl(&["annotate", "ingress", "a", "-n", "shop", "note=x"]);
    holds(&cluster, &["shop/a", "shop/b"], &["shop/b"]).await;
    assert_eq!(cluster.snapshot().expect("listed").problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_was_put_back_to_an_older_state_is_believed() {
    let Some(server) = ApiServer::start() else { return };
    server
        .apply(&(namespace("shop") + &ingress("shop", "a", "a.example.com") + &ingress("shop", "b", "b.example.com")));
    server.back_up();
    let cluster = Cluster::start(&server.client().await, Options::default());
    holds(&cluster, &["shop/a", "shop/b"], &[]).await;
    server.kubectl(&["delete", "ingress", "b", "-n", "shop"]);
    server.apply(&ingress("shop", "c", "c.example.com"));
    holds(&cluster, &["shop/a", "shop/c"], &["shop/a"]).await;
    server.restore();
    holds(&cluster, &["shop/a", "shop/b"], &["shop/a"]).await;
    server.apply(&ingress("shop", "d", "d.example.com"));
    holds(&cluster, &["shop/a", "shop/b", "shop/d"], &["shop/a", "shop/b"]).await;
}

/// The right to read everything, but for Secrets in a binding of their own.
const RIGHTS: &str = "---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot, namespace: own}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: most}
rules:
  - {apiGroups: ['', networking.k8s.io, discovery.k8s.io], resources: [services, configmaps, ingresses, ingressclasses, endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: most}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: most}
subjects: [{kind: ServiceAccount, name: robot, namespace: own}]
";

const SECRETS: &str = "---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: secrets}
rules: [{apiGroups: [''], resources: [secrets], verbs: [list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: secrets}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: secrets}
subjects: [{kind: ServiceAccount, name: robot, namespace: own}]
";

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_is_refused_holds_up_the_first_snapshot_and_later_removes_nothing() {
    let Some(server) = ApiServer::start() else { return };
    server.apply(&(namespace("own") + &namespace("shop") + RIGHTS + &ingress("shop", "a", "a.example.com")));
    server.kubectl(&["create", "secret", "generic", "s", "-n", "shop", "--from-literal=tls.crt=x"]);
    let cluster = Cluster::start(&server.client_of("own", "robot").await, Options::default());
    eventually("the refusal is all that is missing", async || match &cluster.missing()[..] {
        [only] if only.contains("Secrets cannot be listed") && only.contains("forbidden") => Ok(()),
        missing => Err(format!("{missing:?}")),
    })
    .await;
    assert!(cluster.snapshot().is_none());
    server.apply(SECRETS);
    holds(&cluster, &["shop/a"], &[]).await;

    // Later: the right is taken away, and the watch that had it ends.
    server.kubectl(&["delete", "clusterrolebinding", "secrets"]);
    server.interrupt();
    server.resume();
    server.apply(&ingress("shop", "b", "b.example.com"));
    holds(&cluster, &["shop/a", "shop/b"], &["shop/a"]).await;
    assert!(cluster.snapshot().is_some_and(|snapshot| snapshot.secrets.contains_key(&object("shop/s"))));
    // And given back.
    server.kubectl(&["delete", "secret", "s", "-n", "shop"]);
    server.apply(SECRETS);
    eventually("Secrets are watched again", async || {
        let secrets = cluster.snapshot().expect("stays listed").secrets;
        wait::check(!secrets.contains_key(&object("shop/s")), || "the old Secret is still there".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_takes_only_its_own_objects_along() {
    let Some(server) = ApiServer::start() else { return };
    let roles = |namespace: &str| {
        format!(
            "---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: robot, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view-all}}
subjects: [{{kind: ServiceAccount, name: robot, namespace: own}}]
"
        )
    };
    let role = RIGHTS.replace("name: most", "name: view-all").replace("[services,", "[secrets, services,");
    let role: Vec<&str> = role.split("---\n").take(3).collect();
    server.apply(&(namespace("own") + &namespace("shop") + &namespace("gone") + "---\n" + &role.join("---\n")));
    server.apply(&(roles("shop") + &roles("gone")));
    server.apply(&(ingress("shop", "a", "a.example.com") + &ingress("gone", "b", "b.example.com")));
    let options = Options { namespaces: BTreeSet::from([name("shop"), name("gone")]), ..Options::default() };
    let cluster = Cluster::start(&server.client_of("own", "robot").await, options);
    holds(&cluster, &["gone/b", "shop/a"], &[]).await;
    // What the namespace controller does, which does not run here.
    server.kubectl(&["delete", "namespace", "gone", "--wait=false"]);
    server.kubectl(&["delete", "ingress,secret,configmap,service", "--all", "-n", "gone"]);
    holds(&cluster, &["shop/a"], &["shop/a"]).await;
    // Last, lest a watch that begins just now be refused: what is known of a namespace that refuses stays.
    server.kubectl(&["delete", "rolebinding", "--all", "-n", "gone"]);
    let finalized = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"gone"},"spec":{"finalizers":[]}}"#;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), finalized).expect("written");
    let path = file.path().display().to_string();
    server.kubectl(&["replace", "--raw", "/api/v1/namespaces/gone/finalize", "-f", &path]);
    // Its watches are refused from now on; the others go on, and over a restart of the API server, too.
    server.interrupt();
    server.resume();
    server.apply(&ingress("shop", "c", "c.example.com"));
    holds(&cluster, &["shop/a", "shop/c"], &["shop/a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_that_the_api_server_refuses_for_a_while_are_written_all_the_same() {
    let Some(server) = ApiServer::start() else { return };
    server
        .apply(&(namespace("shop") + &ingress("shop", "a", "a.example.com") + &ingress("shop", "b", "b.example.com")));
    let refusals = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&refusals);
    let client = server
        .client_with(move |request| {
            let writes = request.method() == "PATCH" && request.uri().path().ends_with("/a/status");
            let nth = writes.then(|| counter.fetch_add(1, Ordering::Relaxed))?;
            [409, 429, 500, 503].get(nth).map(|&code| Fault::Refused(code))
        })
        .await;
    let cluster = Arc::new(Cluster::start(&client, Options::default()));
    holds(&cluster, &["shop/a", "shop/b"], &[]).await;
    let ours = ["shop/a", "shop/b"].map(|name| (object(name), Version::default()));
    let (_outcomes, seen) = watch::channel(Some(Arc::new(Outcome { ours: ours.into(), ..Outcome::default() })));
    let (_leads, leads) = watch::channel(true);
    let source = Source::Given(BTreeSet::from([Address::parse("192.0.2.1").expect("an address")]));
    let writer = statuses::Writer { client, cluster, source, interval: Duration::from_secs(60) };
    let task = tokio::spawn(writer.run(seen, leads));
    let addressed = |name: &str| server.object("ingress", "shop", name)["status"].to_string().contains("192.0.2.1");
    eventually("the one that is not refused is written", async || wait::check(addressed("b"), String::new)).await;
    eventually("the other one is written in the end", async || {
        wait::check(addressed("a"), || format!("{} attempts", refusals.load(Ordering::Relaxed)))
    })
    .await;
    assert_eq!(refusals.load(Ordering::Relaxed), 5, "each refusal cost one attempt, and no more were made");
    task.abort();
}
