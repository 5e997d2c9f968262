//! Lasting changes of level, found online by a two-sided cumulative sum.
//!
//! Page (1954), "Continuous inspection schemes", with the observation clipped
//! (Huber) so that a single outlier cannot raise the alarm. Standardised
//! residuals z go in; S⁺ ← max(0, S⁺ + min(z, clip) − drift), likewise S⁻; a
//! change is declared when a sum passes `THRESHOLD`, and dated to the window
//! after that sum was last within noise.

use serde::{Deserialize, Serialize};

use crate::series::Target;

/// Half the smallest lasting shift worth finding, in standard deviations.
const DRIFT: f64 = 1.0;
/// With `DRIFT` and Gaussian noise a false alarm comes after more than 1e6
/// windows on average (Siegmund's approximation); the margin is for noise that
/// is not Gaussian, nor independent.
const THRESHOLD: f64 = 8.0;
/// Largest step one window can add; more than `THRESHOLD / (CLIP - DRIFT)` = 4
/// windows must agree.
const CLIP: f64 = 3.0;
/// A sum up to here is what noise leaves behind, no part of the change.
const NOISE: f64 = 1.5;

/// A lasting change of level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangePoint {
    /// Which target changed.
    pub target: Target,
    /// Windows since the first window at the new level (0 is the newest).
    pub windows_ago: u32,
    /// New minus old level in model space, so e^`log_change` is the ratio of
    /// latencies.
    pub log_change: f32,
}

/// The cumulative sums of one target.
///
/// ```
/// use honeyguide_models::change_point::Cusum;
///
/// let mut cusum = Cusum::default();
/// assert!((0..100).all(|i| cusum.update(if i % 2 == 0 { 0.5 } else { -0.5 }).is_none()));
/// let found = (0..10).find_map(|_| cusum.update(4.0)).unwrap();
/// assert_eq!(found, 4); // The change came 4 windows before it was certain.
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cusum {
    up: f64,
    down: f64,
    up_windows: u32,
    down_windows: u32,
}

impl Cusum {
    /// Takes the newest standardised residual (NaN is skipped). Returns how
    /// many observed windows ago the level changed, once that is certain, and
    /// starts afresh.
    pub fn update(&mut self, z: f64) -> Option<u32> {
        if z.is_nan() {
            return None;
        }
        let z = z.clamp(-CLIP, CLIP);
        accumulate(&mut self.up, &mut self.up_windows, z - DRIFT);
        accumulate(&mut self.down, &mut self.down_windows, -z - DRIFT);
        let windows = match (self.up > THRESHOLD, self.down > THRESHOLD) {
            (true, _) => self.up_windows,
            (_, true) => self.down_windows,
            _ => return None,
        };
        *self = Cusum::default();
        Some(windows - 1)
    }
}

fn accumulate(sum: &mut f64, windows: &mut u32, by: f64) {
    *sum = (*sum + by).max(0.0);
    *windows = if *sum <= NOISE {
        0
    } else {
        windows.saturating_add(1)
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Noise;

    fn first_alarm(zs: impl IntoIterator<Item = f64>) -> Option<(usize, u32)> {
        let mut cusum = Cusum::default();
        zs.into_iter()
            .enumerate()
            .find_map(|(at, z)| cusum.update(z).map(|ago| (at, ago)))
    }

    #[test]
    fn noise_raises_no_alarm() {
        let mut noise = Noise::new(1);
        assert_eq!(first_alarm((0..20_000).map(|_| noise.normal())), None);
    }

    #[test]
    fn a_shift_of_three_deviations_is_found_soon_and_dated_well() {
        let mut well_dated = 0;
        for seed in 0..50 {
            let mut noise = Noise::new(seed);
            for sign in [1.0, -1.0] {
                let zs = (0..60).map(|i| noise.normal() + if i >= 40 { 3.0 * sign } else { 0.0 });
                let (at, ago) = first_alarm(zs).unwrap();
                assert!((40..=50).contains(&at), "seed {seed}: found at {at}");
                well_dated += usize::from((at - ago as usize).abs_diff(40) <= 2);
            }
        }
        assert!(well_dated >= 90, "{well_dated} of 100 within two windows");
    }

    #[test]
    fn one_wild_value_is_no_change() {
        let zs = (0..100).map(|i| if i == 50 { f64::INFINITY } else { 0.0 });
        assert_eq!(first_alarm(zs), None);
    }

    #[test]
    fn missing_values_are_skipped() {
        let zs = (0..20).map(|i| if i % 2 == 0 { f64::NAN } else { 5.0 });
        assert_eq!(first_alarm(zs), Some((9, 4)));
    }
}
