//! What a pipeline knows, handed from one analyzer to another, or read back
//! from the history of this one.

use std::collections::{BTreeMap, HashMap};

use honeyguide_bus::Offset;
use honeyguide_proto::{ServiceId, v1};
use sensor_common::Signal;

use super::{HistoryRow, OpenStep, Pipeline, service};
use crate::{
    graph::AddressBook,
    ring::{Columns, Ring, StoredColumns},
    routes,
    series::{Collected, Series},
    state::{
        PIECE_LEN, StateError, StoredSeries, StoredState, StoredWindows, decode_series,
        encode_series, take_from_bytes, to_bytes,
    },
};

impl Pipeline {
    /// Restores stored history, in the order of steps, before any input.
    /// Rows whose service or step cannot be are left out.
    pub fn restore(&mut self, rows: impl IntoIterator<Item = HistoryRow>) {
        let mut next_steps = BTreeMap::<u32, u64>::new();
        for row in rows {
            let Ok(service) = ServiceId::parse(&row.service) else {
                continue;
            };
            if self.next_step.is_some_and(|next| row.step + 1 < next) {
                continue;
            }
            self.next_step = Some(row.step + 1);
            if let Some(series) = self.series(&service, row.signal) {
                let next_step = next_steps.get(&series.number).copied();
                let next_step = series.ring.restore_one(&row.window, row.step, next_step);
                next_steps.insert(series.number, next_step);
            }
        }
        if let Some(next_step) = self.next_step {
            for series in self.all_series_mut() {
                let known = next_steps.get(&series.number).copied();
                series
                    .ring
                    .restore(StoredColumns::EMPTY, next_step - 1, known);
            }
        }
        self.stored_step = self.next_step.map(|next| next - 1);
    }

    /// Everything that is known, with the windows of steps that were not
    /// stored yet.
    pub fn state(&mut self) -> StoredState {
        self.refit();
        let last_step = self.next_step.unwrap_or(0).saturating_sub(1);
        StoredState {
            partition: self.partition_state(),
            series: self.series_pieces(),
            windows: self.window_pieces(last_step),
            last_step,
        }
    }

    fn partition_state(&self) -> v1::PartitionState {
        let (watched, resolved) = self.judge.snapshot();
        let histograms = self
            .identified()
            .map(|(id, series)| (id, series.signal, &*series.cumulative))
            .filter(|(_, _, histogram)| !histogram.is_empty());
        v1::PartitionState {
            next_offset: self.next_offset,
            next_step: self.next_step.unwrap_or(0),
            step_ns: self.config.step_ns(),
            newest_ns: self.newest_ns,
            streams: self.deduplication.snapshot(),
            open_steps: self.open.iter().map(|open| self.open_step(open)).collect(),
            cumulative: encode_series(histograms),
            watched,
            resolved,
            next_series_number: self.next_series_number,
            routes: self.routes_state(),
            addresses: self.addresses.stored(),
            breach_pool: to_bytes(&self.breach_pool),
            groups: to_bytes(&self.groups),
        }
    }

    fn routes_state(&self) -> Option<v1::RoutesState> {
        let services = self.services.iter();
        let all =
            services.flat_map(|(id, service)| service.routes.iter().map(move |one| (id, one)));
        routes::stored(all, &self.recent_steps)
    }

    fn restore_routes(
        &mut self,
        state: v1::RoutesState,
        same_step: bool,
    ) -> Result<(), StateError> {
        let (recent_steps, restored) = routes::restored(state)?;
        if same_step {
            self.recent_steps = recent_steps;
        }
        let first_step = self.newest_ns / self.config.step_ns();
        for mut one in restored {
            if !same_step {
                one.keep_totals(first_step);
            }
            let places = self.places();
            let mut room = self.room();
            let before = room.free;
            if let Some(service) = service(&mut self.services, &one.service, places) {
                service.routes.restore(one, &mut room);
            }
            self.route_count += before - room.free;
        }
        Ok(())
    }

