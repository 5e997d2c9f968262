//! Times augurs' AutoETS as `speed.py` times Python's: `rust-peers SERIES STEPS`.

use std::{env, fs, hint::black_box, time::Instant};

use anyhow::Context;
use augurs::{Fit, Predict, ets::AutoETS};

/// The fastest of so many runs counts, as others may use the machine.
const RUNS: usize = 3;
/// Minutes that are fitted: it knows no season, so a longer past says little.
const DAY: usize = 1440;
const INTERVAL: f64 = 0.95;

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().context("rust-peers SERIES STEPS")?;
    let steps: usize = arguments
        .next()
        .context("rust-peers SERIES STEPS")?
        .parse()?;
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let values = text
        .lines()
        .map(str::parse)
        .collect::<Result<Vec<f64>, _>>()?;
    let last_day = &values[values.len().saturating_sub(DAY)..];
    let forecast = || -> anyhow::Result<f64> {
        let fitted = AutoETS::non_seasonal().fit(last_day)?;
        Ok(fitted.predict(steps, INTERVAL)?.point[steps - 1])
    };
    let mut fastest = f64::INFINITY;
    for _ in 0..RUNS {
        let begin = Instant::now();
        black_box(forecast()?);
        fastest = fastest.min(begin.elapsed().as_secs_f64());
    }
    println!("{{\"augurs_autoets_last_day_ms\": {}}}", fastest * 1e3);
    Ok(())
}
