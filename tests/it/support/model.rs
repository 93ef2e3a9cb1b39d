//! Models made by hand, and the volume on which a real nginx finds what was rendered from them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use coxswain::annotations::load_balance::LoadBalance;
use coxswain::annotations::{Globals, Policies};
use coxswain::model::{
    Action, BackendName, Listeners, PathMatch, PortId, ProxyConfig, Route, Slot, SlotId, Upstream, UpstreamId,
    VirtualHost,
};
use coxswain::problem::{Kind, Subject};
use coxswain::render::{File, Rendering};
use coxswain::value::Value;
use coxswain::value::host::HostMatch;
use coxswain::value::path::RulePath;
use coxswain::value::reference::{Name, ObjectName};
use coxswain::value::regex::Regex;
use coxswain::volume::{Endpoints, Protocol, Volume, local};

/// Parses what a test writes down itself.
#[track_caller]
pub fn value<T: Value>(text: &str) -> T {
    match T::parse(text) {
        Ok(value) => value,
        Err(invalid) => panic!("{text:?} {invalid}"),
    }
}

/// The Ingress `namespace/name`.
pub fn ingress(name: &str) -> Subject {
    Subject { kind: Kind::Ingress, object: value(name), uid: None }
}

/// `=/foo`, `/foo` or `~/fo+`.
pub fn path(text: &str) -> PathMatch {
    match text.split_at(1) {
        ("=", path) => PathMatch::Exact(value(path)),
        ("~", regex) => PathMatch::Regex(value::<Regex>(regex)),
        _ => PathMatch::Prefix(value(text)),
    }
}

/// A route of the Ingress `shop/web`, as the annotations' defaults have it.
pub fn route(at: &str, action: Action) -> Route {
    let backend = matches!(action, Action::Forward(_))
        .then(|| BackendName { service: value::<Name>("web"), port: "80".to_owned() });
    let source = Some(ingress("shop/web"));
    Route { path: path(at), action, redirect_to_https: false, policies: Policies::default(), backend, source }
}

/// What the controller adds to every host.
pub fn last() -> Route {
    Route { source: None, ..route("/", Action::Respond(404)) }
}

/// A host of the Ingress `shop/web`, ended with a 404 unless its last route takes everything.
pub fn host(name: &str, routes: impl IntoIterator<Item = Route>) -> VirtualHost {
    let mut routes: Vec<_> = routes.into_iter().collect();
    if routes.last().map(|route| &route.path) != Some(&PathMatch::Prefix(RulePath::root())) {
        routes.push(last());
    }
    VirtualHost { host: value::<HostMatch>(name), tls: None, routes, source: Some(ingress("shop/web")) }
}

/// An upstream for a Service, and what sends requests to it.
pub fn upstream(service: &str, protocol: Protocol, endpoints: &[SocketAddr]) -> (Action, (UpstreamId, Upstream)) {
    let (service, load_balance) = (value::<ObjectName>(service), LoadBalance::RoundRobin);
    let id = UpstreamId::new(&service, &PortId::number(80), protocol, load_balance);
    let endpoints = Endpoints::Addresses(endpoints.to_vec());
    (Action::Forward(id.clone()), (id, Upstream { service, protocol, load_balance, endpoints }))
}

/// A configuration with these hosts and upstreams, and a host for all others unless there is one.
pub fn config(
    hosts: impl IntoIterator<Item = VirtualHost>,
    upstreams: impl IntoIterator<Item = (UpstreamId, Upstream)>,
) -> ProxyConfig {
    let mut hosts: Vec<_> = hosts.into_iter().collect();
    if !hosts.iter().any(|host| host.host == HostMatch::Any) {
        hosts.push(VirtualHost { source: None, ..host("", []) });
    }
    hosts.sort_by(|a, b| a.host.cmp(&b.host));
    let slot = Slot { secret: None, certificate: None, exists: true, fallback: None };
    ProxyConfig {
        listeners: Listeners { http: 8080, https: 8443, public_http: 80, public_https: 443, ipv6: false },
        globals: Globals::default(),
        globals_source: None,
        hosts,
        upstreams: upstreams.into_iter().collect(),
        slots: BTreeMap::from([(SlotId::default_slot(), slot)]),
    }
}

/// What was rendered, on a volume of its own with the least of an agent's includes.
pub struct Stage {
    folder: tempfile::TempDir,
    pub volume: Volume,
    release: PathBuf,
}

impl Stage {
    /// Writes a rendering where a controller would.
    pub fn new(rendering: &Rendering) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let volume = Volume::new(folder.path());
        let release = volume.release(&rendering.release.digest);
        for folder in [&release, &volume.output(), &volume.temporary(), &volume.tls(), &volume.files()] {
            std::fs::create_dir_all(folder).expect("a folder of the volume");
        }
        for (path, File { bytes, mode: _ }) in &rendering.release.files {
            std::fs::write(release.join(path.as_str()), bytes).expect("a file of the release");
        }
        if let Some(File { bytes, mode: _ }) = &rendering.release.changed {
            std::fs::write(release.join("changed.conf"), bytes).expect("changed.conf");
        }
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path ../../../tmp/{kind};\n"))
            .concat();
        for (name, text) in [
            (local::MAIN, "pid ../../../out/nginx.pid;\nerror_log ../../../out/error.log notice;\n"),
            (local::WORKERS, "worker_processes 1;\n"),
            (local::HTTP, &format!("resolver 127.0.0.1:1 ipv6=off;\n{temporary}")),
            (local::ACCESS_LOG, "access_log ../../../out/access.log upstreaminfo;\n"),
        ] {
            std::fs::write(volume.local(name), text).expect("an include");
        }
        Self { folder, volume, release }
    }

    /// The folder of all this.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of the release, with the slash that nginx wants.
    pub fn prefix(&self) -> String {
        format!("{}/", self.release.display())
    }

    /// Has nginx test a file of the release.
    pub fn test(&self, nginx: &Path, file: &str) -> Result<(), String> {
        let output = self.command(nginx, file).arg("-t").output().expect("nginx starts");
        if output.status.success() { Ok(()) } else { Err(shown(&output)) }
    }

    /// nginx for a file of the release.
    pub fn command(&self, nginx: &Path, file: &str) -> Command {
        let mut command = Command::new(nginx);
        command.args(["-e", "stderr", "-p", &self.prefix(), "-c", file]);
        command
    }
}

fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
