//! The windows of a series in little memory, and the same bytes in storage.

use std::{collections::VecDeque, ops::Range};

use honeyguide_models::{History, TARGETS, Window};
use serde::{Deserialize, Serialize};

/// History kept in memory, in steps: 6 hours of 10 s.
pub const HISTORY_STEPS: usize = 2160;

/// Values in model space (natural logarithms) are kept as multiples of this:
/// 0.05 %, far below the bucket width of 9 %.
const QUANTUM: f32 = 1.0 / 2000.0;
/// Stands for NaN.
const NOTHING: i16 = i16::MIN;
/// Largest magnitude kept: e^±16 s covers 0.1 µs to 100 days.
const LIMIT: f32 = 16.0;

/// A [`Window`] in 14 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    y: [i16; TARGETS],
    /// ln(1 + samples), in quanta.
    samples: i16,
    /// In 1/255.
    completeness: u8,
}

impl Packed {
    pub(crate) fn pack(window: &Window) -> Packed {
        Packed {
            y: window.y.map(quantised),
            samples: quantised(window.samples.max(0.0).ln_1p()),
            completeness: (window.completeness.clamp(0.0, 1.0) * 255.0).round() as u8,
        }
    }

    fn unpack(self) -> Window {
        Window {
            y: self.y.map(restored),
            samples: restored(self.samples).exp_m1(),
            completeness: f32::from(self.completeness) / 255.0,
        }
    }
}

fn quantised(value: f32) -> i16 {
    if value.is_nan() {
        return NOTHING;
    }
    (value.clamp(-LIMIT, LIMIT) / QUANTUM).round() as i16
}

fn restored(quanta: i16) -> f32 {
    if quanta == NOTHING {
        f32::NAN
    } else {
        f32::from(quanta) * QUANTUM
    }
}

/// The last [`HISTORY_STEPS`] windows of a series.
#[derive(Debug, Default)]
pub struct Ring(VecDeque<Packed>);

impl Ring {
    /// Appends the newest window; the oldest goes when the ring is full.
    pub fn push(&mut self, window: &Window) {
        self.push_packed(Packed::pack(window));
    }

    fn push_packed(&mut self, window: Packed) {
        let len = self.0.len();
        if len == HISTORY_STEPS {
            self.0.pop_front();
        } else if len == self.0.capacity() {
            // Doubling would end at 4096 places for 2160 windows.
            self.0.reserve_exact(len.max(60).min(HISTORY_STEPS - len));
        }
        self.0.push_back(window);
    }

    /// Appends the newest `count` windows to `columns`; there are so many.
    pub(crate) fn write_newest(&self, count: usize, columns: &mut Columns) {
        for window in self.0.range(self.0.len() - count..) {
            columns.push(window);
        }
    }

    /// Appends stored windows, of which the last is of `last_step`, to a ring
    /// that ends before `next_step`. What it has already is left out, and what
    /// lies between is missing. Returns the step after its newest window.
    pub(crate) fn restore(
        &mut self,
        windows: impl ExactSizeIterator<Item = Packed>,
        last_step: u64,
        next_step: Option<u64>,
    ) -> u64 {
        let first_step = (last_step + 1).saturating_sub(windows.len() as u64);
        let next_step = next_step.unwrap_or(first_step);
        for _ in next_step..first_step.min(next_step + HISTORY_STEPS as u64) {
            self.push(&Window::MISSING);
        }
        let known = next_step.saturating_sub(first_step);
        for window in windows.skip(usize::try_from(known).unwrap_or(usize::MAX)) {
            self.push_packed(window);
        }
        next_step.max(last_step + 1)
    }

    /// Heap bytes.
    pub fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Packed>()
    }
}

impl History for Ring {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn window(&self, ago: usize) -> Window {
        let position = self.0.len().checked_sub(ago.saturating_add(1));
        position.map_or(Window::MISSING, |position| self.0[position].unpack())
    }
}

