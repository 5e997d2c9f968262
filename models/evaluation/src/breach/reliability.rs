//! Do events come as often as was said, and early enough?

use serde::Serialize;

/// Bins of equal width.
const BINS: usize = 10;
/// Probabilities that are neither "no" nor "yes".
const OPEN: std::ops::RangeInclusive<f64> = 0.05..=0.95;
/// An alert must come so long before …
const LEAD_SECS: u32 = 300;
/// … and alerts within this time are one.
const QUIET_SECS: u32 = 900;
const WEEK_SECS: f64 = 604_800.0;

/// One step at which something was said.
#[derive(Clone, Copy, Debug)]
struct Said {
    score: f64,
    /// Steps until the breach, if one came within the horizon.
    comes_in: Option<usize>,
    /// The run of undisturbed steps it belongs to.
    run: u32,
    step_secs: u32,
}

/// All that one model said.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    said: Vec<Said>,
    run: u32,
    step_secs: u32,
}

/// A bin of a reliability diagram.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bin {
    /// Mean probability said.
    pub said: f64,
    /// Share of steps at which it came.
    pub came: f64,
    /// How many.
    pub steps: usize,
}

/// How reliable probabilities are.
#[derive(Clone, Debug)]
pub struct Reliability {
    /// Expected calibration error: mean |said − came| over bins, by steps.
    pub ece: f64,
    /// The same of probabilities in 5–95 % alone, where no multitude of
    /// certain steps hides errors.
    pub ece_open: f64,
    /// Brier score, and that of always saying the base rate.
    pub brier: f64,
    /// See `brier`.
    pub brier_base: f64,
    /// Share of steps at which it came.
    pub base_rate: f64,
    /// Bins that are not empty.
    pub bins: Vec<Bin>,
}

impl Judged {
    /// Begins with another series.
    pub fn begin(&mut self, step_secs: u32) {
        self.step_secs = step_secs;
        self.pause();
    }

    /// Ends a run of undisturbed steps.
    pub fn pause(&mut self) {
        self.run += 1;
    }

    /// Adds what was said at the next step.
    pub fn add(&mut self, score: f64, comes_in: Option<usize>) {
        self.said.push(Said {
            score,
            comes_in,
            run: self.run,
            step_secs: self.step_secs,
        });
    }

    /// Adds all that was said of another series.
    pub fn append(&mut self, other: Judged) {
        let after = self.run + 1;
        let shifted = other.said.into_iter().map(|said| Said {
            run: said.run + after,
            ..said
        });
        self.said.extend(shifted);
        self.run = other.run + after;
    }

    /// How many steps were judged.
    pub fn steps(&self) -> usize {
        self.said.len()
    }

    /// As if scores were probabilities.
    pub fn reliability(&self) -> Reliability {
        let pairs = || {
            let came = |said: &Said| f64::from(u8::from(said.comes_in.is_some()));
            self.said.iter().map(move |said| (said.score, came(said)))
        };
        let n = self.said.len() as f64;
        let base_rate = pairs().map(|(_, came)| came).sum::<f64>() / n;
        let (ece, bins) = calibration(pairs());
        let (ece_open, _) = calibration(pairs().filter(|(said, _)| OPEN.contains(said)));
        Reliability {
            ece,
            ece_open,
            brier: pairs().map(|(p, came)| (p - came).powi(2)).sum::<f64>() / n,
            brier_base: base_rate * (1.0 - base_rate),
            base_rate,
            bins,
        }
    }

    /// Recall at a lead of 5 minutes and one false alarm per service-week.
    pub fn recall(&self) -> f64 {
        let weeks = self
            .said
            .iter()
            .map(|said| f64::from(said.step_secs))
            .sum::<f64>()
            / WEEK_SECS;
        let mut thresholds: Vec<f64> = self.said.iter().map(|said| said.score).collect();
        thresholds.sort_by(f64::total_cmp);
        thresholds.dedup();
        // False alarms fall as the threshold rises, but for the quiet time.
        let at = thresholds.partition_point(|threshold| self.false_alarms(*threshold) > weeks);
        match thresholds.get(at) {
            Some(threshold) => self.recalled(*threshold),
            None => 0.0,
        }
    }

    /// Alerts that no breach follows.
    fn false_alarms(&self, threshold: f64) -> f64 {
        let (mut count, mut quiet, mut run) = (0.0, 0u32, u32::MAX);
        for said in &self.said {
            quiet = if said.run == run {
                quiet.saturating_sub(said.step_secs)
            } else {
                0
            };
            run = said.run;
            if said.score >= threshold {
                if said.comes_in.is_none() && quiet == 0 {
                    count += 1.0;
                }
                quiet = QUIET_SECS;
            }
        }
        count
    }

    /// Share of breaches alerted early enough, of those that could be.
    fn recalled(&self, threshold: f64) -> f64 {
        let (mut alerted, mut all) = (0.0, 0.0);
        for run in self.said.chunk_by(|a, b| a.run == b.run) {
            let early = |said: &&Said| {
                let lead = |steps: usize| steps as u64 * u64::from(said.step_secs);
                said.comes_in
                    .is_some_and(|s| lead(s) >= u64::from(LEAD_SECS))
            };
            let before: Vec<&Said> = run.iter().filter(early).collect();
            let whole = run.iter().filter(|said| said.comes_in.is_none()).count() > 0;
            if whole && !before.is_empty() {
                all += 1.0;
                let hit = before.iter().any(|said| said.score >= threshold);
                alerted += f64::from(u8::from(hit));
            }
        }
        alerted / all
    }
}

/// Expected calibration error, and its bins.
fn calibration(pairs: impl Iterator<Item = (f64, f64)>) -> (f64, Vec<Bin>) {
    let mut sums = [(0.0, 0.0, 0usize); BINS];
    for (said, came) in pairs {
        let bin = &mut sums[((said * BINS as f64) as usize).min(BINS - 1)];
        bin.0 += said;
        bin.1 += came;
        bin.2 += 1;
    }
    let bins: Vec<Bin> = sums
        .iter()
        .filter(|bin| bin.2 > 0)
        .map(|(said, came, steps)| Bin {
            said: said / *steps as f64,
            came: came / *steps as f64,
            steps: *steps,
        })
        .collect();
    let all: usize = bins.iter().map(|bin| bin.steps).sum();
    let error: f64 = bins
        .iter()
        .map(|bin| bin.steps as f64 * (bin.said - bin.came).abs())
        .sum();
    (error / all as f64, bins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reliability_of_known_probabilities() {
        let mut judged = Judged::default();
        judged.begin(60);
        for i in 0..100 {
            judged.add(0.25, (i % 4 == 0).then_some(3));
            judged.add(0.75, (i % 2 == 0).then_some(3));
        }
        let reliability = judged.reliability();
        assert!((reliability.ece - 0.125).abs() < 1e-12);
        assert!((reliability.base_rate - 0.375).abs() < 1e-12);
        assert!((reliability.brier - 0.5 * (0.1875 + 0.3125)).abs() < 1e-12);
        assert_eq!(reliability.bins.len(), 2);
    }

    /// Two weeks with a breach each: seen ten minutes, and one minute, before.
    #[test]
    fn recall_counts_early_alerts_at_a_budget_of_false_ones() {
        let mut judged = Judged::default();
        judged.begin(60);
        for seen in [10, 1] {
            for minute in (1..10_000).rev() {
                let comes_in = (minute <= 15).then_some(minute);
                judged.add(if minute <= seen { 0.9 } else { 0.1 }, comes_in);
            }
            judged.pause();
        }
        assert_eq!(judged.recall(), 0.5);
    }
}