    fn series_pieces(&self) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let mut piece = Vec::new();
        for service in self.services.values() {
            for series in &service.series {
                let stored = StoredSeries {
                    service: service.key.as_str().into(),
                    signal: series.signal.number(),
                    number: series.number,
                    facts: series.facts,
                    model: series
                        .model
                        .as_deref()
                        .map(std::borrow::Cow::Borrowed)
                        .unwrap_or_default(),
                    distribution: std::borrow::Cow::Borrowed(&*series.distribution),
                    reasons: series.reasons.as_slice().into(),
                    recalibrations: series.recalibrations.as_slice().into(),
                };
                piece.extend(to_bytes(&stored));
                if piece.len() >= PIECE_LEN {
                    pieces.push(std::mem::take(&mut piece));
                }
            }
        }
        pieces.extend((!piece.is_empty()).then_some(piece));
        pieces
    }

    fn window_pieces(&self, last_step: u64) -> Vec<Vec<u8>> {
        let stored_step = self.stored_step.unwrap_or(0);
        let new = usize::try_from(last_step.saturating_sub(stored_step)).unwrap_or(usize::MAX);
        let mut pieces = Vec::new();
        let mut piece = StoredWindows::default();
        let mut columns = Columns::default();
        let mut end_piece = |piece: &mut StoredWindows, columns: &mut Columns| {
            piece.last_step = last_step;
            let mut bytes = to_bytes(&std::mem::take(piece));
            std::mem::take(columns).write_to(&mut bytes);
            pieces.push(bytes);
        };
        for (_, series) in self.identified() {
            use honeyguide_models::History;
            let count = new.min(series.ring.len());
            if count == 0 {
                continue;
            }
            series.ring.write_newest(count, &mut columns);
            piece.series.push((series.number, count as u32));
            if columns.len() >= PIECE_LEN {
                end_piece(&mut piece, &mut columns);
            }
        }
        if !piece.series.is_empty() {
            end_piece(&mut piece, &mut columns);
        }
        pieces
    }

    /// Goes on where another analyzer stopped, before any input. Then restore
    /// its windows with [`windows`](Self::windows). Returns the offset of the
    /// next record to take.
    ///
    /// # Errors
    /// [`StateError`]; start with a new pipeline then.
    pub(crate) fn restore_state(
        &mut self,
        state: v1::PartitionState,
        pieces: &[Vec<u8>],
    ) -> Result<Offset, StateError> {
        self.deduplication.restore(&state.streams)?;
        self.next_series_number = state.next_series_number;
        // Windows and models of another step length say nothing.
        let same_step = state.step_ns == self.config.step_ns();
        if same_step {
            for piece in pieces {
                self.restore_series(piece)?;
            }
            self.next_step = (state.next_step > 0).then_some(state.next_step);
            self.stored_step = self.next_step.map(|next| next - 1);
            self.judge.restore(state.watched, state.resolved);
            (self.breach_pool, _) = take_from_bytes(&state.breach_pool, "breach pool")?;
            (self.groups, _) = take_from_bytes(&state.groups, "groups of similar series")?;
        }
        for (service, signal, histogram) in decode_series(&state.cumulative)? {
            if let Some(series) = self.series(&service, signal) {
                *series.cumulative = histogram;
            }
        }
        if same_step {
            for open in state.open_steps {
                self.restore_open_step(open)?;
            }
        }
        self.newest_ns = state.newest_ns;
        if let Some(routes) = state.routes {
            self.restore_routes(routes, same_step)?;
        }
        self.addresses = AddressBook::restored(state.addresses);
        self.next_offset = state.next_offset;
        Ok(self.next_offset)
    }

    fn restore_series(&mut self, mut piece: &[u8]) -> Result<(), StateError> {
        while !piece.is_empty() {
            let (stored, rest) = take_from_bytes::<StoredSeries<'_>>(piece, "series")?;
            piece = rest;
            let Ok(service) = ServiceId::parse(&stored.service) else {
                return Err(StateError::Field("service"));
            };
            let Some(signal) = Signal::from_number(stored.signal) else {
                // Of a newer analyzer; its totals are not known here either.
                continue;
            };
            let mut recalibrations = stored.recalibrations.into_owned();
            recalibrations.retain(|(objective, _)| self.config.has_objective(objective));
            if let Some(series) = self.series(&service, signal) {
                series.recalibrations = recalibrations;
                series.number = stored.number;
                series.facts = stored.facts;
                series.model = Some(Box::new(stored.model.into_owned()));
                *series.distribution = stored.distribution.into_owned();
                series.reasons = stored.reasons.into_owned();
            }
        }
        Ok(())
    }

    fn restore_open_step(&mut self, open: v1::OpenStep) -> Result<(), StateError> {
        let step = OpenStep {
            batches: open.batches,
            missing: open.missing,
        };
        self.open.insert(open.step, step);
        let series = decode_series(&open.series)?;
        let covered = open.covered_ns.iter().zip(&open.covered_until_ns);
        if series.len() != open.covered_ns.len() || series.len() != covered.len() {
            return Err(StateError::Field("open step"));
        }
        for ((service, signal, histogram), (covered_ns, covered_until_ns)) in
            series.into_iter().zip(covered)
        {
            if let Some(series) = self.series(&service, signal) {
                *series.open(open.step) = Collected {
                    histogram,
                    covered_ns: *covered_ns,
                    covered_until_ns: *covered_until_ns,
                };
            }
        }
        Ok(())
    }

    /// Takes the stored windows of the restored series, oldest first.
    pub(crate) fn windows(&mut self) -> Windows<'_> {
        let next_step = self.next_step;
        let rings = self
            .all_series_mut()
            .map(|series| (series.number, (&mut series.ring, None)));
        Windows {
            rings: rings.collect(),
            next_step,
        }
    }

    fn identified(&self) -> impl Iterator<Item = (&ServiceId, &Series)> {
        let services = self.services.iter();
        services.flat_map(|(id, service)| service.series.iter().map(move |series| (id, series)))
    }

    fn all_series_mut(&mut self) -> impl Iterator<Item = &mut Series> {
        let services = self.services.values_mut();
        services.flat_map(|service| &mut service.series)
    }

    fn open_step(&self, (step, open): (&u64, &OpenStep)) -> v1::OpenStep {
        let mut message = v1::OpenStep {
            step: *step,
            batches: open.batches,
            missing: open.missing,
            ..v1::OpenStep::default()
        };
        let mut collected = Vec::new();
        for (id, series) in self.identified() {
            let of_step = series.open.iter().find(|(open, _)| open == step);
            if let Some((_, of_step)) = of_step {
                message.covered_ns.push(of_step.covered_ns);
                message.covered_until_ns.push(of_step.covered_until_ns);
                collected.push((id, series.signal, &of_step.histogram));
            }
        }
        message.series = encode_series(collected.into_iter());
        message
    }
}

