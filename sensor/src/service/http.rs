//! `/metrics`, `/live` and `/ready` of a sensor that runs alone.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text, registry::Registry};
use tokio::{net::TcpListener, sync::watch};

use crate::Status;

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Binds the address (an error names it) and serves until the process ends.
pub async fn serve(
    address: SocketAddr,
    registry: Registry,
    status: watch::Receiver<Status>,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("failed to listen on {address} (sensor.http_listen)"))?;
    let registry = Arc::new(registry);
    let router = Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(move || async move { ready(&status) }))
        .route("/metrics", get(move || async move { metrics(&registry) }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, "HTTP ended");
        }
    });
    Ok(())
}

fn ready(status: &watch::Receiver<Status>) -> Response {
    if status.borrow().windows > 0 {
        return "ready\n".into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "no window was drained yet\n",
    )
        .into_response()
}

fn metrics(registry: &Registry) -> Response {
    let mut body = String::new();
    match text::encode(&mut body, registry) {
        Ok(()) => ([(header::CONTENT_TYPE, TEXT)], body).into_response(),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "metrics could not be encoded\n",
        )
            .into_response(),
    }
}
