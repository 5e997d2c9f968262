//! How severe a fault is, and how much is asked, over time. Pure.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Numbers that depend on the seed and on what they are for, and on nothing else.
pub fn random(seed: u64, purpose: &str) -> StdRng {
    // FNV-1a: stable, unlike the standard hasher.
    let hash = purpose
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    StdRng::seed_from_u64(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// How a fault grows: not there, then in a line to its full size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// Seconds until it begins.
    pub onset_secs: f64,
    /// Seconds from there to the full size; 0: at once.
    pub ramp_secs: f64,
}

impl Growth {
    /// 0 (not there) to 1 (full size).
    pub fn severity(&self, at_secs: f64) -> f64 {
        if at_secs < self.onset_secs {
            return 0.0;
        }
        if self.ramp_secs <= 0.0 {
            return 1.0;
        }
        ((at_secs - self.onset_secs) / self.ramp_secs).min(1.0)
    }
}

/// Requests per second over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Usual rate.
    pub per_sec: f64,
    /// Share of it by which it swings up and down.
    pub swing: f64,
    /// Seconds of a swing.
    pub period_secs: f64,
    /// Where in a swing it begins, 0..1.
    pub phase: f64,
    /// Share of it that is there more at full severity.
    pub growth: f64,
}

impl Demand {
    /// Requests per second at a time at which the fault is so severe.
    pub fn at(&self, at_secs: f64, severity: f64) -> f64 {
        let turn = std::f64::consts::TAU * (at_secs / self.period_secs + self.phase);
        self.per_sec * (1.0 + self.swing * turn.sin()) * (1.0 + self.growth * severity)
    }

    /// When requests are to be sent, in seconds: a Poisson process of this rate
    /// from `from_secs` to `until_secs`.
    pub fn arrivals(
        &self,
        growth: &Growth,
        span: std::ops::Range<f64>,
        random: &mut StdRng,
    ) -> Vec<f64> {
        // Thinning (Lewis and Shedler, 1979): of a process that is fast enough
        // anywhere, each is kept with the probability that is right there.
        let most = self.per_sec * (1.0 + self.swing) * (1.0 + self.growth.max(0.0));
        let mut arrivals = Vec::new();
        let mut at = span.start;
        loop {
            at += -(1.0 - random.random::<f64>()).ln() / most;
            if at >= span.end {
                return arrivals;
            }
            if random.random::<f64>() * most < self.at(at, growth.severity(at)) {
                arrivals.push(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROWTH: Growth = Growth {
        onset_secs: 100.0,
        ramp_secs: 50.0,
    };

    #[test]
    fn faults_grow_in_a_line() {
        let severities = [0.0, 99.9, 100.0, 125.0, 150.0, 400.0].map(|at| GROWTH.severity(at));
        assert_eq!(severities, [0.0, 0.0, 0.0, 0.5, 1.0, 1.0]);
        let sudden = Growth {
            ramp_secs: 0.0,
            ..GROWTH
        };
        assert_eq!([99.0, 100.0].map(|at| sudden.severity(at)), [0.0, 1.0]);
    }

    #[test]
    fn arrivals_have_the_rate_and_depend_on_the_seed_alone() {
        let demand = Demand {
            per_sec: 50.0,
            swing: 0.2,
            period_secs: 20.0,
            phase: 0.0,
            growth: 1.0,
        };
        let arrivals = |seed| demand.arrivals(&GROWTH, 0.0..200.0, &mut random(seed, "load"));
        let of = |from: f64, to: f64| {
            let all = arrivals(1);
            all.iter().filter(|at| (from..to).contains(*at)).count() as f64 / (to - from)
        };
        assert!((of(0.0, 100.0) / 50.0 - 1.0).abs() < 0.05);
        assert!((of(160.0, 200.0) / 100.0 - 1.0).abs() < 0.1);
        assert_eq!(arrivals(7), arrivals(7));
        assert_ne!(arrivals(7), arrivals(8));
        assert!(arrivals(3).is_sorted());
    }
}
