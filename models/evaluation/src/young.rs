//! Do the first intervals of a series hold, alone and with what similar series lend?
//!
//! Definition. Of each set of at least four series of one step, every series in turn
//! is new: models begin at twelve places of its second half, and are asked for forecasts
//! of its next 480 values, one origin after the other. The other series of the set have
//! been seen until their middle, by models of their own, which is all that
//! [`Groups::fit`] gets. Values are taken for p99 in model space, ln(1 + value). *Within*
//! is the share of values in the 80 % interval; *loss* is the pinball loss at the
//! forecast's ten levels relative to that of the model alone, a geometric mean over sets.

use std::path::Path;

use honeyguide_models::{
    Context, Params, QUANTILE_LEVELS, SeriesInput, SeriesModel, TARGETS, Target, ValidParams,
    Window, similar::Groups,
};

use crate::{
    bizitobs::Dataset,
    error::Error,
    monitoring,
    report::{Outcome, row},
    score::geometric_mean,
    table::{self, Series},
};

/// Series that a set must have.
const SERIES_MIN: usize = 4;
/// Longest step that has horizons of its own, in seconds.
const STEP_SECS_MAX: u32 = 300;
/// Places at which models begin.
const BEGINS: usize = 12;
/// Windows that a new model has seen, by row of the table.
const AGES: [(usize, usize); 4] = [(1, 12), (13, 60), (61, 240), (241, 480)];
/// Positions of the horizons that are judged: 1, 15 and 60 minutes.
const HORIZONS: [usize; 3] = [0, 2, 4];
/// Windows that an analyzer keeps for a refit, about.
const KEPT: usize = 4096;
/// As good as unlimited.
const SAMPLES: f32 = 1e6;

/// What came of the forecasts at one horizon.
#[derive(Clone, Copy, Debug, Default)]
struct Judged {
    all: f64,
    within: f64,
    loss: f64,
}

impl Judged {
    fn within(&self) -> f64 {
        self.within / self.all
    }
}

/// By age and horizon.
type Tally = [[Judged; HORIZONS.len()]; AGES.len()];

/// Evaluates the sets of a data folder that are there, and adds a table.
///
/// # Errors
/// The data cannot be read.
pub fn evaluate(
    folder: &Path,
    outcome: &mut Outcome,
    mut progress: impl FnMut(&str),
) -> Result<(), Error> {
    let mut of_sets = Vec::new();
    for (name, step_secs, series) in load(folder)? {
        progress(&name);
        let params = Params::for_step(step_secs);
        if let (Ok(params), true) = (params.validate(), series.len() >= SERIES_MIN) {
            of_sets.push((name, judge(&params, &series)));
        }
    }
    if !of_sets.is_empty() {
        tell(outcome, &of_sets);
    }
    Ok(())
}

type Set = (String, u32, Vec<Series>);

fn load(folder: &Path) -> Result<Vec<Set>, Error> {
    let mut sets = Vec::new();
    let l2c = Dataset::FiveMinutes;
    let business = l2c.load(&folder.join("bizitobs"))?;
    sets.push((l2c.name().to_owned(), l2c.step_secs(), business));
    if folder.join("ms-cloud").is_dir() {
        let all = monitoring::load(&folder.join("ms-cloud"))?;
        let all = all.into_iter().filter(|set| set.step_secs <= STEP_SECS_MAX);
        sets.extend(all.map(|set| (set.name, set.step_secs, set.series)));
    }
    let aws = "realAWSCloudwatch";
    let path = folder.join("nab/data").join(aws);
    if path.is_dir() {
        let mut series = Vec::new();
        for path in table::files(&path, "csv")? {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let values = table::columns(&path, &["value"])?.swap_remove(0);
            series.push(Series::new(name, values));
        }
        sets.push((aws.to_owned(), 300, series));
    }
    Ok(sets)
}

fn window(value: &f64) -> Window {
    let mut y = [value.ln_1p() as f32; TARGETS];
    if value.is_nan() || *value < 0.0 {
        return Window::MISSING;
    }
    // A load that tells nothing.
    y[Target::Rate.index()] = 5.0;
    Window {
        y,
        samples: SAMPLES,
        completeness: 1.0,
    }
}

/// Alone, and with what others lend.
fn judge(params: &ValidParams, series: &[Series]) -> [Tally; 2] {
    let all: Vec<Vec<Window>> = series
        .iter()
        .map(|series| series.values.iter().map(window).collect())
        .collect();
    let known: Vec<SeriesModel> = all
        .iter()
        .map(|windows| {
            let mut model = SeriesModel::new();
            let windows = &windows[..windows.len() / 2];
            walk(params, &mut model, windows, &Groups::default(), |_, _| {});
            model
        })
        .collect();
    let mut tallies = [Tally::default(); 2];
    for (new, windows) in all.iter().enumerate() {
        let others = known.iter().enumerate().filter(|(at, _)| *at != new);
        let groups = [
            Groups::default(),
            Groups::fit(others.map(|(_, model)| (CLASS, model))),
        ];
        let half = windows.len() / 2;
        for begin in (half..windows.len()).step_by((half / BEGINS).max(1)) {
            let windows = &windows[begin..];
            for (tally, groups) in tallies.iter_mut().zip(&groups) {
                let seen = &windows[..windows.len().min(AGES[AGES.len() - 1].1)];
                walk(
                    params,
                    &mut SeriesModel::new(),
                    seen,
                    groups,
                    |age, forecast| {
                        add(params, tally, (age, windows), forecast);
                    },
                );
            }
        }
    }
    tallies
}

