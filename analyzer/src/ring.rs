//! The windows of a series in little memory, and the same bytes in storage.

use std::collections::VecDeque;

use honeyguide_models::{History, TARGETS, Target, Window};

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Packed {
    y: [i16; TARGETS],
    /// ln(1 + samples), in quanta.
    samples: i16,
    /// In 1/255.
    completeness: u8,
}

impl Packed {
    fn pack(window: &Window) -> Packed {
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

    /// [`Window::value`] of one target, without unpacking the rest.
    fn value(self, target: Target) -> Option<f64> {
        let window = Window {
            y: [restored(self.y[target.index()]); TARGETS],
            completeness: f32::from(self.completeness) / 255.0,
            ..Window::MISSING
        };
        window.value(target)
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
        let len = self.0.len();
        if len == HISTORY_STEPS {
            self.0.pop_front();
        } else if len == self.0.capacity() {
            // Doubling would end at 4096 places for 2160 windows.
            self.0.reserve_exact(len.max(60).min(HISTORY_STEPS - len));
        }
        self.0.push_back(Packed::pack(window));
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
        windows: StoredColumns<'_>,
        last_step: u64,
        next_step: Option<u64>,
    ) -> u64 {
        let first_step = (last_step + 1).saturating_sub(windows.len as u64);
        let next_step = next_step.unwrap_or(first_step);
        self.skip(first_step.saturating_sub(next_step));
        let known = next_step.saturating_sub(first_step);
        let beyond = windows.len.saturating_sub(HISTORY_STEPS);
        let new = windows.without(usize::try_from(known).unwrap_or(usize::MAX).max(beyond));
        self.make_room(new.len);
        let begin = self.0.len();
        self.0.resize(begin + new.len, Packed::default());
        new.write_to(&mut self.0.make_contiguous()[begin..]);
        next_step.max(last_step + 1)
    }

    /// Appends stored windows to a ring, as they were.
    pub(crate) fn append(&mut self, windows: StoredColumns<'_>) {
        let len = windows.len as u64;
        self.restore(windows, len.saturating_sub(1), None);
    }

    /// Appends one window, of `step`, likewise.
    pub(crate) fn restore_one(
        &mut self,
        window: &Window,
        step: u64,
        next_step: Option<u64>,
    ) -> u64 {
        let next_step = next_step.unwrap_or(step);
        if step >= next_step {
            self.skip(step - next_step);
            self.push(window);
        }
        next_step.max(step + 1)
    }

    /// Makes room for windows that come in pieces, at once: growing with each
    /// piece would move them as many times.
    pub(crate) fn expect(&mut self, windows: u64) {
        let windows = windows.min(HISTORY_STEPS as u64) as usize;
        self.0.reserve_exact(windows.saturating_sub(self.0.len()));
    }

    /// Appends windows of which nothing is known.
    pub(crate) fn skip(&mut self, steps: u64) {
        if steps == 0 {
            return;
        }
        let steps = steps.min(HISTORY_STEPS as u64) as usize;
        self.make_room(steps);
        let end = self.0.len() + steps;
        self.0.resize(end, Packed::pack(&Window::MISSING));
    }

    /// Forgets the oldest windows so that `new` ones fit.
    fn make_room(&mut self, new: usize) {
        let excess = (self.0.len() + new).saturating_sub(HISTORY_STEPS);
        self.0.drain(..excess.min(self.0.len()));
        self.0.reserve_exact(new);
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

    fn value(&self, ago: usize, target: Target) -> Option<f64> {
        let position = self.0.len().checked_sub(ago.saturating_add(1))?;
        self.0[position].value(target)
    }
}

/// Values of a window: one for each target, and the samples.
const VALUES: usize = TARGETS + 1;
/// Two bytes of each value, and the completeness.
const COLUMNS: usize = 2 * VALUES + 1;

/// Windows by column: low and high bytes of a value apart, because neighbours
/// in a column resemble each other, their high bytes above all.
#[derive(Debug, Default)]
pub(crate) struct Columns([Vec<u8>; COLUMNS]);

impl Columns {
    /// Bytes held.
    pub(crate) fn len(&self) -> usize {
        self.0[0].len() * COLUMNS
    }

    fn push(&mut self, window: &Packed) {
        let values = window.y.iter().chain([&window.samples]);
        let bytes = values.flat_map(|value| value.to_le_bytes());
        for (column, byte) in self.0.iter_mut().zip(bytes.chain([window.completeness])) {
            column.push(byte);
        }
    }

    /// Appends one column after the other.
    pub(crate) fn write_to(&self, bytes: &mut Vec<u8>) {
        self.0.iter().for_each(|column| bytes.extend(column));
    }
}

/// Columns in stored bytes, or some windows of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredColumns<'a> {
    columns: [&'a [u8]; COLUMNS],
    len: usize,
}

impl<'a> StoredColumns<'a> {
    /// No windows.
    pub(crate) const EMPTY: StoredColumns<'static> = StoredColumns {
        columns: [&[]; COLUMNS],
        len: 0,
    };

    /// What [`Columns::write_to`] appended; `None` if it cannot be.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let len = bytes.len() / COLUMNS;
        (len * COLUMNS == bytes.len()).then(|| Self {
            columns: std::array::from_fn(|column| &bytes[column * len..(column + 1) * len]),
            len,
        })
    }

    /// The first `count` windows, and the rest; `None` if there are fewer.
    pub(crate) fn split(self, count: usize) -> Option<(Self, Self)> {
        let rest = Self {
            columns: self
                .columns
                .map(|column| column.get(count..).unwrap_or(&[])),
            len: self.len.checked_sub(count)?,
        };
        let first = Self {
            columns: self.columns.map(|column| &column[..count]),
            len: count,
        };
        Some((first, rest))
    }

    fn without(self, first: usize) -> Self {
        self.split(first).map_or(Self::EMPTY, |(_, rest)| rest)
    }

    /// A column at a time: several times as fast as window by window.
    fn write_to(self, windows: &mut [Packed]) {
        let value = |low: &u8, high: &u8| i16::from_le_bytes([*low, *high]);
        for target in 0..TARGETS {
            let bytes = self.columns[2 * target]
                .iter()
                .zip(self.columns[2 * target + 1]);
            for (window, (low, high)) in windows.iter_mut().zip(bytes) {
                window.y[target] = value(low, high);
            }
        }
        let samples = self.columns[2 * TARGETS]
            .iter()
            .zip(self.columns[2 * TARGETS + 1]);
        for ((window, (low, high)), completeness) in windows
            .iter_mut()
            .zip(samples)
            .zip(self.columns[2 * VALUES])
        {
            window.samples = value(low, high);
            window.completeness = *completeness;
        }
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
            let mut bytes = Vec::new();
            columns.write_to(&mut bytes);
            let stored = StoredColumns::read(&bytes).unwrap();
            next = Some(ring.restore(stored, *last_step, next));
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
        assert!(StoredColumns::read(&[0; COLUMNS + 1]).is_none());
        let one = StoredColumns::read(&[0; COLUMNS]).unwrap();
        assert!(one.split(1).is_some());
        assert!(one.split(2).is_none());
    }
}
