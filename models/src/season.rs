//! Seasons: which one a series has, and what it promises.

use crate::series::{History, TARGETS, Target, Window};

/// Seasons that are looked for, in seconds: periodic jobs, hourly jobs, days.
const CANDIDATE_SECS: [u32; 3] = [300, 3600, 86_400];
/// A season must explain the series about this well …
const CORRELATION_MIN: f64 = 0.3;
/// … and this much better than half of it does: a slow drift correlates with
/// itself at any lag, a season falls out of step at half its length.
const PEAK_MIN: f64 = 0.15;
/// A longer season must be this much better than a shorter one, of which it
/// may be a multiple.
const LONGER_MIN: f64 = 0.05;
/// Fewer values than this are no evidence.
const PAIRS_MIN: usize = 24;
/// Shortest season in windows that has a shape.
const SEASON_WINDOWS_MIN: usize = 4;
/// Past seasons that a seasonal value is the mean of.
const SEASONS_BACK: usize = 3;
/// Windows before and after the same phase that belong to it.
const SMOOTH: usize = 1;
/// Autocorrelation reads at most about this many pairs.
const PAIRS_MAX: usize = 1500;

/// Picks the season of a series, in windows, from those the history covers at
/// least twice. `windows` are oldest first.
pub(crate) fn detect(windows: &[Window], step_secs: u32) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for secs in CANDIDATE_SECS {
        let season = (secs / step_secs) as usize;
        if season < SEASON_WINDOWS_MIN || secs % step_secs != 0 || windows.len() < 2 * season {
            continue;
        }
        let strength = strength(windows, season);
        let needed = best.map_or(CORRELATION_MIN, |(r, _)| r + LONGER_MIN);
        if strength > needed {
            best = Some((strength, season));
        }
    }
    best.map(|(_, season)| season)
}

/// Best autocorrelation at the season over the targets, 0 where it is no peak.
fn strength(windows: &[Window], season: usize) -> f64 {
    [Target::P50, Target::P99, Target::Rate]
        .into_iter()
        .map(|target| {
            let at_season = autocorrelation(windows, target, season);
            let at_half = autocorrelation(windows, target, season / 2);
            match (at_season, at_half) {
                (Some(r), Some(half)) if r - half >= PEAK_MIN => r,
                _ => 0.0,
            }
        })
        .fold(0.0, f64::max)
}

/// Pearson correlation of a target with itself `lag` windows earlier.
fn autocorrelation(windows: &[Window], target: Target, lag: usize) -> Option<f64> {
    let pairs = windows.len().checked_sub(lag)?;
    let stride = pairs.div_ceil(PAIRS_MAX).max(1);
    let mut sums = crate::correlation::Sums::default();
    for i in (0..pairs).step_by(stride) {
        if let (Some(x), Some(y)) = (windows[i].value(target), windows[i + lag].value(target)) {
            sums.add(x, y);
        }
    }
    (sums.pairs() >= PAIRS_MIN).then(|| sums.correlation())
}

/// Mean of each target at the same phase in the last seasons, `lead` windows
/// after the newest one; NaN where nothing was observed there.
pub(crate) fn seasonal_values<H: History + ?Sized>(
    history: &H,
    season: usize,
    lead: usize,
) -> [f64; TARGETS] {
    let mut sums = [0.0; TARGETS];
    let mut weights = [0.0; TARGETS];
    let first = lead.div_ceil(season).max(1);
    for back in first..first + SEASONS_BACK {
        let centre = back * season - lead;
        if centre >= history.len() {
            break;
        }
        for ago in centre.saturating_sub(SMOOTH)..=centre + SMOOTH {
            let window = history.window(ago);
            for target in Target::ALL {
                let weight = window.weight(target);
                if weight > 0.0 {
                    sums[target.index()] += weight * f64::from(window.y[target.index()]);
                    weights[target.index()] += weight;
                }
            }
        }
    }
    let mut values = [f64::NAN; TARGETS];
    for k in 0..TARGETS {
        if weights[k] > 0.0 {
            values[k] = sums[k] / weights[k];
        }
    }
    values
}

/// First two sine and cosine terms of the phase of a step.
pub(crate) fn fourier(step: u64, season: usize) -> [f64; 4] {
    let phase = (step % season as u64) as f64 / season as f64 * std::f64::consts::TAU;
    let (sin, cos) = phase.sin_cos();
    [sin, cos, 2.0 * sin * cos, cos * cos - sin * sin]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Noise, window_of};

    fn series(n: usize, f: impl Fn(usize) -> f64) -> Vec<Window> {
        let mut noise = Noise::new(5);
        (0..n)
            .map(|i| window_of(f(i) + 0.2 * noise.normal()))
            .collect()
    }

    fn wave(i: usize, season: usize) -> f64 {
        0.5 * (i as f64 / season as f64 * std::f64::consts::TAU).sin()
    }

    #[test]
    fn a_season_is_found_once_history_covers_it_twice() {
        assert_eq!(detect(&series(2160, |i| wave(i, 360)), 10), Some(360));
        assert_eq!(detect(&series(700, |i| wave(i, 360)), 10), None);
        assert_eq!(detect(&series(2160, |i| wave(i, 30)), 10), Some(30));
        let daily = series(2 * 1440, |i| wave(i, 1440));
        assert_eq!(detect(&daily, 60), Some(1440));
    }

    #[test]
    fn neither_noise_nor_drift_nor_nothing_is_a_season() {
        assert_eq!(detect(&series(2160, |_| 0.0), 10), None);
        assert_eq!(detect(&series(2160, |i| i as f64 / 500.0), 10), None);
        assert_eq!(detect(&vec![Window::MISSING; 2160], 10), None);
        assert_eq!(detect(&vec![window_of(1.0); 2160], 10), None);
        assert_eq!(detect(&[], 10), None);
    }

    #[test]
    fn seasonal_values_repeat_the_season() {
        let windows: Vec<Window> = (0..1000).map(|i| window_of(wave(i, 100))).collect();
        for lead in [0, 1, 30, 100, 250] {
            let value = seasonal_values(&windows[..], 100, lead)[Target::P99.index()];
            let expected = window_of(wave(999 + lead, 100)).y[Target::P99.index()];
            assert!(
                (value - f64::from(expected)).abs() < 0.02,
                "{lead}: {value}"
            );
        }
        assert!(seasonal_values(&windows[..50], 100, 0)[0].is_nan());
    }

    #[test]
    fn fourier_terms_repeat_each_season() {
        assert_eq!(fourier(17, 360), fourier(17 + 360, 360));
        let [sin, cos, sin2, cos2] = fourier(30, 360);
        let phase = std::f64::consts::TAU / 12.0;
        assert!((sin - phase.sin()).abs() < 1e-12 && (cos - phase.cos()).abs() < 1e-12);
        assert!((sin2 - (2.0 * phase).sin()).abs() < 1e-12);
        assert!((cos2 - (2.0 * phase).cos()).abs() < 1e-12);
    }
}
