//! The gRPC side: one stream of messages from and to each Envoy that comes.

use std::pin::Pin;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use futures::Stream;
use futures::stream::unfold;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::Shared;

/// The largest message of Envoy: after a reconnect it names everything it holds.
const LARGEST_MESSAGE: usize = 256 * 1024 * 1024;

/// How many pushes may lie in a stream that Envoy does not read. There is one of each kind on its way at most.
const BACKLOG: usize = 16;

type Told<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// Serves every Envoy that comes, for ever.
pub async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    let incoming =
        unfold(listener, async |listener| Some((listener.accept().await.map(|(stream, _)| stream), listener)));
    let service = AggregatedDiscoveryServiceServer::new(Discovery(shared)).max_decoding_message_size(LARGEST_MESSAGE);
    if let Err(err) = Server::builder().add_service(service).serve_with_incoming(Box::pin(incoming)).await {
        tracing::error!(%err, "serving Envoy");
    }
}

struct Discovery(Arc<Shared>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = Told<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Told<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("this service tells differences only (DELTA_GRPC)"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (tell, told) = mpsc::channel(BACKLOG);
        tokio::spawn(converse(self.0.clone(), request.into_inner(), tell));
        let told = unfold(told, async |mut told| told.recv().await.map(|push| (Ok(push), told)));
        Ok(Response::new(Box::pin(told)))
    }
}

/// Hears and tells until one of the two has gone.
async fn converse(
    shared: Arc<Shared>,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    tell: mpsc::Sender<DeltaDiscoveryResponse>,
) {
    let stream = shared.begin();
    let mut wake = shared.wake.subscribe();
    while let Some(pushes) = shared.advance(stream) {
        for push in pushes {
            if tell.send(push).await.is_err() {
                return shared.end(stream);
            }
        }
        tokio::select! {
            heard = requests.message() => match heard {
                Ok(Some(request)) => shared.hear(stream, request),
                Ok(None) | Err(_) => break,
            },
            // The sender lives in what we hold.
            _ = wake.changed() => {}
        }
    }
    shared.end(stream);
}