/// Fills the rings of a pipeline.
pub(crate) struct Windows<'a> {
    /// By number of the series; with the step after the newest window so far.
    rings: HashMap<u32, (&'a mut Ring, Option<u64>)>,
    next_step: Option<u64>,
}

impl Windows<'_> {
    /// Takes a piece of [`StoredState::windows`]. Windows of series that are
    /// forgotten, and of steps after the restored state, are left out. Returns
    /// the last step of the piece.
    ///
    /// # Errors
    /// [`StateError`]; the piece is left out.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Result<u64, StateError> {
        let (stored, columns) = take_from_bytes::<StoredWindows>(piece, "windows")?;
        let Some(end) = self.next_step.filter(|next| stored.last_step < *next) else {
            return Ok(stored.last_step);
        };
        let damaged = StateError::Damaged("windows");
        let Some(mut rest) = StoredColumns::read(columns) else {
            return Err(damaged);
        };
        for (number, count) in stored.series {
            let Some((windows, others)) = rest.split(count as usize) else {
                return Err(damaged);
            };
            rest = others;
            if let Some((ring, next_step)) = self.rings.get_mut(&number) {
                if next_step.is_none() {
                    let first = (stored.last_step + 1).saturating_sub(u64::from(count));
                    ring.expect(end - first);
                }
                *next_step = Some(ring.restore(windows, stored.last_step, *next_step));
            }
        }
        Ok(stored.last_step)
    }

    /// Ends every ring with the last closed step, whatever is missing.
    pub(crate) fn finish(self) {
        let Some(next_step) = self.next_step else {
            return;
        };
        #[expect(clippy::iter_over_hash_type, reason = "each ring on its own")]
        for (_, (ring, known)) in self.rings {
            ring.restore(StoredColumns::EMPTY, next_step - 1, known);
        }
    }
}

#[cfg(test)]
mod tests;
