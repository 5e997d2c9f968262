//! Requests by route in storable form.

use std::collections::BTreeMap;

use honeyguide_models::History;
use honeyguide_proto::{
    Route, ServiceId,
    batch::{Batch, Contents, RouteSeriesRef},
    v1,
};
use sensor_common::Signal;

use super::{Classes, Collected, RecentSteps, Room, RouteRequests, Routes, forecast::RouteModel};
use crate::{
    ring::{Columns, Ring, StoredColumns},
    state::{SERIES_PER_BATCH, StateError, header, take_from_bytes, to_bytes},
};

/// A route with its service.
type Key = (ServiceId, Signal, Route);

/// What is known of routes, which come in the order of (service, signal,
/// route); nothing where there is none.
pub(crate) fn stored<'a>(
    all: impl Iterator<Item = (&'a ServiceId, &'a RouteRequests)>,
    recent: &RecentSteps,
) -> Option<v1::RoutesState> {
    let all: Vec<_> = all.collect();
    if all.is_empty() && recent.iter().next().is_none() {
        return None;
    }
    let mut steps = BTreeMap::<u64, (v1::RouteStep, Vec<_>)>::new();
    for (id, requests) in &all {
        for (number, collected) in requests.recent.iter().chain(&requests.open) {
            let (step, series) = steps.entry(*number).or_default();
            step.step = *number;
            step.covered_ns.push(collected.covered_ns);
            step.covered_until_ns.push(collected.covered_until_ns);
            series.push((*id, *requests, &collected.histogram));
        }
    }
    let steps = steps.into_values().map(|(mut step, series)| {
        step.series = encode(&series);
        step
    });
    let totals: Vec<_> = all
        .iter()
        .map(|(id, requests)| (*id, *requests, &requests.total))
        .collect();
    Some(v1::RoutesState {
        total: encode(&totals),
        first_step: all.iter().map(|(_, one)| one.first_step).collect(),
        last_step: all.iter().map(|(_, one)| one.last_step).collect(),
        recent_steps: recent.iter().collect(),
        steps: steps.collect(),
        models: models(all.iter().map(|(_, requests)| *requests)),
    })
}

fn models<'a>(all: impl Iterator<Item = &'a RouteRequests>) -> Vec<v1::RouteModelState> {
    let models = (0..).zip(all);
    let models = models.filter_map(|(route, requests)| {
        let model = requests.model.as_ref()?;
        let mut columns = Columns::default();
        model.ring.write_newest(model.ring.len(), &mut columns);
        let mut windows = Vec::new();
        columns.write_to(&mut windows);
        Some(v1::RouteModelState {
            route,
            model: to_bytes(&model.model),
            windows,
        })
    });
    models.collect()
}

fn restored_model(state: &v1::RouteModelState) -> Result<RouteModel, StateError> {
    let (model, _) = take_from_bytes(&state.model, "models of routes")?;
    let windows = StoredColumns::read(&state.windows);
    let windows = windows.ok_or(StateError::Damaged("windows of routes"))?;
    let mut ring = Ring::default();
    ring.append(windows);
    Ok(RouteModel {
        ring,
        model,
        points: Vec::new(),
    })
}

fn encode(all: &[(&ServiceId, &RouteRequests, &Classes)]) -> Vec<Vec<u8>> {
    let encoded = all.chunks(SERIES_PER_BATCH).map(|chunk| {
        let mut services: Vec<ServiceId> = Vec::new();
        let mut route_series = Vec::with_capacity(chunk.len());
        for (id, requests, classes) in chunk {
            if services.last() != Some(*id) {
                services.push((*id).clone());
            }
            for (status_class, histogram) in classes.iter() {
                route_series.push(RouteSeriesRef {
                    service: services.len() as u32 - 1,
                    route: &requests.route,
                    signal: requests.signal,
                    status_class,
                    buckets: histogram.buckets(),
                    totals: histogram.totals(),
                });
            }
        }
        let contents = Contents {
            services: &services,
            route_series,
            ..Contents::default()
        };
        contents.encode(&header())
    });
    encoded.collect()
}

