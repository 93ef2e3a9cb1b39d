//! A client that sends exactly what a test says: any Host, any SNI, any target, from any loopback address, over
//! HTTP/1.1 or HTTP/2, and tells which certificate it was shown. It follows no redirect and retries nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Once};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::pod::Echo;

/// How long one answer may take.
const TIME: Duration = Duration::from_secs(60);

/// Any connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Where and how to ask.
#[derive(Clone)]
pub struct Client {
    to: SocketAddr,
    from: Option<IpAddr>,
    tls: Option<Tls>,
    http2: bool,
}

#[derive(Clone)]
struct Tls {
    sni: Option<String>,
    versions: &'static [&'static SupportedProtocolVersion],
    alpn: bool,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The trailers of a gRPC answer.
    pub trailers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The leaf certificate that the server showed.
    pub certificate: Option<Vec<u8>>,
}

/// Why a request has no answer, in the terms by which a client decides whether it may ask again.
#[derive(Debug)]
pub enum Lost {
    /// The connection was closed before the request was sent. Nobody has seen it: every client asks again.
    Unsent,
    /// The server said that it has not looked at the request (GOAWAY, REFUSED_STREAM): it may be sent again (RFC 9113, 8.7).
    Refused,
    /// It was sent, and the connection ended before an answer began. Only an idempotent one may be sent again (RFC 9112,
    /// 9.3.1).
    Unanswered(String),
    /// The answer broke off, or there was none for a long time.
    Cut(String),
}

/// What to ask.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    host: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Client {
    /// Plain HTTP/1.1.
    pub fn new(to: SocketAddr) -> Self {
        Self { to, from: None, tls: None, http2: false }
    }

    /// Over TLS, asking for `sni`.
    pub fn tls(mut self, sni: &str) -> Self {
        self.tls = Some(Tls { sni: Some(sni.to_owned()), versions: rustls::ALL_VERSIONS, alpn: true });
        self
    }

    /// Over TLS without SNI.
    pub fn tls_without_sni(mut self) -> Self {
        self.tls = Some(Tls { sni: None, versions: rustls::ALL_VERSIONS, alpn: true });
        self
    }

    /// Only these versions of TLS.
    pub fn versions(mut self, versions: &'static [&'static SupportedProtocolVersion]) -> Self {
        self.tls = self.tls.map(|tls| Tls { versions, ..tls });
        self
    }

    /// Without ALPN, as old clients are.
    pub fn without_alpn(mut self) -> Self {
        self.tls = self.tls.map(|tls| Tls { alpn: false, ..tls });
        self
    }

    /// Over HTTP/2 (with prior knowledge where there is no TLS).
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// From another loopback address.
    pub fn from(mut self, address: IpAddr) -> Self {
        self.from = Some(address);
        self
    }

    /// GET `target` of `host`; anything but an answer is a reason.
    pub async fn try_get(&self, host: &str, target: &str) -> Result<Answer, String> {
        self.try_send(&Request::get(host, target)).await
    }

    /// GET `target` of `host`.
    pub async fn get(&self, host: &str, target: &str) -> Answer {
        self.send(&Request::get(host, target)).await
    }

    /// One request on a connection of its own.
    pub async fn send(&self, request: &Request) -> Answer {
        self.try_send(request).await.unwrap_or_else(|why| panic!("{request:?}: {why}"))
    }

    /// One request on a connection of its own; anything but an answer is a reason.
    pub async fn try_send(&self, request: &Request) -> Result<Answer, String> {
        self.connect().await?.send(request).await
    }

    /// A connection for several requests.
    pub async fn connect(&self) -> Result<Connection, String> {
        timely("connecting", async {
            let (stream, certificate, alpn) = self.stream().await?;
            let io = TokioIo::new(stream);
            let sender = if self.http2 {
                if self.tls.is_some() && alpn.as_deref() != Some(b"h2") {
                    return Err(format!("the server chose {alpn:?} instead of h2"));
                }
                let executor = TokioExecutor::new();
                let (sender, connection) =
                    hyper::client::conn::http2::handshake(executor, io).await.map_err(|error| reason(&error))?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            } else {
                let (sender, connection) =
                    hyper::client::conn::http1::handshake(io).await.map_err(|error| reason(&error))?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            };
            Ok(Connection { sender, certificate, scheme: if self.tls.is_some() { "https" } else { "http" } })
        })
        .await
    }

    /// A connection that nothing is sent over yet.
    pub async fn connect_raw(&self) -> Result<Box<dyn Stream>, String> {
        timely("connecting", async { Ok(self.stream().await?.0) }).await
    }

    /// A WebSocket at `target` of `host`.
    pub async fn websocket(&self, host: &str, target: &str) -> Result<WebSocketStream<Box<dyn Stream>>, String> {
        let mut request = format!("ws://{host}{target}").into_client_request().map_err(|error| reason(&error))?;
        request.headers_mut().insert("host", host.parse().map_err(|_| "no Host".to_owned())?);
        timely("opening a WebSocket", async {
            let (stream, ..) = self.stream().await?;
            let (socket, _) = tokio_tungstenite::client_async(request, stream).await.map_err(|error| reason(&error))?;
            Ok(socket)
        })
        .await
    }

    /// The certificate that the server shows.
    pub async fn certificate(&self) -> Result<Vec<u8>, String> {
        let (_, certificate, _) = timely("connecting", self.stream()).await?;
        certificate.ok_or_else(|| "not over TLS".to_owned())
    }

    async fn stream(&self) -> Result<(Box<dyn Stream>, Option<Vec<u8>>, Option<Vec<u8>>), String> {
        let stream = self.tcp().await?;
        let Some(tls) = &self.tls else { return Ok((Box::new(stream), None, None)) };
        let name = match &tls.sni {
            Some(sni) => ServerName::try_from(sni.clone()).map_err(|error| reason(&error))?,
            None => ServerName::from(self.to.ip()),
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::new(self.config(tls)));
        let stream = connector.connect(name, stream).await.map_err(|error| reason(&error))?;
        let session = stream.get_ref().1;
        let certificate = session.peer_certificates().and_then(<[_]>::first).map(|leaf| leaf.to_vec());
        let alpn = session.alpn_protocol().map(<[_]>::to_vec);
        Ok((Box::new(stream), certificate, alpn))
    }

    async fn tcp(&self) -> Result<TcpStream, String> {
        let connect = async {
            let socket = if self.to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            if let Some(from) = self.from {
                socket.bind(SocketAddr::new(from, 0))?;
            }
            socket.connect(self.to).await
        };
        connect.await.map_err(|error| reason(&error))
    }

    fn config(&self, tls: &Tls) -> rustls::ClientConfig {
        install_crypto();
        let mut config = rustls::ClientConfig::builder_with_protocol_versions(tls.versions)
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        if tls.alpn {
            config.alpn_protocols = vec![if self.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        }
        config
    }
}

