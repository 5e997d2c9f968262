//! The closed loop, for `cargo xtask bench loop`: what it saves, how soon a
//! sensor looks closely at what is at risk, and what it costs in foresight.
//! Needs root.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on fails")]

mod cost;
mod lead;
#[path = "../../tests/running/loads.rs"]
mod loads;
mod looped;
mod react;

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let lead = lead::lost_windows()?;
    let cost = runtime.block_on(cost::cost_vs_full())?;
    let react_s = runtime.block_on(react::react_s())?;
    if let Some(out) = std::env::var_os("HONEYGUIDE_BENCH_OUT") {
        let report = json!({
            "metrics": {
                "cost_vs_full": cost.vs_full,
                "full_cost_ns": cost.full_ns,
                "loop_cost_ns": cost.loop_ns,
                "react_s": react_s,
                "lead_lost_windows": lead.lost_mean,
                "lead_samples_ratio": lead.samples_ratio,
                "lead_alerts": lead.alerts,
                "lead_alerts_late": lead.late,
                "lead_alerts_missing": lead.missing,
            },
            "skipped": {},
        });
        fs::write(&out, report.to_string())
            .with_context(|| format!("failed to write {}", out.display()))?;
    }
    Ok(())
}
