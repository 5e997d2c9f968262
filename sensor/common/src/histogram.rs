//! The histogram: one definition from the kernel to Grafana.
//!
//! A base-2 exponential histogram at scale 3 (8 buckets per doubling, so a
//! value read from a bucket's middle is at most 4.4 % off) whose bounds are
//! powers of 2^(1/8) **seconds**. Bucket position `b` covers
//! (2^((b-160)/8), 2^((b-159)/8)] s, upper bound inclusive, which is bucket
//! index `b - 160` of an [OpenTelemetry exponential histogram] at scale 3 and
//! index `b - 159` of a Prometheus native histogram of schema 3. The 192
//! positions span 24 doublings, 0.95 µs to 16 s; what falls outside is counted
//! in the end buckets, and `max_ns` keeps the truth.
//!
//! [`position`] uses integers only, because BPF has no floats: normalise the
//! value so that its top bit is bit 63, take the four bits below it as a slot
//! (2^(1/8) - 1 > 1/16, so a slot holds at most one bound), and compare with
//! that slot's bound.
//!
//! [OpenTelemetry exponential histogram]: https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram

/// Buckets per doubling are 2^`SCALE`; also the Prometheus schema number.
pub const SCALE: i32 = 3;
/// Number of buckets.
pub const BUCKETS: usize = 192;
/// OpenTelemetry index (at [`SCALE`]) of the bucket at position 0.
pub const MIN_INDEX: i32 = -160;

const SUB_BUCKETS: i32 = 1 << SCALE;
const NO_BOUND: u64 = u64::MAX;

/// Bound inside each slot: floor(1e9 · 2^(j/8)) scaled to [2^63, 2^64), the
/// `j` whose scaled bound lies in the slot, or [`NO_BOUND`]. Tests compare
/// every bound with big-integer arithmetic.
static SLOT_BOUND: [u64; 16] = [
    0x81ff_a7a9_549c_a6e3,
    0x8dc3_b896_0164_a7d9,
    NO_BOUND,
    0x9a98_6705_4d51_2391,
    NO_BOUND,
    0xa896_5f74_bf06_5071,
    0xb7d8_8a12_d0dd_9ea0,
    NO_BOUND,
    NO_BOUND,
    0xc87c_3e7d_03cd_bec3,
    NO_BOUND,
    0xdaa1_7c2c_d195_55db,
    NO_BOUND,
    0xee6b_2800_0000_0000,
    NO_BOUND,
    NO_BOUND,
];
/// Number of bounds below each slot within its doubling.
static SLOT_BASE: [u8; 16] = [0, 1, 2, 2, 3, 3, 4, 5, 5, 5, 6, 6, 7, 7, 8, 8];
/// Index at [`SCALE`] of the first bucket of the doubling whose top bit is bit
/// 0: 1e9 lies in the doubling of bit 29, after its eighth bound.
const FIRST_DOUBLING: i32 = -SUB_BUCKETS * 29 - SUB_BUCKETS;

/// Shifts `value` so that bit 63 is set; returns it with the bit number that
/// was its highest. `value` must not be 0.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
fn normalise(value: u64) -> (u64, i32) {
    let shift = value.leading_zeros();
    (value << shift, 63 - shift as i32)
}

/// BPF has no count-leading-zeros instruction: six compares and shifts.
#[cfg(any(target_arch = "bpf", test))]
#[inline(always)]
fn normalise_by_halving(value: u64) -> (u64, i32) {
    let (mut value, mut top_bit) = (value, 63);
    if value >> 32 == 0 {
        value <<= 32;
        top_bit -= 32;
    }
    if value >> 48 == 0 {
        value <<= 16;
        top_bit -= 16;
    }
    if value >> 56 == 0 {
        value <<= 8;
        top_bit -= 8;
    }
    if value >> 60 == 0 {
        value <<= 4;
        top_bit -= 4;
    }
    if value >> 62 == 0 {
        value <<= 2;
        top_bit -= 2;
    }
    if value >> 63 == 0 {
        value <<= 1;
        top_bit -= 1;
    }
    (value, top_bit)
}
#[cfg(target_arch = "bpf")]
use normalise_by_halving as normalise;

/// OpenTelemetry bucket index at [`SCALE`] of a duration, not clamped: the `i`
/// with 2^(i/8) s < `value_ns` ≤ 2^((i+1)/8) s. 0 counts as 1 ns.
#[inline(always)]
pub fn index(value_ns: u64) -> i32 {
    let (normalised, top_bit) = normalise(if value_ns == 0 { 1 } else { value_ns });
    let slot = ((normalised >> 59) & 15) as usize;
    FIRST_DOUBLING
        + SUB_BUCKETS * top_bit
        + SLOT_BASE[slot] as i32
        + (normalised > SLOT_BOUND[slot]) as i32
}

