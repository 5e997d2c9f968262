//! How exactly requests are counted and timed, for `cargo xtask bench request-accuracy`.
//!
//! Known numbers of requests to real servers, by clients that keep every latency.
//! What the sensor says of the client's side is compared with those; what it
//! says of a server of our own with what that wrote down: when data arrived,
//! when it was read, when the response began.

mod cases;
mod exact;
mod load;
mod observer;
mod own_server;
mod servers;

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use serde_json::json;

use self::exact::Compared;

fn main() -> Result<()> {
    let mut worst = Compared::default();
    let mut skipped = Vec::new();
    for case in cases::CASES {
        match (case.run)() {
            Ok(compared) => {
                println!("  {}: {compared}", case.name);
                worst = worst.or_worse(&compared);
            }
            Err(error) if error.is::<servers::Missing>() => {
                println!("  {}: left out: {error}", case.name);
                skipped.push(case.name);
            }
            Err(error) => return Err(error.context(case.name)),
        }
    }
    let metrics = BTreeMap::from([
        ("count_error", worst.count_error),
        ("quantile_error", worst.quantile_error),
        ("cases_left_out", skipped.len() as f64),
    ]);
    println!("{metrics:.4?}");
    if let Some(out) = std::env::var_os("HONEYGUIDE_BENCH_OUT") {
        fs::write(&out, json!({ "metrics": metrics }).to_string())
            .with_context(|| format!("failed to write {}", out.display()))?;
    }
    Ok(())
}