/// An open connection.
pub struct Connection {
    sender: Sender,
    certificate: Option<Vec<u8>>,
    scheme: &'static str,
}

enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// One request.
    pub async fn send(&mut self, request: &Request) -> Result<Answer, String> {
        timely("asking", async {
            let (head, mut body) = self.begin(request).await?.into_parts();
            let mut bytes = Vec::new();
            let mut trailers = HeaderMap::new();
            while let Some(frame) = body.frame().await {
                match frame.map_err(|error| format!("after {}: {}", head.status, reason(&error)))?.into_data() {
                    Ok(data) => bytes.extend(data),
                    Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
                }
            }
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                trailers,
                body: Bytes::from(bytes),
                certificate: self.certificate.clone(),
            })
        })
        .await
    }

    /// One request, of whose answer only the head is awaited.
    pub async fn begin(&mut self, request: &Request) -> Result<hyper::Response<Incoming>, String> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.map_err(|error| reason(&error))?;
                sender.send_request(request.http1()?).await
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(|error| reason(&error))?;
                sender.send_request(request.http2(self.scheme)?).await
            }
        }
        .map_err(|error| reason(&error))
    }
}

impl Connection {
    /// One request; a failure says whether it may be sent again.
    pub async fn ask(&mut self, request: &Request) -> Result<Answer, Lost> {
        let asking = async {
            let (head, body) = self.head(request).await?.into_parts();
            let body = body.collect().await.map_err(|error| lost(error, Lost::Cut))?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                trailers,
                body: body.to_bytes(),
                certificate: self.certificate.clone(),
            })
        };
        tokio::time::timeout(TIME, asking).await.unwrap_or_else(|_| Err(Lost::Cut(format!("nothing for {TIME:?}"))))
    }

    async fn head(&mut self, request: &Request) -> Result<hyper::Response<Incoming>, Lost> {
        let sent = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.map_err(|_| Lost::Unsent)?;
                sender.send_request(request.http1().map_err(Lost::Cut)?).await
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(|_| Lost::Unsent)?;
                sender.send_request(request.http2(self.scheme).map_err(Lost::Cut)?).await
            }
        };
        sent.map_err(|error| lost(error, Lost::Unanswered))
    }

    /// The same connection, for one more stream; HTTP/1.1 has but one.
    pub fn another_stream(&self) -> Option<Self> {
        let Sender::Http2(sender) = &self.sender else { return None };
        let sender = Sender::Http2(sender.clone());
        Some(Self { sender, certificate: self.certificate.clone(), scheme: self.scheme })
    }
}

