//! probe
use honeyguide_models::attribution::*;
use honeyguide_models::breach::*;
use honeyguide_models::*;

fn series(seed: u64, base_ms: f64, sd: f64, n: usize, rise: (usize, usize, f64)) -> Vec<Window> {
    let mut st = seed * 77 + 1;
    (0..n)
        .map(|i| {
            let mut z = 0.0;
            for _ in 0..12 {
                st = (st as u64)
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                z += (st >> 11) as f64 / (1u64 << 53) as f64;
            }
            let mut l = (base_ms * 1e-3).ln() + sd * (z - 6.0);
            if i >= rise.0 && i < rise.1 {
                l += rise.2;
            }
            Window {
                y: [l, l + 0.8, l + 1.8, l + 2.8, 6.0].map(|v| v as f32),
                samples: 4000.0,
                completeness: 1.0,
            }
        })
        .collect()
}
#[test]
fn story() {
    let params = Params::default().validate().unwrap();
    let paths = Paths::new(&params);
    for (start, len) in [(6, 12), (12, 18), (30, 18), (360, 30), (1000, 400)] {
        let end = start + len;
        let n = end + 60;
        let runq = series(1, 0.02, 0.25, n, (start, end, 10f64.ln()));
        let req = series(2, 1.0, 0.15, n, (start, end, 1.5));
        let disk = series(3, 0.3, 0.3, n, (0, 0, 0.0));
        let mut m = SeriesModel::new();
        let p99 = f64::from(runq[0].y[2]).exp();
        let obj = Objective {
            target: Target::P99,
            threshold: p99 * 5.0,
            horizon_secs: 900,
            budget_events: None,
        }
        .validate()
        .unwrap();
        print!("start {start}: ");
        let mut first_ok = None;
        for i in 0..n {
            let d = [
                Driver {
                    id: DriverId(11),
                    role: Role::Work,
                    history: &req[..=i],
                },
                Driver {
                    id: DriverId(1),
                    role: Role::Saturation,
                    history: &disk[..=i],
                },
            ];
            let input = SeriesInput {
                step: 500 + i as u64,
                own: &runq[..=i],
                drivers: &d,
            };
            let f = m.refresh(&params, input);
            if m.refit_due(&params) {
                m.refit(&params, input);
            }
            let b = breach(&f, &obj, &paths);
            if i + 1 == start
                || i == start
                || i == start + 1
                || i == start + 5
                || i + 1 == end
                || i == end
                || i == end + 6
                || i == end + 18
                || i + 1 == n
            {
                print!(
                    "| {} a {:.2} p {:.2} ",
                    i as i64 - start as i64,
                    f.anomaly_score,
                    b.probability
                );
            }
            if i > start + 3 && i < end && f.anomaly_score < 1.0 && first_ok.is_none() {
                first_ok = Some(i - start);
            }
            if i == start + 3 {
                let r = attribute(
                    &params,
                    Subject {
                        role: Role::Saturation,
                        target: Target::P99,
                    },
                    input,
                );
                print!(
                    " {:?} {:.2} x{:.1} ",
                    r[0].cause, r[0].contribution, r[0].ratio_to_usual
                );
                let d = [
                    Driver {
                        id: DriverId(0),
                        role: Role::Saturation,
                        history: &runq[..=i],
                    },
                    Driver {
                        id: DriverId(1),
                        role: Role::Saturation,
                        history: &disk[..=i],
                    },
                ];
                let r = attribute(
                    &params,
                    Subject {
                        role: Role::Work,
                        target: Target::P99,
                    },
                    SeriesInput {
                        step: 1,
                        own: &req[..=i],
                        drivers: &d,
                    },
                );
                print!(
                    " {:?} {:.2} x{:.1} ",
                    r[0].cause, r[0].contribution, r[0].ratio_to_usual
                );
            }
        }
        println!(" below 1 again after {first_ok:?}");
    }
}
