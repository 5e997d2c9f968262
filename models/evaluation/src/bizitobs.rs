//! The BizITObs part of GIFT-Eval: which series, horizons and windows.
//!
//! Origin: `BizITObs/BizITObservabilityData` (CDLA-Sharing-1.0); windows and
//! seasons as in GIFT-Eval (Aksu et al. 2024): at most 20 non-overlapping
//! windows that cover the last tenth of a series.

use std::path::Path;

use crate::{
    error::Error,
    table::{Series, columns},
};

/// Share of a series that is tested on.
const TEST_SHARE: f64 = 0.1;
/// Windows at most.
const WINDOWS_MAX: usize = 20;
/// Five-minute values of an hour.
const HOURLY: usize = 12;

/// A set of series at one resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dataset {
    /// Calls and mean latency of a web shop, every 10 s.
    Application,
    /// Orders in the steps of a business process, every 5 min.
    FiveMinutes,
    /// The same, hourly means.
    Hourly,
}

/// How far ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// 48 or 60 steps.
    Short,
    /// Ten times as far.
    Medium,
    /// Fifteen times as far.
    Long,
}

/// One of the nine configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Its series.
    pub dataset: Dataset,
    /// How far they are forecast.
    pub term: Term,
}

impl Dataset {
    /// All of them.
    pub const ALL: [Dataset; 3] = [Dataset::Application, Dataset::FiveMinutes, Dataset::Hourly];

    /// Its name in GIFT-Eval.
    pub const fn name(self) -> &'static str {
        match self {
            Dataset::Application => "application/10S",
            Dataset::FiveMinutes => "l2c/5T",
            Dataset::Hourly => "l2c/H",
        }
    }

    /// Length of the season in steps.
    pub const fn season(self) -> usize {
        match self {
            Dataset::Application => 360,
            Dataset::FiveMinutes => 288,
            Dataset::Hourly => 24,
        }
    }

    /// Length of a step in seconds.
    pub const fn step_secs(self) -> u32 {
        match self {
            Dataset::Application => 10,
            Dataset::FiveMinutes => 300,
            Dataset::Hourly => 3600,
        }
    }

    const fn file(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Dataset::Application => (
                "application.csv",
                &["Robot-Shop:calls.sum", "Robot-Shop:latency.mean"],
            ),
            Dataset::FiveMinutes | Dataset::Hourly => (
                "l2c.csv",
                &[
                    "Weekly average order cycle time",
                    "activity_Approve by approver",
                    "activity_Create order",
                    "activity_Return by approver",
                    "activity_Submit for approval",
                    "activity_Submit to SAP",
                    "activity_Update order",
                ],
            ),
        }
    }

    /// Reads its series from the folder of the set.
    ///
    /// # Errors
    /// A file or a column is missing.
    pub fn load(self, folder: &Path) -> Result<Vec<Series>, Error> {
        let (file, names) = self.file();
        let values = columns(&folder.join(file), names)?;
        let series = names.iter().zip(values);
        let series = series.map(|(name, values)| Series::new(*name, values));
        Ok(match self {
            Dataset::Hourly => series.map(|series| series.averaged(HOURLY)).collect(),
            _ => series.collect(),
        })
    }
}

impl Term {
    /// All of them.
    pub const ALL: [Term; 3] = [Term::Short, Term::Medium, Term::Long];

    /// Its name in GIFT-Eval.
    pub const fn name(self) -> &'static str {
        match self {
            Term::Short => "short",
            Term::Medium => "medium",
            Term::Long => "long",
        }
    }

    pub(crate) const fn factor(self) -> usize {
        match self {
            Term::Short => 1,
            Term::Medium => 10,
            Term::Long => 15,
        }
    }
}

impl Configuration {
    /// All nine, by data set and then by horizon.
    pub fn all() -> impl Iterator<Item = Configuration> {
        Dataset::ALL.into_iter().flat_map(|dataset| {
            let of = move |term| Configuration { dataset, term };
            Term::ALL.into_iter().map(of)
        })
    }

    /// `l2c/5T/short`.
    pub fn name(self) -> String {
        format!("{}/{}", self.dataset.name(), self.term.name())
    }

    /// Steps ahead that are forecast.
    pub const fn horizon(self) -> usize {
        let short = match self.dataset {
            Dataset::Application => 60,
            Dataset::FiveMinutes | Dataset::Hourly => 48,
        };
        short * self.term.factor()
    }

    /// Where the windows of a series of `len` values begin: a forecast of the
    /// window at `origin` knows the values before it.
    pub fn origins(self, len: usize) -> Vec<usize> {
        windows(len, self.horizon())
    }
}

/// Where windows of `horizon` steps in a series of `len` values begin.
pub(crate) fn windows(len: usize, horizon: usize) -> Vec<usize> {
    let windows = (TEST_SHARE * len as f64 / horizon as f64).ceil() as usize;
    let windows = windows.clamp(1, WINDOWS_MAX).min(len / horizon);
    (1..=windows)
        .rev()
        .map(|window| len - window * horizon)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of the real lengths, as `gluonts` splits them.
    #[test]
    fn windows_are_those_of_gift_eval() {
        let lens = [8834, 31_968, 2664];
        let counts: Vec<usize> = Configuration::all()
            .map(|configuration| {
                let position = Dataset::ALL
                    .iter()
                    .position(|d| *d == configuration.dataset)
                    .unwrap();
                configuration.origins(lens[position]).len()
            })
            .collect();
        assert_eq!(counts, [15, 2, 1, 20, 7, 5, 6, 1, 1]);
        let short = Configuration {
            dataset: Dataset::Hourly,
            term: Term::Short,
        };
        assert_eq!(short.origins(2664)[0], 2664 - 6 * 48);
        assert_eq!(short.origins(30), Vec::<usize>::new());
    }
}
