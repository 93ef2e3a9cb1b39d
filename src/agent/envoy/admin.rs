//! Envoy's admin socket: whether it serves, how much it still does, and what it is told besides resources.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Method;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::volume::{LogLevel, socket};

/// How long one answer may take: the admin socket is served by the thread that also takes up resources.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest answer that is read, in bytes.
const LARGEST: usize = 1024 * 1024;

/// Whether Envoy has initialized everything and serves.
pub async fn is_live(folder: &Path) -> anyhow::Result<bool> {
    Ok(ask(folder, Method::GET, "/ready").await?.1.trim() == "LIVE")
}

/// What is still going on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Busy {
    /// Requests that are being answered; a WebSocket is one.
    pub requests: u64,
    /// Connections of clients.
    pub connections: u64,
}

/// How much Envoy still does.
pub async fn busy(folder: &Path) -> anyhow::Result<Busy> {
    let path = "/stats?format=text&filter=%5Ehttp%5C..*%5C.downstream_(rq|cx)_active%24";
    Ok(count(&ask(folder, Method::GET, path).await?.1))
}

/// Reads `http.https.downstream_rq_active: 3`. Who asks on the admin socket is not traffic.
fn count(text: &str) -> Busy {
    let lines =
        || text.lines().filter(|line| !line.starts_with("http.admin.")).filter_map(|line| line.rsplit_once(": "));
    let sum =
        |what: &str| lines().filter(|(name, _)| name.ends_with(what)).filter_map(|(_, n)| n.parse::<u64>().ok()).sum();
    Busy { requests: sum(".downstream_rq_active"), connections: sum(".downstream_cx_active") }
}

/// Every answer from now on asks its client to come again on another connection.
pub async fn let_go(folder: &Path) -> anyhow::Result<()> {
    tell(folder, "/healthcheck/fail").await
}

/// Takes no new connections; those that there are go on.
pub async fn stop_accepting(folder: &Path) -> anyhow::Result<()> {
    tell(folder, "/drain_listeners").await
}

/// Opens the files of its access logs anew.
pub async fn reopen_logs(folder: &Path) -> anyhow::Result<()> {
    tell(folder, "/reopen_logs").await
}

/// From now on, writes only lines of this level and more severe ones.
pub async fn set_level(folder: &Path, level: LogLevel) -> anyhow::Result<()> {
    tell(folder, &format!("/logging?level={}", level_of(level))).await
}

/// What Envoy calls a level. What nginx says at `notice`, a few lines for a reload, is what the agent says itself; what
/// Envoy says at `info` is many for every change.
pub fn level_of(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Emerg | LogLevel::Alert | LogLevel::Crit => "critical",
        LogLevel::Error => "error",
        LogLevel::Warn | LogLevel::Notice => "warning",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    }
}

async fn tell(folder: &Path, path: &str) -> anyhow::Result<()> {
    let (status, text) = ask(folder, Method::POST, path).await?;
    ensure!(status == 200, "Envoy answers {status} to {path}: {}", text.trim());
    Ok(())
}

async fn ask(folder: &Path, method: Method, path: &str) -> anyhow::Result<(u16, String)> {
    let answer = tokio::time::timeout(PATIENCE, exchange(&folder.join(socket::ADMIN), method, path)).await;
    answer.context("Envoy does not answer on its admin socket")?
}

async fn exchange(socket: &Path, method: Method, path: &str) -> anyhow::Result<(u16, String)> {
    let stream = UnixStream::connect(socket).await.with_context(|| format!("connecting to {}", socket.display()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::builder().method(method).uri(path).header("host", "localhost");
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(anyhow::Error::from_boxed)?;
    connection.abort();
    Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_counted_without_the_question_itself() {
        let text = "http.admin.downstream_cx_active: 1\nhttp.admin.downstream_rq_active: 1\n\
                    http.http.downstream_cx_active: 2\nhttp.http.downstream_rq_active: 0\n\
                    http.https.downstream_cx_active: 3\nhttp.https.downstream_rq_active: 1\n";
        assert_eq!(count(text), Busy { requests: 1, connections: 5 });
        assert_eq!(count("no such stats"), Busy::default());
    }
}