/// Position (0..[`BUCKETS`]) of the bucket that counts a duration; values out
/// of range go to the first or last bucket.
#[inline(always)]
pub fn position(value_ns: u64) -> usize {
    // Most run-queue delays are next to nothing.
    if value_ns <= FIRST_BOUND_NS {
        return 0;
    }
    let position = index(value_ns) - MIN_INDEX;
    if position < 0 {
        0
    } else if position >= BUCKETS as i32 {
        BUCKETS - 1
    } else {
        position as usize
    }
}

/// 2^(j/8) for j = 0..8.
const ROOTS: [f64; SUB_BUCKETS as usize] = [
    1.0,
    1.090_507_732_665_257_7,
    1.189_207_115_002_721,
    1.296_839_554_651_009_6,
    core::f64::consts::SQRT_2,
    1.542_210_825_407_940_7,
    1.681_792_830_507_429,
    1.834_008_086_409_342_4,
];

/// 2^`exponent` for -1022 ≤ `exponent` ≤ 1023.
const fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

const fn bound_secs(index: i32) -> f64 {
    ROOTS[index.rem_euclid(SUB_BUCKETS) as usize] * power_of_two(index.div_euclid(SUB_BUCKETS))
}

static BOUNDS_NS: [f64; BUCKETS + 1] = BOUNDS;

const BOUNDS: [f64; BUCKETS + 1] = {
    let mut bounds = [0.0; BUCKETS + 1];
    let mut position = 0;
    while position <= BUCKETS {
        bounds[position] = bound_secs(position as i32 + MIN_INDEX) * 1e9;
        position += 1;
    }
    bounds
};

/// The largest duration in the first bucket.
const FIRST_BOUND_NS: u64 = BOUNDS[1] as u64;

/// Exclusive lower bound of a bucket in nanoseconds; the bucket at position
/// `position - 1` ends here, so `position` may be [`BUCKETS`].
///
/// # Panics
/// If `position` > [`BUCKETS`].
pub fn lower_bound_ns(position: usize) -> f64 {
    BOUNDS_NS[position]
}

/// 2^(`fraction`/8) for 0 ≤ `fraction` ≤ 1, to 1e-11 (Taylor series of exp).
fn within_bucket(fraction: f64) -> f64 {
    let x = fraction * (core::f64::consts::LN_2 / 8.0);
    1.0 + x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0))))
}

/// Inverse of [`within_bucket`]: 8·log2(`ratio`) for 1 ≤ `ratio` ≤ 2^(1/8),
/// to 1e-9 (atanh series of the logarithm).
fn fraction_of_bucket(ratio: f64) -> f64 {
    let z = (ratio - 1.0) / (ratio + 1.0);
    let square = z * z;
    let ln = 2.0 * z * (1.0 + square * (1.0 / 3.0 + square * (1.0 / 5.0)));
    (ln * (8.0 / core::f64::consts::LN_2)).clamp(0.0, 1.0)
}

