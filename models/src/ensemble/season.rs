//! The seasons of a series: their shapes, and how large residuals are at each
//! of their phases.
//!
//! A shape is a mean over the last few seasons in at most [`BUCKETS_MAX`]
//! buckets, so that a week takes no more memory than an hour.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::stretch::Stretch;
use super::{Shape, Shapes};
use crate::level::Level;

/// Seasons that are followed at most.
pub(crate) const SEASONS: usize = 4;
/// Shortest season in steps that has a shape.
pub(super) const STEPS_MIN: usize = 4;
/// Buckets of a shape at most.
const BUCKETS_MAX: usize = 168;
/// Seasons that a shape is a mean of.
const BACK: u64 = 4;
/// Phases at which the size of residuals is followed at most.
const PHASES_MAX: usize = 24;
/// Residuals of usual size that a phase is believed to have had.
const SIZE_BELIEF: f64 = 3.0;
/// What a residual's size weighs after the next at its phase.
const SIZE_KEEP: f64 = 0.98;
/// Steps whose residuals and losses count where there is no season …
const MEMORY_STEPS: f64 = 1440.0;
/// … else so many of the longest that was seen twice …
const MEMORY_SEASONS: f64 = 4.0;
/// … but no more steps than this.
const MEMORY_STEPS_MAX: f64 = 8064.0;

/// How a value of a shape is stored; not finite for none.
pub(crate) trait Cell: Copy {
    /// No value.
    const NONE: Self;
    fn new(value: f64) -> Self;
    /// NaN for none.
    fn get(self) -> f64;
}

impl Cell for f32 {
    const NONE: Self = f32::NAN;

    fn new(value: f64) -> Self {
        value as f32
    }

    fn get(self) -> f64 {
        self.into()
    }
}

/// A model-space number in 1/1024, or nothing: a shape needs no more than 0.1 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fixed(i16);

impl Cell for Fixed {
    const NONE: Self = Fixed(i16::MIN);

    fn new(value: f64) -> Self {
        if value.is_nan() {
            return Self::NONE;
        }
        Fixed((value * 1024.0).round().clamp(-32767.0, 32767.0) as i16)
    }

    fn get(self) -> f64 {
        if self == Self::NONE {
            f64::NAN
        } else {
            f64::from(self.0) / 1024.0
        }
    }
}

/// How large residuals are at a phase relative to the usual: a mean, and its
/// weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Size {
    /// In 1/8192.
    mean: u16,
    /// In 1/1024.
    weight: u16,
}

impl Size {
    fn get(self) -> [f64; 2] {
        [
            f64::from(self.mean) / 8192.0,
            f64::from(self.weight) / 1024.0,
        ]
    }

    fn learn(&mut self, size: f64, weight: f64) {
        let [mean, aged] = self.get();
        let aged = SIZE_KEEP * aged;
        let mean = mean + weight / (aged + weight) * (size - mean);
        self.mean = (mean * 8192.0).round() as u16;
        self.weight = ((aged + weight) * 1024.0).round() as u16;
    }
}

/// A value of one step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) value: f64,
    /// How well it was observed, 0..=1; 0 for not at all.
    pub(crate) weight: f64,
    /// How much it says of seasons to come, 0..=1.
    pub(crate) trust: f64,
}

/// One season of `N` quantities.
#[derive(Clone, Debug, PartialEq)]
struct Profile<C, const N: usize> {
    /// In steps.
    length: u64,
    /// Steps of a bucket.
    width: u64,
    shape: Vec<[C; N]>,
    /// The bucket that is collected now, and what it has.
    bucket: usize,
    collected: [Level; N],
    /// How far what it has is to be trusted.
    trust: [Level; N],
    sizes: Vec<[Size; N]>,
    stretches: [Stretch; N],
}

impl<C: Cell, const N: usize> Profile<C, N> {
    fn new(length: usize) -> Self {
        let width = length.div_ceil(BUCKETS_MAX);
        Profile {
            length: length as u64,
            width: width as u64,
            shape: vec![[C::NONE; N]; length.div_ceil(width)],
            bucket: 0,
            collected: [Level::default(); N],
            trust: [Level::default(); N],
            sizes: vec![[Size::default(); N]; length.min(PHASES_MAX)],
            stretches: [Stretch::default(); N],
        }
    }

