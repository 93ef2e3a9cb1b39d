//! A real nginx with a hand-written configuration, the agent's DNS server before it, and backends behind it.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use coxswain::agent::dns::{Client, Responders, Server};
use coxswain::agent::endpoints::{Names, Source};
use coxswain::volume::{EndpointSet, Endpoints, Protocol, Volume};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{eventually, net, parts, wait};

/// The volume, the DNS server, and an nginx in front of some upstreams.
pub struct Fixture {
    folder: tempfile::TempDir,
    executable: PathBuf,
    pub volume: Volume,
    pub server: Server,
    /// The sockets of the newest generation.
    pub client: Option<Client>,
    /// What the configuration says of them.
    resolver: String,
    responders: Responders,
    pub port: u16,
    /// Where nginx itself is a backend: HTTP, HTTPS, gRPC, gRPC over TLS.
    pub backends: [SocketAddr; 4],
    upstreams: Vec<(String, Protocol)>,
    generation: usize,
    nginx: Option<Child>,
}

/// An answer to an HTTP request.
#[derive(Debug, Eq, PartialEq)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Fixture {
    /// A volume without endpoints and a server that serves it; nginx is not started yet. `None` without nginx.
    pub async fn new(upstreams: impl IntoIterator<Item = (String, Protocol)>, names: Names) -> Option<Self> {
        let executable = parts::nginx()?;
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path().join("volume"));
        std::fs::create_dir_all(volume.endpoints()).unwrap();
        let local = || SocketAddr::from((Ipv4Addr::LOCALHOST, net::port()));
        let responders = Responders { plain: local(), tls: local(), h2c: local(), h2_tls: local() };
        let server = Server::new(Source::start(&volume, names).await.unwrap(), responders);
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let pem = certified.cert.pem() + &certified.signing_key.serialize_pem();
        std::fs::write(folder.path().join("localhost.pem"), pem).unwrap();
        Some(Self {
            folder,
            executable,
            volume,
            server,
            client: None,
            resolver: String::new(),
            responders,
            port: net::port(),
            backends: [local(), local(), local(), local()],
            upstreams: upstreams.into_iter().collect(),
            generation: 0,
            nginx: None,
        })
    }

    /// Upstreams of plain HTTP, so many.
    pub async fn with_plain_upstreams(count: usize) -> Option<Self> {
        Self::new((0..count).map(|n| (id(n), Protocol::Http)), Names::system()).await
    }

    /// Writes the endpoints of an upstream as the controller does.
    pub fn write(&self, n: usize, endpoints: &[SocketAddr]) {
        let endpoints = Endpoints::Addresses(endpoints.to_vec());
        let set = EndpointSet { protocol: self.upstreams[n].1, endpoints };
        self.write_text(n, &serde_json::to_string(&set).unwrap());
    }

    /// Writes that the endpoints of an upstream are those of a name.
    pub fn write_name(&self, n: usize, host: &str, port: u16) {
        let endpoints = Endpoints::Name { host: host.to_owned(), port };
        let set = EndpointSet { protocol: self.upstreams[n].1, endpoints };
        self.write_text(n, &serde_json::to_string(&set).unwrap());
    }

    /// Replaces the file of an upstream.
    pub fn write_text(&self, n: usize, text: &str) {
        let id = &self.upstreams[n].0;
        let new = self.volume.endpoints().join(format!(".{id}"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.volume.endpoint_set(id)).unwrap();
    }

    pub fn ids(&self) -> Vec<String> {
        self.upstreams.iter().map(|(id, _)| id.clone()).collect()
    }

    /// Starts nginx and waits until it serves; what it resolved by then is not looked at.
    pub async fn start(&mut self) {
        self.reload().await;
    }

    /// Starts or reloads nginx with sockets of its own, and gives back those of the former generation.
    pub async fn reload(&mut self) -> Option<Client> {
        let client = self.server.listen().await.unwrap();
        self.resolver = client.resolver();
        let former = self.client.replace(client);
        self.reload_with_the_same_resolver().await;
        former
    }

    /// Starts or reloads nginx, which asks whom it asked before.
    pub async fn reload_with_the_same_resolver(&mut self) {
        self.generation += 1;
        std::fs::write(self.folder.path().join("nginx.conf"), self.configuration()).unwrap();
        match &self.nginx {
            None => self.nginx = Some(self.spawn()),
            Some(nginx) => kill(pid(nginx), Signal::SIGHUP).unwrap(),
        }
        let stamp = self.generation.to_string();
        eventually("nginx serves the new configuration", async || {
            let answer = get(self.port, "/stamp").await;
            wait::check(answer.as_ref().is_ok_and(|r| r.body == stamp), || format!("{answer:?}"))
        })
        .await;
    }

    fn spawn(&self) -> Child {
        let log = std::fs::File::create(self.folder.path().join("stderr")).unwrap();
        Command::new(&self.executable)
            .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap()
    }

    /// Waits until nginx has had the answers for all upstreams.
    pub async fn all_answered(&self) {
        let client = self.client.as_ref().unwrap();
        let ids = self.ids();
        let all = async {
            while client.answered(&ids) < ids.len() {
                client.changed().await;
            }
        };
        let waited = tokio::time::timeout(wait::PATIENCE, all).await;
        assert!(waited.is_ok(), "only {} of {} upstreams were answered", client.answered(&ids), ids.len());
    }

    /// Asks for something of an upstream.
    pub async fn request(&self, n: usize) -> Response {
        get(self.port, &format!("/{}", self.upstreams[n].0)).await.unwrap()
    }

    /// Waits until requests to an upstream are answered with this status.
    pub async fn until_status(&self, n: usize, status: u16) {
        eventually(&format!("upstream {n} answers {status}"), async || {
            let answer = self.request(n).await;
            wait::check(answer.status == status, || format!("{answer:?}"))
        })
        .await;
    }

    fn configuration(&self) -> String {
        let Responders { plain, tls, h2c, h2_tls } = self.responders;
        let [http, https, grpc, grpcs] = self.backends;
        let (port, generation) = (self.port, self.generation);
        let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
        let resolver = &self.resolver;
        let mut conf = format!(
            r#"
daemon off; {user} pid nginx.pid; error_log stderr notice; worker_processes 2; worker_shutdown_timeout 5s;
events {{ worker_connections 4096; }}
http {{
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  access_log off; resolver {resolver}; resolver_timeout 60s; proxy_connect_timeout 2s;
  ssl_certificate localhost.pem; ssl_certificate_key localhost.pem;
  proxy_http_version 1.1; proxy_set_header Connection "";
  server {{ listen {plain}; return 503; }}
  server {{ listen {tls} ssl; return 503; }}
  server {{ listen {h2c}; http2 on; return 503; }}
  server {{ listen {h2_tls} ssl; http2 on; return 503; }}
  server {{ listen {http}; return 200 http; }}
  server {{ listen {https} ssl; return 200 https; }}
  server {{ listen {grpc}; http2 on; return 200 grpc; }}
  server {{ listen {grpcs} ssl; http2 on; return 200 grpcs; }}
  server {{
    listen 127.0.0.1:{port};
    add_header Upstream $upstream_addr always;
    location = /stamp {{ return 200 {generation}; }}
"#
        );
        for (id, protocol) in &self.upstreams {
            let pass = match protocol {
                Protocol::Http => "proxy_pass http",
                Protocol::Https => "proxy_pass https",
                Protocol::Grpc => "grpc_pass grpc",
                Protocol::Grpcs => "grpc_pass grpcs",
            };
            writeln!(conf, "    location = /{id} {{ {pass}://{id}; }}").unwrap();
        }
        conf.push_str("  }\n");
        for (n, (id, _)) in self.upstreams.iter().enumerate() {
            let label = id.split('-').next().unwrap();
            writeln!(
                conf,
                "  upstream {id} {{ zone u{:02} 2m; server {label}.coxswain.internal service=ep resolve; keepalive 8; }}",
                n % 64
            )
            .unwrap();
        }
        conf.push_str("}\n");
        conf
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(nginx) = &mut self.nginx {
            let _ = killpg(pid(nginx), Signal::SIGKILL);
            let _ = nginx.wait();
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
                let end = log.len().saturating_sub(4000);
                eprintln!("the end of nginx's log:\n{}", &log[log.ceil_char_boundary(end)..]);
            }
        }
    }
}

/// The id of the nth upstream.
pub fn id(n: usize) -> String {
    // As the model makes them: a hash of some length first.
    format!("{:016x}-shop-web{n}-80", (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// One request over a connection of its own.
pub async fn get(port: u16, path: &str) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(Response { status, head: head.to_owned(), body: body.to_owned() })
}

/// A backend on every address of 127.0.0.0/8 at one port, which answers with the address that was connected to.
pub async fn backend() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(accept(listener));
    port
}

/// Serves whoever connects.
pub async fn accept(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream));
    }
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let name = stream.local_addr()?.to_string();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
    let mut received = Vec::new();
    while stream.read_buf(&mut received).await? > 0 {
        while let Some(end) = received.windows(4).position(|w| w == b"\r\n\r\n") {
            received.drain(..end + 4);
            stream.write_all(answer.as_bytes()).await?;
        }
    }
    Ok(())
}

/// The nth address on which a backend answers.
pub fn endpoint(n: usize, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 1, (n / 250) as u8, (n % 250 + 1) as u8], port))
}
