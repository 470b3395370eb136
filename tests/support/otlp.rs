//! A receiver of traces, as an OTLP collector is one.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1 as otlp;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};

/// Keeps every request of an exporter.
#[derive(Clone, Default)]
pub struct OtlpReceiver(Arc<Mutex<Vec<otlp::ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for OtlpReceiver {
    async fn export(
        &self,
        request: tonic::Request<otlp::ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<otlp::ExportTraceServiceResponse>, tonic::Status> {
        self.0.lock().unwrap().push(request.into_inner());
        let response = otlp::ExportTraceServiceResponse::default();
        Ok(tonic::Response::new(response))
    }
}

impl OtlpReceiver {
    /// Listens on a free port, and returns its URL.
    pub async fn start(&self) -> String {
        let routes = axum::Router::new().route_service(
            "/opentelemetry.proto.collector.trace.v1.TraceService/{*method}",
            TraceServiceServer::new(self.clone()),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{address}")
    }

    pub fn requests(&self) -> Vec<otlp::ExportTraceServiceRequest> {
        self.0.lock().unwrap().clone()
    }
}