    /// Takes the values of a step; `seasons` is how many have begun.
    fn learn(&mut self, step: u64, values: &[Observed; N], seasons: u64) {
        let keep = (-1.0 / self.length as f64).exp();
        let expected = self.mean(step).into_iter().zip(values);
        for (stretch, (shape, value)) in self.stretches.iter_mut().zip(expected) {
            if value.weight > 0.0 && shape.is_finite() {
                stretch.learn(keep, shape, value.value, value.weight);
            }
        }
        let bucket = (step % self.length / self.width) as usize;
        if bucket != self.bucket {
            let share = 1.0 / seasons.clamp(1, BACK) as f64;
            let collected = self.collected.iter().zip(&self.trust);
            for (cell, (collected, trust)) in self.shape[self.bucket].iter_mut().zip(collected) {
                if let Some(mean) = collected.get() {
                    let share = share * trust.or(0.0);
                    let old = cell.get();
                    let new = if old.is_nan() {
                        mean
                    } else {
                        old + share * (mean - old)
                    };
                    *cell = C::new(new);
                }
            }
            self.bucket = bucket;
            self.collected = [Level::default(); N];
            self.trust = [Level::default(); N];
        }
        for (k, value) in values.iter().enumerate() {
            if value.weight > 0.0 {
                self.collected[k].update(1.0, value.value, value.weight);
                self.trust[k].update(1.0, value.trust, value.weight);
            }
        }
    }

    /// The shape at a step, between the middles of buckets; NaN where one of
    /// them is not known: what was next to a phase is no season.
    fn mean(&self, step: u64) -> [f64; N] {
        let buckets = self.shape.len();
        let phase = step % self.length;
        let position = (phase as f64 + 0.5) / self.width as f64 + buckets as f64 - 0.5;
        let share = position.fract();
        let first = position as usize % buckets;
        let [a, b] = [first, (first + 1) % buckets].map(|bucket| &self.shape[bucket]);
        std::array::from_fn(|k| match (a[k].get(), b[k].get()) {
            (a, _) if share == 0.0 => a,
            (a, b) => a + share * (b - a),
        })
    }

    fn at(&self, step: u64) -> [Shape; N] {
        let mean = self.mean(step);
        std::array::from_fn(|k| Shape {
            mean: mean[k],
            stretched: self.stretches[k].at(mean[k], self.length as f64),
        })
    }

    fn phase(&self, step: u64) -> usize {
        (step % self.length * self.sizes.len() as u64 / self.length) as usize
    }

    fn size(&self, quantity: usize, step: u64) -> f64 {
        let (phase, phases) = (self.phase(step), self.sizes.len());
        let (mut sum, mut weights) = (SIZE_BELIEF, SIZE_BELIEF);
        for (shift, share) in [(0, 1.0), (1, 0.5), (phases - 1, 0.5)] {
            let [mean, weight] = self.sizes[(phase + shift) % phases][quantity].get();
            sum += share * mean * weight;
            weights += share * weight;
        }
        sum / weights
    }
}

/// The seasons of `N` quantities that are observed together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seasons<C, const N: usize> {
    /// The first step.
    begun: Option<u64>,
    profiles: Vec<Profile<C, N>>,
}

impl<C, const N: usize> Default for Seasons<C, N> {
    fn default() -> Self {
        Seasons {
            begun: None,
            profiles: Vec::new(),
        }
    }
}

impl<C: Cell, const N: usize> Seasons<C, N> {
    /// Seasons of these lengths in steps: the [`SEASONS`] shortest of those that
    /// have a shape.
    pub(crate) fn new(lengths: impl IntoIterator<Item = usize>, longest: usize) -> Self {
        let mut lengths: Vec<usize> = lengths.into_iter().collect();
        lengths.retain(|length| (STEPS_MIN..=longest).contains(length));
        lengths.sort_unstable();
        lengths.dedup();
        lengths.truncate(SEASONS);
        Seasons {
            begun: None,
            profiles: lengths.into_iter().map(Profile::new).collect(),
        }
    }

    /// Whether it follows no season.
    pub(crate) fn is_empty(&self) -> bool {
        self.profiles.is_empty()
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        let profile = |profile: &Profile<C, N>| {
            size_of::<Profile<C, N>>()
                + size_of_val(profile.shape.as_slice())
                + size_of_val(profile.sizes.as_slice())
        };
        self.profiles.iter().map(profile).sum()
    }

    /// Takes the values of a step.
    pub(crate) fn learn(&mut self, step: u64, values: &[Observed; N]) {
        let begun = *self.begun.get_or_insert(step);
        let age = step.saturating_sub(begun);
        for profile in &mut self.profiles {
            profile.learn(step, values, age / profile.length + 1);
        }
    }

    /// What the shapes say of a step, by quantity.
    pub(crate) fn shapes(&self, step: u64) -> [Shapes; N] {
        let mut shapes = [[Shape::NONE; SEASONS]; N];
        for (season, profile) in self.profiles.iter().enumerate() {
            for (shapes, shape) in shapes.iter_mut().zip(profile.at(step)) {
                shapes[season] = shape;
            }
        }
        shapes
    }

    /// The highest value in the shapes of seasons of so many steps at least that were
    /// seen once: what a quantity usually reaches some time.
    pub(crate) fn highest(&self, quantity: usize, now: u64, steps: usize) -> Option<f64> {
        let age = now.saturating_sub(self.begun?) + 1;
        let seen = steps as u64..=age;
        let profiles = self.profiles.iter();
        let profiles = profiles.filter(|profile| seen.contains(&profile.length));
        let shapes = profiles.flat_map(|profile| &profile.shape);
        let values = shapes.map(|cells| cells[quantity].get());
        values
            .filter(|value| value.is_finite())
            .max_by(f64::total_cmp)
    }

