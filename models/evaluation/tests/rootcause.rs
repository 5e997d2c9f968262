//! Root causes of small made-up incidents, with fixed figures; and of the public
//! ones where they are (`HONEYGUIDE_EVAL_DATA`).

use std::path::Path;

use honeyguide_evaluation::rootcause::evaluate;

#[test]
fn made_up_incidents_have_their_causes_first() {
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"));
    let found = evaluate(&fixtures.join("petshop/dataset"), |_| {}).unwrap();
    assert_eq!(
        found.issues,
        ["made_traffic/train/issue_0", "made_traffic/train/issue_1"]
    );
    assert_eq!(found.rows[0].places, [Some(1), Some(1)]);
}

#[test]
fn public_incidents_are_explained_better_than_by_any_baseline() {
    let Some(data) = std::env::var_os("HONEYGUIDE_EVAL_DATA") else {
        eprintln!("skipped: HONEYGUIDE_EVAL_DATA is not set");
        return;
    };
    let found = evaluate(&Path::new(&data).join("petshop/dataset"), |_| {}).unwrap();
    let (own, baselines) = found.rows.split_first().unwrap();
    for baseline in baselines {
        assert!(
            own.top1.value >= baseline.top1.value + 0.1,
            "{}",
            baseline.ranking
        );
        assert!(
            own.top3.value >= baseline.top3.value + 0.1,
            "{}",
            baseline.ranking
        );
    }
}
