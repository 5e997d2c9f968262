//! What a value costs.

use std::time::Instant;

use honeyguide_models::{Params, detector::Stream, wasserstein::Wasserstein};
use sensor_common::Histogram;

use super::ALERT_RATE;
use crate::bootstrap::SplitMix64;

/// Streams that take turns, so that none stays in a cache.
const STREAMS: usize = 1000;
const VALUES: usize = 1000;
/// Rounds of [`VALUES`]; the fastest counts, as others may use the machine.
const ROUNDS: usize = 3;

/// Microseconds per value of a daily, noisy series, after it has been learned.
pub fn us_per_point() -> f64 {
    let mut streams: Vec<Stream> = vec![Stream::new(0.0); STREAMS];
    let mut random = SplitMix64(3);
    let mut value = |i: usize| {
        let day = (i as f64 / 288.0 * std::f64::consts::TAU).sin();
        100.0 + 30.0 * day + 10.0 * random.uniform()
    };
    let mut alerts = 0;
    let mut best = f64::INFINITY;
    for round in 0..ROUNDS {
        let values: Vec<f64> = (0..VALUES).map(|i| value(round * VALUES + i)).collect();
        let begin = Instant::now();
        for value in &values {
            for stream in &mut streams {
                alerts += u32::from(stream.update(*value, ALERT_RATE).alert);
            }
        }
        let us = begin.elapsed().as_secs_f64() * 1e6;
        best = f64::min(best, us / (STREAMS * VALUES) as f64);
    }
    // Keeps the work from being left out.
    assert!(alerts <= (STREAMS * VALUES * ROUNDS) as u32);
    best
}

/// Microseconds per histogram of 1,000 series that take turns, after a few.
pub fn us_per_histogram() -> f64 {
    let params = Params::default().validate().expect("defaults are valid");
    let mut random = SplitMix64(4);
    let windows: [Histogram; 8] = std::array::from_fn(|_| {
        let mut window = Histogram::new();
        for _ in 0..500 {
            // Four decades, the fast ones dense.
            window.record((100_000.0 * 10f64.powf(4.0 * random.uniform().powi(3))) as u64);
        }
        window
    });
    let mut series = vec![Wasserstein::default(); STREAMS];
    let mut best = f64::INFINITY;
    let mut sum = 0.0;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for at in 0..VALUES / 10 {
            for (number, usual) in series.iter_mut().enumerate() {
                usual.update(&params, &windows[(at + number) % windows.len()]);
                sum += usual.score();
            }
        }
        let us = begin.elapsed().as_secs_f64() * 1e6;
        best = f64::min(best, us / (STREAMS * VALUES / 10) as f64);
    }
    // Keeps the work from being left out.
    assert!(sum.is_finite());
    best
}