    /// Learns how large a residual of a step was relative to the usual.
    pub(crate) fn learn_size(&mut self, quantity: usize, step: u64, size: f64, weight: f64) {
        for profile in &mut self.profiles {
            let phase = profile.phase(step);
            profile.sizes[phase][quantity].learn(size, weight);
        }
    }

    /// How large residuals are at the phase of a step, relative to the usual.
    pub(crate) fn size(&self, quantity: usize, now: u64, step: u64) -> f64 {
        self.known(now)
            .map_or(1.0, |season| season.size(quantity, step))
    }

    /// Steps whose residuals and losses count.
    pub(crate) fn memory(&self, now: u64) -> f64 {
        let memory = |season: &Profile<C, N>| MEMORY_SEASONS * season.length as f64;
        self.known(now)
            .map_or(MEMORY_STEPS, memory)
            .min(MEMORY_STEPS_MAX)
    }

    /// The longest season that was seen twice.
    fn known(&self, now: u64) -> Option<&Profile<C, N>> {
        let age = now.saturating_sub(self.begun?) + 1;
        self.profiles
            .iter()
            .rev()
            .find(|season| age >= 2 * season.length)
    }
}

/// A stored [`Profile`]; numbers in bytes, little-endian, are read and written
/// several times as fast as one by one.
#[derive(Serialize, Deserialize)]
struct Stored {
    length: u64,
    bucket: usize,
    collected: Vec<Level>,
    trust: Vec<Level>,
    stretches: Vec<Stretch>,
    shape: Bytes,
    sizes: Bytes,
}

struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}

struct BytesVisitor;

impl<'de> serde::de::Visitor<'de> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes(bytes.to_vec()))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut bytes: A) -> Result<Bytes, A::Error> {
        let mut all = Vec::new();
        while let Some(byte) = bytes.next_element()? {
            all.push(byte);
        }
        Ok(Bytes(all))
    }
}

impl<const N: usize> Serialize for Seasons<Fixed, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let profiles: Vec<Stored> = self.profiles.iter().map(Profile::stored).collect();
        (self.begun, profiles).serialize(serializer)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Seasons<Fixed, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (begun, profiles): (Option<u64>, Vec<Stored>) = Deserialize::deserialize(deserializer)?;
        let profiles: Option<Vec<_>> = profiles.into_iter().map(Profile::restored).collect();
        match profiles {
            Some(profiles) if profiles.len() <= SEASONS => Ok(Seasons { begun, profiles }),
            _ => Err(D::Error::custom("seasons that cannot be")),
        }
    }
}

impl<const N: usize> Profile<Fixed, N> {
    fn stored(&self) -> Stored {
        let cells = self.shape.iter().flatten();
        let sizes = self.sizes.iter().flatten();
        Stored {
            length: self.length,
            bucket: self.bucket,
            collected: self.collected.to_vec(),
            trust: self.trust.to_vec(),
            stretches: self.stretches.to_vec(),
            shape: Bytes(cells.flat_map(|cell| cell.0.to_le_bytes()).collect()),
            sizes: Bytes(
                sizes
                    .flat_map(|size| [size.mean, size.weight])
                    .flat_map(u16::to_le_bytes)
                    .collect(),
            ),
        }
    }

    /// `None` if it is none.
    fn restored(stored: Stored) -> Option<Self> {
        let length = usize::try_from(stored.length).ok()?;
        let length = Some(length).filter(|length| *length >= STEPS_MIN)?;
        let mut profile = Profile::new(length);
        let (shape, sizes) = (stored.shape.0, stored.sizes.0);
        let fits = shape.len() == profile.shape.len() * N * 2
            && sizes.len() == profile.sizes.len() * N * 4
            && stored.bucket < profile.shape.len();
        if !fits {
            return None;
        }
        profile.bucket = stored.bucket;
        profile.collected = stored.collected.try_into().ok()?;
        profile.trust = stored.trust.try_into().ok()?;
        profile.stretches = stored.stretches.try_into().ok()?;
        let number = |bytes: &[u8]| [bytes[0], bytes[1]];
        let cells = profile.shape.iter_mut().flatten();
        for (cell, bytes) in cells.zip(shape.chunks_exact(2)) {
            *cell = Fixed(i16::from_le_bytes(number(bytes)));
        }
        let all = profile.sizes.iter_mut().flatten();
        for (size, bytes) in all.zip(sizes.chunks_exact(4)) {
            size.mean = u16::from_le_bytes(number(bytes));
            size.weight = u16::from_le_bytes(number(&bytes[2..]));
        }
        Some(profile)
    }
}
