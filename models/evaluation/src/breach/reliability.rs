//! Do events come as often as was said, and early enough?

use serde::Serialize;

use super::eta::Times;
use crate::plot::{Axis, Colour, Entry, Figure, Mark, Panel, Sign};

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
    /// When it came, where that was said.
    pub(super) times: Times,
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

/// Sums over steps from which errors of probabilities follow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// By bin: what was said, what came, and how many.
    bins: [(f64, f64, f64); BINS],
    squares: f64,
}

impl Tally {
    fn of(said: &[Said]) -> Self {
        let mut tally = Tally::default();
        for said in said {
            let came = f64::from(u8::from(said.comes_in.is_some()));
            let bin = &mut tally.bins[bin(said.score)];
            *bin = (bin.0 + said.score, bin.1 + came, bin.2 + 1.0);
            tally.squares += (said.score - came).powi(2);
        }
        tally
    }

    pub(super) fn add(&mut self, other: &Tally) {
        for (bin, more) in self.bins.iter_mut().zip(other.bins) {
            *bin = (bin.0 + more.0, bin.1 + more.1, bin.2 + more.2);
        }
        self.squares += other.squares;
    }

    /// Expected calibration error, and skill of the Brier score over the base rate.
    pub(super) fn errors(&self) -> [f64; 2] {
        let sum = |of: fn(&(f64, f64, f64)) -> f64| self.bins.iter().map(of).sum::<f64>();
        let steps = sum(|bin| bin.2);
        let base = sum(|bin| bin.1) / steps;
        let brier = self.squares / steps;
        let ece = sum(|bin| (bin.0 - bin.1).abs()) / steps;
        [ece, 1.0 - brier / (base * (1.0 - base))]
    }
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
        self.times.append(other.times);
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

    /// Of equal parts of the steps; how many is said by `parts`.
    pub(super) fn tallies(&self, parts: usize) -> Vec<Tally> {
        let at = |part: usize| self.said.len() * part / parts;
        let of = |part: usize| Tally::of(&self.said[at(part)..at(part + 1)]);
        (0..parts).map(of).collect()
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

/// The bin of a probability.
fn bin(said: f64) -> usize {
    ((said * BINS as f64) as usize).min(BINS - 1)
}

/// Diagram of what was said and what came, with how often the first of them said it
/// beside; `noun` is what is counted.
pub(crate) fn figure(title: &str, noun: &str, all: &[(&str, &Reliability)]) -> Figure {
    const COLOURS: [Colour; 4] = [Colour::Blue, Colour::Green, Colour::Orange, Colour::Grey];
    let mut marks = vec![Mark::Dashes {
        points: vec![(0.0, 0.0), (1.0, 1.0)],
        colour: Colour::Black,
    }];
    let mut legend = vec![Entry::new("as said", Colour::Black, Sign::Dashes)];
    for ((name, reliability), colour) in all.iter().zip(COLOURS) {
        let points: Vec<(f64, f64)> = reliability
            .bins
            .iter()
            .map(|bin| (bin.said, bin.came))
            .collect();
        marks.push(Mark::Line {
            points: points.clone(),
            colour,
        });
        marks.push(Mark::Dots { points, colour });
        legend.push(Entry::new(*name, colour, Sign::Line));
    }
    let bins = all.first().map_or(&[][..], |(_, first)| &first.bins);
    let most = bins.iter().map(|bin| bin.steps).max().unwrap_or(1);
    let bars = bins.iter().map(|of| {
        let low = bin(of.said) as f64 / BINS as f64;
        Mark::Bar {
            x: [low + 0.01, low + 1.0 / BINS as f64 - 0.01],
            y: of.steps as f64,
            colour: Colour::Blue,
        }
    });
    let said = || Axis::new("probability said", 0.0, 1.0);
    // From below one, so that a single step has a bar.
    let highest = 10f64.powf((most as f64).log10().ceil().max(1.0));
    Figure {
        title: title.to_owned(),
        legend,
        columns: 2,
        panels: vec![
            Panel {
                title: "reliability".to_owned(),
                x: said(),
                y: Axis::new(format!("share of {noun} at which it came"), 0.0, 1.0),
                right: None,
                marks,
            },
            Panel {
                title: format!("how often {} said it", all.first().map_or("", |all| all.0)),
                x: said(),
                y: Axis::logarithmic(format!("{noun} (count, logarithmic)"), 0.5, highest),
                right: None,
                marks: bars.collect(),
            },
        ],
    }
}

/// Expected calibration error, and its bins.
fn calibration(pairs: impl Iterator<Item = (f64, f64)>) -> (f64, Vec<Bin>) {
    let mut sums = [(0.0, 0.0, 0usize); BINS];
    for (said, came) in pairs {
        let bin = &mut sums[bin(said)];
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

    #[test]
    fn sums_of_parts_give_the_errors_of_all() {
        let mut judged = Judged::default();
        judged.begin(60);
        for i in 0..100 {
            judged.add(f64::from(i) / 100.0, (i % 3 == 0).then_some(3));
        }
        let mut total = Tally::default();
        judged.tallies(7).iter().for_each(|part| total.add(part));
        let (of_all, [ece, skill]) = (judged.reliability(), total.errors());
        assert!((of_all.ece - ece).abs() < 1e-12);
        assert!((1.0 - of_all.brier / of_all.brier_base - skill).abs() < 1e-12);
    }

    #[test]
    fn diagrams_show_every_bin_and_its_count() {
        let mut judged = Judged::default();
        judged.begin(60);
        for i in 0..100 {
            judged.add(0.25, (i % 4 == 0).then_some(3));
            judged.add(0.75, None);
        }
        let figure = figure("x", "steps", &[("honeyguide", &judged.reliability())]);
        let bars = figure.panels[1].marks.iter().map(|mark| match mark {
            Mark::Bar { x, y, .. } => ((x[0] * 10.0) as usize, *y as usize),
            other => panic!("{other:?}"),
        });
        assert_eq!(bars.collect::<Vec<_>>(), [(2, 100), (7, 100)]);
        let dots = vec![(0.25, 0.25), (0.75, 0.0)];
        let shown = |mark: &Mark| matches!(mark, Mark::Dots { points, .. } if *points == dots);
        assert!(figure.panels[0].marks.iter().any(shown));
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
