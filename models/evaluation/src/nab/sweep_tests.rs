use super::*;

/// 100 points, a window from point 50 to 59, scores that are 0 but for `scores`.
fn file(scores: &[(usize, f64)]) -> (Labelled, Vec<f64>) {
    let mut all = vec![0.0; 100];
    for (i, score) in scores {
        all[*i] = *score;
    }
    let series = Labelled {
        category: "made".to_owned(),
        name: "up".to_owned(),
        times: (0..100).collect(),
        values: vec![0.0; 100],
        windows: vec![(50, 59)],
    };
    (series, all)
}

#[track_caller]
fn check(profile: Profile, scores: &[(usize, f64)], threshold: f64, expected: f64) {
    let (series, scores) = file(scores);
    let sweep = Sweep::new([(&series, &scores[..])]);
    let found = sweep.at(profile, threshold, |_| true).score();
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
}

// By hand: σ(x) = 2/(1+e^5x) − 1; σ(−1) = 0.9866143; one window, so the score is
// 100·(raw + fn)/(1 + fn).

#[test]
fn silence_is_0_and_the_first_point_of_a_window_100() {
    check(Profile::Standard, &[(50, 1.0)], 2.0, 0.0);
    for profile in Profile::ALL {
        check(profile, &[(50, 1.0)], 1.0, 100.0);
    }
}

#[test]
fn a_late_detection_is_worth_less_and_the_earliest_counts() {
    // Point 55: −(59−55+1)/10 = −0.5, σ = 0.8482836, over σ(−1): 0.8597925.
    check(Profile::Standard, &[(55, 1.0)], 1.0, 92.989_628);
    check(Profile::Standard, &[(55, 1.0), (59, 1.0)], 1.0, 92.989_628);
    // With missed windows at twice the cost: (0.8597925 + 2)/3.
    check(Profile::LowFalseNegatives, &[(55, 1.0)], 1.0, 95.326_419);
}

#[test]
fn false_alarms_cost_in_full_before_and_less_right_behind_a_window() {
    check(Profile::Standard, &[(20, 1.0)], 1.0, -5.5);
    check(Profile::LowFalsePositives, &[(20, 1.0)], 1.0, -11.0);
    // Point 60: 1/9 behind, σ = −0.2708471; point 99: 40/9 > 3, −1.
    check(Profile::Standard, &[(60, 1.0)], 1.0, -1.489_659);
    check(Profile::Standard, &[(99, 1.0)], 1.0, -5.5);
}

#[test]
fn points_in_probation_do_not_count() {
    check(Profile::Standard, &[(14, 1.0), (50, 1.0)], 1.0, 100.0);
    check(Profile::Standard, &[(15, 1.0), (50, 1.0)], 1.0, 94.5);
}

#[test]
fn the_best_threshold_takes_equal_scores_together() {
    let (series, scores) = file(&[(50, 0.5), (20, 0.5), (70, 0.4)]);
    let sweep = Sweep::new([(&series, &scores[..])]);
    let best = sweep.best(Profile::Standard, |_| true);
    assert_eq!((best.threshold, best.false_positives), (0.5, 1));
    assert_eq!((best.detected, best.windows), (1, 1));
    assert!((best.score() - 94.5).abs() < 1e-9);
}

#[test]
fn one_threshold_serves_all_files() {
    let ((a, a_scores), (b, b_scores)) = (file(&[(50, 0.9)]), file(&[(50, 0.1), (20, 0.8)]));
    let sweep = Sweep::new([(&a, &a_scores[..]), (&b, &b_scores[..])]);
    // The other file's window costs one false alarm: worth it.
    let best = sweep.best(Profile::Standard, |_| true);
    assert_eq!(best.threshold, 0.1);
    assert!((best.score() - 97.25).abs() < 1e-9, "{}", best.score());
    assert_eq!(
        sweep.best(Profile::Standard, |file| file == 0).score(),
        100.0
    );
}
