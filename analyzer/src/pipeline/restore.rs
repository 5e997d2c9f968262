//! What a pipeline knows, handed from one analyzer to another.

use honeyguide_bus::Offset;
use honeyguide_models::Window;
use honeyguide_proto::{ServiceId, v1};

use super::{HistoryRow, OpenStep, Pipeline};
use crate::{
    series::Collected,
    state::{self, StateError, decode_series, encode_series},
};

impl Pipeline {
    /// Restores stored history, in the order of steps, before any input.
    /// Rows whose service or step cannot be are left out.
    pub fn restore(&mut self, rows: impl IntoIterator<Item = HistoryRow>) {
        for row in rows {
            let Ok(service) = ServiceId::parse(&row.service) else {
                continue;
            };
            if self.next_step.is_some_and(|next| row.step + 1 < next) {
                continue;
            }
            // Series without a row in a step get a window as at runtime.
            while self.next_step.is_some_and(|next| next <= row.step) {
                self.align_restored();
                self.next_step = self.next_step.map(|next| next + 1);
            }
            self.next_step.get_or_insert(row.step + 1);
            if let Some(series) = self.series(&service, row.signal) {
                series.ring.push(&row.window);
                series.idle_steps = 0;
            }
        }
        self.align_restored();
        self.stored_step = self.next_step.map(|next| next - 1);
    }

    /// Everything that is known beside the rows of closed steps.
    pub fn snapshot(&self) -> v1::PartitionState {
        let (watched, resolved) = self.judge.snapshot();
        let series = self.services.iter().flat_map(|(id, service)| {
            service
                .series
                .iter()
                .map(move |series| (id, series.signal, &*series.cumulative))
        });
        v1::PartitionState {
            version: state::VERSION,
            next_offset: self.next_offset,
            next_step: self.next_step.unwrap_or(0),
            newest_ns: self.newest_ns,
            streams: self.deduplication.snapshot(),
            open_steps: self.open.iter().map(|open| self.open_step(open)).collect(),
            cumulative: encode_series(series.filter(|(_, _, histogram)| !histogram.is_empty())),
            watched,
            resolved,
        }
    }

    /// Goes on where another analyzer stopped; after [`restore`](Self::restore)
    /// with its rows. Returns the offset of the next record to take.
    ///
    /// # Errors
    /// [`StateError`]; start with a new pipeline then.
    pub fn restore_snapshot(&mut self, state: v1::PartitionState) -> Result<Offset, StateError> {
        if state.version != state::VERSION {
            return Err(StateError::Version(state.version));
        }
        self.deduplication.restore(&state.streams)?;
        for (service, signal, histogram) in decode_series(&state.cumulative)? {
            if let Some(series) = self.series(&service, signal) {
                *series.cumulative = histogram;
            }
        }
        self.align_restored();
        for open in state.open_steps {
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
        }
        // Steps without events have no rows.
        while self.next_step.is_some_and(|next| next < state.next_step) {
            self.close_restored_step();
        }
        if state.next_step > 0 {
            self.next_step.get_or_insert(state.next_step);
        }
        self.stored_step = self.next_step.map(|next| next - 1);
        self.newest_ns = state.newest_ns;
        self.next_offset = state.next_offset;
        self.judge.restore(state.watched, state.resolved);
        Ok(self.next_offset)
    }

    /// A step of which no series has a row.
    fn close_restored_step(&mut self) {
        for service in self.services.values_mut() {
            for series in &mut service.series {
                series.ring.push(&Window::MISSING);
            }
        }
        self.next_step = self.next_step.map(|next| next + 1);
    }

    /// Gives every series the same length of history.
    fn align_restored(&mut self) {
        use honeyguide_models::History;
        let all = || self.services.values().flat_map(|service| &service.series);
        let longest = all().map(|series| series.ring.len()).max().unwrap_or(0);
        for series in self
            .services
            .values_mut()
            .flat_map(|service| &mut service.series)
        {
            while series.ring.len() < longest {
                series.ring.push(&Window::MISSING);
            }
        }
    }

    fn open_step(&self, (step, open): (&u64, &OpenStep)) -> v1::OpenStep {
        let mut message = v1::OpenStep {
            step: *step,
            batches: open.batches,
            missing: open.missing,
            ..v1::OpenStep::default()
        };
        let mut collected = Vec::new();
        for (id, service) in &self.services {
            for series in &service.series {
                let of_step = series.open.iter().find(|(open, _)| open == step);
                if let Some((_, of_step)) = of_step {
                    message.covered_ns.push(of_step.covered_ns);
                    message.covered_until_ns.push(of_step.covered_until_ns);
                    collected.push((id, series.signal, &of_step.histogram));
                }
            }
        }
        message.series = encode_series(collected.into_iter());
        message
    }
}
