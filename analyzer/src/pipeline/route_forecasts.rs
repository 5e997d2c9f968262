//! Which routes are forecast, and what they are expected to do.

use std::cmp::Reverse;

use honeyguide_models::Context;
use sensor_common::Signal;

use super::{
    Pipeline,
    messages::points,
    outlook::{class, drivers},
};
use crate::{routes::ClosingStep, series::IDLE_STEPS_MAX};

/// Requests in the last closed steps from which a route is forecast: fewer have
/// no high quantiles.
const REQUESTS_MIN: u64 = 20;
/// Refits a step at least, and steps over which those of all routes are spread.
const REFITS_MIN: usize = 2;
const REFIT_SPREAD_STEPS: usize = 30;

impl Pipeline {
    /// Forecasts routes after `closing`. Models stay with the routes that have
    /// one until these have no requests any more; those that become free go to
    /// the routes with most requests.
    pub(super) fn forecast_routes(&mut self, closing: &ClosingStep) {
        let mut models = 0;
        for service in self.services.values_mut() {
            let routes = &mut service.routes;
            routes.release_models(closing.step, u64::from(IDLE_STEPS_MAX));
            models += routes.models();
        }
        let free = (self.config.config.route_forecasts_max).saturating_sub(models);
        if free > 0 {
            self.begin_models(free, closing);
        }
        self.refresh_routes(closing.step);
    }

    fn begin_models(&mut self, free: usize, closing: &ClosingStep) {
        let services = self.services.values().enumerate();
        let mut candidates: Vec<_> = services
            .flat_map(|(number, service)| {
                let candidates = service.routes.candidates(REQUESTS_MIN);
                candidates.map(move |(place, requests)| (Reverse(requests), number, place))
            })
            .collect();
        candidates.sort_unstable();
        for (_, number, place) in candidates.into_iter().take(free) {
            if let Some((_, service)) = self.services.get_index_mut(number) {
                service.routes.begin_model(place, closing);
            }
        }
    }

    /// Forecasts with the models that there are; once more for the same step
    /// gives the same.
    pub(super) fn refresh_routes(&mut self, step: u64) {
        let (params, groups) = (&self.config.params, &self.groups);
        let services = self.services.values_mut();
        for service in services.filter(|service| service.routes.models() > 0) {
            let drivers = drivers(&service.series, None);
            for route in service.routes.models_mut() {
                let forecast = route.read(step, &drivers, |model, input| {
                    // What a service answers by and large is what its routes are.
                    let similar = groups.of(class(Signal::ServerRequest), model);
                    let context = Context {
                        similar,
                        ..Context::default()
                    };
                    model.refresh_in(params, input, context)
                });
                route.points = points(&forecast);
            }
        }
    }

    /// Refits the models of routes that are due, as many as a step may.
    pub(super) fn refit_routes(&mut self, step: u64) {
        let params = &self.config.params;
        let most = REFITS_MIN + self.config.config.route_forecasts_max / REFIT_SPREAD_STEPS;
        let mut refits = 0;
        let services = self.services.values_mut();
        for service in services.filter(|service| service.routes.models() > 0) {
            let drivers = drivers(&service.series, None);
            for route in service.routes.models_mut() {
                if refits < most && route.refit_due(params) {
                    refits += 1;
                    route.read(step, &drivers, |model, input| model.refit(params, input));
                }
            }
        }
        self.counters.refits += refits as u64;
    }
}
