//! The chart on a real node: what an operator does with it, and what that costs the traffic (nothing).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::support::node::Node;
use crate::support::{Client, Load, Request, wait};

const HOST: &str = "shop.example.com";

/// Two Pods that say who they are as the pods of this process do, behind a Service, behind an Ingress. They end as
/// nginx does: it finishes what it has begun.
const APPLICATION: &str = r#"---
apiVersion: v1
kind: ConfigMap
metadata: {name: echo}
data:
  nginx.conf: |
    pid /tmp/nginx.pid;
    error_log stderr;
    events {}
    http {
      access_log off;
      client_body_temp_path /tmp/body;
      proxy_temp_path /tmp/proxy;
      fastcgi_temp_path /tmp/fastcgi;
      uwsgi_temp_path /tmp/uwsgi;
      scgi_temp_path /tmp/scgi;
      server {
        listen 8080;
        default_type application/json;
        return 200 '{"service":"web","pod":"$server_addr:$server_port","method":"$request_method","target":"$request_uri","version":"$server_protocol","headers":[],"body":0,"sni":null}';
      }
    }
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  strategy: {rollingUpdate: {maxUnavailable: 0}}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 30
      securityContext: {runAsUser: 101, runAsGroup: 101}
      containers:
        - name: web
          image: localhost/nginx:1.30
          imagePullPolicy: Never
          args: [-c, /etc/echo/nginx.conf, -g, "daemon off;"]
          # Until everybody was told that this Pod leaves.
          lifecycle: {preStop: {sleep: {seconds: 5}}}
          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, timeoutSeconds: 5}
          volumeMounts: [{name: echo, mountPath: /etc/echo}, {name: tmp, mountPath: /tmp}]
      volumes: [{name: echo, configMap: {name: echo}}, {name: tmp, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"#;

fn ingress(name: &str, host: &str, path: &str) -> String {
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}}}
spec:
  ingressClassName: coxswain
  rules:
    - host: {host}
      http: {{paths: [{{path: '{path}', pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}
"
    )
}

/// One test, because a node costs its start: each step says what failed.
#[test]
fn an_installation_serves_and_tells_loses_no_request_whatever_restarts_or_dies_and_leaves_nothing_behind() {
    let Some(node) = Node::start() else { return };
    node.kubectl(&["create", "namespace", "coxswain"]);
    let before = inventory(&node);
    node.install(&[]);
    node.try_apply(&(APPLICATION.to_owned() + &ingress("web", HOST, "/"))).expect("applied");
    node.inside(async || {
        let service = address(&node);
        served(&node, service, HOST).await;
        fenced(&node);
        shown(&node, &service.ip().to_string()).await;
        mistakes_are_denied(&node).await;

        let load = Traffic::start(service);
        load.goes_on("before anything happens").await;
        restarted(&node, "default", "web", "app=web").await;
        load.goes_on("after a restart of the application").await;
        restarted(&node, "coxswain", "coxswain", "app.kubernetes.io/name=coxswain").await;
        load.goes_on("after a restart of coxswain").await;
        killed(&node, &load).await;
        upgraded(&node, service).await;
        load.goes_on("after the upgrade").await;
        load.stop().await;

        left(&node).await;
        slowly("all that was installed is gone", async || {
            let left: BTreeSet<_> = inventory(&node).difference(&before).cloned().collect();
            wait::check(left.is_empty(), || format!("{left:?}"))
        })
        .await;
    });
}

/// A controller dies, and in another replica an agent: both are replaced where they were, and work.
async fn killed(node: &Node, load: &Traffic) {
    let [first, second] = replicas(node).try_into().unwrap_or_else(|other| panic!("two replicas: {other:?}"));
    node.exec(&["ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", &first.controller]);
    slowly("the controller is back", async || {
        let now = replicas(node).into_iter().find(|now| now.name == first.name).ok_or("the Pod is gone")?;
        wait::check(now.ready && now.restarts > first.restarts, || format!("{now:?}"))
    })
    .await;
    load.goes_on("after the death of a controller").await;

    let dead = agent(node, &second).expect("an agent");
    node.exec(&["kill", "-9", &dead]);
    slowly("another agent is there", async || {
        let now = agent(node, &second)?;
        wait::check(now != dead, || format!("still {now}"))
    })
    .await;
    load.goes_on("after the death of an agent").await;

    // Both replicas take up what comes, and none of them was replaced.
    node.try_apply(&ingress("late", "late.example.com", "/")).expect("applied");
    for replica in [&first, &second] {
        served(node, replica.http, "late.example.com").await;
    }
    let names: Vec<_> = replicas(node).into_iter().map(|replica| replica.name).collect();
    assert_eq!(names, [first.name, second.name]);
    load.goes_on("after a change").await;
}

/// Waits for what Pods take part in: they start and end at leisure where much else goes on.
#[track_caller]
fn slowly<T>(what: &str, probe: impl AsyncFnMut() -> Result<T, String>) -> impl Future<Output = T> {
    wait::within(Duration::from_secs(300), what, probe)
}

/// Clients that keep their connections, and clients that open one for every request.
struct Traffic(Vec<Load>);

impl Traffic {
    fn start(to: SocketAddr) -> Self {
        let client = Client::new(to);
        let keep = Request::get(HOST, "/");
        let open = Request::get(HOST, "/").header("connection", "close");
        let pause = Duration::from_millis(20);
        Self(vec![Load::paced(&client, &keep, 8, pause), Load::paced(&client, &open, 4, pause)])
    }

    /// Waits for more answers; none so far may have failed.
    async fn goes_on(&self, when: &str) {
        for load in &self.0 {
            load.goes_on(200).await;
            assert_eq!(load.failed(), 0, "{when}");
        }
    }

    async fn stop(self) {
        for load in self.0 {
            let outcome = load.stop().await;
            assert!(outcome.failures.is_empty() && outcome.answers.len() == 1, "{outcome:?}");
        }
    }
}

/// The Service that everybody comes through.
fn address(node: &Node) -> SocketAddr {
    let ip = node.kubectl(&["get", "service", "coxswain", "-n", "coxswain", "-o", "jsonpath={.spec.clusterIP}"]);
    SocketAddr::new(ip.parse().expect("an address"), 80)
}

async fn served(node: &Node, at: SocketAddr, host: &str) {
    slowly(&format!("{host} is served at {at}"), async || {
        let who = Client::new(at).try_get(host, "/").await?.who();
        wait::check(who == "web", || format!("{who}\n{}", node.kubectl(&["get", "pods", "-A"])))
    })
    .await;
    let tls = Client::new(SocketAddr::new(at.ip(), if at.port() == 80 { 443 } else { 8443 })).tls(host);
    assert_eq!(tls.get(host, "/").await.who(), "web", "over TLS");
}

/// The proxy's container has no token, and neither side can write what the other one takes as its own.
fn fenced(node: &Node) {
    for replica in replicas(node) {
        let proxy = format!("/proc/{}/root", agent(node, &replica).expect("an agent"));
        let tasks = node.exec(&["ctr", "-n", "k8s.io", "tasks", "ps", &replica.controller]);
        let controller = tasks.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u32>().ok()).next();
        let controller = format!("/proc/{}/root", controller.expect("a controller"));
        let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        node.exec(&["test", "-s", &format!("{controller}{token}")]);
        node.try_exec(&["test", "-e", &format!("{proxy}{token}")]).expect_err("a token beside the proxy");
        for path in ["/proxy/bin/x", "/proxy/in/x", "/x"] {
            let said = node.try_exec(&["touch", &format!("{proxy}{path}")]).expect_err(path);
            assert!(said.contains("Read-only file system"), "{said}");
        }
        let said = node.try_exec(&["touch", &format!("{controller}/proxy/out/x")]).expect_err("out/");
        assert!(said.contains("Read-only file system"), "{said}");
    }
}

/// The address stands where owners look, and so does what became of the Ingress.
async fn shown(node: &Node, address: &str) {
    slowly("kubectl get ingress shows the address", async || {
        let table = node.kubectl(&["get", "ingress", "web"]);
        wait::check(table.contains(address), || table)
    })
    .await;
    slowly("kubectl describe ingress tells", async || {
        let text = node.kubectl(&["describe", "ingress", "web"]);
        wait::check(text.contains("is live in the proxy"), || text)
    })
    .await;
    let logs = node.kubectl(&["logs", "-n", "coxswain", "deployment/coxswain"]);
    assert!(logs.contains("in force"), "the default container is the controller: {logs}");
}

/// The API server asks the webhook, by the certificate that the leader made.
async fn mistakes_are_denied(node: &Node) {
    slowly("the webhook denies", async || match node.try_apply(&ingress("bad", "bad.example.com", "/a?b")) {
        Err(said) if said.contains("denied the request") && said.contains("/a?b") => Ok(()),
        said => Err(format!("{said:?}")),
    })
    .await;
}

/// New values take effect, one of them by new Pods.
async fn upgraded(node: &Node, service: SocketAddr) {
    let upload = Request::new("POST", HOST, "/").body(vec![b'x'; 2048]);
    assert_eq!(Client::new(service).send(&upload).await.status, 200);
    node.install(&[
        "controller.config.proxy-body-size=1k,controller.podLabels.new=yes",
        "controller.replicaCount=3,controller.publishService.enabled=false",
    ]);
    let pods = |label: &str| {
        let list = ["get", "pods", "-n", "coxswain", "-o", "name", "-l"];
        node.kubectl(&[&list[..], &[&format!("app.kubernetes.io/name=coxswain{label}")]].concat()).lines().count()
    };
    slowly("three new Pods serve, and no others", async || {
        let (new, all) = (pods(",new=yes"), pods(""));
        wait::check(new == 3 && all == 3, || format!("{new} new of {all}"))
    })
    .await;
    slowly("the new limit is in force", async || {
        let status = Client::new(service).try_send(&upload).await?.status;
        wait::check(status == 413, || status.to_string())
    })
    .await;
    // Where no Service is published, the nodes are.
    shown(node, "10.200.0.1").await;
}

/// The last replica takes the addresses along; then everything goes.
async fn left(node: &Node) {
    node.kubectl(&["scale", "deployment/coxswain", "-n", "coxswain", "--replicas=0"]);
    slowly("no address is left", async || {
        let status = node.kubectl(&["get", "ingress", "web", "-o", "jsonpath={.status.loadBalancer}"]);
        wait::check(status == "{}" || status.is_empty(), || status)
    })
    .await;
    node.exec(&["helm", "uninstall", "coxswain", "--namespace", "coxswain", "--wait", "--timeout", "10m"]);
    node.kubectl(&["delete", "ingress", "web", "late"]);
    node.kubectl(&["delete", "deployment,service", "web"]);
    node.kubectl(&["delete", "configmap", "echo"]);
}

/// Everything there is: kind, namespace and name. Without what the cluster makes for itself.
fn inventory(node: &Node) -> BTreeSet<String> {
    let kinds = node.kubectl(&["api-resources", "--verbs=list", "-o", "name"]);
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let columns = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name";
    let all = node.kubectl(&["get", &kinds.join(","), "-A", "--no-headers", "-o", columns]);
    let lines = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.contains(" kube-")).collect()
}

