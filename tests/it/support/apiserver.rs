//! A real API server: etcd and kube-apiserver with RBAC, and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use super::net;
use super::parts::part;

/// A running API server; ended when dropped.
pub struct ApiServer {
    folder: tempfile::TempDir,
    port: u16,
}

impl ApiServer {
    /// Starts one, or `None` after the reason has been printed.
    pub fn start() -> Option<Self> {
        for program in ["etcd", "kube-apiserver", "kubectl"] {
            part("apiserver", program)?;
        }
        super::client::install_crypto();
        let server = Self { folder: tempfile::tempdir().expect("a folder"), port: net::port() };
        server.resume();
        Some(server)
    }

    /// Starts one that notes every request of `user`, or `None` after the reason has been printed.
    pub fn start_audited(user: &str) -> Option<Self> {
        let server = Self::start()?;
        let policy = serde_json::json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata", "users": [user]}, {"level": "None"}],
        });
        std::fs::write(server.folder.path().join("audit.yaml"), policy.to_string()).expect("written");
        server.interrupt();
        server.resume();
        Some(server)
    }

    /// What was asked for with success in an audited one, as `verb group/resource`, a subresource included.
    pub fn asked(&self) -> BTreeSet<String> {
        let log = std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap_or_default();
        let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let good = entries.filter(|entry| entry["responseStatus"]["code"].as_u64().is_some_and(|code| code < 400));
        good.filter(|entry| entry["objectRef"].is_object())
            .map(|entry| {
                let text = |field: &str| entry["objectRef"][field].as_str().unwrap_or_default().to_owned();
                let part = Some(text("subresource")).filter(|part| !part.is_empty()).map(|part| format!("/{part}"));
                let verb = entry["verb"].as_str().unwrap_or_default();
                format!("{verb} {}/{}{}", text("apiGroup"), text("resource"), part.unwrap_or_default())
            })
            .collect()
    }

    /// Ends it, as a crash of the whole control plane would. [`Self::resume`] brings it back with its data.
    pub fn interrupt(&self) {
        self.script("stop");
    }

    /// Starts it again at the same address with the same data.
    pub fn resume(&self) {
        self.script("start");
    }

    /// Keeps a copy of all its data; it is away meanwhile.
    pub fn back_up(&self) {
        self.interrupt();
        self.copy("etcd", "backup");
        self.resume();
    }

    /// Puts it back to the data of the last [`Self::back_up`]; what came later never was.
    pub fn restore(&self) {
        self.interrupt();
        std::fs::remove_dir_all(self.folder.path().join("etcd")).expect("removed");
        self.copy("backup", "etcd");
        self.resume();
    }

    /// The kubeconfig of a cluster-admin.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// How to reach it as a cluster-admin.
    pub async fn config(&self) -> Config {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).expect("a kubeconfig");
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a configuration")
    }

    /// A client with the rights of a cluster-admin.
    pub async fn client(&self) -> Client {
        Client::try_from(self.config().await).expect("a client")
    }

    /// A client with the rights of a cluster-admin, of whose requests some go wrong as no real part can make them.
    pub async fn client_with(&self, faults: impl Fn(&Request<Body>) -> Option<Fault> + Send + 'static) -> Client {
        let inner = self.client().await;
        let service =
            tower::service_fn(move |request: Request<Body>| spoiled(inner.clone(), faults(&request), request));
        Client::new(service, "default")
    }

    /// A client with the rights of a service account, by a token as a Pod would have it.
    pub async fn client_of(&self, namespace: &str, account: &str) -> Client {
        let token = self.kubectl(&["create", "token", account, "-n", namespace]);
        let mut config = self.config().await;
        config.auth_info = kube::config::AuthInfo { token: Some(token.trim().to_owned().into()), ..Default::default() };
        Client::try_from(config).expect("a client")
    }

    /// A kubeconfig with the rights of a service account, in a folder of the caller's.
    pub fn kubeconfig_of(&self, namespace: &str, account: &str, folder: &Path) -> PathBuf {
        let token = self.kubectl(&["create", "token", account, "-n", namespace]);
        let authority = self.folder.path().join("ca.crt");
        let path = folder.join("kubeconfig");
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("https://127.0.0.1:{}", self.port), "certificate-authority": authority}}],
            "users": [{"name": "test", "user": {"token": token.trim()}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        std::fs::write(&path, text.to_string()).expect("a kubeconfig");
        path
    }

    /// Applies manifests (YAML). Fails the test when that fails.
    #[track_caller]
    pub fn apply(&self, manifests: &str) {
        self.try_apply(manifests).unwrap_or_else(|said| panic!("{said}"));
    }

    /// Applies manifests (YAML): what kubectl warned of, or said when it failed.
    pub fn try_apply(&self, manifests: &str) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new_in(self.folder.path()).expect("a file");
        std::fs::write(file.path(), manifests).expect("written");
        let path = file.path().display().to_string();
        self.try_kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &path]).map(|(_, warned)| warned)
    }

    /// Has the API server look at every field of these manifests (YAML), strictly, and store nothing.
    pub fn dry_run(&self, manifests: &str) -> Result<(), String> {
        let file = tempfile::NamedTempFile::new_in(self.folder.path()).expect("a file");
        std::fs::write(file.path(), manifests).expect("written");
        let path = file.path().display().to_string();
        self.try_kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", &path]).map(drop)
    }

    /// Runs kubectl as a cluster-admin; its output. Fails the test when it fails.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|said| panic!("kubectl {arguments:?}: {said}")).0
    }

    /// Runs kubectl as a cluster-admin: what it printed and what it warned of, or both when it failed.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<(String, String), String> {
        let kubectl = part("apiserver", "kubectl").expect("kubectl was there at the start");
        let mut command = Command::new(kubectl);
        let done = command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments).output().expect("kubectl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&done.stdout), text(&done.stderr));
        if done.status.success() { Ok((out, err)) } else { Err(out + &err) }
    }

    /// One object, as kubectl prints it in JSON.
    #[track_caller]
    pub fn object(&self, kind: &str, namespace: &str, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&[
            "get",
            kind,
            name,
            "-n",
            namespace,
            "-o",
            "json",
            "--show-managed-fields",
        ]))
        .expect("JSON")
    }

    fn copy(&self, from: &str, to: &str) {
        let path = |name| self.folder.path().join(name);
        let done = Command::new("cp").arg("-a").arg(path(from)).arg(path(to)).status().expect("cp runs");
        assert!(done.success(), "copying {from} to {to}");
    }

    fn script(&self, verb: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/parts/apiserver");
        let mut command = Command::new(script);
        command.arg(verb).arg(self.folder.path()).env("PORT", self.port.to_string());
        if verb == "start" && self.folder.path().join("audit.yaml").exists() {
            command.args(["--audit-policy-file=audit.yaml", "--audit-log-path=audit.log"]);
        }
        if let Some(bin) = part("apiserver", "etcd").as_deref().and_then(Path::parent) {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", bin.display()));
        }
        let done = command.output().expect("hack/parts/apiserver runs");
        assert!(done.status.success(), "apiserver {verb}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// What goes wrong with a request.
pub enum Fault {
    /// It is answered with this status, and nothing happens.
    Refused(u16),
    /// The connection breaks in the middle of the answer.
    Cut,
    /// The answer says the second where it would say the first.
    Rewritten(&'static str, &'static str),
}

type Answer = Response<UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>>;

async fn spoiled(inner: Client, fault: Option<Fault>, request: Request<Body>) -> Result<Answer, kube::Error> {
    let whole = |body: Bytes| Full::new(body).map_err(|never| match never {}).boxed_unsync();
    if let Some(Fault::Refused(code)) = fault {
        let status = serde_json::json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": "spoiled by a test",
            "reason": if code == 409 { "Conflict" } else { "" },
        });
        let mut answer = Response::new(whole(status.to_string().into()));
        *answer.status_mut() = code.try_into().expect("a status");
        return Ok(answer);
    }
    let (head, body) = inner.send(request).await?.into_parts();
    let Some(fault) = fault else {
        return Ok(Response::from_parts(head, body.map_err(Into::into).boxed_unsync()));
    };
    let all = body.collect().await?.to_bytes();
    if let Fault::Rewritten(from, to) = fault {
        let text = String::from_utf8_lossy(&all).replace(from, to);
        return Ok(Response::from_parts(head, whole(text.into())));
    }
    let half = Ok(Frame::data(all.slice(..all.len() / 2)));
    let frames = futures::stream::iter([half, Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into())]);
    Ok(Response::from_parts(head, StreamBody::new(frames).boxed_unsync()))
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.script("stop");
    }
}