/// By (service, signal, route).
fn decode(batches: &[Vec<u8>]) -> Result<BTreeMap<Key, Classes>, StateError> {
    let mut all = BTreeMap::<Key, Classes>::new();
    for payload in batches {
        let batch = Batch::decode(payload)?;
        for window in &batch.route_series {
            let service = batch.services[window.series.service as usize].clone();
            let key = (service, window.series.signal, batch.route(window).clone());
            let classes = all.entry(key).or_default();
            super::add(classes.of(window.status_class), &batch, window);
        }
    }
    Ok(all)
}

/// One side of a route as it was stored.
pub(crate) struct RestoredRoute {
    pub(crate) service: ServiceId,
    requests: RouteRequests,
}

impl RestoredRoute {
    /// Forgets what it did in steps, which had another length, as if it had
    /// come in `step`.
    pub(crate) fn keep_totals(&mut self, step: u64) {
        let requests = &mut self.requests;
        requests.open.clear();
        requests.recent.clear();
        requests.model = None;
        (requests.first_step, requests.last_step) = (step, step);
    }
}

/// What [`stored`] gave.
///
/// # Errors
/// [`StateError`].
pub(crate) fn restored(
    state: v1::RoutesState,
) -> Result<(RecentSteps, Vec<RestoredRoute>), StateError> {
    let wrong = StateError::Field("routes");
    let totals = decode(&state.total)?;
    let steps = state.first_step.iter().zip(&state.last_step);
    if state.first_step.len() != state.last_step.len() || totals.len() != steps.len() {
        return Err(wrong);
    }
    let mut all = BTreeMap::new();
    for ((key, total), (first_step, last_step)) in totals.into_iter().zip(steps) {
        let (_, signal, route) = &key;
        let mut requests = RouteRequests::new(*signal, route.clone(), *first_step);
        requests.total = total;
        requests.last_step = *last_step;
        all.insert(key, requests);
    }
    let recent: RecentSteps = state.recent_steps.into_iter().collect();
    // Steps that collect are after all closed ones.
    let last_closed = recent.iter().next_back();
    for step in state.steps {
        let is_open = last_closed.is_none_or(|last| step.step > last);
        let collected = decode(&step.series)?;
        let covered = step.covered_ns.iter().zip(&step.covered_until_ns);
        if step.covered_ns.len() != step.covered_until_ns.len() || covered.len() != collected.len()
        {
            return Err(wrong);
        }
        for ((key, histogram), (covered_ns, covered_until_ns)) in collected.into_iter().zip(covered)
        {
            let Some(requests) = all.get_mut(&key) else {
                return Err(wrong);
            };
            let collected = Collected {
                histogram,
                covered_ns: *covered_ns,
                covered_until_ns: *covered_until_ns,
            };
            if is_open {
                requests.open.push((step.step, collected));
            } else {
                requests.recent.push_back((step.step, collected));
            }
        }
    }
    let mut in_order: Vec<&mut RouteRequests> = all.values_mut().collect();
    for model in &state.models {
        let Some(requests) = in_order.get_mut(model.route as usize) else {
            return Err(wrong);
        };
        requests.model = Some(Box::new(restored_model(model)?));
    }
    let restored = all
        .into_iter()
        .map(|((service, ..), requests)| RestoredRoute { service, requests });
    Ok((recent, restored.collect()))
}

impl Routes {
    /// Adds a route as it was stored, if there is room.
    pub(crate) fn restore(&mut self, restored: RestoredRoute, room: &mut Room) {
        let requests = restored.requests;
        if room.free == 0 {
            return;
        }
        if let Err(at) = self.find(requests.signal, &requests.route) {
            self.insert(at, requests);
            room.free -= 1;
        }
    }
}
