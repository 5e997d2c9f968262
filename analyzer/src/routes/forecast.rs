//! Forecasts of the routes with most requests, by the models of series.

use std::collections::BTreeMap;

use honeyguide_models::{Driver, DriverId, Role, SeriesInput, SeriesModel, ValidParams, Window};
use honeyguide_proto::v1;
use sensor_common::Histogram;

use super::{Classes, Collected, RouteRequests, Routes};
use crate::ring::Ring;

/// What forecasts a route: its windows since it has a model, all status
/// classes together, and the model.
#[derive(Debug, Default)]
pub(crate) struct RouteModel {
    pub(crate) ring: Ring,
    pub(crate) model: SeriesModel,
    /// The newest forecast.
    pub(crate) points: Vec<v1::ForecastPoint>,
}

impl RouteModel {
    pub(super) fn bytes(&self) -> usize {
        let points = self.points.capacity() * size_of::<v1::ForecastPoint>();
        // The model counts itself.
        let model = self.model.bytes() + self.model.history_bytes();
        size_of::<Ring>() + self.ring.bytes() + model + points
    }
}

/// A step that closes.
#[derive(Clone, Copy, Debug)]
pub struct ClosingStep {
    /// Its number.
    pub step: u64,
    /// Its length in nanoseconds.
    pub step_ns: u64,
    /// The window of who had no requests.
    pub empty: Window,
    /// Share of it that was received.
    pub completeness: f64,
}

impl ClosingStep {
    pub(super) fn window(&self, collected: Option<&Collected<Classes>>) -> Window {
        let Some(collected) = collected else {
            return self.empty;
        };
        let mut merged = Histogram::new();
        for (_, histogram) in collected.histogram.iter() {
            histogram.add_to(&mut merged);
        }
        let covered_secs = collected.covered_ns.max(self.step_ns) as f64 / 1e9;
        let mut window = Window::from_histogram(&merged, covered_secs, 1.0);
        window.completeness = self.completeness as f32;
        window
    }
}

impl RouteRequests {
    /// Requests of the last closed steps.
    fn recent_requests(&self) -> u64 {
        let classes = self.recent.iter().flat_map(|(_, of)| of.histogram.iter());
        classes.map(|(_, histogram)| histogram.count()).sum()
    }

    /// What `closing` had, which has just been closed.
    fn window_of(&self, closing: &ClosingStep) -> Window {
        let newest = self.recent.back();
        let newest = newest.filter(|(step, _)| *step == closing.step);
        closing.window(newest.map(|(_, collected)| collected))
    }
}

impl Routes {
    /// How many have a model.
    pub(crate) fn models(&self) -> usize {
        self.all.iter().filter(|one| one.model.is_some()).count()
    }

    /// Takes models away that had no requests for `idle_steps`.
    pub(crate) fn release_models(&mut self, step: u64, idle_steps: u64) {
        for requests in &mut self.all {
            if requests.last_step + idle_steps <= step {
                requests.model = None;
            }
        }
    }

    /// Places of routes without a model that had `least` requests lately, with
    /// how many they had.
    pub(crate) fn candidates(&self, least: u64) -> impl Iterator<Item = (usize, u64)> {
        let without = self.all.iter().enumerate();
        let without = without.filter(|(_, one)| one.model.is_none());
        without
            .map(|(place, one)| (place, one.recent_requests()))
            .filter(move |(_, requests)| *requests >= least)
    }

    /// Gives the route at `place` a model, which begins with the step just closed.
    pub(crate) fn begin_model(&mut self, place: usize, closing: &ClosingStep) {
        let mut model = RouteModel::default();
        model.ring.push(&self.all[place].window_of(closing));
        self.all[place].model = Some(Box::new(model));
    }

    /// Routes that have a model.
    pub(crate) fn models_mut(&mut self) -> impl Iterator<Item = &mut RouteModel> {
        self.all
            .iter_mut()
            .filter_map(|one| one.model.as_deref_mut())
    }

    /// What is asked of others, with its windows.
    pub(crate) fn downstream(&self) -> impl Iterator<Item = Driver<'_, Ring>> {
        self.all.iter().filter_map(|one| {
            Some(Driver {
                id: peer_id(one.route.peer()?),
                role: Role::Downstream,
                history: &one.model.as_deref()?.ring,
            })
        })
    }

    /// The addresses that are asked, in order, with the windows of those routes to
    /// each that are forecast.
    pub(crate) fn peers(&self) -> BTreeMap<&str, Vec<&Ring>> {
        let mut peers = BTreeMap::<_, Vec<_>>::new();
        for one in &self.all {
            if let Some(peer) = one.route.peer() {
                let rings = peers.entry(peer).or_default();
                rings.extend(one.model.as_deref().map(|model| &model.ring));
            }
        }
        peers
    }

    /// The address behind an id of [`downstream`](Self::downstream).
    pub(crate) fn peer_of(&self, id: DriverId) -> Option<&str> {
        let mut peers = self.all.iter().filter_map(|one| one.route.peer());
        peers.find(|peer| peer_id(peer) == id)
    }

    /// Steps of which nothing is known.
    pub(crate) fn skip(&mut self, steps: u64) {
        self.models_mut().for_each(|model| model.ring.skip(steps));
    }
}

/// No number of a signal, and the same in every analyzer.
fn peer_id(peer: &str) -> DriverId {
    DriverId(1 << 31 | crc32fast::hash(peer.as_bytes()))
}

impl RouteModel {
    /// Calls `read` with the model, and its windows beside those of its service.
    pub(crate) fn read<T>(
        &mut self,
        step: u64,
        drivers: &[Driver<'_, Ring>],
        read: impl FnOnce(&mut SeriesModel, SeriesInput<'_, Ring>) -> T,
    ) -> T {
        let input = SeriesInput {
            step,
            own: &self.ring,
            drivers,
        };
        read(&mut self.model, input)
    }

    /// Whether enough was seen for another refit.
    pub(crate) fn refit_due(&self, params: &ValidParams) -> bool {
        self.model.refit_due(params)
    }
}
