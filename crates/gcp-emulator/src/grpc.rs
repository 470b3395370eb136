//! Serves gRPC methods as axum routes: the published crates have messages and clients, but no servers.

use std::future::Future;

use axum::extract::Request;
use axum::routing::{MethodRouter, post};
use futures::Stream;
use tonic::Status;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

/// Limit of one request in bytes, above that of every service, so that each enforces its own.
const MAX_MESSAGE: usize = 64 << 20;

/// A unary method.
pub(super) fn unary<Q, R, F, Fut>(f: F) -> MethodRouter
where
    Q: prost::Message + Default + Send + 'static,
    R: prost::Message + Default + Send + 'static,
    F: Fn(Q) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<R, Status>> + Send + 'static,
{
    post(move |request: Request| {
        let f = f.clone();
        async move {
            let service = tower::service_fn(move |r: tonic::Request<Q>| {
                let answer = f(r.into_inner());
                async move { answer.await.map(tonic::Response::new) }
            });
            let codec = Grpc::new(ProstCodec::<R, Q>::default());
            let mut method = codec.max_decoding_message_size(MAX_MESSAGE);
            method.unary(service, request).await
        }
    })
}

/// A bidirectional streaming method.
pub(super) fn bidi<Q, R, F, Fut, S>(f: F) -> MethodRouter
where
    Q: prost::Message + Default + Send + 'static,
    R: prost::Message + Default + Send + 'static,
    S: Stream<Item = Result<R, Status>> + Send + 'static,
    F: Fn(tonic::Streaming<Q>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<S, Status>> + Send + 'static,
{
    post(move |request: Request| {
        let f = f.clone();
        async move {
            let service = tower::service_fn(move |r: tonic::Request<tonic::Streaming<Q>>| {
                let answer = f(r.into_inner());
                async move { answer.await.map(tonic::Response::new) }
            });
            Grpc::new(ProstCodec::<R, Q>::default())
                .streaming(service, request)
                .await
        }
    })
}
