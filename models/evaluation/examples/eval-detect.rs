//! `cargo xtask bench eval-detect`: the detector on the public sets below
//! `HONEYGUIDE_EVAL_DATA`.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result};
use honeyguide_evaluation::detect;

fn main() -> Result<()> {
    let out = env::var_os("HONEYGUIDE_BENCH_OUT").context("HONEYGUIDE_BENCH_OUT is not set")?;
    let data = env::var_os("HONEYGUIDE_EVAL_DATA").map(PathBuf::from);
    let set = |name: &str| {
        let folder = data.as_ref().map(|data| data.join(name));
        folder.filter(|folder| folder.is_dir())
    };
    let (nab, ms_cloud) = (set("nab"), set("ms-cloud"));
    let found = detect::evaluate(nab.as_deref(), ms_cloud.as_deref(), |_| {})?;
    let outcome = found.outcome();
    println!("{}", outcome.markdown);
    fs::write(&out, serde_json::to_string(&outcome)?)
        .with_context(|| format!("write {}", out.display()))
}
