//! The gRPC forecast service.

mod routes;

use std::sync::Arc;

use honeyguide_proto::v1::{
    self, GetForecastRequest, GetForecastResponse, ListAlertsRequest, ListAlertsResponse,
    ListHintsRequest, ListHintsResponse, ListRoutesRequest, ListRoutesResponse, ListSeriesRequest,
    ListSeriesResponse, SeriesFilter, SeriesKey, WatchForecastsRequest, WatchForecastsResponse,
    forecast_service_server::ForecastService,
};
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::analyzer::Shared;

/// Series or routes of a page unless asked otherwise, and at most.
const PAGE_SIZE: usize = 1000;
const PAGE_SIZE_MAX: usize = 10_000;
/// Forecasts waiting for a slow watcher.
const WATCH_BUFFER: usize = 256;

/// The service; cheap to clone.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) Arc<Shared>);

fn matches(filter: Option<&SeriesFilter>, key: &SeriesKey) -> bool {
    let Some(filter) = filter else {
        return true;
    };
    matches_service(&filter.service, &key.service)
        && (filter.signal.is_empty() || filter.signal == key.signal)
}

/// `pattern` is a key, a prefix ending in `*`, or empty for all.
fn matches_service(pattern: &str, service: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => service.starts_with(prefix),
        None => pattern.is_empty() || pattern == service,
    }
}

fn page_size(asked: u32) -> Result<usize, Status> {
    match asked as usize {
        0 => Ok(PAGE_SIZE),
        size if size <= PAGE_SIZE_MAX => Ok(size),
        size => {
            let text = format!("page_size is {size}, expected at most {PAGE_SIZE_MAX}");
            Err(Status::invalid_argument(text))
        }
    }
}

/// Pages continue after the last key of the page before.
fn token(key: &SeriesKey) -> String {
    format!("{}\n{}", key.service, key.signal)
}

#[tonic::async_trait]
impl ForecastService for Api {
    async fn list_series(
        &self,
        request: Request<ListSeriesRequest>,
    ) -> Result<Response<ListSeriesResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size)?;
        let snapshot = self.0.board.snapshot();
        let after = (!request.page_token.is_empty()).then_some(request.page_token);
        let mut found = snapshot.forecasts().into_iter().filter_map(|forecast| {
            let key = forecast.key.as_ref()?;
            let later = after.as_ref().is_none_or(|after| token(key) > *after);
            (later && matches(request.filter.as_ref(), key)).then_some((key, forecast.now.clone()?))
        });
        let mut response = ListSeriesResponse::default();
        let mut last = None;
        for (key, summary) in found.by_ref().take(size) {
            last = Some(token(key));
            response.series.push(summary);
        }
        if found.next().is_some() {
            response.next_page_token = last.unwrap_or_default();
        }
        Ok(Response::new(response))
    }

    async fn get_forecast(
        &self,
        request: Request<GetForecastRequest>,
    ) -> Result<Response<GetForecastResponse>, Status> {
        let Some(key) = request.into_inner().key else {
            return Err(Status::invalid_argument(
                "key is missing; expected service and signal",
            ));
        };
        let snapshot = self.0.board.snapshot();
        let Some(forecast) = snapshot.forecast(&key) else {
            let text = format!(
                "no forecast of {} {}; ListSeries (`honeyguide forecast`) tells what there is",
                key.service, key.signal
            );
            return Err(Status::not_found(text));
        };
        Ok(Response::new(GetForecastResponse {
            forecast: Some(forecast.clone()),
        }))
    }

    type WatchForecastsStream = ReceiverStream<Result<WatchForecastsResponse, Status>>;

    async fn watch_forecasts(
        &self,
        request: Request<WatchForecastsRequest>,
    ) -> Result<Response<Self::WatchForecastsStream>, Status> {
        let filter = request.into_inner().filter;
        let mut updates = self.0.board.subscribe();
        let (sender, receiver) = tokio::sync::mpsc::channel(WATCH_BUFFER);
        let shared = Arc::clone(&self.0);
        shared.tasks.clone().spawn(async move {
            let mut dropped = 0;
            loop {
                let step: Arc<Vec<v1::Forecast>> = tokio::select! {
                    () = shared.stopping.cancelled() => return,
                    () = sender.closed() => return,
                    update = updates.recv() => match update {
                        Ok(step) => step,
                        Err(RecvError::Lagged(steps)) => {
                            // A step holds about as many forecasts as the next.
                            dropped += steps * shared.board.snapshot().forecasts_per_step() as u64;
                            continue;
                        }
                        Err(RecvError::Closed) => return,
                    },
                };
                let wanted = step.iter().filter(|forecast| {
                    forecast
                        .key
                        .as_ref()
                        .is_some_and(|key| matches(filter.as_ref(), key))
                });
                for forecast in wanted {
                    let message = WatchForecastsResponse {
                        forecast: Some(forecast.clone()),
                        dropped: std::mem::take(&mut dropped),
                    };
                    if sender.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_alerts(
        &self,
        request: Request<ListAlertsRequest>,
    ) -> Result<Response<ListAlertsResponse>, Status> {
        let include_resolved = request.into_inner().include_resolved;
        let snapshot = self.0.board.snapshot();
        let alerts = snapshot
            .alerts()
            .into_iter()
            .filter(|alert| include_resolved || alert.state() == v1::AlertState::Firing);
        Ok(Response::new(ListAlertsResponse {
            alerts: alerts.collect(),
        }))
    }

    async fn list_hints(
        &self,
        _: Request<ListHintsRequest>,
    ) -> Result<Response<ListHintsResponse>, Status> {
        Ok(Response::new(self.0.board.snapshot().hints()))
    }

    async fn list_routes(
        &self,
        request: Request<ListRoutesRequest>,
    ) -> Result<Response<ListRoutesResponse>, Status> {
        let query = routes::Query::try_from(request.into_inner())?;
        let snapshot = self.0.board.snapshot();
        Ok(Response::new(query.page(snapshot.routes())))
    }
}
