//! A wire to somewhere far away: everything that comes through arrives later, in both directions.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// A relay that ends, with all its connections, when dropped.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    _connections: JoinSet<()>,
}

impl Relay {
    /// Connects whoever comes with `to`, which then is `delay` away.
    pub async fn start(to: SocketAddr, delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, to, delay));
        Ok(Self { address, _connections: connections })
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, delay: Duration) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(async move {
            // Who is refused there is closed here.
            let Ok(server) = TcpStream::connect(to).await else { return };
            for stream in [&client, &server] {
                let _ = stream.set_nodelay(true);
            }
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::join!(carry(from_client, to_server, delay), carry(from_server, to_client, delay));
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One direction. The end of it travels as long as everything before.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (send, mut underway) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if send.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
        // An empty message is the end.
        let _ = send.send((Instant::now() + delay, Vec::new()));
    };
    let write = async move {
        while let Some((at, bytes)) = underway.recv().await {
            sleep_until(at).await;
            if bytes.is_empty() || to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

#[tokio::test]
async fn what_goes_through_a_relay_arrives_whole_and_late() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let delay = Duration::from_millis(20);
    let relay = Relay::start(listener.local_addr().unwrap(), delay).await.unwrap();
    let begin = Instant::now();
    let mut client = TcpStream::connect(relay.address).await.unwrap();
    client.write_all(b"there").await.unwrap();
    client.shutdown().await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut got = String::new();
    server.read_to_string(&mut got).await.unwrap();
    server.write_all(b" and back").await.unwrap();
    drop(server);
    client.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "there and back");
    assert!(begin.elapsed() >= 2 * delay, "{:?}", begin.elapsed());
}
