//! `cargo xtask bench models`: what a series costs. With `HONEYGUIDE_BENCH_OUT`
//! set, writes the figures there.

use std::{env, fs, path::Path};

use anyhow::Context;
use honeyguide_evaluation::speed;

fn main() -> anyhow::Result<()> {
    let mut outcome = speed::evaluate(Path::new("."), |what| eprintln!("{what}"))?;
    outcome.skip("refresh_vs_flair", "peers are not measured by this bench");
    if !outcome.metrics.contains_key("detect_us_per_point") {
        outcome.skip("detect_us_per_point", "not measured by this bench");
    }
    print!("{}", outcome.markdown);
    if let Some(out) = env::var_os("HONEYGUIDE_BENCH_OUT") {
        fs::write(&out, serde_json::to_string(&outcome)?).context("failed to write the figures")?;
    }
    Ok(())
}
