//! Do the intervals hold, on each day and inside faults?
//!
//! Definition. The forecaster walks through each series of BizITObs
//! (application and L2C, five minutes) and of the Microsoft cloud monitoring
//! set; at every step, a value counts as within if the 95 % interval that was
//! given for it one step (and 15, and 60 steps) before holds it. The first day
//! of a series is not counted: it has no day to learn from. *Over a day*: the
//! share of values within, of all series of a set (a folder) together on one day of
//! 24 h from the set's begin, days with fewer than 1,000 values left out; the
//! smallest and the largest of all sets and days. *In faults*: the share of
//! values labelled as faults (Microsoft) that are within.

use std::{collections::BTreeMap, ops::Add, path::Path};

use serde::Serialize;

use crate::{
    bizitobs::Dataset,
    error::Error,
    forecast::forecaster,
    monitoring,
    report::{Outcome, row},
    table::Series,
};

/// Steps ahead at which intervals are judged.
pub const LEADS: [usize; 3] = [1, 15, 60];
/// Ends of the 95 % interval.
const ENDS: [f64; 2] = [0.025, 0.975];
const DAY_SECS: u32 = 86_400;
/// Values that a day must have to be judged.
const DAY_VALUES_MIN: f64 = 1000.0;

/// How many, and how many within.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Count {
    within: f64,
    all: f64,
}

impl Add for Count {
    type Output = Count;

    fn add(self, other: Count) -> Count {
        Count {
            within: self.within + other.within,
            all: self.all + other.all,
        }
    }
}

impl Count {
    fn note(&mut self, within: bool) {
        self.within += f64::from(u8::from(within));
        self.all += 1.0;
    }

    /// NaN of none.
    pub fn share(&self) -> f64 {
        self.within / self.all
    }
}

/// What a set's intervals held, at one lead.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// All values.
    pub all: Count,
    /// Those in faults.
    pub faults: Count,
    days: BTreeMap<usize, Count>,
}

impl Coverage {
    /// Smallest and largest share of a day; NaN without a day of enough values.
    pub fn day_range(&self) -> [f64; 2] {
        let days = self.days.values();
        let days = days.filter(|day| day.all >= DAY_VALUES_MIN);
        days.map(Count::share)
            .fold([f64::NAN; 2], |[min, max], share| {
                [min.min(share), max.max(share)]
            })
    }
}

/// Coverage of one set by lead, without the first day.
pub fn of_set(step_secs: u32, series: &[Series]) -> [Coverage; LEADS.len()] {
    of_part(step_secs, series, (DAY_SECS / step_secs) as usize)
}

/// The same without the first `learned` steps.
pub(crate) fn of_part(
    step_secs: u32,
    series: &[Series],
    learned: usize,
) -> [Coverage; LEADS.len()] {
    let mut coverage: [Coverage; LEADS.len()] = Default::default();
    // Of days and longer, a step is one.
    let day = (DAY_SECS / step_secs).max(1) as usize;
    for series in series {
        let len = series.values.len();
        let mut ends: [Vec<Option<[f64; 2]>>; LEADS.len()] =
            std::array::from_fn(|_| vec![None; len]);
        let mut forecaster = forecaster(step_secs, LEADS[LEADS.len() - 1]);
        for (at, value) in series.values.iter().enumerate() {
            if at >= learned && !value.is_nan() {
                for (coverage, ends) in coverage.iter_mut().zip(&ends) {
                    let Some([low, high]) = ends[at] else {
                        continue;
                    };
                    let within = low <= *value && *value <= high;
                    coverage.all.note(within);
                    coverage.days.entry(at / day).or_default().note(within);
                    if series.faults.get(at) == Some(&true) {
                        coverage.faults.note(within);
                    }
                }
            }
            forecaster.observe(*value);
            for (lead, ends) in LEADS.iter().zip(&mut ends) {
                if at + lead < len {
                    ends[at + lead] = forecaster.at(*lead, ENDS);
                }
            }
        }
    }
    coverage
}

/// The header of the rows of [`tell`].
pub(crate) const HEADER: &str =
    "| set | steps ahead | values | all | worst day | best day | in faults |";

/// Adds a row for each lead.
pub(crate) fn tell(outcome: &mut Outcome, name: &str, of_leads: &[Coverage; LEADS.len()]) {
    let cell = |share: f64| {
        if share.is_nan() {
            String::new()
        } else {
            format!("{share:.3}")
        }
    };
    for (lead, coverage) in LEADS.iter().zip(of_leads) {
        let [min, max] = coverage.day_range();
        outcome.line(row([
            name.to_owned(),
            lead.to_string(),
            format!("{}", coverage.all.all),
            cell(coverage.all.share()),
            cell(min),
            cell(max),
            cell(coverage.faults.share()),
        ]));
    }
}

/// Evaluates all sets of a data folder and adds the figures.
///
/// # Errors
/// The data cannot be read.
pub fn evaluate(
    folder: &Path,
    outcome: &mut Outcome,
    mut progress: impl FnMut(&str),
) -> Result<(), Error> {
    let mut sets = Vec::new();
    for dataset in [Dataset::Application, Dataset::FiveMinutes] {
        let series = dataset.load(&folder.join("bizitobs"))?;
        sets.push((dataset.name().to_owned(), dataset.step_secs(), series));
    }
    for set in monitoring::load(&folder.join("ms-cloud"))? {
        sets.push((set.name, set.step_secs, set.series));
    }
    outcome.line("\n## Coverage of 95 % intervals\n");
    outcome.line(HEADER);
    outcome.line("|---|---|---|---|---|---|---|");
    let mut range = [f64::NAN; 2];
    let mut faults = Count::default();
    for (name, step_secs, series) in &sets {
        progress(name);
        let of_leads = of_set(*step_secs, series);
        tell(outcome, name, &of_leads);
        let [min, max] = of_leads[0].day_range();
        range = [range[0].min(min), range[1].max(max)];
        faults = faults + of_leads[0].faults;
    }
    outcome.metric("coverage95_day_min", range[0]);
    outcome.metric("coverage95_day_max", range[1]);
    outcome.metric("coverage95_in_faults", faults.share());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::SplitMix64;

    #[test]
    fn intervals_of_plain_noise_hold_every_day() {
        let mut random = SplitMix64(7);
        let mut normal = || (0..12).map(|_| random.uniform()).sum::<f64>() - 6.0;
        let mut series = Series::new("noise", (0..6000).map(|_| normal()).collect());
        series.faults = (0..6000).map(|i| i % 10 == 0).collect();
        for coverage in of_set(60, &[series]) {
            let [min, max] = coverage.day_range();
            assert!((0.92..0.98).contains(&min), "{min}");
            assert!((0.92..0.98).contains(&max), "{max}");
            assert!((coverage.all.all - (6000.0 - 1440.0)).abs() < 1.0);
            assert!((0.92..0.98).contains(&coverage.faults.share()));
        }
    }
}
