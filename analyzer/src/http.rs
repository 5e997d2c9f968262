//! `/metrics`, `/live` and `/ready`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding, registry::Registry};

use crate::analyzer::Shared;

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// The routes. `registry` holds metrics of other parts of the process.
pub(crate) fn router(shared: Arc<Shared>, registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state((shared, registry))
}

type Context = State<(Arc<Shared>, Arc<Registry>)>;

async fn ready(State((shared, _)): Context) -> Response {
    match shared.board.not_ready() {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
    }
}

async fn metrics(State((shared, others)): Context, headers: HeaderMap) -> Response {
    let Some(exposition) = shared.exposition().await else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the analyzer is stopping\n",
        )
            .into_response();
    };
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let protobuf = accept.is_some_and(wants_protobuf);
    // Encoding ten thousand series takes longer than an async thread may.
    let encoded = tokio::task::spawn_blocking(move || encode(exposition, &others, protobuf)).await;
    match encoded {
        Ok(Ok(body)) => {
            let content_type = if protobuf { PROTOBUF } else { TEXT };
            ([(header::CONTENT_TYPE, content_type)], body).into_response()
        }
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "metrics could not be encoded\n",
        )
            .into_response(),
    }
}

/// Whether the scraper accepts the delimited protobuf format; it is the only
/// one with native histograms, so a scraper that knows it wants it.
fn wants_protobuf(accept: &str) -> bool {
    accept.split(',').any(|kind| {
        kind.contains("application/vnd.google.protobuf")
            && kind.contains("proto=io.prometheus.client.MetricFamily")
            && kind.contains("encoding=delimited")
    })
}

fn encode(
    exposition: crate::exposition::Exposition,
    others: &Registry,
    protobuf: bool,
) -> Result<Vec<u8>, std::fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(exposition));
    if protobuf {
        let mut body =
            encoding::prometheus_protobuf::encode_to_vec(&registry).map_err(|_| std::fmt::Error)?;
        body.extend(
            encoding::prometheus_protobuf::encode_to_vec(others).map_err(|_| std::fmt::Error)?,
        );
        return Ok(body);
    }
    let mut text = String::new();
    encoding::text::encode_registry(&mut text, others)?;
    encoding::text::encode(&mut text, &registry)?;
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scrapers_that_ask_get_protobuf() {
        assert!(wants_protobuf(&format!(
            "{PROTOBUF};q=0.7,text/plain;q=0.3"
        )));
        assert!(!wants_protobuf("application/openmetrics-text,text/plain"));
        assert!(!wants_protobuf("*/*"));
    }
}
