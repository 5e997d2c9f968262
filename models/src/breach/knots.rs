//! A forecast as distributions over time, split into what lasts and noise.

use crate::forecast::{Forecast, QUANTILE_LEVELS};
use crate::series::{HORIZON_SECS, HORIZONS, Target};

/// Standard normal quantiles at [`QUANTILE_LEVELS`]. R: qnorm.
pub(super) const SCORES: [f64; QUANTILE_LEVELS.len()] = [
    -1.959_964, -1.281_552, -0.674_490, 0.0, 0.674_490, 1.281_552, 1.644_854, 1.959_964, 2.326_348,
    2.575_829,
];
/// Positions of the levels 10 %, 50 %, 90 % and 97.5 %.
const LOWER_80: usize = 1;
const MEDIAN: usize = 3;
const UPPER_80: usize = 5;
const UPPER_95: usize = 7;
/// A threshold so many 95 % half-widths away at every horizon is out of reach.
const OUT_OF_REACH: f64 = 4.0;
/// The upper end of the 80 % interval is at most so far, in logs, above the median:
/// a series that was seen for minutes, or had one stall, says nothing of more.
const REACH_MAX: f64 = 1.5;
/// The persistent part keeps at least this share of the variance.
const PERSISTENT_MIN: f64 = 0.02;
/// What lasts is at least so correlated over a minute: whatever puts a series far
/// from its forecast takes minutes to pass.
const PERSISTENCE_MIN: f64 = 0.9;

/// One moment's forecast in model space: its quantiles at [`QUANTILE_LEVELS`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marginal([f64; QUANTILE_LEVELS.len()]);

impl Marginal {
    /// Distances of the ends of the 80 % interval from the median.
    fn reach_80(&self) -> [f64; 2] {
        [LOWER_80, UPPER_80].map(|end| (self.0[end] - self.0[MEDIAN]).abs())
    }

    /// With the upper quantiles no further out than [`REACH_MAX`] allows.
    fn believed(self) -> Marginal {
        let median = self.0[MEDIAN];
        let reach = self.0[UPPER_80] - median;
        let share = (REACH_MAX / reach.max(1e-9)).min(1.0);
        Marginal(self.0.map(|q| {
            if q > median {
                median + share * (q - median)
            } else {
                q
            }
        }))
    }

    /// Half the 80 % interval, as a standard deviation.
    pub(super) fn sd(&self) -> f64 {
        sd(self.reach_80())
    }

    /// The same of the part that is not window-to-window noise: at each end, as
    /// far out as it must lie for noise of that variance to add up to the end.
    fn sd_without(&self, noise_variance: f64) -> f64 {
        let noise = SCORES[UPPER_80] * SCORES[UPPER_80] * noise_variance;
        sd(self.reach_80().map(|reach| {
            let square = reach * reach;
            (square - noise).max(PERSISTENT_MIN * square).sqrt()
        }))
    }

    fn between(a: &Marginal, b: &Marginal, share: f64) -> Marginal {
        Marginal(std::array::from_fn(|i| a.0[i] + share * (b.0[i] - a.0[i])))
    }

    /// The standard normal score of a value: linear between the quantiles, and
    /// beyond.
    fn score(&self, value: f64) -> f64 {
        let above = self.0.partition_point(|quantile| *quantile <= value);
        let i = above.clamp(1, SCORES.len() - 1);
        // A point forecast has no width; nothing is certain to 1e-6.
        let width = (self.0[i] - self.0[i - 1]).max(1e-6);
        SCORES[i] + (SCORES[i] - SCORES[i - 1]) * (value - self.0[i]) / width
    }
}

fn sd([below, above]: [f64; 2]) -> f64 {
    ((below + above) / (2.0 * SCORES[UPPER_80])).max(1e-4)
}

/// The forecast of one target as marginals over time.
pub(super) struct Knots {
    marginals: [Marginal; HORIZONS],
    noise_variance: f64,
    /// Correlation of the persistent part over one minute, where its variance
    /// does not grow.
    pub(super) persistence: f64,
}

/// One moment of the futures.
pub(super) struct Moment {
    marginal: Marginal,
    /// Sd of what lasts from moment to moment.
    pub(super) lasting_sd: f64,
    /// Its share of the score, and that of the noise: their squares add up to 1.
    pub(super) shares: [f64; 2],
}

impl Moment {
    /// The standard normal score above which a value exceeds the threshold.
    pub(super) fn score(&self, threshold: f64) -> f64 {
        self.marginal.score(threshold)
    }
}

impl Knots {
    /// `None` if the target was never observed.
    pub(super) fn new(forecast: &Forecast, target: Target) -> Option<Knots> {
        let mut marginals = [Marginal::default(); HORIZONS];
        for (marginal, row) in marginals.iter_mut().zip(&forecast.quantiles) {
            *marginal = Marginal(row[target.index()]?.map(f64::from)).believed();
        }
        let noise_sd = f64::from(forecast.noise_sd[target.index()]);
        let noise_variance = noise_sd * noise_sd;
        let [quarter, hour] = [2, 4].map(|h| marginals[h].sd_without(noise_variance));
        Some(Knots {
            marginals,
            noise_variance,
            persistence: persistence((hour / quarter).powi(2).clamp(1.0, 4.0)),
        })
    }

    /// Whether a threshold is anywhere near the forecast.
    pub(super) fn within_reach(&self, threshold: f64) -> bool {
        self.marginals.iter().any(|marginal| {
            let median = marginal.0[MEDIAN];
            threshold - median < OUT_OF_REACH * (marginal.0[UPPER_95] - median)
        })
    }

    /// The futures at a time.
    pub(super) fn moment(&self, secs: f64) -> Moment {
        let marginal = self.at(secs);
        let lasting_sd = marginal.sd_without(self.noise_variance);
        let lasting = (lasting_sd / marginal.sd()).min(1.0);
        Moment {
            marginal,
            lasting_sd,
            shares: [lasting, (1.0 - lasting * lasting).sqrt()],
        }
    }

    /// The marginal at a time, interpolated in √time.
    fn at(&self, secs: f64) -> Marginal {
        let after = HORIZON_SECS
            .iter()
            .position(|knot| f64::from(*knot) >= secs);
        match after {
            Some(0) => self.marginals[0],
            None => self.marginals[HORIZONS - 1],
            Some(h) => {
                let [a, b] = [h - 1, h].map(|h| f64::from(HORIZON_SECS[h]).sqrt());
                let share = (secs.sqrt() - a) / (b - a);
                Marginal::between(&self.marginals[h - 1], &self.marginals[h], share)
            }
        }
    }
}

/// Correlation over a minute of an Ornstein–Uhlenbeck process whose forecast
/// variance at 60 minutes is `growth` times that at 15: with x = φ^30 the ratio
/// is 1 + x + x² + x³, a geometric sum. Growth 4 is a random walk, φ = 1.
fn persistence(growth: f64) -> f64 {
    let (mut low, mut high) = (0.0f64, 1.0f64);
    for _ in 0..40 {
        let x = 0.5 * (low + high);
        if 1.0 + x * (1.0 + x * (1.0 + x)) < growth {
            low = x;
        } else {
            high = x;
        }
    }
    (0.5 * (low + high)).powf(1.0 / 30.0).max(PERSISTENCE_MIN)
}
