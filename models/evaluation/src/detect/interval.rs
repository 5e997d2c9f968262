//! Bootstrap intervals over series (Efron 1979): what another draw of as many
//! series might have given.

use serde::Serialize;

/// Draws per interval.
const DRAWS: usize = 1000;

/// A figure with its 95 % bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Of the series at hand.
    pub value: f64,
    /// 2.5 % of draws are lower.
    pub lower: f64,
    /// 2.5 % of draws are higher.
    pub upper: f64,
}

impl Interval {
    /// Of `statistic`, which is given how often each of `n` series was drawn.
    pub fn of(n: usize, statistic: impl Fn(&[u32]) -> f64) -> Self {
        let mut random = Random(0x5eed);
        let mut draws: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let mut times = vec![0; n];
                (0..n).for_each(|_| times[random.below(n)] += 1);
                statistic(&times)
            })
            .filter(|value| value.is_finite())
            .collect();
        draws.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let position = (share * draws.len().saturating_sub(1) as f64).round();
            draws.get(position as usize).copied().unwrap_or(f64::NAN)
        };
        Interval {
            value: statistic(&vec![1; n]),
            lower: at(0.025),
            upper: at(0.975),
        }
    }

    /// Of the mean of one value per series.
    pub fn of_mean(values: &[f64]) -> Self {
        Interval::of(values.len(), |times| {
            let weighted = values.iter().zip(times).map(|(v, n)| v * f64::from(*n));
            weighted.sum::<f64>() / times.iter().sum::<u32>() as f64
        })
    }
}

/// SplitMix64 (Steele et al. 2014): the same draws everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to just below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f64) as usize).min(n - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_about_two_standard_errors_wide() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let interval = Interval::of_mean(&values);
        assert_eq!(interval.value, 0.5);
        let width = interval.upper - interval.lower;
        assert!((width - 2.0 * 1.96 * 0.5 / 20.0).abs() < 0.02, "{width}");
    }
}
