use super::*;
use crate::series::Window;
use crate::testing::{Noise, window_of};
use crate::{Driver, Params};

const WORK: Subject = Subject {
    role: Role::Work,
    target: Target::P99,
};
const SATURATION: Subject = Subject {
    role: Role::Saturation,
    target: Target::P99,
};

/// Noise around a level that rises by `rise` (in ln) at window `from`.
fn series(seed: u64, n: usize, from: usize, rise: f64) -> Vec<Window> {
    let mut noise = Noise::new(seed);
    let rise = |i: usize| if i >= from { rise } else { 0.0 };
    (0..n)
        .map(|i| {
            let mut window = window_of(0.1 * noise.normal() + rise(i));
            window.y[Target::Rate.index()] = 4.0 + 0.05 * noise.normal() as f32;
            window
        })
        .collect()
}

fn explain(subject: Subject, own: &[Window], others: &[(u32, Role, &Vec<Window>)]) -> Vec<Reason> {
    let drivers: Vec<Driver<'_, [Window]>> = others
        .iter()
        .map(|(id, role, history)| Driver {
            id: DriverId(*id),
            role: *role,
            history: &history[..],
        })
        .collect();
    let params = Params::default().validate().unwrap();
    attribute(
        &params,
        subject,
        SeriesInput {
            step: 77,
            own,
            drivers: &drivers,
        },
    )
}

/// The run queue tenfold, requests and everything in them follow.
#[test]
fn the_run_queue_comes_first_when_it_rises_tenfold_and_requests_follow() {
    for (n, from) in [(700, 690), (700, 640), (60, 50), (20, 14)] {
        let request = series(1, n, from, 2.0);
        let runq = series(2, n, from, 10f64.ln());
        let (disk, service, connect) = (
            series(3, n, n, 0.0),
            series(4, n, from, 2.1),
            series(5, n, from, 0.3),
        );
        let reasons = explain(
            WORK,
            &request,
            &[
                (9, Role::Work, &service),
                (1, Role::Saturation, &disk),
                (0, Role::Saturation, &runq),
                (3, Role::Work, &connect),
            ],
        );
        assert_eq!(
            reasons[0].cause,
            Cause::Driver(DriverId(0)),
            "{n}: {reasons:?}"
        );
        assert!(
            reasons[0].contribution > 0.3 && reasons[0].ratio_to_usual > 7.0,
            "{reasons:?}"
        );
    }
}

#[test]
fn a_saturation_is_its_own_first_reason() {
    for (n, from) in [(700, 690), (20, 14)] {
        let runq = series(1, n, from, 10f64.ln());
        let (request, disk) = (series(2, n, from, 2.5), series(3, n, from, 2.5));
        let others = [(7, Role::Work, &request), (1, Role::Saturation, &disk)];
        let reasons = explain(SATURATION, &runq, &others);
        assert_eq!(reasons[0].cause, Cause::Own, "{n}: {reasons:?}");
    }
}

#[test]
fn work_that_nothing_explains_is_its_own_reason() {
    let request = series(1, 400, 380, 1.5);
    let disk = series(2, 400, 999, 0.0);
    let reasons = explain(WORK, &request, &[(1, Role::Saturation, &disk)]);
    assert_eq!(reasons[0].cause, Cause::Own);
    assert!(reasons[0].contribution > 0.8, "{reasons:?}");
}

#[test]
fn load_explains_what_follows_it() {
    let mut request = series(1, 500, 470, 1.0);
    for window in &mut request[464..] {
        window.y[Target::Rate.index()] += 1.1;
    }
    let reasons = explain(WORK, &request, &[]);
    assert_eq!(reasons[0].cause, Cause::Load, "{reasons:?}");
    assert!((reasons[0].lead_secs - 60.0).abs() < 31.0, "{reasons:?}");
}

