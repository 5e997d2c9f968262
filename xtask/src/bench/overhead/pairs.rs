//! Paired rounds: with and without, side by side in time.

use std::fmt;

use anyhow::Result;

use super::programs::State;

/// How a workload is compared.
#[derive(Clone, Copy, Debug)]
pub struct Pairs {
    /// What is compared.
    pub state: State,
    /// What it is compared with.
    pub base: State,
    /// Pairs of rounds.
    pub rounds: usize,
}

/// Relative rise of the cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slowdown {
    /// Median over the pairs; 0.01 is one per cent slower.
    pub median: f64,
    /// Standard error of the median.
    pub standard_error: f64,
}

impl Pairs {
    /// Measures a cost (time per operation) alternately in both states. The
    /// order within a pair alternates too, so that a drift cancels.
    pub fn run(
        self,
        mut set: impl FnMut(State) -> Result<()>,
        cost: &mut dyn FnMut() -> Result<f64>,
    ) -> Result<Slowdown> {
        let mut at = |state| {
            set(state)?;
            cost()
        };
        // Warms caches, connections and the CPU's clock.
        at(self.base)?;
        let mut ratios = Vec::with_capacity(self.rounds);
        for round in 0..self.rounds {
            let (base, full) = if round % 2 == 0 {
                let base = at(self.base)?;
                (base, at(self.state)?)
            } else {
                let full = at(self.state)?;
                (at(self.base)?, full)
            };
            ratios.push(full / base - 1.0);
        }
        set(State::Off)?;
        Ok(Slowdown::of(ratios))
    }
}

impl Slowdown {
    fn of(mut ratios: Vec<f64>) -> Self {
        ratios.sort_by(f64::total_cmp);
        let at = |fraction: f64| ratios[((ratios.len() - 1) as f64 * fraction).round() as usize];
        // The interquartile range of a normal distribution is 1.349 standard
        // deviations; the median of n has a standard error of 1.253 / sqrt(n).
        let deviation = (at(0.75) - at(0.25)) / 1.349;
        Self {
            median: at(0.5),
            standard_error: 1.253 * deviation / (ratios.len() as f64).sqrt(),
        }
    }
}

impl fmt::Display for Slowdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, error) = (100.0 * self.median, 100.0 * self.standard_error);
        write!(f, "{median:+.2} % ± {error:.2}")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_drift_cancels_and_the_slowdown_stays() {
        let (state, time) = (Cell::new(State::Off), Cell::new(0.0));
        let pairs = Pairs {
            state: State::Full,
            base: State::Empty,
            rounds: 21,
        };
        let set = |next| {
            state.set(next);
            Ok(())
        };
        let mut cost = || {
            time.set(time.get() + 0.001);
            let cost = if state.get() == State::Full { 1.1 } else { 1.0 };
            Ok(cost * (1.0 + time.get()))
        };
        let slowdown = pairs.run(set, &mut cost).unwrap();
        assert!((slowdown.median - 0.1).abs() < 0.002, "{slowdown:?}");
        assert_eq!(state.get(), State::Off);
    }

    #[test]
    fn equal_ratios_have_no_error() {
        let slowdown = Slowdown::of(vec![0.02; 9]);
        assert_eq!((slowdown.median, slowdown.standard_error), (0.02, 0.0));
    }
}