/// Counts of durations by bucket, with exact sum and maximum.
///
/// Counts are *estimates of events*: an event that was sampled at 1/2^k counts
/// 2^k in its bucket and in `sum_ns`, and 1 in [`samples`](Self::samples).
/// Unsampled series have `samples == count`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    count: u64,
    samples: u64,
    sum_ns: u64,
    max_ns: u64,
    buckets: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty histogram.
    pub const fn new() -> Self {
        Self {
            count: 0,
            samples: 0,
            sum_ns: 0,
            max_ns: 0,
            buckets: [0; BUCKETS],
        }
    }

    /// Counts one unsampled duration.
    pub fn record(&mut self, value_ns: u64) {
        self.add(position(value_ns), 1);
        self.add_totals(Totals {
            samples: 1,
            sum_ns: value_ns,
            max_ns: value_ns,
        });
    }

    /// Adds `count` events to the bucket at `position`.
    ///
    /// # Panics
    /// If `position` ≥ [`BUCKETS`].
    pub fn add(&mut self, position: usize, count: u64) {
        self.buckets[position] = self.buckets[position].wrapping_add(count);
        self.count = self.count.wrapping_add(count);
    }

    /// Adds what buckets do not hold: sample count, sum and maximum.
    pub fn add_totals(&mut self, totals: Totals) {
        self.samples = self.samples.wrapping_add(totals.samples);
        self.sum_ns = self.sum_ns.wrapping_add(totals.sum_ns);
        self.max_ns = self.max_ns.max(totals.max_ns);
    }

    /// Adds all of `other`. Sums wrap at 2^64, which 584 years of latency
    /// reach; decoders bound single counts far below.
    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine = mine.wrapping_add(*theirs);
        }
        self.count = self.count.wrapping_add(other.count);
        self.add_totals(other.totals());
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Estimated number of events.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number of events actually observed (the effective sample size).
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Estimated sum of all durations in nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// Longest observed duration in nanoseconds, 0 when empty.
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// Samples, sum and maximum.
    pub fn totals(&self) -> Totals {
        Totals {
            samples: self.samples,
            sum_ns: self.sum_ns,
            max_ns: self.max_ns,
        }
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Counts by position.
    pub fn buckets(&self) -> &[u64; BUCKETS] {
        &self.buckets
    }

    /// Buckets that are not empty, as (position, count), in order.
    pub fn occupied(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.buckets
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, count)| *count != 0)
    }

    /// Buckets that are not empty at a coarser `scale`, as (OpenTelemetry
    /// index at that scale, count), in order. Exact: pairs are merged.
    ///
    /// # Panics
    /// If `scale` > [`SCALE`] or `scale` < -10 (the smallest OpenTelemetry scale).
    pub fn occupied_at_scale(&self, scale: i32) -> impl Iterator<Item = (i32, u64)> + '_ {
        assert!(
            (-10..=SCALE).contains(&scale),
            "a histogram can only become coarser"
        );
        let shift = SCALE - scale;
        let mut rest = self
            .occupied()
            .map(move |(position, count)| ((position as i32 + MIN_INDEX) >> shift, count))
            .peekable();
        core::iter::from_fn(move || {
            let (index, mut total) = rest.next()?;
            while let Some((_, count)) = rest.next_if(|(next, _)| *next == index) {
                total += count;
            }
            Some((index, total))
        })
    }

    /// The duration in nanoseconds below which a fraction `q` (0..=1) of all
    /// events lie, interpolated log-linearly within its bucket and never above
    /// the maximum. `None` when empty.
    pub fn quantile_ns(&self, q: f64) -> Option<f64> {
        if self.is_empty() {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * self.count as f64;
        Some(self.value_at(rank, &mut Cursor::default()))
    }

    /// [`quantile_ns`](Self::quantile_ns) of several fractions in one pass.
    /// `qs` must ascend; a fraction below its predecessor is read as equal to it.
    pub fn quantiles_ns<const N: usize>(&self, qs: [f64; N]) -> Option<[f64; N]> {
        if self.is_empty() {
            return None;
        }
        let mut cursor = Cursor::default();
        Some(qs.map(|q| self.value_at(q.clamp(0.0, 1.0) * self.count as f64, &mut cursor)))
    }

    /// Walks on from `cursor` to the bucket that holds `rank`: doublings first
    /// (their sums vectorise), then buckets.
    fn value_at(&self, rank: f64, cursor: &mut Cursor) -> f64 {
        let target = rank.max(cursor.below as f64);
        let doublings = self.buckets.chunks_exact(SUB_BUCKETS as usize);
        for doubling in doublings.skip(cursor.position / SUB_BUCKETS as usize) {
            let inside: u64 = doubling[cursor.position % SUB_BUCKETS as usize..]
                .iter()
                .sum();
            if inside > 0 && (cursor.below + inside) as f64 >= target {
                break;
            }
            cursor.below += inside;
            cursor.position = (cursor.position / SUB_BUCKETS as usize + 1) * SUB_BUCKETS as usize;
        }
        while cursor.position < BUCKETS {
            let inside = self.buckets[cursor.position];
            if inside > 0 && (cursor.below + inside) as f64 >= target {
                let fraction = (target - cursor.below as f64) / inside as f64;
                let value = BOUNDS_NS[cursor.position] * within_bucket(fraction);
                return self.within_max(cursor.position, value);
            }
            cursor.below += inside;
            cursor.position += 1;
        }
        self.max_ns as f64
    }

    /// The last bucket is open above: there the maximum is all that is known.
    fn within_max(&self, position: usize, value: f64) -> f64 {
        if position == BUCKETS - 1 && self.max_ns as f64 > BOUNDS_NS[BUCKETS] {
            return self.max_ns as f64;
        }
        if self.max_ns == 0 {
            return value;
        }
        value.min(self.max_ns as f64)
    }

    /// Fraction (0..=1) of events that took at most `threshold_ns`,
    /// interpolated log-linearly within the threshold's bucket. `None` when empty.
    pub fn fraction_at_most(&self, threshold_ns: f64) -> Option<f64> {
        if self.is_empty() {
            return None;
        }
        let at_most = match threshold_ns {
            t if t >= self.max_ns as f64 && self.max_ns > 0 => self.count as f64,
            t if t <= BOUNDS_NS[0] => 0.0,
            t => {
                let position = position(t as u64);
                let below: u64 = self.buckets[..position].iter().sum();
                let fraction = fraction_of_bucket(t / BOUNDS_NS[position]);
                below as f64 + fraction * self.buckets[position] as f64
            }
        };
        Some(at_most / self.count as f64)
    }
}

/// What a histogram keeps beside its buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events observed.
    pub samples: u64,
    /// Weighted sum of durations in nanoseconds.
    pub sum_ns: u64,
    /// Longest observed duration in nanoseconds.
    pub max_ns: u64,
}

/// How far a walk over the buckets has come.
#[derive(Default)]
struct Cursor {
    position: usize,
    below: u64,
}

#[cfg(test)]
mod tests;
