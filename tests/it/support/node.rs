//! A real cluster of one node on which Pods run (`hack/parts/node`), with coxswain's image on it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use super::parts::{self, part};

/// The image that [`Node::start`] brings along.
pub const IMAGE: (&str, &str) = ("localhost/coxswain", "test");

/// A running node; ended when dropped, with all that runs on it.
pub struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    /// Starts one, or `None` after the reason has been printed.
    pub fn start() -> Option<Self> {
        for program in ["kubelet", "kube-proxy", "kube-controller-manager", "kube-scheduler", "kubectl", "etcd"] {
            part("node", program)?;
        }
        part("helm", "helm")?;
        if !nix::unistd::geteuid().is_root() {
            return parts::without("node", "a node's Pods run in namespaces of their own, which takes root");
        }
        super::client::install_crypto();
        let node = Self { folder: tempfile::tempdir().expect("a folder") };
        let image = node.folder.path().join("coxswain.tar");
        let (name, tag) = IMAGE;
        // An unoptimised one: it is there within seconds where hack/test has built it before.
        let mut build = Command::new(script("hack/image"));
        build.env("PROFILE", "dev").args(["--name", &format!("{name}:{tag}")]).arg("--output").arg(&image);
        run(&mut build).expect("hack/image");
        if let Err(said) = run(tools(Command::new(script("hack/parts/node")).arg("up").arg(node.path()))) {
            return parts::without("node", &format!("the node did not come up: {said}"));
        }
        node.exec(&["ctr", "-n", "k8s.io", "images", "import", &image.display().to_string()]);
        Some(node)
    }

    /// Runs `work` in the network of the node, where Services and Pods have their addresses.
    pub fn inside<F: Future<Output = ()>>(&self, work: impl FnOnce() -> F + Send) {
        let network = format!("/proc/{}/ns/net", self.read("init.pid").trim());
        let network = File::open(&network).unwrap_or_else(|error| panic!("{network}: {error}"));
        // A network belongs to a thread, and those that the runtime starts inherit it.
        let done = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&network, CloneFlags::CLONE_NEWNET).expect("root may enter");
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                runtime.expect("a runtime").block_on(work());
            });
            thread.join()
        });
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    }

    /// Runs a command on the node; its output. Fails the test when it fails.
    #[track_caller]
    pub fn exec(&self, command: &[&str]) -> String {
        self.try_exec(command).unwrap_or_else(|said| panic!("{command:?}: {said}"))
    }

    /// Runs a command on the node: what it printed, or all that it said when it failed.
    pub fn try_exec(&self, command: &[&str]) -> Result<String, String> {
        run(tools(Command::new(script("hack/parts/node")).arg("exec").arg(self.path()).args(command)))
    }

    /// kubectl as a cluster-admin; its output. Fails the test when it fails.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.exec(&[&["kubectl"], arguments].concat())
    }

    /// Applies manifests (YAML): what kubectl printed, or all that it said when it failed.
    pub fn try_apply(&self, manifests: &str) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new_in(self.path()).expect("a file");
        std::fs::write(file.path(), manifests).expect("written");
        self.try_exec(&["kubectl", "apply", "-f", &file.path().display().to_string()])
    }

    /// Installs the chart of this checkout, or upgrades to it, with these values besides those that every test needs.
    pub fn install(&self, values: &[&str]) {
        let (repository, tag) = IMAGE;
        let image = format!("controller.image.repository={repository},controller.image.tag={tag}");
        let mut helm = vec!["helm", "upgrade", "--install", "coxswain"];
        let chart = script("charts/coxswain").display().to_string();
        helm.extend([&chart, "--namespace", "coxswain", "--create-namespace", "--wait", "--timeout", "10m"]);
        helm.extend(["--set", &image, "--set", "proxy.image.repository=localhost/nginx,proxy.image.tag=1.30"]);
        // Nobody here hands out addresses for Services of type LoadBalancer.
        helm.extend(["--set", "controller.service.type=ClusterIP"]);
        helm.extend(values.iter().flat_map(|value| ["--set", value]));
        self.exec(&helm);
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn read(&self, name: &str) -> String {
        let path = self.path().join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = |container| {
                [
                    "logs",
                    "-n",
                    "coxswain",
                    "-l",
                    "app.kubernetes.io/name=coxswain",
                    "--prefix",
                    "--tail=30",
                    "-c",
                    container,
                ]
            };
            for question in [
                vec!["get", "pods", "-A", "-o", "wide"],
                vec!["get", "events", "-n", "coxswain"],
                logs("controller").to_vec(),
                logs("proxy").to_vec(),
            ] {
                let answer = self.try_exec(&[vec!["kubectl"], question.clone()].concat());
                eprintln!("--- {}\n{}", question.join(" "), answer.unwrap_or_else(|said| said));
            }
        }
        // Nothing that is left would be ours to mend.
        let _ = run(tools(Command::new(script("hack/parts/node")).arg("down").arg(self.path())));
    }
}

fn script(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// With `TOOLS` where the parts were found.
fn tools(command: &mut Command) -> &mut Command {
    if let Some(tools) = part("node", "kubelet").as_deref().and_then(Path::parent).and_then(Path::parent) {
        command.env("TOOLS", tools);
    }
    command
}

fn run(command: &mut Command) -> Result<String, String> {
    let done = command.stdin(std::process::Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stdout) + &text(&done.stderr)) }
}
