//! The webhook's HTTPS server: bounded in size, time and number, and refusing rather than guessing when it cannot
//! answer (the API server's failurePolicy then decides).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use k8s_openapi::api::networking::v1::Ingress;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::value::Value as _;
use crate::value::reference::{Name, ObjectName};

use super::{Basis, judge};

/// The path that ingress-nginx's webhook had.
pub const PATH: &str = "/networking/v1/ingresses";

/// The largest review, in bytes: two copies of the largest object that etcd takes, and then some.
const LARGEST: usize = 9 << 20;
/// How many reviews are judged at the same time.
const AT_ONCE: usize = 4;
/// How long one may wait for its turn and for its judgement.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The most connections that are shaking hands at the same time.
const HANDSHAKES: usize = 64;

/// What the handlers share.
#[derive(Clone)]
struct Court {
    basis: watch::Receiver<Option<Basis>>,
    seats: Arc<Semaphore>,
}

/// Serves the webhook on `listener`, for ever. Until there is a basis it answers 503.
///
/// # Errors
/// The socket fails.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    basis: watch::Receiver<Option<Basis>>,
) -> anyhow::Result<()> {
    let court = Court { basis, seats: Arc::new(Semaphore::new(AT_ONCE)) };
    let router = Router::new()
        .route(PATH, post(review))
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(middleware::from_fn(in_time))
        .with_state(court);
    let local = listener.local_addr().context("asking for the webhook's own address")?;
    let (sender, connections) = mpsc::channel(HANDSHAKES);
    let accepting = tokio::spawn(accept(listener, TlsAcceptor::from(tls), sender));
    let served = axum::serve(Shaken { connections, local }, router).await;
    accepting.abort();
    served.context("serving the webhook")
}

/// All of it, from the first byte of the body on: who dawdles is not waited for.
async fn in_time(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(2 * PATIENCE, next.run(request)).await;
    answered.unwrap_or_else(|_| (StatusCode::SERVICE_UNAVAILABLE, "the review did not come in time\n").into_response())
}

async fn review(State(court): State<Court>, Json(review): Json<AdmissionReview<Ingress>>) -> Response {
    let request: AdmissionRequest<Ingress> = match review.try_into() {
        Ok(request) => request,
        Err(_) => return (StatusCode::BAD_REQUEST, "a review without a request\n").into_response(),
    };
    match tokio::time::timeout(PATIENCE, answer(&court, &request)).await {
        Ok(Ok(answer)) => Json(answer.into_review()).into_response(),
        Ok(Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "too many reviews at once\n").into_response(),
    }
}

async fn answer(court: &Court, request: &AdmissionRequest<Ingress>) -> Result<AdmissionResponse, &'static str> {
    let allowed = AdmissionResponse::from(request);
    let Some(ingress) = request.object.clone().filter(|_| request.operation != Operation::Delete) else {
        return Ok(allowed);
    };
    if ingress.metadata.deletion_timestamp.is_some() {
        return Ok(allowed);
    }
    let basis = court.basis.borrow().clone().ok_or("the objects of the cluster are still being listed")?;
    let namespace = request.namespace.as_deref().or(ingress.metadata.namespace.as_deref()).unwrap_or_default();
    let name = ingress.metadata.name.as_deref().unwrap_or(&request.name);
    let Ok(name) = Name::parse(namespace).and_then(|namespace| Ok(ObjectName::new(namespace, Name::parse(name)?)))
    else {
        // `generateName` of a dry run, perhaps: the API server's own validation says what is wrong with a name.
        return Ok(allowed);
    };
    let _seat = court.seats.acquire().await.map_err(|_| "shutting down")?;
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let verdict = tokio::task::spawn_blocking(move || judge(&basis, &name, ingress, now));
    let verdict = verdict.await.map_err(|_| "the judgement failed")?;
    let mut answer = allowed;
    if !verdict.denials.is_empty() {
        answer = answer.deny(verdict.denials.join("\n"));
    }
    answer.warnings = (!verdict.warnings.is_empty()).then_some(verdict.warnings);
    Ok(answer)
}

/// Connections whose handshake is done. One that dawdles holds up no other.
struct Shaken {
    connections: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: SocketAddr,
}

impl axum::serve::Listener for Shaken {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.connections.recv().await {
            Some(connection) => connection,
            // The accepting task ends only with the server.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.local)
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let seats = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the webhook could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, connections) = (acceptor.clone(), connections.clone());
        tokio::spawn(async move {
            let _seat = seat;
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                let _ = connections.send((stream, peer)).await;
            }
        });
    }
}
