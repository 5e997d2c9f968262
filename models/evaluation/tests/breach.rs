//! Breach probabilities of a small made-up series, and of the public ones where
//! they are (`HONEYGUIDE_EVAL_DATA`).

use std::path::Path;

use honeyguide_evaluation::{breach::evaluate, report::Outcome};

fn figure(outcome: &Outcome, key: &str) -> f64 {
    outcome.metrics[key]
}

#[test]
fn a_made_up_series_breaks_as_often_as_is_said() {
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"));
    let found = evaluate(fixtures, |_| {}).unwrap();
    println!("{}", found.markdown);
    // 1,500 windows are few to learn from; without recalibration it is 0.13.
    assert!(figure(&found, "ece_15m") < 0.08);
}

#[test]
fn public_series_break_as_often_as_is_said() {
    let Some(data) = std::env::var_os("HONEYGUIDE_EVAL_DATA") else {
        eprintln!("skipped: HONEYGUIDE_EVAL_DATA is not set");
        return;
    };
    let found = evaluate(Path::new(&data), |_| {}).unwrap();
    assert!(figure(&found, "ece_15m") <= 0.02);
    assert!(figure(&found, "ece_15m_open") <= 0.05);
    assert!(figure(&found, "brier_15m_skill") >= 0.25);
}
