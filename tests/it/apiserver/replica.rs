//! A replica: `coxswain run` with the chart's own account and Roles, beside an agent with a real nginx.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::apiserver::ApiServer;
use crate::support::client::{Answer, Client};
use crate::support::pod::Pod;
use crate::support::wait::{self, eventually};
use crate::support::{net, parts};

use super::namespace;

/// A controller and an agent, each a process of its own as in the Pod.
pub struct Replica {
    controller: Child,
    agent: Child,
    folder: tempfile::TempDir,
    pod: String,
    flags: Vec<String>,
    http: u16,
    https: u16,
    ready: u16,
    health: u16,
}

impl Replica {
    /// Starts one as this Pod, with these flags of `run` besides those that all have.
    pub fn start(server: &ApiServer, nginx: &Path, pod: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        server.kubeconfig_of("own", "coxswain", folder.path());
        std::fs::create_dir_all(folder.path().join("proxy")).expect("a volume");
        // Workers run as somebody else and must be able to pass.
        for folder in [folder.path(), &folder.path().join("proxy")] {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("permissions");
        }
        let [http, https, ready, health] = [(); 4].map(|()| net::port());
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut agent = Command::new(env!("CARGO_BIN_EXE_coxswain"));
        agent.arg("agent").arg(format!("--proxy-dir={}", folder.path().join("proxy").display()));
        agent.arg(format!("--ready-port={ready}")).arg("--").arg(nginx);
        let run = controller(folder.path(), pod, &flags, [http, https, ready, health]);
        let (controller, agent) =
            (spawn(run, &folder.path().join("run.log")), spawn(agent, &folder.path().join("agent.log")));
        Self { controller, agent, folder, pod: pod.to_owned(), flags, http, https, ready, health }
    }

    /// Ends the controller at once.
    pub fn kill_controller(&mut self) {
        end(&mut self.controller, Signal::SIGKILL);
    }

    /// Ends the controller in peace: it says farewell.
    pub fn stop_controller(&mut self) {
        end(&mut self.controller, Signal::SIGTERM);
    }

    /// Starts the controller again, as the kubelet would. Its log begins anew.
    pub fn start_controller(&mut self) {
        let ports = [self.http, self.https, self.ready, self.health];
        let run = controller(self.folder.path(), &self.pod, &self.flags, ports);
        self.controller = spawn(run, &self.folder.path().join("run.log"));
    }

    /// Where the proxy listens.
    pub fn client(&self) -> Client {
        Client::new(([127, 0, 0, 1], self.http).into())
    }

    /// Who answers for `host`.
    pub async fn who(&self, host: &str) -> Result<String, String> {
        self.client().try_get(host, "/").await.map(|answer| answer.who())
    }

    /// Waits until `host` is served by the Service `web`.
    pub async fn serves(&self, host: &str) {
        eventually(&format!("{host} is served"), async || {
            let who = self.who(host).await?;
            wait::check(who == "web", || who)
        })
        .await;
    }

    /// Health and metrics.
    pub async fn health(&self, target: &str) -> Result<Answer, String> {
        Client::new(([127, 0, 0, 1], self.health).into()).try_get("localhost", target).await
    }

    /// Waits until this controller leads.
    pub async fn leads(&self) {
        eventually("this replica leads", async || {
            let page = self.health("/metrics").await?.text();
            let leads = page.lines().any(|line| {
                line.starts_with("nginx_ingress_controller_leader_election_status{") && line.ends_with(" 1")
            });
            wait::check(leads, || "it does not".to_owned())
        })
        .await;
    }

    /// What the controller said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("run.log")).unwrap_or_default()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        end(&mut self.controller, Signal::SIGTERM);
        end(&mut self.agent, Signal::SIGTERM);
        if std::thread::panicking() {
            let agent = std::fs::read_to_string(self.folder.path().join("agent.log")).unwrap_or_default();
            eprintln!("--- controller\n{}\n--- agent\n{agent}", self.said());
        }
    }
}

fn controller(folder: &Path, pod: &str, flags: &[String], [http, https, ready, health]: [u16; 4]) -> Command {
    let mut run = Command::new(env!("CARGO_BIN_EXE_coxswain"));
    run.args(["run", "--election-id=coxswain-leader", "--election-ttl=6s"])
        .arg(format!("--kubeconfig={}", folder.join("kubeconfig").display()))
        .arg(format!("--proxy-dir={}", folder.join("proxy").display()))
        .arg(format!("--http-port={http}"))
        .arg(format!("--https-port={https}"))
        .arg(format!("--ready-port={ready}"))
        .arg(format!("--healthz-port={health}"))
        .arg("--configmap=own/coxswain")
        .arg(format!("--debug-socket={}", folder.join("debug.sock").display()))
        .args(flags)
        .envs([("POD_NAME", pod), ("POD_NAMESPACE", "own")]);
    if !flags.iter().any(|flag| flag.starts_with("--publish-status-address")) {
        run.arg("--publish-status-address=192.0.2.1");
    }
    run
}

fn spawn(mut command: Command, log: &Path) -> Child {
    let log = std::fs::File::create(log).expect("a log");
    let err = log.try_clone().expect("the same log");
    command.stdin(Stdio::null()).stdout(log).stderr(err).spawn().expect("coxswain starts")
}

fn end(child: &mut Child, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    // Waited for already: its pid may be somebody else's.
    if matches!(child.try_wait(), Ok(None)) {
        let _ = nix::sys::signal::kill(pid, signal);
        let _ = child.wait();
    }
}

/// What a test of replicas needs, or `None` after the reason has been printed: an API server, nginx, and a pod at an
/// address that EndpointSlices take (they refuse loopback).
pub async fn parts() -> Option<(ApiServer, PathBuf, Pod)> {
    beside(ApiServer::start()?).await
}

/// The rest of [`parts`] beside an API server that is there.
pub async fn beside(server: ApiServer) -> Option<(ApiServer, PathBuf, Pod)> {
    let nginx = parts::nginx()?;
    parts::part("helm", "helm")?;
    let Some(own) = net::outside() else {
        eprintln!("skipped: this machine has no address but loopback");
        return None;
    };
    Some((server, nginx, Pod::start_at("web", (own, net::port()).into(), None).await))
}

/// The namespaces `own` and `shop`; in the one the chart's account and Roles, as helm renders them with these values,
/// in the other a Service whose endpoint is the pod.
pub fn install(server: &ApiServer, pod: &Pod, values: &[&str]) {
    server.apply(&(namespace("own") + &namespace("shop")));
    let only = ["--show-only", "templates/rbac.yaml", "--show-only", "templates/ingressclass.yaml"];
    server.apply(&chart(&[&only[..], values].concat()));
    server.apply(&service(pod));
}

/// The chart as `helm template` prints it for a release in the namespace `own`.
pub fn chart(arguments: &[&str]) -> String {
    let helm = parts::part("helm", "helm").expect("helm was there at the start");
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/coxswain");
    let mut command = Command::new(helm);
    command.args(["template", "coxswain", chart, "-n", "own", "--kube-version", "1.36.0"]).args(arguments);
    let rendered = command.output().expect("helm runs");
    assert!(rendered.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&rendered.stderr));
    String::from_utf8_lossy(&rendered.stdout).into_owned()
}

/// The Service `web` of the namespace `shop`.
fn service(pod: &Pod) -> String {
    format!(
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
        pod.address.port(),
        pod.address.ip()
    )
}
