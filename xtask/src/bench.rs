//! `cargo xtask bench [NAME…]`: measures, and compares with the targets.
//!
//! A bench is a cargo bench or example of any crate with the bench's name, or
//! one of ours ([`overhead`]). It writes its figures as JSON,
//! `{"metrics": {key: number}, "skipped": {key: reason}}`, to the path in
//! `HONEYGUIDE_BENCH_OUT`; every key that has a target must be in one of the
//! two. A second program, NAME`_kernel`, may add what needs root. We add the machine, the commit and the targets, and keep the result in
//! `target/bench/NAME.json`.

mod bars;
mod overhead;
mod peers;
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::json;

pub use self::overhead::{BUSY_SERVICE, serve};
use self::{
    bars::Bar,
    report::{Report, Verdict},
};
use crate::{
    cargo::{self, Target, test_features},
    machine::{self, Privilege},
    setup::{self, Purpose},
    step::{answer, show, step},
};

/// Environment variable with the path a bench writes its figures to.
const OUT: &str = "HONEYGUIDE_BENCH_OUT";

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Benches to run; all when none is named.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(bars::names()))]
    names: Vec<String>,
    /// Fail when a target is missed or a figure is skipped.
    #[arg(long)]
    check: bool,
    /// Let `models` time peers as well; their packages take 1 GB.
    #[arg(long)]
    peers: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let names: Vec<&str> = if args.names.is_empty() {
        bars::names().collect()
    } else {
        args.names.iter().map(String::as_str).collect()
    };
    setup::prepare(Purpose::Bench, &names)?;
    let mut missed = 0;
    let mut failed = Vec::new();
    for name in names {
        match bench(name, args) {
            Ok(below) => missed += below,
            Err(error) => {
                eprintln!("· bench {name} failed: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("these benches failed: {}", failed.join(", "));
    }
    if args.check && missed > 0 {
        bail!("{missed} figures are missing or miss their target");
    }
    Ok(())
}

/// Runs one bench; returns how many targets are not met.
fn bench(name: &str, args: &Args) -> Result<usize> {
    let out = out_path(name)?;
    let report = step(&format!("bench {name}"), || match name {
        "overhead" => overhead::run(),
        "request-cost" => {
            let mut report = programs(name, &out, None)?;
            report.add(overhead::requests()?);
            Ok(report)
        }
        "eval-breach" => {
            let mut report = programs(name, &out, None)?;
            report.add(incidents()?);
            Ok(report)
        }
        "models" if args.peers => programs(name, &out, Some(&peers::fetch()?)),
        _ => programs(name, &out, None),
    })?;
    let bars = bars::of(name);
    report.check(bars)?;
    keep(&report, bars, &out)?;
    let verdicts = report.verdicts(bars);
    for (bar, verdict) in &verdicts {
        println!("{name}: {}", report.line(bar, verdict));
    }
    for (key, value) in report.beyond(bars) {
        println!("{name}: {key} {value}");
    }
    Ok(verdicts
        .iter()
        .filter(|(_, verdict)| !matches!(verdict, Verdict::Met | Verdict::AimReached))
        .count())
}

fn out_path(name: &str) -> Result<PathBuf> {
    let folder = cargo::target_dir()?.join("bench");
    fs::create_dir_all(&folder)?;
    Ok(folder.join(format!("{name}.json")))
}

/// Runs the bench or example called `name`, and its kernel part if there is one.
fn programs(name: &str, out: &Path, peers: Option<&str>) -> Result<Report> {
    let target = cargo::program(name)?
        .with_context(|| format!("no crate has a bench or example called {name}"))?;
    let mut report = program(&target, out, peers)?;
    if let Some(kernel) = cargo::program(&format!("{name}_kernel"))? {
        report.add(program(&kernel, out, peers)?);
    }
    Ok(report)
}

/// What the analyzer makes of the recorded incidents.
fn incidents() -> Result<Report> {
    show(&mut cargo::build())?;
    let folder = cargo::root().join("bench-data/incidents");
    let mut eval = Command::new(cargo::binary("honeyguide")?);
    eval.args(["eval", "breach", "--json", "--incidents"]);
    let output = eval.arg(folder).current_dir(cargo::root()).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Report::parse(&String::from_utf8(output.stdout)?)
}

/// Builds and runs a bench program; returns what it wrote to `out`.
fn program(target: &Target, out: &Path, peers: Option<&str>) -> Result<Report> {
    let _ = fs::remove_file(out);
    let mut command = command(target)?;
    if let Some(commands) = peers {
        command.env(peers::COMMANDS, commands);
    }
    show(command.env(OUT, out))?;
    let text = fs::read_to_string(out)
        .with_context(|| format!("the bench wrote nothing to {}", out.display()))?;
    Report::parse(&text)
}

/// The command of a bench program, built in the profile everything else is
/// built in.
fn command(target: &Target) -> Result<Command> {
    if target.kind == "bench" {
        let mut bench = cargo::cargo("bench");
        bench.args(["--workspace", "--profile", "dev", "--bench", &target.name]);
        bench.args(test_features()?);
        return Ok(bench);
    }
    let mut build = cargo::cargo("build");
    build.args(["--workspace", "--example", &target.name]);
    show(build.args(test_features()?))?;
    Ok(Command::new(
        cargo::target_dir()?
            .join("debug/examples")
            .join(&target.name),
    ))
}

/// Adds what a figure needs to mean something, and stores it.
fn keep(report: &Report, bars: &[Bar], out: &Path) -> Result<()> {
    let (machine, kernel) = machine::description();
    let commit = answer("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_default();
    let date = answer("date", &["-u", "+%Y-%m-%d"]).unwrap_or_default();
    let text = serde_json::to_string_pretty(&json!({
        "metrics": report.metrics,
        "skipped": report.skipped,
        "targets": bars.iter().map(|bar| (bar.key, bar.target())).collect::<std::collections::BTreeMap<_, _>>(),
        "machine": machine,
        "kernel": kernel,
        "commit": commit.trim(),
        "date": date.trim(),
        "root": Privilege::detect() == Privilege::Root,
    }))?;
    fs::write(out, text + "\n").with_context(|| format!("failed to write {}", out.display()))
}
