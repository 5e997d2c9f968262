//! What a folder of recordings holds, for people.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use honeyguide_evaluation::incidents::{Kind, Truth};

use crate::process::answer;

/// Writes README.md into a folder of recordings.
pub fn write(folder: &Path) -> Result<()> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "hgr"));
    paths.sort();
    let mut rows = String::new();
    let mut bytes_of_all = 0;
    for path in &paths {
        let sidecar = path.with_extension("json");
        let truth = Truth::read(&sidecar)?;
        let number = |number: Option<usize>| number.map_or("–".to_owned(), |n| n.to_string());
        let kind = match truth.kind {
            Kind::Predictable => "predictable",
            Kind::Sudden => "sudden",
            Kind::Quiet => "quiet",
        };
        rows += &format!(
            "| `{}-{}` | {kind} | {} | {} | {} |",
            truth.scenario,
            truth.seed,
            truth.fault,
            number(truth.onset),
            number(truth.services[0].breach),
        );
        for path in [path, &sidecar] {
            let bytes = fs::metadata(path)?.len();
            bytes_of_all += bytes;
            rows += &format!(" {bytes} B, `{}` |", sha256(path)?);
        }
        rows.push('\n');
    }
    let text = format!(
        "# Recorded incidents\n\n\
         Written by `cargo xtask incidents`. Each recording (`.hgr`) has the truth beside it (`.json`), \
         from the times of its clients; [accuracy.md](../../docs/accuracy.md#recorded-incidents) says what \
         is done in each scenario and what the models make of it. Origin: real servers, load and kernel \
         events on the machine of the tool; licence: as the project. \
         `sudo honeyguide-incidents record SCENARIO --seeds SEED` makes another one of the same load and \
         fault; no two runs are the same. {bytes_of_all} bytes in all.\n\n\
         Onset and breach are windows of a second from the first.\n\n\
         | run | kind | fault of the shop | onset | breach | recording: size, SHA-256 | truth: size, SHA-256 |\n\
         |---|---|---|---|---|---|---|\n{rows}"
    );
    let path = folder.join("README.md");
    fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
}

fn sha256(path: &Path) -> Result<String> {
    let answer = answer("sha256sum", &[&path.to_string_lossy()])?;
    let sum = answer.split_whitespace().next();
    Ok(sum.context("sha256sum says nothing")?.to_owned())
}