/// All series of a set are alike.
const CLASS: u32 = 0;

fn walk(
    params: &ValidParams,
    model: &mut SeriesModel,
    windows: &[Window],
    groups: &Groups,
    mut see: impl FnMut(usize, &honeyguide_models::Forecast),
) {
    for age in 1..=windows.len() {
        let input = SeriesInput {
            step: age as u64,
            own: &windows[age.saturating_sub(KEPT)..age],
            drivers: &[],
        };
        let context = Context {
            similar: groups.of(CLASS, model),
            ..Context::default()
        };
        see(age, &model.refresh_in(params, input, context));
        if model.refit_due(params) {
            model.refit(params, input);
        }
    }
}

fn add(
    params: &ValidParams,
    tally: &mut Tally,
    (age, windows): (usize, &[Window]),
    forecast: &honeyguide_models::Forecast,
) {
    let Some(of_age) = AGES
        .iter()
        .position(|(from, to)| (*from..=*to).contains(&age))
    else {
        return;
    };
    for (judged, h) in tally[of_age].iter_mut().zip(HORIZONS) {
        let at = age - 1 + params.horizon_windows()[h];
        let came = windows.get(at).and_then(|window| window.value(Target::P99));
        let Some((y, quantiles)) = came.zip(forecast.quantiles[h][Target::P99.index()]) else {
            continue;
        };
        judged.all += 1.0;
        let quantiles = quantiles.map(f64::from);
        let low = quantiles[position(0.1)] - ROUNDING;
        judged.within += f64::from(u8::from(
            (low..=quantiles[position(0.9)] + ROUNDING).contains(&y),
        ));
        for (level, quantile) in QUANTILE_LEVELS.into_iter().zip(quantiles) {
            let above = y - quantile;
            judged.loss += (above * level).max(above * (level - 1.0));
        }
    }
}

/// Quantiles are in single precision.
const ROUNDING: f64 = 1e-5;

fn position(level: f64) -> usize {
    let mut levels = QUANTILE_LEVELS.iter();
    levels.position(|one| *one >= level).unwrap_or(0)
}

fn tell(outcome: &mut Outcome, of_sets: &[(String, [Tally; 2])]) {
    outcome.line("\n## First intervals, alone and with what similar series lend\n");
    outcome.line("| windows seen | horizon | within 80 %, alone | lent | loss, lent over alone |");
    outcome.line("|---|---|---|---|---|");
    for (age, (from, to)) in AGES.into_iter().enumerate() {
        for (h, minutes) in [1, 15, 60].into_iter().enumerate() {
            let of = |variant: usize| of_sets.iter().map(move |(_, t)| t[variant][age][h]);
            let mean = |variant: usize| {
                of(variant).map(|judged| judged.within()).sum::<f64>() / of_sets.len() as f64
            };
            let losses = of(1).zip(of(0)).map(|(lent, alone)| lent.loss / alone.loss);
            outcome.line(row([
                format!("{from} to {to}"),
                format!("{minutes} min"),
                format!("{:.3}", mean(0)),
                format!("{:.3}", mean(1)),
                format!("{:.3}", geometric_mean(losses)),
            ]));
        }
    }
    let names: Vec<&str> = of_sets.iter().map(|(name, _)| name.as_str()).collect();
    outcome.line(format!("\nMeans over sets: {}.", names.join(", ")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::SplitMix64;

    #[test]
    fn series_of_a_kind_begin_with_intervals_that_hold() {
        let mut random = SplitMix64(3);
        let mut normal = || (0..12).map(|_| random.uniform()).sum::<f64>() - 6.0;
        let mut noise = |name: &str| {
            let values = (0..1200).map(|_| (3.0 + 0.05 * normal()).exp());
            Series::new(name, values.collect())
        };
        let series = ["a", "b", "c", "d", "e"].map(&mut noise);
        let params = Params::default().validate();
        let [alone, lent] = judge(&params.expect("defaults are valid"), &series);
        // An hour ahead, those that lend have seen too little themselves.
        for h in 0..2 {
            assert!(alone[0][h].within() > 0.95, "{:?}", alone[0][h]);
            assert!(
                (0.7..0.93).contains(&lent[0][h].within()),
                "{:?}",
                lent[0][h]
            );
            assert!(lent[0][h].loss < 0.9 * alone[0][h].loss);
        }
        // What a series has seen itself is what counts in the end.
        let [alone, lent] = [alone, lent].map(|tally| tally[AGES.len() - 1][0].loss);
        assert!((lent / alone - 1.0).abs() < 0.02, "{lent} {alone}");
    }
}
