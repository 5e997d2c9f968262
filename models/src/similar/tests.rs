use super::*;
use crate::testing::{Noise, window_of};
use crate::{Context, Interval, Params, SeriesInput, ValidParams, Window};

const CLASS: u32 = 7;

fn params() -> ValidParams {
    Params::default().validate().unwrap()
}

fn noisy(windows: usize, sd: f64, seed: u64) -> Vec<Window> {
    let mut noise = Noise::new(seed);
    (0..windows)
        .map(|_| window_of(sd * noise.normal()))
        .collect()
}

/// A model that has seen all windows.
fn grown(windows: &[Window], groups: &Groups) -> SeriesModel {
    let (params, mut model) = (params(), SeriesModel::new());
    for i in 0..windows.len() {
        refresh(&params, &mut model, &windows[..=i], groups);
    }
    model
}

fn refresh(
    params: &ValidParams,
    model: &mut SeriesModel,
    own: &[Window],
    groups: &Groups,
) -> crate::Forecast {
    let input = SeriesInput {
        step: own.len() as u64,
        own,
        drivers: &[],
    };
    let context = Context {
        similar: groups.of(CLASS, model),
        ..Context::default()
    };
    model.refresh_in(params, input, context)
}

fn of_noise(sds: &[f64]) -> Vec<SeriesModel> {
    let seeds = sds.iter().zip(1..);
    seeds
        .map(|(sd, seed)| grown(&noisy(500, *sd, seed), &Groups::default()))
        .collect()
}

fn fit(models: &[SeriesModel]) -> Groups {
    Groups::fit(models.iter().map(|model| (CLASS, model)))
}

/// Of an interval in model space.
fn width(interval: &Interval) -> f64 {
    f64::from(interval.upper_80 / interval.lower_80).ln()
}

/// k-means runs on as many threads as there are.
#[test]
fn the_number_of_threads_is_of_no_matter() {
    let models = of_noise(&[0.05, 0.06, 0.07, 0.3, 0.35, 0.4, 0.05, 0.3]);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| fit(&models))
    };
    let one = on(1);
    assert!(!one.is_empty());
    for threads in [2, 7] {
        assert_eq!(on(threads), one, "{threads}");
    }
}

#[test]
fn a_new_series_begins_as_wide_as_those_of_its_kind_are() {
    let (params, windows) = (params(), noisy(500, 0.05, 99));
    let groups = fit(&of_noise(&[0.05; 6]));
    assert_eq!(groups.len(), 1);
    let begin = |groups: &Groups| {
        let forecast = refresh(&params, &mut SeriesModel::new(), &windows[..1], groups);
        [0, 4].map(|h| width(forecast.point(h, Target::P99).unwrap()))
    };
    let mut model = grown(&windows[..499], &Groups::default());
    let forecast = refresh(&params, &mut model, &windows, &Groups::default());
    let usual = [0, 4].map(|h| width(forecast.point(h, Target::P99).unwrap()));
    for (h, (alone, lent)) in begin(&Groups::default())
        .into_iter()
        .zip(begin(&groups))
        .enumerate()
    {
        assert!(alone > 3.0 * usual[h], "{h}: {alone} {usual:?}");
        assert!(
            (0.6..2.0).contains(&(lent / usual[h])),
            "{h}: {lent} {usual:?}"
        );
    }
}

/// Its very first intervals hold, though the prior would be five times as wide.
#[test]
fn first_intervals_hold_what_they_say() {
    let params = params();
    let groups = fit(&of_noise(&[0.04, 0.05, 0.06, 0.05, 0.04, 0.06]));
    let (mut within, mut all) = (0.0, 0.0);
    for seed in 100..160 {
        let windows = noisy(20, 0.05, seed);
        let mut model = SeriesModel::new();
        for i in 0..12 {
            let forecast = refresh(&params, &mut model, &windows[..=i], &groups);
            let point = forecast.point(0, Target::P99).unwrap();
            let came = windows[i + 6].y[Target::P99.index()].exp();
            all += 1.0;
            within += f64::from(u8::from((point.lower_80..=point.upper_80).contains(&came)));
        }
    }
    let share = within / all;
    assert!((0.74..0.92).contains(&share), "{share}");
}

#[test]
fn what_a_series_sees_itself_replaces_what_it_was_lent() {
    let params = params();
    let groups = fit(&of_noise(&[0.05; 6]));
    let windows = noisy(600, 0.4, 5);
    let width_of = |groups: &Groups| {
        let mut model = grown(&windows[..599], groups);
        let forecast = refresh(&params, &mut model, &windows, groups);
        width(forecast.point(0, Target::P99).unwrap())
    };
    let (alone, lent) = (width_of(&Groups::default()), width_of(&groups));
    assert!((lent / alone - 1.0).abs() < 0.1, "{lent} {alone}");
}

#[test]
fn the_calm_and_the_restless_are_no_group() {
    let sds: Vec<f64> = (0..24)
        .map(|i| if i % 2 == 0 { 0.02 } else { 0.6 })
        .collect();
    let groups = fit(&of_noise(&sds));
    assert!(groups.len() >= 2, "{}", groups.len());
    let change = |sd: f64| {
        let young = grown(&noisy(20, sd, 77), &Groups::default());
        groups
            .of(CLASS, &young)
            .unwrap()
            .change(Target::P99.index())
            .unwrap()
    };
    assert!(
        change(0.6) > 10.0 * change(0.02),
        "{} {}",
        change(0.6),
        change(0.02)
    );
}

#[test]
fn the_order_of_series_is_of_no_matter() {
    let mut models = of_noise(&[0.1, 0.05, 0.2, 0.02, 0.4]);
    let groups = fit(&models);
    models.reverse();
    assert_eq!(fit(&models), groups);
}

#[test]
fn few_or_young_series_are_no_group() {
    assert!(fit(&of_noise(&[0.1; 2])).is_empty());
    let young = grown(&noisy(100, 0.1, 3), &Groups::default());
    let young = [young.clone(), young.clone(), young];
    assert!(fit(&young).is_empty());
    let silent = vec![SeriesModel::new(); 5];
    assert!(fit(&silent).is_empty());
}

#[test]
fn of_another_class_nothing_is_lent() {
    let models = of_noise(&[0.1; 4]);
    let mixed = Groups::fit([0, 0, 1, 1].into_iter().zip(&models));
    assert!(mixed.is_empty());
}

#[test]
fn groups_survive_storage() {
    let groups = fit(&of_noise(&[0.1; 4]));
    let stored = serde_json::to_string(&groups).unwrap();
    assert_eq!(serde_json::from_str::<Groups>(&stored).unwrap(), groups);
}

#[test]
fn of_many_series_some_are_enough() {
    let few = of_noise(&[0.02, 0.05, 0.1, 0.2, 0.4, 0.8]);
    let many = few.iter().cycle().take(6000);
    let groups = Groups::fit(many.map(|model| (CLASS, model)));
    assert_eq!(groups.len(), GROUPS_MAX);
}
