//! `coxswain run` with the chart's own account and Roles against a real API server, beside an agent with a real nginx.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::apiserver::ApiServer;
use crate::support::client::{Answer, Client};
use crate::support::pod::Pod;
use crate::support::wait::eventually;
use crate::support::{net, parts};

use super::{ingress, namespace};

/// A controller and an agent, each a process of its own as in the Pod.
struct Replica {
    processes: Vec<Child>,
    folder: tempfile::TempDir,
    http: u16,
    health: u16,
}

impl Replica {
    fn start(server: &ApiServer, nginx: &PathBuf, pod: &str, flags: &[&str]) -> Self {
        let mut replica = Self {
            processes: Vec::new(),
            folder: tempfile::tempdir().expect("a folder"),
            http: net::port(),
            health: net::port(),
        };
        let kubeconfig = server.kubeconfig_of("own", "coxswain", replica.folder.path());
        let (https, ready) = (net::port(), net::port());
        let volume = replica.folder.path().join("proxy");
        std::fs::create_dir_all(&volume).expect("a volume");
        open(replica.folder.path());
        open(&volume);
        let mut run = Command::new(env!("CARGO_BIN_EXE_coxswain"));
        run.args(["run", "--election-id=coxswain-leader", "--election-ttl=6s", "--publish-status-address=192.0.2.1"])
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--proxy-dir={}", volume.display()))
            .arg(format!("--http-port={}", replica.http))
            .arg(format!("--https-port={https}"))
            .arg(format!("--ready-port={ready}"))
            .arg(format!("--healthz-port={}", replica.health))
            .arg("--configmap=own/coxswain")
            .arg(format!("--debug-socket={}", replica.folder.path().join("debug.sock").display()))
            .args(flags)
            .envs([("POD_NAME", pod), ("POD_NAMESPACE", "own")]);
        let mut agent = Command::new(env!("CARGO_BIN_EXE_coxswain"));
        agent.arg("agent").arg(format!("--proxy-dir={}", volume.display())).arg(format!("--ready-port={ready}"));
        agent.arg("--").arg(nginx);
        for (command, log) in [(run, "run.log"), (agent, "agent.log")] {
            replica.spawn(command, log);
        }
        replica
    }

    fn spawn(&mut self, mut command: Command, log: &str) {
        let log = std::fs::File::create(self.folder.path().join(log)).expect("a log");
        let err = log.try_clone().expect("the same log");
        self.processes.push(command.stdin(Stdio::null()).stdout(log).stderr(err).spawn().expect("coxswain starts"));
    }

    async fn get(&self, host: &str, target: &str) -> Result<Answer, String> {
        Client::new(([127, 0, 0, 1], self.http).into()).try_get(host, target).await
    }

    async fn health(&self, target: &str) -> Result<Answer, String> {
        Client::new(([127, 0, 0, 1], self.health).into()).try_get("localhost", target).await
    }

    fn logs(&self) -> String {
        ["run.log", "agent.log"]
            .map(|log| std::fs::read_to_string(self.folder.path().join(log)).unwrap_or_default())
            .join("\n--- agent\n")
    }

    fn end(&mut self, which: usize, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.processes[which].id()).expect("a pid"));
        let _ = nix::sys::signal::kill(pid, signal);
        let _ = self.processes[which].wait();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        for which in 0..self.processes.len() {
            self.end(which, nix::sys::signal::Signal::SIGTERM);
        }
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// Workers run as somebody else and must be able to pass.
fn open(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("permissions");
}

/// The chart's account and Roles, as helm renders them, and a Service with one endpoint.
fn cluster(server: &ApiServer, pod: &Pod) -> bool {
    let Some(helm) = parts::part("helm", "helm") else { return false };
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/coxswain");
    let rendered = Command::new(helm)
        .args(["template", "coxswain", chart, "-n", "own", "--kube-version", "1.36.0"])
        .args(["--show-only", "templates/rbac.yaml", "--show-only", "templates/ingressclass.yaml"])
        .output()
        .expect("helm runs");
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    server.apply(&(namespace("own") + &namespace("shop")));
    server.apply(&String::from_utf8_lossy(&rendered.stdout));
    let address = pod.address;
    server.apply(&format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{port: {}}}]
