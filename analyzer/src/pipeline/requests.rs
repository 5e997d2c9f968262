//! Requests by route: taken from batches, and shown.

use std::ops::RangeInclusive;

use honeyguide_proto::{batch::Batch, v1};
use sensor_common::Signal;

use super::{Drop, Pipeline, service};
use crate::routes::{Arrival, Classes, Room, Taken};

/// All requests ever of one side of a route.
#[derive(Clone, Debug)]
pub struct RouteTotal {
    /// Service key.
    pub service: String,
    /// Which side.
    pub signal: Signal,
    /// Which requests.
    pub route: honeyguide_proto::Route,
    /// By status class.
    pub total: Classes,
}

impl Pipeline {
    /// Adds series by route of a batch to the open `steps` and to the totals.
    pub(super) fn collect_routes(&mut self, batch: &Batch, steps: &RangeInclusive<u64>) {
        if batch.route_series.is_empty() {
            return;
        }
        let next_step = self.next_step.unwrap_or(0);
        let arrival = Arrival {
            batch,
            steps: steps.clone(),
            first_step: next_step.max(*steps.start()),
        };
        let places = self.places();
        let before = self.room();
        let mut room = before;
        let mut taken = Taken::default();
        let by_service = batch
            .route_series
            .chunk_by(|a, b| a.series.service == b.series.service);
        for windows in by_service {
            let id = &batch.services[windows[0].series.service as usize];
            taken += match service(&mut self.services, id, places) {
                Some(service) => {
                    let routes = &mut service.routes;
                    routes.collect(&arrival, windows, &mut room)
                }
                None => Taken {
                    full: windows.len() as u64,
                    ..Taken::default()
                },
            };
        }
        self.route_count += before.free - room.free;
        self.counters.route_windows += taken.taken;
        self.counters.route_windows_as_other += taken.as_other;
        self.drop_data(Drop::RoutesFull, taken.full);
        self.drop_data(Drop::UnknownRoute, taken.unknown);
    }

    pub(super) fn room(&self) -> Room {
        let config = &self.config.config;
        Room {
            of_service: config.routes_per_service_max,
            free: config.routes_max.saturating_sub(self.route_count),
        }
    }

    /// Number of routes, each side of a service on its own.
    pub fn route_count(&self) -> usize {
        self.route_count
    }

    /// What each route did in the last closed steps, by service, side and route.
    pub fn routes(&self) -> Vec<v1::RouteSummary> {
        let step_ns = self.config.step_ns();
        let services = self.services.values();
        let summaries = services.flat_map(|service| {
            service
                .routes
                .summaries(&service.key, &self.recent_steps, step_ns)
        });
        let with_answerer = |mut summary: v1::RouteSummary| {
            let answerer = self.addresses.answerer(&summary.service, &summary.peer);
            summary.peer_service = answerer.unwrap_or_default().to_owned();
            summary
        };
        summaries.map(with_answerer).collect()
    }

    /// All requests ever by route, in order; at most `max` routes.
    pub fn route_totals(&self, max: usize) -> Vec<RouteTotal> {
        let services = self.services.values();
        let all = services.flat_map(|service| service.routes.iter().map(|one| (&service.key, one)));
        all.take(max)
            .map(|(service, requests)| RouteTotal {
                service: service.clone(),
                signal: requests.signal,
                route: requests.route.clone(),
                total: requests.total.clone(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
