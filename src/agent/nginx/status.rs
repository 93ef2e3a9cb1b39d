//! nginx's status socket: who answers there proves which configuration serves.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::includes::Stamp;

/// The socket's name, in the folder where nginx runs.
pub const SOCKET: &str = "status.sock";

/// Answers with the stamp of the worker.
pub const STAMP: &str = "/stamp";

/// How long one answer may take: a worker that is busy for longer is asked again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks some worker, over a connection of its own, for its stamp.
pub async fn stamp(folder: &Path) -> anyhow::Result<Stamp> {
    let answer = tokio::time::timeout(PATIENCE, get(&folder.join(SOCKET), STAMP)).await;
    let text = answer.context("nginx does not answer on its status socket")??;
    Stamp::parse(&text).with_context(|| format!("nginx answers {text:?} on its status socket"))
}

async fn get(socket: &Path, path: &str) -> anyhow::Result<String> {
    let stream = UnixStream::connect(socket).await.with_context(|| format!("connecting to {}", socket.display()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    ensure!(response.status().is_success(), "status {}", response.status());
    let body = Limited::new(response.into_body(), 4096).collect().await.map_err(anyhow::Error::from_boxed)?;
    connection.abort();
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}