/// A driver that has moved while the series has not yet: the reason to worry.
#[test]
fn a_leading_driver_is_named_before_the_series_moves() {
    let n = 700;
    let pulse = |lag: usize| -> Vec<Window> {
        let mut noise = Noise::new(lag as u64 + 1);
        let high = |i: usize| {
            [(200, 230), (400, 430), (690, 760)]
                .iter()
                .any(|(a, b)| (a + lag..b + lag).contains(&i))
        };
        (0..n)
            .map(|i| window_of(0.05 * noise.normal() + if high(i) { 1.5 } else { 0.0 }))
            .collect()
    };
    let (mut request, runq) = (pulse(12), pulse(0));
    request
        .iter_mut()
        .for_each(|window| window.y[Target::Rate.index()] = 4.0);
    let reasons = explain(WORK, &request, &[(0, Role::Saturation, &runq)]);
    assert_eq!(reasons[0].cause, Cause::Driver(DriverId(0)), "{reasons:?}");
    assert_eq!(reasons[0].lead_secs, 120.0);
}

#[test]
fn shares_are_signed_and_sum_to_one() {
    let request = series(1, 600, 560, 1.0);
    let (up, down) = (series(2, 600, 560, 1.0), series(3, 600, 560, -1.0));
    let reasons = explain(
        WORK,
        &request,
        &[(1, Role::Saturation, &up), (2, Role::Saturation, &down)],
    );
    let sum: f64 = reasons.iter().map(|reason| reason.contribution.abs()).sum();
    assert!((0.9..=1.0 + 1e-9).contains(&sum), "{reasons:?}");
    assert!(reasons[0].contribution > 0.0);
    // What falls while the series rises explains nothing.
    assert!(
        reasons
            .iter()
            .all(|reason| reason.cause != Cause::Driver(DriverId(2)))
    );
}

#[test]
fn equal_drivers_rank_by_id() {
    let (request, twin) = (series(1, 300, 280, 1.0), series(2, 300, 280, 1.0));
    let reasons = explain(
        WORK,
        &request,
        &[(8, Role::Saturation, &twin), (3, Role::Saturation, &twin)],
    );
    let order: Vec<Cause> = reasons.iter().map(|reason| reason.cause).take(2).collect();
    assert_eq!(
        order,
        [Cause::Driver(DriverId(3)), Cause::Driver(DriverId(8))]
    );
}

#[test]
fn nothing_observed_or_moved_has_no_reason() {
    let missing = vec![Window::MISSING; 100];
    let constant = vec![window_of(0.0); 100];
    assert!(explain(WORK, &[], &[]).is_empty());
    assert!(explain(WORK, &missing, &[(1, Role::Work, &constant)]).is_empty());
    assert!(explain(WORK, &constant, &[(1, Role::Work, &missing)]).is_empty());
    assert!(explain(WORK, &constant[..2], &[]).is_empty());
}

/// Contention after half a minute of calm, in a series whose first windows were busy.
#[test]
fn the_first_windows_of_a_young_series_are_not_what_is_usual() {
    let (n, from) = (24, 18);
    let mut runq = series(1, n, from, 3.0);
    for window in &mut runq[..7] {
        window.y[Target::Rate.index()] += 1.0;
        window.y[Target::P99.index()] += 1.0;
    }
    let reasons = explain(SATURATION, &runq, &[]);
    assert_eq!(reasons[0].cause, Cause::Own, "{reasons:?}");
    assert!(reasons[0].ratio_to_usual > 12.0, "{reasons:?}");
    let load = reasons.iter().find(|reason| reason.cause == Cause::Load);
    assert!(
        load.is_none_or(|load| load.contribution.abs() < 0.1),
        "{reasons:?}"
    );
}

#[test]
fn what_pushes_against_the_rest_comes_last() {
    let mut contributions = [0.1, -0.5, 0.4, -0.05, 0.3, 0.1];
    rank_by(&mut contributions, |contribution| *contribution);
    assert_eq!(contributions, [0.4, 0.3, 0.1, 0.1, -0.5, -0.05]);
    let mut falling = [0.2, -0.3, -0.4];
    rank_by(&mut falling, |contribution| *contribution);
    assert_eq!(falling, [-0.4, -0.3, 0.2]);
}
