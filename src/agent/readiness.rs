//! `/readyz`: whether traffic may come to this proxy.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Whether traffic may come, and why not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Readiness {
    /// A release is served and its names were answered.
    Ready,
    /// What is missing.
    Waiting(String),
    /// The end has begun.
    Draining,
}

/// Serves `/readyz` for ever. A port that is taken is tried again: the proxy's traffic is more important than this.
pub fn serve(port: u16, readiness: watch::Receiver<Readiness>) {
    let app = Router::new()
        .route("/readyz", get(move || std::future::ready(answer(&readiness.borrow()))))
        .route("/livez", get(async || "ok\n"));
    tokio::spawn(async move {
        let mut told = false;
        let listener = loop {
            match bind(port).await {
                Ok(listener) => break listener,
                Err(err) if !told => {
                    told = true;
                    tracing::error!(port, %err, "cannot answer /readyz (--ready-port); trying again each second");
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        if let Err(err) = axum::serve(listener, app).await {
            tracing::error!(%err, "answering /readyz");
        }
    });
}

/// On all addresses, of both families where there are both.
async fn bind(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(err) if err.kind() != std::io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        bound => bound,
    }
}

fn answer(readiness: &Readiness) -> (StatusCode, String) {
    match readiness {
        Readiness::Ready => (StatusCode::OK, "ok\n".to_owned()),
        Readiness::Waiting(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
    }
}