/// Windows by column: low and high bytes of a value apart, because neighbours
/// in a column resemble each other, their high bytes above all.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Columns {
    /// Of y by target, then samples.
    values: [[Vec<u8>; 2]; VALUES],
    completeness: Vec<u8>,
}

/// Values of a window: one for each target, and the samples.
const VALUES: usize = TARGETS + 1;

impl Columns {
    /// Bytes held.
    pub(crate) fn len(&self) -> usize {
        self.completeness.len() * (2 * VALUES + 1)
    }

    fn push(&mut self, window: &Packed) {
        let values = window.y.iter().chain([&window.samples]);
        for ([low, high], value) in self.values.iter_mut().zip(values) {
            let [low_byte, high_byte] = value.to_le_bytes();
            low.push(low_byte);
            high.push(high_byte);
        }
        self.completeness.push(window.completeness);
    }

    /// The windows of `range`, if there are so many.
    pub(crate) fn windows(
        &self,
        range: Range<usize>,
    ) -> Option<impl ExactSizeIterator<Item = Packed>> {
        let all = self.values.iter().flatten();
        let complete = all
            .chain([&self.completeness])
            .all(|column| range.end <= column.len());
        let value = |column: usize, at: usize| {
            let [low, high] = &self.values[column];
            i16::from_le_bytes([low[at], high[at]])
        };
        let window = move |at: usize| Packed {
            y: std::array::from_fn(|target| value(target, at)),
            samples: value(TARGETS, at),
            completeness: self.completeness[at],
        };
        (complete && range.start <= range.end).then(|| range.map(window))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packing_keeps_values_to_a_twentieth_of_a_percent(ln in -15.9f32..15.9, samples in 0f32..1e6) {
            let window = Window { y: [ln; TARGETS], samples, completeness: 0.5 };
            let mut ring = Ring::default();
            ring.push(&window);
            let read = ring.window(0);
            prop_assert!((read.y[0] - ln).abs() <= QUANTUM);
            prop_assert!((read.samples - samples).abs() <= samples * 0.001 + 0.001);
        }
    }

    #[test]
    fn nothing_stays_nothing() {
        let mut ring = Ring::default();
        ring.push(&Window::MISSING);
        assert!(ring.window(0).y.iter().all(|y| y.is_nan()));
        assert_eq!(ring.window(1).completeness, 0.0);
    }

    fn window(step: u64) -> Window {
        Window {
            y: [(step as f32 * 0.37).sin(); TARGETS],
            samples: step as f32,
            completeness: 1.0,
        }
    }

    /// Stored in pieces that end at `ends` with so many windows each.
    fn restored(pieces: &[(u64, usize)]) -> Ring {
        let mut ring = Ring::default();
        let mut next = None;
        for (last_step, count) in pieces {
            let mut source = Ring::default();
            (0..=*last_step).for_each(|step| source.push(&window(step)));
            let mut columns = Columns::default();
            source.write_newest(*count, &mut columns);
            let windows = columns.windows(0..*count).unwrap();
            next = Some(ring.restore(windows, *last_step, next));
        }
        ring
    }

    #[test]
    fn stored_windows_come_back_bit_for_bit_in_whatever_pieces() {
        let mut expected = Ring::default();
        (0..=2500).for_each(|step| expected.push(&window(step)));
        let whole = restored(&[(2500, HISTORY_STEPS)]);
        let pieces = restored(&[(400, 60), (900, 500), (1000, 400), (2499, 1600), (2500, 1)]);
        assert_eq!(whole.0, expected.0);
        assert_eq!(pieces.0, expected.0);
    }

    #[test]
    fn a_lost_piece_leaves_missing_windows() {
        let ring = restored(&[(10, 5), (20, 5)]);
        assert_eq!(ring.len(), 15);
        assert_eq!(ring.window(5).completeness, 0.0);
        assert_eq!(ring.window(0).samples.round(), 20.0);
        assert_eq!(ring.window(14).samples.round(), 6.0);
    }

    #[test]
    fn columns_that_are_too_short_give_nothing() {
        assert!(Columns::default().windows(0..1).is_none());
    }
}