/// `kubectl rollout restart`, until the last of the old Pods is gone.
async fn restarted(node: &Node, namespace: &str, deployment: &str, label: &str) {
    let pods = || -> BTreeSet<String> {
        let list = node.kubectl(&["get", "pods", "-n", namespace, "-l", label, "-o", "name"]);
        list.lines().map(str::to_owned).collect()
    };
    let old = pods();
    let deployment = format!("deployment/{deployment}");
    node.kubectl(&["rollout", "restart", &deployment, "-n", namespace]);
    node.kubectl(&["rollout", "status", &deployment, "-n", namespace, "--timeout=10m"]);
    slowly("the old Pods are gone", async || {
        let left: Vec<_> = pods().intersection(&old).cloned().collect();
        wait::check(left.is_empty(), || format!("{left:?}"))
    })
    .await;
}

/// One Pod of coxswain.
#[derive(Debug)]
struct Replica {
    name: String,
    /// The containers, as containerd knows them.
    controller: String,
    proxy: String,
    /// How often the controller was started again.
    restarts: u64,
    ready: bool,
    http: SocketAddr,
}

fn replicas(node: &Node) -> Vec<Replica> {
    let list = ["get", "pods", "-n", "coxswain", "-l", "app.kubernetes.io/name=coxswain", "-o", "json"];
    let list: Value = serde_json::from_str(&node.kubectl(&list)).expect("JSON");
    let pods = list["items"].as_array().expect("a list");
    pods.iter().map(replica).collect()
}

