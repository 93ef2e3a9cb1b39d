//! The servers behind the proxy: each answers who it is and what it was asked, so that a test can tell.
//!
//! A pod speaks HTTP/1.1 and HTTP/2 on one port, in plain text or over TLS. It echoes WebSocket messages and answers
//! gRPC calls. The query of a request may ask for more: `status=404`, `delay=500` (milliseconds before the answer),
//! `stream=20` (so many lines, 100 ms apart), `length=100000` (a body of so many bytes), `location=/x` and
//! `hsts=max-age=1` (response headers), `drop` (close without an answer).

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::certificates::Pair;
use super::net;

/// A running server. It ends, with its connections, when dropped.
pub struct Pod {
    /// Where it listens.
    pub address: SocketAddr,
    answered: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

/// What a pod says about a request.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Echo {
    /// The name it was started with.
    pub service: String,
    /// Its own address.
    pub pod: SocketAddr,
    /// The request's method.
    pub method: String,
    /// The request's target as it came.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Every header, in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// How many bytes of body came.
    pub body: usize,
    /// The name the proxy asked for in its TLS handshake.
    pub sni: Option<String>,
}

impl Echo {
    /// The values of one header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }
}

impl Pod {
    /// A plain one on an address of its own, at `port`, which the pods of one Service share.
    pub async fn start(service: &str, port: u16) -> Self {
        Self::start_at(service, SocketAddr::new(IpAddr::V4(net::address()), port), None).await
    }

    /// One that speaks TLS.
    pub async fn start_tls(service: &str, port: u16, pair: &Pair) -> Self {
        Self::start_at(service, SocketAddr::new(IpAddr::V4(net::address()), port), Some(pair)).await
    }

    /// One at a given address.
    pub async fn start_at(service: &str, address: SocketAddr, pair: Option<&Pair>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap_or_else(|error| panic!("a pod at {address}: {error}"));
        let answered = Arc::new(AtomicUsize::new(0));
        let connections = Arc::new(AtomicUsize::new(0));
        let counters = (Arc::clone(&answered), Arc::clone(&connections));
        let server = Server { service: service.to_owned(), address, answered: counters.0, connections: counters.1 };
        let task = tokio::spawn(Arc::new(server).accept(listener, pair.map(acceptor)));
        Self { address, answered, connections, task }
    }

    /// How many requests it has answered.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Server {
    service: String,
    address: SocketAddr,
    answered: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

type Body = BoxBody<Bytes, Infallible>;

impl Server {
    async fn accept(self: Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        // Dropped with this task, and all connections with it.
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            let Ok((stream, _)) = accepted else { continue };
            self.connections.fetch_add(1, Ordering::Relaxed);
            // One that listens on every address is as many pods as it is asked by addresses.
            let at = stream.local_addr().unwrap_or(self.address);
            connections.spawn(Arc::clone(&self).connection(stream, at, tls.clone()));
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, at: SocketAddr, tls: Option<TlsAcceptor>) {
        // A connection that fails is the client's to notice.
        if let Some(tls) = tls {
            let Ok(stream) = tls.accept(stream).await else { return };
            let sni = stream.get_ref().1.server_name().map(str::to_owned);
            self.serve(TokioIo::new(stream), at, sni).await;
        } else {
            self.serve(TokioIo::new(stream), at, None).await;
        }
    }

    async fn serve<S>(self: Arc<Self>, io: TokioIo<S>, at: SocketAddr, sni: Option<String>)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let service = hyper::service::service_fn(move |request| Arc::clone(&self).answer(request, at, sni.clone()));
        let _ = auto::Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(io, service).await;
    }

    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        at: SocketAddr,
        sni: Option<String>,
    ) -> Result<Response<Body>, std::io::Error> {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let query = request.uri().query().unwrap_or_default().to_owned();
        let asked = |name: &str| {
            query.split('&').find_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (key == name).then_some(value)
            })
        };
        if asked("drop").is_some() {
            return Err(std::io::Error::other("asked to drop the connection"));
        }
        if let Some(delay) = asked("delay").and_then(|value| value.parse().ok()) {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if request.headers().get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket")) {
            return Ok(self.websocket(&mut request));
        }
        let grpc =
            request.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        let echo = self.echo(request, at, sni).await;
        if grpc {
            return Ok(call(&echo));
        }
        let body = match (asked("length"), asked("stream")) {
            (Some(length), _) => whole(vec![b'x'; length.parse().unwrap_or(0)]),
            (_, Some(lines)) => lines_of(lines.parse().unwrap_or(0)),
            _ => whole(serde_json::to_vec(&echo).expect("an echo is JSON")),
        };
        let mut response = Response::new(body);
        if let Some(status) = asked("status").and_then(|value| value.parse().ok()) {
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
        }
        for (name, header) in [("location", LOCATION), ("hsts", hyper::header::STRICT_TRANSPORT_SECURITY)] {
            if let Some(value) = asked(name).and_then(|value| HeaderValue::from_str(value).ok()) {
                response.headers_mut().insert(header, value);
            }
        }
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    async fn echo(&self, request: Request<Incoming>, at: SocketAddr, sni: Option<String>) -> Echo {
        let (head, body) = request.into_parts();
        // A body that breaks off counts as far as it came.
        let body = body.collect().await.map(|body| body.to_bytes().len()).unwrap_or(0);
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Echo {
            service: self.service.clone(),
            pod: at,
            method: head.method.to_string(),
            target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            version: format!("{:?}", head.version),
            headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            body,
            sni,
        }
    }

    /// Accepts the upgrade and sends every message back, after the name of this server.
    fn websocket(&self, request: &mut Request<Incoming>) -> Response<Body> {
        let key = request.headers().get("sec-websocket-key").map(|key| derive_accept_key(key.as_bytes()));
        let upgrade = hyper::upgrade::on(request);
        let service = self.service.clone();
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            while let Some(Ok(message)) = socket.next().await {
                let Ok(text) = message.to_text() else { continue };
                if message.is_text() && socket.send(format!("{service}: {text}").into()).await.is_err() {
                    return;
                }
            }
        });
        let mut response = Response::new(whole(Vec::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert("connection", HeaderValue::from_static("Upgrade"));
        let key = key.unwrap_or_default();
        headers.insert("sec-websocket-accept", HeaderValue::from_str(&key).expect("base64 is a header value"));
        response
    }
}

/// The answer to a unary gRPC call: one message, which is not compressed, and the status as a trailer.
fn call(echo: &Echo) -> Response<Body> {
    let message = serde_json::to_vec(echo).expect("an echo is JSON");
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
    frame.extend(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(Bytes::from(frame))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(futures::stream::iter(frames))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn whole(bytes: Vec<u8>) -> Body {
    http_body_util::Full::new(Bytes::from(bytes)).boxed()
}

fn lines_of(count: usize) -> Body {
    let (send, receive) = futures::channel::mpsc::unbounded();
    tokio::spawn(async move {
        for line in 0..count {
            if send.unbounded_send(Ok(Frame::data(Bytes::from(format!("line {line}\n"))))).is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    BodyExt::boxed(StreamBody::new(receive))
}

fn acceptor(pair: &Pair) -> TlsAcceptor {
    super::client::install_crypto();
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
    let mut config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
