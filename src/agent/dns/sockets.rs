//! The sockets of one client: a loopback address of its own, and on it some ports for UDP and TCP.
//!
//! The readers only read, so that the burst of a starting nginx (a question per upstream, all at once) fits; what is
//! read goes to one queue, whoever it came from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::debug;

use super::wire::Transport;

/// How many ports nginx spreads its questions over: what overflows one socket's buffer is asked again only after 5 s.
const PORTS: usize = 32;
/// How often to look for a port that is free for both UDP and TCP.
const ATTEMPTS: usize = 100;
/// The longest question: a header, a name, type and class, with room to spare.
const LONGEST_QUESTION: usize = 1024;
/// How long a TCP connection may be silent. nginx gives up after 5 s.
const SILENCE: Duration = Duration::from_secs(60);
/// How long to wait after an error that may last, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// A question as it came in.
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    pub(super) reply: Reply,
}

/// Where an answer goes.
#[derive(Clone)]
pub(super) enum Reply {
    Udp(Arc<UdpSocket>, SocketAddr),
    Tcp(mpsc::UnboundedSender<Vec<u8>>),
}

impl Reply {
    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Udp(..) => Transport::Udp,
            Self::Tcp(_) => Transport::Tcp,
        }
    }

    /// Sends an answer. Whoever is gone does not need it; whoever misses it asks again.
    pub(super) async fn send(self, bytes: Vec<u8>) {
        match self {
            Self::Udp(socket, to) => {
                if let Err(error) = socket.send_to(&bytes, to).await {
                    debug!(%to, %error, "a DNS answer could not be sent");
                }
            }
            Self::Tcp(connection) => drop(connection.send(bytes)),
        }
    }
}

/// Ports that are bound, but not read yet.
pub(super) struct Sockets(Vec<(UdpSocket, TcpListener)>);

impl Sockets {
    /// Binds the ports on a loopback address that no earlier client of this process had (but for 254 of them).
    pub(super) async fn bind() -> anyhow::Result<Self> {
        let mut ip = fresh_address();
        if UdpSocket::bind((ip, 0)).await.is_err() {
            // Not every kernel takes all of 127.0.0.0/8 for loopback. The ports still tell clients apart.
            ip = Ipv4Addr::LOCALHOST;
        }
        let mut ports = Vec::with_capacity(PORTS);
        for _ in 0..PORTS {
            ports.push(bind_port(ip.into()).await.with_context(|| format!("binding DNS ports on {ip}"))?);
        }
        Ok(Self(ports))
    }

    /// Where the ports are.
    pub(super) fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        self.0.iter().map(|(udp, _)| udp.local_addr().context("asking for the port of a socket")).collect()
    }

    /// Reads all ports into `queue` until the tasks are dropped.
    pub(super) fn read(self, queue: &mpsc::UnboundedSender<Received>, tasks: &mut JoinSet<()>) {
        for (udp, tcp) in self.0 {
            tasks.spawn(read_datagrams(Arc::new(udp), queue.clone()));
            tasks.spawn(accept(tcp, queue.clone()));
        }
    }
}

fn fresh_address() -> Ipv4Addr {
    static LAST: AtomicU8 = AtomicU8::new(0);
    let last = LAST.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(127, 0, last % 254 + 1, 1)
}

/// A port that is free for both.
async fn bind_port(ip: IpAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let udp = UdpSocket::bind((ip, 0)).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into()))
}

async fn read_datagrams(socket: Arc<UdpSocket>, queue: mpsc::UnboundedSender<Received>) {
    let mut buffer = [0; LONGEST_QUESTION];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                let received = Received { bytes: buffer[..length].to_vec(), reply: Reply::Udp(socket.clone(), from) };
                if queue.send(received).is_err() {
                    return;
                }
            }
            Err(error) => {
                debug!(%error, "a DNS question could not be read");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn accept(listener: TcpListener, queue: mpsc::UnboundedSender<Received>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(converse(stream, queue.clone()))),
            Err(error) => {
                debug!(%error, "a DNS connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Reads questions and writes answers, each behind its length, until either side is through.
async fn converse(stream: TcpStream, queue: mpsc::UnboundedSender<Received>) {
    let (mut read, mut write) = stream.into_split();
    let (answers, mut outgoing) = mpsc::unbounded_channel::<Vec<u8>>();
    let questions = async move {
        while let Ok(Ok(bytes)) = tokio::time::timeout(SILENCE, read_question(&mut read)).await {
            if queue.send(Received { bytes, reply: Reply::Tcp(answers.clone()) }).is_err() {
                return;
            }
        }
    };
    let writer = async move {
        while let Some(answer) = outgoing.recv().await {
            let Ok(length) = u16::try_from(answer.len()) else { continue };
            let message = [&length.to_be_bytes()[..], &answer].concat();
            if write.write_all(&message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = questions => {}
        () = writer => {}
    }
}

async fn read_question(stream: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > LONGEST_QUESTION {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
