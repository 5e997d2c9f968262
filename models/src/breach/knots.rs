//! A forecast as distributions over time, split into what lasts and noise.

use crate::forecast::{Forecast, Interval};
use crate::series::{HORIZON_SECS, HORIZONS, Target};

/// Standard normal quantiles at 90 % and 97.5 %.
pub(super) const Z_80: f64 = 1.281_552;
pub(super) const Z_95: f64 = 1.959_964;
/// A threshold so many 95 % half-widths away at every horizon is out of reach.
const OUT_OF_REACH: f64 = 4.0;
/// The persistent part keeps at least this share of the variance.
const PERSISTENT_MIN: f64 = 0.02;
/// What lasts is at least so correlated over a minute: whatever puts a series far
/// from its forecast takes minutes to pass.
const PERSISTENCE_MIN: f64 = 0.9;

/// One moment's forecast in model space: the median and, relative to it, the
/// values at `Z_80` and `Z_95` either way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marginal {
    median: f64,
    /// −95, −80, +80, +95.
    ends: [f64; 4],
}

impl Marginal {
    fn new(target: Target, interval: &Interval) -> Marginal {
        let model = |value: f32| target.to_model(f64::from(value).max(f64::MIN_POSITIVE));
        let median = model(interval.yhat);
        let ends = [
            interval.lower_95,
            interval.lower_80,
            interval.upper_80,
            interval.upper_95,
        ];
        Marginal {
            median,
            ends: ends.map(|end| model(end) - median),
        }
    }

    /// Half the 80 % interval, as a standard deviation.
    pub(super) fn sd(&self) -> f64 {
        ((self.ends[2] - self.ends[1]) / (2.0 * Z_80)).max(1e-4)
    }

    fn between(a: &Marginal, b: &Marginal, share: f64) -> Marginal {
        let mix = |a: f64, b: f64| a + share * (b - a);
        Marginal {
            median: mix(a.median, b.median),
            ends: std::array::from_fn(|i| mix(a.ends[i], b.ends[i])),
        }
    }

    /// The part that is not window-to-window noise: at each end, as far out as
    /// it must lie for noise of that variance to add up to the end.
    fn without(&self, noise_variance: f64) -> Marginal {
        let mut part = *self;
        for (end, z) in part.ends.iter_mut().zip([Z_95, Z_80, Z_80, Z_95]) {
            let square = *end * *end;
            let rest = (square - z * z * noise_variance).max(PERSISTENT_MIN * square);
            *end = rest.sqrt().copysign(*end);
        }
        part
    }

    /// The standard normal score of a value above or below the median: linear
    /// between the median and the ends, and beyond.
    fn score(&self, distance: f64) -> f64 {
        let [low_95, low_80, high_80, high_95] = self.ends;
        // A point forecast has no width; nothing is certain to 1e-6.
        let width = |from: f64, to: f64| (to - from).max(1e-6);
        let outer = Z_95 - Z_80;
        if distance >= 0.0 {
            let high = width(0.0, high_80);
            if distance <= high {
                return Z_80 * distance / high;
            }
            return Z_80 + outer * (distance - high) / width(high, high_95);
        }
        let low = width(low_80, 0.0);
        if -distance <= low {
            return Z_80 * distance / low;
        }
        -Z_80 - outer * (-distance - low) / width(low, -low_95)
    }
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
        self.marginal.score(threshold - self.marginal.median)
    }
}

impl Knots {
    /// `None` if the target was never observed.
    pub(super) fn new(forecast: &Forecast, target: Target) -> Option<Knots> {
        let mut marginals = [Marginal {
            median: 0.0,
            ends: [0.0; 4],
        }; HORIZONS];
        for (h, marginal) in marginals.iter_mut().enumerate() {
            *marginal = Marginal::new(target, forecast.point(h, target)?);
        }
        let noise_sd = f64::from(forecast.noise_sd[target.index()]);
        let noise_variance = noise_sd * noise_sd;
        let [quarter, hour] = [2, 4].map(|h| marginals[h].without(noise_variance).sd());
        Some(Knots {
            marginals,
            noise_variance,
            persistence: persistence((hour / quarter).powi(2).clamp(1.0, 4.0)),
        })
    }

    /// Whether a threshold is anywhere near the forecast.
    pub(super) fn within_reach(&self, threshold: f64) -> bool {
        self.marginals.iter().any(|marginal| {
            let [.., high_80, high_95] = marginal.ends;
            threshold - marginal.median < OUT_OF_REACH * high_95.max(high_80)
        })
    }

    /// The futures at a time.
    pub(super) fn moment(&self, secs: f64) -> Moment {
        let marginal = self.at(secs);
        let lasting_sd = marginal.without(self.noise_variance).sd();
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
