//! `cargo xtask bench models`: what a series costs, and with `--peers` what the
//! same costs elsewhere, in the same run. With `HONEYGUIDE_BENCH_OUT` set,
//! writes the figures there.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use anyhow::{Context, ensure};
use honeyguide_evaluation::{report::Outcome, speed};

/// Commands that time peers, see `xtask/src/bench/peers.rs`.
const PEERS: &str = "HONEYGUIDE_PEERS";

fn main() -> anyhow::Result<()> {
    let mut outcome = speed::evaluate(Path::new("."), |what| eprintln!("{what}"))?;
    match env::var(PEERS) {
        Ok(commands) => peers(&serde_json::from_str::<Vec<_>>(&commands)?, &mut outcome)?,
        Err(_) => outcome.skip("refresh_vs_flair", "peers are timed with --peers"),
    }
    print!("{}", outcome.markdown);
    if let Some(out) = env::var_os("HONEYGUIDE_BENCH_OUT") {
        fs::write(&out, serde_json::to_string(&outcome)?).context("failed to write the figures")?;
    }
    Ok(())
}

/// Adds the peers' figures for the history that ours were measured with.
fn peers(commands: &[Vec<String>], outcome: &mut Outcome) -> anyhow::Result<()> {
    let series = env::temp_dir().join(format!("honeyguide-series-{}", std::process::id()));
    let lines = |values: Vec<f64>| values.iter().map(|value| format!("{value}\n")).collect();
    let text: String = lines(speed::history());
    fs::write(&series, text).with_context(|| format!("failed to write {}", series.display()))?;
    let figures = commands.iter().map(|command| time(command, &series));
    let figures: anyhow::Result<Vec<_>> = figures.collect();
    let _ = fs::remove_file(&series);
    for (peer, figure) in figures?.into_iter().flatten() {
        eprintln!("{peer}: {figure:.3}");
        outcome.metric(&peer, figure);
    }
    let figure = |key: &str| outcome.metrics.get(key).copied();
    if let (Some(ours), Some(flair)) = (figure("refresh_60_ms"), figure("flair_ms")) {
        outcome.metric("refresh_vs_flair", ours / flair);
    }
    Ok(())
}

fn time(command: &[String], series: &Path) -> anyhow::Result<BTreeMap<String, f64>> {
    let (program, arguments) = command
        .split_first()
        .context("a command without a program")?;
    eprintln!("{}", command.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .arg(series)
        .arg(speed::STEPS.to_string())
        .output()
        .with_context(|| format!("failed to start {program}"))?;
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).with_context(|| format!("{program} printed no figures"))
}
