use super::*;
use crate::testing::Noise;

#[test]
fn a_drift_leaves_the_near_ends_where_they_hold() {
    for (level, rising, falling) in [
        (0.025, 0.0, -2.0),
        (0.1, 0.0, -2.0),
        (0.3, 1.0, -2.0),
        (0.5, 2.0, -2.0),
        (0.9, 2.0, 0.0),
        (0.975, 2.0, 0.0),
    ] {
        assert!(
            (share_of_drift(2.0, level) - rising).abs() < 1e-12,
            "{level}"
        );
        assert!(
            (share_of_drift(-2.0, level) - falling).abs() < 1e-12,
            "{level}"
        );
    }
}

#[test]
fn followed_forecasts_meet_every_phase_of_a_season() {
    for steps in 1..=HORIZON {
        let ahead = Ahead::new(steps);
        assert!(ahead.every == 1 || [2, 3, 5].iter().all(|d| !ahead.every.is_multiple_of(*d)));
        assert!(
            (steps as u64 / ahead.every) < IN_FLIGHT as u64 + 1,
            "{ahead:?}"
        );
    }
}

const HORIZON: usize = 4096;

#[test]
fn distances_are_kept_to_four_percent() {
    for scales in [0.0, 0.1, -0.5, 3.0, -20.0, 90.0] {
        let kept = Distance::new(scales).get();
        assert!(
            (kept - scales).abs() <= 0.022 * (1.0 + scales.abs()),
            "{scales} {kept}"
        );
    }
    assert!(Distance::new(f64::NAN).get().is_nan());
    assert!(Distance::new(1e300).get() > 90.0);
}

/// One expert that says 0 of a value that is `residual`, one step before.
fn learn(lead: &mut Lead, step: u64, residual: f64) -> Opinion {
    let ahead = Ahead::new(1);
    let mut says = [f64::NAN; EXPERTS];
    says[0] = 0.0;
    let typical = typical([(ahead, &*lead, None)], 0.2).next().unwrap();
    let opinion = lead.opinion((&says, &[1.0; EXPERTS]), 0.0, typical, 0.2, 1.0);
    lead.follow((step, ahead), &says, &opinion, true);
    let outcome = Outcome {
        step: step + 1,
        value: residual,
        weight: 1.0,
        unit: 0.2,
        memory: 1440.0,
        stands_still: false,
    };
    lead.settle(ahead, &outcome, None);
    opinion
}

/// Residual laws the prior knows nothing of: skewed, heavy, and much larger
/// or smaller than announced.
#[test]
fn coverage_reaches_its_level_for_any_law_of_residuals() {
    type Law = fn(&mut Noise) -> f64;
    let laws: [(&str, Law); 4] = [
        ("normal", |n| n.normal()),
        ("skewed", |n| -n.uniform().ln() - 1.0),
        ("heavy", |n| n.normal() / n.uniform().max(0.05)),
        ("tiny", |n| 0.05 * n.normal()),
    ];
    for (name, law) in laws {
        let (mut noise, mut lead) = (Noise::new(17), Lead::default());
        let (mut inside_80, mut inside_95) = (0, 0);
        for step in 0..6000 {
            let residual = law(&mut noise);
            let ends = lead.offsets(Ahead::new(1), [0.025, 0.1, 0.9, 0.975], None);
            let opinion = learn(&mut lead, step, residual);
            if step >= 1000 {
                let r = (residual - opinion.median) / opinion.scale;
                inside_80 += u32::from((ends[1]..=ends[2]).contains(&r));
                inside_95 += u32::from((ends[0]..=ends[3]).contains(&r));
            }
        }
        let (c80, c95) = (f64::from(inside_80) / 5000.0, f64::from(inside_95) / 5000.0);
        assert!((0.77..=0.84).contains(&c80), "{name}: {c80}");
        assert!((0.935..=0.975).contains(&c95), "{name}: {c95}");
    }
}

#[test]
fn a_burst_of_misses_widens() {
    let (mut lead, mut step) = (Lead::default(), 0);
    let mut width = |lead: &mut Lead, residual: f64| {
        let [low, high] = lead.offsets(Ahead::new(1), [0.025, 0.975], None);
        step += 1;
        (high - low) * learn(lead, step, residual).scale
    };
    let calm = (0..500)
        .map(|i| width(&mut lead, if i % 2 == 0 { 0.1 } else { -0.1 }))
        .last();
    let burst = (0..20).map(|_| width(&mut lead, 3.0)).last();
    assert!(burst > calm.map(|calm| 1.5 * calm), "{burst:?} {calm:?}");
}

#[test]
fn quantiles_ascend() {
    let (mut noise, mut lead) = (Noise::new(8), Lead::default());
    for step in 0..2000 {
        let spread = if step % 300 < 20 { 30.0 } else { 0.3 };
        learn(&mut lead, step, spread * noise.normal());
        assert!(
            lead.offsets(Ahead::new(1), [0.025, 0.1, 0.5, 0.9, 0.975], None)
                .is_sorted()
        );
    }
}
