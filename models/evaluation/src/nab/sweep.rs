//! The score: every threshold at once, from the highest down.

use super::Labelled;

/// What mistakes cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Both kinds of mistakes.
    Standard,
    /// False alarms cost twice as much.
    LowFalsePositives,
    /// Missed windows cost twice as much.
    LowFalseNegatives,
}

impl Profile {
    /// In the order of NAB's tables.
    pub const ALL: [Profile; 3] = [
        Profile::Standard,
        Profile::LowFalsePositives,
        Profile::LowFalseNegatives,
    ];

    /// As tables call it.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Standard => "standard",
            Profile::LowFalsePositives => "low FP",
            Profile::LowFalseNegatives => "low FN",
        }
    }

    /// Weight of a false positive; one of a true positive is 1.
    const fn false_positive(self) -> f64 {
        match self {
            Profile::LowFalsePositives => 0.22,
            _ => 0.11,
        }
    }

    /// Cost of a window without a detection.
    const fn false_negative(self) -> f64 {
        match self {
            Profile::LowFalseNegatives => 2.0,
            _ => 1.0,
        }
    }
}

/// What a point is worth if it is detected.
#[derive(Clone, Copy, Debug)]
struct Point {
    score: f64,
    file: usize,
    /// Number of its window over all files, if it is in one.
    window: Option<usize>,
    /// Unweighted: positive in a window, negative outside.
    worth: f64,
}

/// What a set of files scored at one threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Scores at least this high are detections.
    pub threshold: f64,
    /// Weighted worth of the detections, above that of silence.
    pub gain: f64,
    /// That of a perfect detector.
    pub gain_max: f64,
    /// Windows detected.
    pub detected: usize,
    /// Windows there are.
    pub windows: usize,
    /// Detections outside of windows.
    pub false_positives: usize,
}

impl Outcome {
    /// 0 for silence to 100 for perfection; can be below 0. NaN or −∞ without
    /// windows.
    pub fn score(&self) -> f64 {
        100.0 * self.gain / self.gain_max
    }
}

/// Scored points of some files, the highest score first.
#[derive(Clone, Debug)]
pub struct Sweep {
    points: Vec<Point>,
    /// File of each window.
    windows: Vec<usize>,
}

impl Sweep {
    /// Prepares the scores of `files`: each a series with one score per point.
    /// Points in probation are left out; a score that is NaN is never detected.
    /// O(n log n).
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a Labelled, &'a [f64])>) -> Self {
        let mut sweep = Sweep {
            points: Vec::new(),
            windows: Vec::new(),
        };
        for (file, (series, scores)) in files.into_iter().enumerate() {
            sweep.add(file, series, scores);
        }
        sweep.points.sort_by(|a, b| b.score.total_cmp(&a.score));
        sweep
    }

    fn add(&mut self, file: usize, series: &Labelled, scores: &[f64]) {
        let probation = series.probation();
        let mut past: Option<(usize, usize)> = None;
        let mut windows = series.windows.iter().peekable();
        // A window wholly in probation cannot be detected and does not count.
        let mut number = None;
        for (i, score) in scores.iter().enumerate() {
            if let Some(window) = windows.next_if(|window| window.0 <= i) {
                past = Some(*window);
                number = (window.1 >= probation).then(|| {
                    self.windows.push(file);
                    self.windows.len() - 1
                });
            }
            let inside = past.is_some_and(|window| i <= window.1);
            let worth = match past {
                Some(window) if inside => worth_inside(window, i),
                other => worth_outside(other, i),
            };
            if i >= probation && !score.is_nan() {
                self.points.push(Point {
                    score: *score,
                    file,
                    window: number.filter(|_| inside),
                    worth,
                });
            }
        }
    }

    /// Files that `of` accepts, by position, at the threshold best for them.
    pub fn best(&self, profile: Profile, of: impl Fn(usize) -> bool) -> Outcome {
        let mut best = None;
        self.walk(profile, of, |outcome| {
            if best.is_none_or(|best: Outcome| outcome.gain > best.gain) {
                best = Some(outcome);
            }
            true
        });
        best.expect("every walk begins with silence")
    }

    /// Files that `of` accepts, by position, at a threshold.
    pub fn at(&self, profile: Profile, threshold: f64, of: impl Fn(usize) -> bool) -> Outcome {
        let mut found = None;
        self.walk(profile, of, |outcome| {
            let still = outcome.threshold >= threshold;
            if still {
                found = Some(outcome);
            }
            still
        });
        let found: Outcome = found.expect("every walk begins with silence");
        Outcome { threshold, ..found }
    }

    /// Calls `visit` with the outcome at every threshold from infinity (silence)
    /// down, while it says so.
    fn walk(
        &self,
        profile: Profile,
        of: impl Fn(usize) -> bool,
        mut visit: impl FnMut(Outcome) -> bool,
    ) {
        let windows = self.windows.iter().filter(|file| of(**file)).count();
        let silence = -profile.false_negative() * windows as f64;
        let gain_max = windows as f64 - silence;
        let mut gains = vec![-profile.false_negative(); self.windows.len()];
        let mut raw = silence;
        let (mut detected, mut false_positives) = (0, 0);
        let outcome = |threshold, raw: f64, detected, false_positives| Outcome {
            threshold,
            gain: raw - silence,
            gain_max,
            detected,
            windows,
            false_positives,
        };
        if !visit(outcome(f64::INFINITY, raw, 0, 0)) {
            return;
        }
        let mut points = self.points.iter().filter(|point| of(point.file)).peekable();
        while let Some(point) = points.next() {
            match point.window {
                Some(window) => {
                    let gain = gains[window].max(point.worth);
                    detected += usize::from(gains[window] < 0.0);
                    raw += gain - gains[window];
                    gains[window] = gain;
                }
                None => {
                    raw += point.worth * profile.false_positive();
                    false_positives += 1;
                }
            }
            let last_of_its_score = points.peek().is_none_or(|next| next.score < point.score);
            if last_of_its_score && !visit(outcome(point.score, raw, detected, false_positives)) {
                return;
            }
        }
    }
}

/// NAB's scaled sigmoid: 1 well before 0, −1 well behind it, −1 beyond 3.
fn sigmoid(position: f64) -> f64 {
    if position > 3.0 {
        return -1.0;
    }
    2.0 / (1.0 + (5.0 * position).exp()) - 1.0
}

/// Of a detection at point `i` of a window: 1 at its first point, nearly 0 at its
/// last.
fn worth_inside((first, last): (usize, usize), i: usize) -> f64 {
    let width = (last - first + 1) as f64;
    sigmoid(-((last - i + 1) as f64) / width) / sigmoid(-1.0)
}

/// Of a detection outside, `past` the last window before it: nearly 0 right
/// behind it, −1 far from it or when there is none.
fn worth_outside(past: Option<(usize, usize)>, i: usize) -> f64 {
    match past {
        None => -1.0,
        Some((first, last)) => sigmoid((i - last) as f64 / (last - first) as f64),
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
