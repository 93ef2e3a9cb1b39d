//! A real nginx that serves a model made by hand, with the agent's DNS server and nothing else of coxswain at run time.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use coxswain::agent::dns::{self, Responders, Server};
use coxswain::agent::endpoints::{Names, Source};
use coxswain::model::{Action, ProxyConfig};
use coxswain::render::{History, render};
use coxswain::volume::{EndpointSet, ProxyKind, local};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::certificates::{Authority, Pair};
use super::client::Client;
use super::model::Stage;
use super::{eventually, net, parts};

/// A running nginx.
pub struct Rendered {
    stage: Stage,
    http: SocketAddr,
    https: SocketAddr,
    nginx: Child,
    /// The sockets that nginx asks; they end with it.
    _dns: (Server, dns::Client),
}

impl Rendered {
    /// Serves a model, on free ports. `pairs` are what lies in the slots, the default one first. `None` without nginx.
    pub async fn start(mut config: ProxyConfig, pairs: &[(&str, &Pair)]) -> Option<Self> {
        let executable = parts::nginx()?;
        config.listeners.http = net::port();
        config.listeners.https = net::port();
        let stage = Stage::new(&render(&config, ProxyKind::Nginx, &History::default()).expect("a rendering"));
        let volume = &stage.volume;
        std::fs::create_dir_all(volume.endpoints()).expect("a folder of the volume");
        for (id, upstream) in &config.upstreams {
            let set = EndpointSet { protocol: upstream.protocol, endpoints: upstream.endpoints.clone() };
            let text = serde_json::to_string(&set).expect("JSON");
            std::fs::write(volume.endpoint_set(id.as_str()), text).expect("endpoints");
        }
        let default = Authority::new().issue(&["default.test"]);
        for (slot, pair) in [("default", &default)].iter().chain(pairs) {
            std::fs::write(volume.tls_slot(slot), pair.certificate.clone() + &pair.key).expect("a certificate");
        }
        for route in config.hosts.iter().flat_map(|host| &host.routes) {
            let Action::Files(content) = &route.action else { continue };
            for file in content.files.values() {
                std::fs::write(volume.files().join(&file.sha256), &file.content).expect("a file");
            }
        }

        let local = || SocketAddr::from((Ipv4Addr::LOCALHOST, net::port()));
        let responders = Responders { plain: local(), tls: local(), h2c: local(), h2_tls: local() };
        let server = Server::new(Source::start(volume, Names::system()).await.expect("endpoints"), responders);
        let client = server.listen().await.expect("sockets of the DNS server");
        let http = std::fs::read_to_string(volume.local(local::HTTP)).expect("an include");
        let resolver = format!("resolver {};", client.resolver());
        std::fs::write(volume.local(local::HTTP), http.replace("resolver 127.0.0.1:1 ipv6=off;", &resolver))
            .expect("an include");
        if nix::unistd::geteuid().is_root() {
            let main = std::fs::read_to_string(volume.local(local::MAIN)).expect("an include");
            std::fs::write(volume.local(local::MAIN), main + "user root;\n").expect("an include");
        }

        let log = std::fs::File::create(stage.path().join("stderr")).expect("a log");
        let nginx = stage
            .command(&executable, "nginx.conf")
            .args(["-g", "daemon off;"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("nginx starts");
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (http, https) = (address(config.listeners.http), address(config.listeners.https));
        let running = Self { stage, http, https, nginx, _dns: (server, client) };
        eventually("nginx serves", async || running.client().try_get("_", "/healthz").await.map(drop)).await;
        let ids: Vec<String> = config.upstreams.keys().map(ToString::to_string).collect();
        eventually("every upstream is answered", async || {
            let answered = running._dns.1.answered(&ids);
            super::wait::check(answered == ids.len(), || format!("{answered} of {}", ids.len()))
        })
        .await;
        Some(running)
    }

    /// Over plain HTTP.
    pub fn client(&self) -> Client {
        Client::new(self.http)
    }

    /// Over TLS, asking for this name.
    pub fn tls(&self, sni: &str) -> Client {
        Client::new(self.https).tls(sni)
    }

    /// Where plain HTTP is.
    pub fn address(&self) -> SocketAddr {
        self.http
    }

    /// The lines of the access log so far.
    pub fn access_log(&self) -> String {
        std::fs::read_to_string(self.stage.volume.output().join("access.log")).unwrap_or_default()
    }
}

impl Drop for Rendered {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.nginx.id().try_into().expect("a process id"));
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.nginx.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.stage.volume.output().join("error.log")).unwrap_or_default();
            let end = log.len().saturating_sub(4000);
            eprintln!("the end of nginx's log:\n{}", &log[log.ceil_char_boundary(end)..]);
        }
    }
}
