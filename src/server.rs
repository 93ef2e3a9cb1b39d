//! Health and metrics over HTTP (`--healthz-port`), and what an operator asks in an incident over a unix socket of the
//! controller's own, which the proxy cannot reach: a route of a tenant must never lead there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::Instant;

use crate::metrics::Metrics;

/// After this long without a beat of the reconciler's heart it hangs: `/healthz` fails and the kubelet restarts us.
const HANG: Duration = Duration::from_secs(120);

/// What the controller says of its own health.
#[derive(Debug)]
pub struct Health {
    beat: Mutex<Instant>,
    ready: AtomicBool,
    said: Mutex<Vec<String>>,
}

impl Default for Health {
    fn default() -> Self {
        Self { beat: Mutex::new(Instant::now()), ready: AtomicBool::new(false), said: Mutex::default() }
    }
}

impl Health {
    /// The reconciler lives.
    pub fn beat(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The first release was accepted. From now on only a hang makes the controller unready: a Pod is ready only when
    /// all its containers are, and a revoked Role must not take a healthy proxy out of service.
    pub fn latch(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// What is missing or wrong at the moment, one sentence each.
    pub fn say(&self, sentences: Vec<String>) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = sentences;
    }

    fn hangs(&self) -> bool {
        self.beat.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > HANG
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Documents for `/debug/…`, each made on demand. Secrets in them print redacted by their types.
pub trait Debug: Send + Sync {
    /// The names of the documents.
    fn names(&self) -> Vec<&'static str>;
    /// One document and its media type; `None` for a name that is none.
    fn document(&self, name: &str) -> Option<(String, &'static str)>;
}

/// Serves `/healthz`, `/readyz` and `/metrics` on `listener`, for ever.
///
/// # Errors
/// The socket fails.
pub async fn serve(listener: TcpListener, health: Arc<Health>, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    axum::serve(listener, router(health, metrics)).await.context("serving health and metrics")
}

fn router(health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(health)
        .route("/metrics", get(page).with_state(metrics))
}

/// Serves `/debug/…` on a unix socket that only our own user can open, for ever.
///
/// # Errors
/// The socket cannot be made, or fails.
pub async fn serve_debug(path: &Path, debug: Arc<dyn Debug>) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, mode).with_context(|| format!("closing {} to others", path.display()))?;
    axum::serve(listener, debug_router(debug)).await.context("serving /debug")
}

fn debug_router(debug: Arc<dyn Debug>) -> Router {
    Router::new().route("/debug", get(contents)).route("/debug/{name}", get(document)).with_state(debug)
}

async fn healthz(State(health): State<Arc<Health>>) -> Response {
    if health.hangs() {
        (StatusCode::INTERNAL_SERVER_ERROR, "the reconciler hangs\n").into_response()
    } else {
        "ok\n".into_response()
    }
}

async fn readyz(State(health): State<Arc<Health>>, RawQuery(query): RawQuery) -> Response {
    let ready = health.ready.load(Ordering::Relaxed) && !health.hangs();
    let mut text = String::from(if ready { "ok\n" } else { "not ready\n" });
    if !ready || query.is_some_and(|query| query.split('&').any(|item| item.split('=').next() == Some("verbose"))) {
        for sentence in health.said() {
            text.push_str(&sentence);
            text.push('\n');
        }
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text).into_response()
}

async fn page(State(metrics): State<Arc<Metrics>>) -> Response {
    const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match metrics.page() {
        Ok(page) => ([(header::CONTENT_TYPE, FORMAT)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn contents(State(debug): State<Arc<dyn Debug>>) -> String {
    debug.names().iter().map(|name| format!("/debug/{name}\n")).collect()
}

async fn document(
    State(debug): State<Arc<dyn Debug>>,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Response {
    match debug.document(&name) {
        Some((text, kind)) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        None => (StatusCode::NOT_FOUND, contents(State(debug)).await).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Identity;

    async fn get(base: std::net::SocketAddr, path: &str) -> (u16, String) {
        let stream = tokio::net::TcpStream::connect(base).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get(path).body(String::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_latches_and_names_what_is_missing_before() {
        let health = Arc::new(Health::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::clone(&health), Arc::new(Metrics::new(&Identity::default()))));
        health.say(vec!["Secrets cannot be listed: forbidden".to_owned()]);
        assert_eq!(get(base, "/readyz").await, (503, "not ready\nSecrets cannot be listed: forbidden\n".to_owned()));
        health.latch();
        assert_eq!(get(base, "/readyz").await, (200, "ok\n".to_owned()));
        assert_eq!(get(base, "/readyz?verbose").await, (200, "ok\nSecrets cannot be listed: forbidden\n".to_owned()));
        assert_eq!(get(base, "/healthz").await, (200, "ok\n".to_owned()));
        assert!(get(base, "/metrics").await.1.ends_with("# EOF\n"));
        assert_eq!(get(base, "/debug").await.0, 404);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reconciler_that_hangs_is_not_healthy() {
        let health = Arc::new(Health::default());
        health.latch();
        tokio::time::advance(HANG + Duration::from_secs(1)).await;
        assert_eq!(healthz(State(Arc::clone(&health))).await.status(), 500);
        assert_eq!(readyz(State(Arc::clone(&health)), RawQuery(None)).await.status(), 503);
        health.beat();
        assert_eq!(healthz(State(health)).await.status(), 200);
    }
}