endpoints: [{{addresses: ['{}']}}]
",
        address.port(),
        address.ip()
    ));
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_of_the_api_server_is_served_addressed_and_told_and_outlives_the_controller() {
    let (Some(server), Some(nginx)) = (ApiServer::start(), parts::nginx()) else { return };
    // EndpointSlices refuse loopback addresses: the backend listens on the machine's own address.
    let Some(own) = net::outside() else { return eprintln!("skipped: this machine has no address but loopback") };
    let pod = Pod::start_at("web", (own, net::port()).into(), None).await;
    if !cluster(&server, &pod) {
        return;
    }
    server.apply(&ingress("shop", "web", "shop.example.com"));
    let mut first = Replica::start(&server, &nginx, "pod-1", &[]);
    let served = async |replica: &Replica| {
        let answer = replica.get("shop.example.com", "/").await?;
        if answer.status == 200 { Ok(answer.who()) } else { Err(format!("{}", answer.status)) }
    };
    assert_eq!(eventually("served", async || served(&first).await).await, "web");
    let shown = || server.kubectl(&["get", "ingress", "web", "-n", "shop", "-o", "wide"]);
    eventually("addressed", async || if shown().contains("192.0.2.1") { Ok(()) } else { Err(shown()) }).await;
    let described = || server.kubectl(&["describe", "ingress", "web", "-n", "shop"]);
    eventually("told", async || if described().contains("is live in the proxy") { Ok(()) } else { Err(described()) })
        .await;
    let ready = first.health("/readyz").await.expect("an answer");
    assert_eq!(ready.status, 200, "{}", ready.text());
    let page = first.health("/metrics").await.expect("an answer").text();
    for series in [
        "nginx_ingress_controller_config_last_reload_successful{",
        "coxswain_change_to_live_seconds_count ",
        "coxswain_listed 1",
    ] {
        assert!(page.contains(series), "{series} is not in\n{page}");
    }
    assert!(!first.logs().contains("forbidden"), "the chart's Roles are too narrow:\n{}", first.logs());

    // A mistake is told, with what would be right.
    server.kubectl(&["annotate", "ingress", "web", "-n", "shop", "nginx.ingress.kubernetes.io/proxy-body-size=a lot"]);
    eventually("the mistake is told", async || {
        let text = described();
        if text.contains("InvalidValue") && text.contains("\"a lot\"") { Ok(()) } else { Err(text) }
    })
    .await;

    // `check` says the same to whoever asks from outside.
    let kubeconfig = server.kubeconfig();
    let check = Command::new(env!("CARGO_BIN_EXE_coxswain")).arg("check").arg("--kubeconfig").arg(kubeconfig).output();
    let check = check.expect("coxswain runs");
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        text.contains("Ingress shop/web") && text.contains("\"a lot\""),
        "{text}{}",
        String::from_utf8_lossy(&check.stderr)
    );

    // The second replica follows, and leads when the first is gone; the proxy of the first serves on alone.
    let second = Replica::start(&server, &nginx, "pod-2", &[]);
    eventually("served by the second", async || served(&second).await).await;
    first.end(0, nix::sys::signal::Signal::SIGKILL);
    assert_eq!(served(&first).await, Ok("web".to_owned()));
    server.apply(&ingress("shop", "late", "late.example.com"));
    eventually("the new leader writes", async || {
        let found = server.object("ingress", "shop", "late")["status"]["loadBalancer"]["ingress"].to_string();
        if found.contains("192.0.2.1") { Ok(()) } else { Err(found) }
    })
    .await;
    assert_eq!(served(&first).await, Ok("web".to_owned()));
}