/// What an error means; `otherwise`, if it says nothing of the request itself.
fn lost(error: hyper::Error, otherwise: fn(String) -> Lost) -> Lost {
    if error.is_canceled() {
        return Lost::Unsent;
    }
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    let refused = cause.is_some_and(|cause| {
        let goes_away = cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR);
        goes_away || (cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM))
    });
    if refused { Lost::Refused } else { otherwise(reason(&error)) }
}

impl Request {
    /// Whether sending it twice does the same as sending it once.
    pub fn is_idempotent(&self) -> bool {
        !["POST", "PATCH"].contains(&self.method.as_str())
    }

    /// GET.
    pub fn get(host: &str, target: &str) -> Self {
        Self::new("GET", host, target)
    }

    /// Any method.
    pub fn new(method: &str, host: &str, target: &str) -> Self {
        let (method, host, target) = (method.to_owned(), host.to_owned(), target.to_owned());
        Self { method, host, target, headers: Vec::new(), body: Vec::new() }
    }

    /// A unary gRPC call with an empty message.
    pub fn grpc(host: &str, target: &str) -> Self {
        Self::new("POST", host, target)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(vec![0; 5])
    }

    /// One header more.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn http1(&self) -> Result<hyper::Request<Full<Bytes>>, String> {
        self.build(hyper::Request::builder().uri(&self.target).header("host", &self.host))
    }

    fn http2(&self, scheme: &str) -> Result<hyper::Request<Full<Bytes>>, String> {
        self.build(hyper::Request::builder().uri(format!("{scheme}://{}{}", self.host, self.target)))
    }

    fn build(&self, mut builder: hyper::http::request::Builder) -> Result<hyper::Request<Full<Bytes>>, String> {
        builder = builder.method(self.method.as_str());
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        builder.body(Full::from(self.body.clone())).map_err(|error| reason(&error))
    }
}

impl Answer {
    /// The value of a header, if it came exactly once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let only = values.next()?;
        assert!(values.next().is_none(), "{name} came more than once: {:?}", self.headers);
        only.to_str().ok()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What the pod said. Anything else than a pod's answer is a reason.
    pub fn echo(&self) -> Result<Echo, String> {
        let json = if self.headers.get("content-type").is_some_and(|value| value == "application/grpc") {
            self.body.get(5..).unwrap_or_default()
        } else {
            &self.body
        };
        serde_json::from_slice(json).map_err(|_| format!("not from a pod: {} {}", self.status, self.text()))
    }

    /// Who answered: the pod's Service, else the status code. A handy form for tables.
    pub fn who(&self) -> String {
        self.echo().map_or_else(|_| self.status.to_string(), |echo| echo.service)
    }
}

/// Sends bytes as they are and reads until the server closes. What no HTTP library would send.
pub async fn raw(to: SocketAddr, bytes: impl AsRef<[u8]>) -> Result<Answer, String> {
    timely("asking", async {
        let mut stream = TcpStream::connect(to).await.map_err(|error| reason(&error))?;
        stream.write_all(bytes.as_ref()).await.map_err(|error| reason(&error))?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.map_err(|error| reason(&error))?;
        parse(&all).ok_or_else(|| format!("no answer but {:?}", String::from_utf8_lossy(&all)))
    })
    .await
}

fn parse(all: &[u8]) -> Option<Answer> {
    let end = all.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&all[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.append(hyper::header::HeaderName::try_from(name).ok()?, value.trim().parse().ok()?);
    }
    let body = Bytes::copy_from_slice(&all[end + 4..]);
    Some(Answer { status, headers, trailers: HeaderMap::new(), body, certificate: None })
}

/// Makes ring the process's crypto, once.
pub fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

async fn timely<T>(what: &str, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(TIME, work).await.unwrap_or_else(|_| Err(format!("{what}: nothing for {TIME:?}")))
}

fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Takes every certificate whose key the server can prove to have: which one it is, the test compares itself.
#[derive(Debug)]
struct AnyCertificate;

impl AnyCertificate {
    fn provider() -> &'static Arc<CryptoProvider> {
        CryptoProvider::get_default().expect("installed before")
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &Self::provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &Self::provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::provider().signature_verification_algorithms.supported_schemes()
    }
}