fn replica(pod: &Value) -> Replica {
    let status = |field: &str, name: &str| {
        let all = pod["status"][field].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|status| status["name"] == name).unwrap_or_default()
    };
    let id = |status: &Value| {
        status["containerID"].as_str().unwrap_or_default().trim_start_matches("containerd://").to_owned()
    };
    let (controller, proxy) = (status("initContainerStatuses", "controller"), status("containerStatuses", "proxy"));
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ip = pod["status"]["podIP"].as_str().unwrap_or("0.0.0.0");
    Replica {
        name: pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        controller: id(&controller),
        proxy: id(&proxy),
        restarts: controller["restartCount"].as_u64().unwrap_or_default(),
        ready: conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
        http: SocketAddr::new(ip.parse().expect("an address"), 8080),
    }
}

/// The agent proper in a replica: not process 1 of the container, whose death is the container's.
fn agent(node: &Node, replica: &Replica) -> Result<String, String> {
    let processes = node.try_exec(&["ctr", "-n", "k8s.io", "tasks", "ps", &replica.proxy])?;
    let pids = processes.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u32>().ok());
    pids.map(|pid| pid.to_string())
        .find(|pid| node.try_exec(&["grep", "-qa", "--", "--proper", &format!("/proc/{pid}/cmdline")]).is_ok())
        .ok_or_else(|| format!("no agent among {processes}"))
}
