//! One incident from the first window to its end, as an analyzer lives it: the
//! run queue rises tenfold under contention, requests follow, the disk is calm.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use honeyguide_models::attribution::{Cause, Reason, Subject, attribute};
use honeyguide_models::breach::{Objective, Paths, ValidObjective, breach};
use honeyguide_models::{
    Driver, DriverId, Params, Role, SeriesInput, SeriesModel, Target, ValidParams, Window,
};

const RUNQ: DriverId = DriverId(0);
const BLKIO: DriverId = DriverId(1);
const REQUEST: DriverId = DriverId(7);
/// p99 of the run queue when all is calm.
const CALM_SECS: f64 = 120e-6;

/// When the contention starts and ends, in windows.
#[derive(Clone, Copy, Debug)]
struct Contention {
    start: usize,
    end: usize,
}

/// Windows around a p99, `rise` (in ln) higher while contention lasts.
fn series(
    seed: u64,
    p99_secs: f64,
    rise: f64,
    contention: Contention,
    windows: usize,
) -> Vec<Window> {
    let mut state = seed;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(seed | 1);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..windows)
        .map(|i| {
            // Twelve uniforms are nearly normal.
            let noise = 0.2 * ((0..12).map(|_| uniform()).sum::<f64>() - 6.0);
            let during = (contention.start..contention.end).contains(&i);
            let p99 = p99_secs.ln() + noise + if during { rise } else { 0.0 };
            let y = [p99 - 1.8, p99 - 1.0, p99, p99 + 1.0, 6.0 + 0.02 * noise];
            Window {
                y: y.map(|v| v as f32),
                samples: 4000.0,
                completeness: 1.0,
            }
        })
        .collect()
}

struct Story {
    params: ValidParams,
    paths: Paths,
    objective: ValidObjective,
    runq: Vec<Window>,
    request: Vec<Window>,
    disk: Vec<Window>,
    model: SeriesModel,
}

/// What an analyzer would show after one window.
struct Shown {
    anomaly_score: f32,
    probability: f64,
}

impl Story {
    fn new(contention: Contention) -> Self {
        let params = Params::default().validate().unwrap();
        let windows = contention.end + 120;
        let objective = Objective {
            target: Target::P99,
            threshold: 5.0 * CALM_SECS,
            horizon_secs: 900,
            windows: 2,
            budget_events: None,
        };
        Story {
            params,
            paths: Paths::new(&params),
            objective: objective.validate().unwrap(),
            runq: series(3, CALM_SECS, 10f64.ln(), contention, windows),
            request: series(5, 4e-3, 1.5, contention, windows),
            disk: series(9, 1e-3, 0.0, contention, windows),
            model: SeriesModel::new(),
        }
    }

    fn see(&mut self, i: usize) -> Shown {
        let drivers = self.drivers(i, [REQUEST, BLKIO]);
        let input = SeriesInput {
            step: 500 + i as u64,
            own: &self.runq[..=i],
            drivers: &drivers,
        };
        let forecast = self.model.refresh(&self.params, input);
        if self.model.refit_due(&self.params) {
            self.model.refit(&self.params, input);
        }
        Shown {
            anomaly_score: forecast.anomaly_score,
            probability: breach(
                &forecast,
                &self.objective,
                &self.paths,
                self.objective.above(&self.runq[..=i]),
            )
            .probability,
        }
    }

    fn drivers(&self, i: usize, ids: [DriverId; 2]) -> [Driver<'static, [Window]>; 2] {
        // Leaked, so that a story can lend its windows while its model learns.
        ids.map(|id| {
            let (role, history) = match id {
                RUNQ => (Role::Saturation, &self.runq),
                BLKIO => (Role::Saturation, &self.disk),
                _ => (Role::Work, &self.request),
            };
            Driver {
                id,
                role,
                history: history[..=i].to_vec().leak(),
            }
        })
    }

    fn why(&self, own: DriverId, i: usize) -> Vec<Reason> {
        let (role, history, others) = match own {
            RUNQ => (Role::Saturation, &self.runq, [REQUEST, BLKIO]),
            _ => (Role::Work, &self.request, [RUNQ, BLKIO]),
        };
        let drivers = self.drivers(i, others);
        let input = SeriesInput {
            step: 500 + i as u64,
            own: &history[..=i],
            drivers: &drivers,
        };
        attribute(
            &self.params,
            Subject {
                role,
                target: Target::P99,
            },
            input,
        )
    }
}

/// From a few minutes to three hours of calm before, three minutes to half an
/// hour of contention.
const CONTENTIONS: [Contention; 4] = [
    Contention { start: 12, end: 30 },
    Contention { start: 30, end: 54 },
    Contention {
        start: 360,
        end: 390,
    },
    Contention {
        start: 1080,
        end: 1260,
    },
];

#[test]
fn the_risk_is_low_before_certain_during_and_falls_after() {
    for contention in CONTENTIONS {
        let (mut story, Contention { start, end }) = (Story::new(contention), contention);
        let shown: Vec<Shown> = (0..story.runq.len()).map(|i| story.see(i)).collect();
        let p = |i: usize| shown[i].probability;
        // After a few minutes nothing is known of how calm it usually is.
        let calm = if start < 60 { 0.2 } else { 0.05 };
        assert!(
            p(start - 1) < calm,
            "{contention:?}: {} before",
            p(start - 1)
        );
        // Two windows in a row are a breach.
        assert_eq!(p(start + 1), 1.0, "{contention:?}");
        for i in start + 2..end {
            assert!(p(i) > 0.7, "{contention:?}: {} at {i}", p(i));
        }
        // Where half of what was ever seen is an incident, another one is likely.
        let calm = 0.3;
        assert!(p(end + 90) < calm, "{contention:?}: {} after", p(end + 90));
    }
}

#[test]
fn the_anomaly_is_seen_at_once_and_gone_within_minutes() {
    for contention in &CONTENTIONS[1..] {
        let (mut story, Contention { start, end }) = (Story::new(*contention), *contention);
        let scores: Vec<f32> = (0..story.runq.len())
            .map(|i| story.see(i).anomaly_score)
            .collect();
        assert!(
            scores[..start].iter().all(|score| *score < 1.0),
            "{contention:?}"
        );
        let during = &scores[start..end.min(start + 60)];
        assert!(
            during[0] > 1.0 || during[1] > 1.0,
            "{contention:?}: {during:?}"
        );
        let anomalous = during.iter().filter(|score| **score > 1.0).count();
        assert!(
            anomalous * 10 >= during.len() * 7,
            "{contention:?}: {during:?}"
        );
        assert!(
            scores[end + 12..].iter().all(|score| *score < 1.0),
            "{contention:?}"
        );
    }
}

#[test]
fn the_run_queue_is_the_first_reason_for_itself_and_for_requests() {
    for contention in CONTENTIONS {
        let story = Story::new(contention);
        for i in [contention.start + 3, contention.end - 1] {
            let own = story.why(RUNQ, i)[0];
            assert_eq!(own.cause, Cause::Own, "{contention:?} at {i}: {own:?}");
            let request = story.why(REQUEST, i)[0];
            assert_eq!(
                request.cause,
                Cause::Driver(RUNQ),
                "{contention:?} at {i}: {request:?}"
            );
            assert!((6.0..16.0).contains(&request.ratio_to_usual), "{request:?}");
        }
    }
}
