//! A server of gRPC whose methods end in different ways.

use std::net::SocketAddr;

use honeyguide_proto::v1::{
    self, GetForecastRequest, ListAlertsRequest, ListHintsRequest, ListSeriesRequest,
    WatchForecastsRequest,
    forecast_service_server::{ForecastService, ForecastServiceServer},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status};

/// Answers each of its calls in another way.
struct Service;

#[tonic::async_trait]
impl ForecastService for Service {
    async fn list_series(
        &self,
        _: Request<ListSeriesRequest>,
    ) -> Result<Response<v1::ListSeriesResponse>, Status> {
        Ok(Response::new(v1::ListSeriesResponse::default()))
    }

    async fn get_forecast(
        &self,
        _: Request<GetForecastRequest>,
    ) -> Result<Response<v1::GetForecastResponse>, Status> {
        Err(Status::not_found("no such series"))
    }

    type WatchForecastsStream = ReceiverStream<Result<v1::WatchForecastsResponse, Status>>;

    async fn watch_forecasts(
        &self,
        _: Request<WatchForecastsRequest>,
    ) -> Result<Response<Self::WatchForecastsStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(10);
        for _ in 0..5 {
            let _ = sender.send(Ok(v1::WatchForecastsResponse::default())).await;
        }
        let _ = sender.send(Err(Status::unavailable("enough"))).await;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_alerts(
        &self,
        _: Request<ListAlertsRequest>,
    ) -> Result<Response<v1::ListAlertsResponse>, Status> {
        Err(Status::internal("broken"))
    }

    async fn list_hints(
        &self,
        _: Request<ListHintsRequest>,
    ) -> Result<Response<v1::ListHintsResponse>, Status> {
        let hint = v1::Hint {
            reason: "x".repeat(1000),
            ..v1::Hint::default()
        };
        Ok(Response::new(v1::ListHintsResponse {
            hints: vec![hint; 100],
            nodes: Vec::new(),
        }))
    }

    async fn list_routes(
        &self,
        _: Request<v1::ListRoutesRequest>,
    ) -> Result<Response<v1::ListRoutesResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }
}

/// Before the names of methods.
pub const PATH: &str = "/honeyguide.v1.ForecastService";

/// Serves in this process until that ends.
pub async fn serve() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(ForecastServiceServer::new(Service))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    address
}
