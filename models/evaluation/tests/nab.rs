//! Our scorer against NAB's own, on the anchors' published scores.

use std::path::{Path, PathBuf};

use honeyguide_evaluation::nab::{Labelled, Profile, Sweep, load, load_scores};

/// The public sets, where this machine has them: `HONEYGUIDE_EVAL_DATA`.
fn data() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("HONEYGUIDE_EVAL_DATA")?);
    assert!(folder.is_dir(), "HONEYGUIDE_EVAL_DATA is no folder");
    Some(folder)
}

fn scores_of(nab: &Path, detector: &str, series: &Labelled) -> Vec<f64> {
    let folder = nab.join("anchor-scores").join(detector);
    load_scores(&folder, series).expect("anchors have a score per point")
}

fn anchor(nab: &Path, detector: &str) -> f64 {
    let files = load(nab).expect("NAB is whole");
    let scores: Vec<Vec<f64>> = files
        .iter()
        .map(|series| scores_of(nab, detector, series))
        .collect();
    let sweep = Sweep::new(files.iter().zip(scores.iter().map(Vec::as_slice)));
    sweep.best(Profile::Standard, |_| true).score()
}

#[test]
fn published_scores_of_the_anchors_come_out() {
    let Some(nab) = data().map(|data| data.join("nab")) else {
        eprintln!("skipped: HONEYGUIDE_EVAL_DATA is not set");
        return;
    };
    for (detector, expected) in [("ARTime", 74.8), ("numenta", 75.4), ("contextOSE", 77.0)] {
        let found = anchor(&nab, detector);
        assert!((found - expected).abs() < 0.05, "{detector} {found}");
    }
}
