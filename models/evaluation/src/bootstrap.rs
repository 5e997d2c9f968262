//! Percentile bootstrap over groups of series (Efron and Tibshirani 1993,
//! chapter 13). Series, not points, are drawn: points of a series are not
//! independent.

use serde::Serialize;

/// Draws.
const DRAWS: usize = 1000;
/// Ends of a 95 % interval among them.
const ENDS: [f64; 2] = [0.025, 0.975];

/// A 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Intervals of `N` statistics over draws of series, with repetition, from
/// groups of the given sizes. The same sizes give the same draws.
pub fn intervals<const N: usize>(
    sizes: &[usize],
    mut statistics: impl FnMut(&[Vec<usize>]) -> [f64; N],
) -> [Interval; N] {
    let mut random = SplitMix64(0x0b57);
    let mut values = vec![Vec::with_capacity(DRAWS); N];
    for _ in 0..DRAWS {
        let pick: Vec<Vec<usize>> = sizes
            .iter()
            .map(|size| (0..*size).map(|_| random.below(*size)).collect())
            .collect();
        for (values, value) in values.iter_mut().zip(statistics(&pick)) {
            values.push(value);
        }
    }
    std::array::from_fn(|i| {
        values[i].sort_by(f64::total_cmp);
        let [low, high] = ENDS.map(|end| values[i][(end * (DRAWS - 1) as f64).round() as usize]);
        Interval { low, high }
    })
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
#[derive(Debug)]
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// In [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of 100 numbers 0..100: 49.5 ± 1.96·28.9/√100.
    #[test]
    fn intervals_of_a_mean_are_the_known_ones() {
        let [interval] = intervals(
            &[100],
            |pick| [pick[0].iter().sum::<usize>() as f64 / 100.0],
        );
        assert!((interval.low - 43.8).abs() < 0.7, "{interval:?}");
        assert!((interval.high - 55.2).abs() < 0.7, "{interval:?}");
        let again = intervals(
            &[100],
            |pick| [pick[0].iter().sum::<usize>() as f64 / 100.0],
        );
        assert_eq!([interval], again);
    }
}
