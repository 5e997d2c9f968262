//! `eval forecast` on a small made-up set in the form of BizITObs, with fixed figures.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{f64::consts::TAU, fmt::Write, fs, path::Path};

use honeyguide_evaluation::{
    coverage,
    forecast::{self, Part},
    report::Outcome,
    young,
};

/// Ten hours of a shop, a value every 10 s, and two months of a business process, every
/// five minutes: daily waves with noise, and a process that rests at night.
fn make(folder: &Path) {
    let folder = folder.join("bizitobs");
    fs::create_dir(&folder).unwrap();
    // Knuth's MMIX generator.
    let mut state = 11u64;
    let mut noise = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    let mut application = "timestamp,Robot-Shop:calls.sum,Robot-Shop:latency.mean\n".to_owned();
    for i in 0..3700 {
        let wave = (f64::from(i) / 360.0 * TAU).sin();
        let calls = 50_000.0 + 8000.0 * wave + 6000.0 * noise();
        let latency = 40.0 + 10.0 * wave + 8.0 * noise();
        let _ = writeln!(application, "{i},{calls:.0},{latency:.3}");
    }
    fs::write(folder.join("application.csv"), application).unwrap();
    let mut process = "date,Weekly average order cycle time,activity_Approve by approver,\
        activity_Create order,activity_Return by approver,activity_Submit for approval,\
        activity_Submit to SAP,activity_Update order\n"
        .to_owned();
    for i in 0..17_500 {
        let day = (f64::from(i) / 288.0 * TAU).sin();
        let _ = write!(process, "{i},{:.3}", 90.0 + 3.0 * day + noise());
        for activity in 1..=6 {
            let size = f64::from(activity) * 4.0;
            let _ = write!(process, ",{:.0}", (size * (day + noise())).max(0.0));
        }
        process.push('\n');
    }
    fs::write(folder.join("l2c.csv"), process).unwrap();
}

fn assert_about(what: &str, found: f64, expected: f64) {
    let near = (found - expected).abs() <= 0.005 * expected;
    assert!(near, "{what}: {found}, expected {expected}");
}

#[test]
fn a_made_up_set_is_forecast_as_well_as_ever() {
    let data = tempfile::tempdir().unwrap();
    make(data.path());
    let bizitobs = data.path().join("bizitobs");
    let found = forecast::evaluate(&bizitobs, Part::Test, |_, _| {}).unwrap();
    let relative = found.relative("honeyguide");
    println!("{}\n{relative:?}", found.outcome().markdown);
    assert_about("CRPS", relative.crps, 0.650);
    assert_about("CRPS of the application", relative.crps_app, 0.748);
    assert_about("MASE", relative.mase, 0.8385);
    // Whoever forecasts the season is its own measure.
    assert_about("itself", found.relative("seasonal naive").crps, 1.0);
}

#[test]
fn intervals_of_a_made_up_set_hold_as_often_as_ever() {
    let data = tempfile::tempdir().unwrap();
    make(data.path());
    let labelled = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ms-cloud");
    std::os::unix::fs::symlink(labelled, data.path().join("ms-cloud")).unwrap();
    let mut outcome = Outcome::default();
    coverage::evaluate(data.path(), &mut outcome, |_| {}).unwrap();
    young::evaluate(data.path(), &mut outcome, |_| {}).unwrap();
    println!("{}", outcome.markdown);
    // The first hour of a series is not too sure of itself.
    let first = "| 1 to 12 | 1 min | 0.853 | 0.884 |";
    assert!(outcome.markdown.contains(first));
    let figure = |key: &str| outcome.metrics[key];
    assert_about("least day", figure("coverage95_day_min"), 0.9416);
    assert_about("most day", figure("coverage95_day_max"), 0.9519);
}
