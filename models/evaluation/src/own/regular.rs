//! From rows at any times to one value per step.

use super::{
    Own, Table, Wrong,
    cell::Numbers,
    time::{Times, text},
};
use crate::{Error, table::Series};

/// Steps of a series at most: more than a month of seconds.
pub const STEPS_MAX: usize = 4_000_000;
const SECOND_NS: i64 = 1_000_000_000;
/// Longest step: a week.
const STEP_SECS_MAX: u32 = 604_800;

/// Rows of a table: one time and one value each.
pub(super) struct Rows<'a> {
    pub(super) table: &'a Table,
    pub(super) times: &'a Times,
    pub(super) values: &'a Numbers,
    /// One per row, or empty.
    pub(super) faults: &'a [bool],
}

impl Rows<'_> {
    /// The series, at steps of a length that is given or the median gap.
    pub(super) fn regular(
        &self,
        name: String,
        quantity: String,
        step_secs: Option<u32>,
    ) -> Result<Own, Error> {
        let times = &self.times.ns;
        let mut notes = self.order_notes();
        // Equal times stay in the order of the file; nothing below depends on it.
        let mut order: Vec<usize> = (0..times.len()).collect();
        order.sort_by_key(|row| times[*row]);
        let Some(first) = order.first().copied() else {
            return Err(Error::NoRows {
                path: self.table.path.clone(),
            });
        };
        let gap_ns = median_gap(&order, times);
        let step_secs = match (step_secs, gap_ns) {
            (Some(step_secs), _) => step_secs,
            (None, Some(gap_ns)) => whole_secs(gap_ns),
            (None, None) => {
                return Err(Error::OneTime {
                    path: self.table.path.clone(),
                });
            }
        };
        notes.extend(step_note(step_secs, gap_ns));
        self.refuse_several(&order)?;
        let grid = Grid {
            first_ns: times[first],
            step_ns: i64::from(step_secs) * SECOND_NS,
            // Several rows a step are what comes within it; one is what is nearest.
            nearest: gap_ns.is_some_and(|gap| 2 * i64::from(step_secs) * SECOND_NS < 3 * gap),
        };
        let mut steps: Vec<Vec<f64>> = Vec::new();
        let mut faults: Vec<bool> = Vec::new();
        let mut gaps = Gaps::default();
        let mut shared = Shared::default();
        let mut before: Option<(i64, usize)> = None;
        for row in order {
            let at = grid.step(times[row]);
            if at >= STEPS_MAX {
                let wrong = Wrong::TooFar {
                    steps: at as u64,
                    step_secs,
                    max: STEPS_MAX,
                };
                return Err(self.table.wrong(row, wrong));
            }
            let line = self.table.lines[row];
            if at > steps.len() {
                gaps.add(line, at - steps.len());
            }
            if let Some((time, step)) = before {
                shared.add(line, (time == times[row], step == at));
            }
            before = Some((times[row], at));
            steps.resize(steps.len().max(at + 1), Vec::new());
            if !self.faults.is_empty() {
                faults.resize(steps.len(), false);
                faults[at] |= self.faults[row];
            }
            let value = self.values.values[row];
            if !value.is_nan() {
                steps[at].push(value);
            }
        }
        notes.extend(shared.notes(self.table, grid.nearest));
        notes.extend(gaps.note(self.table, step_secs, steps.len()));
        Ok(Own {
            series: Series {
                name,
                values: steps.into_iter().map(mean).collect(),
                faults,
            },
            quantity,
            step_secs,
            first_secs: grid.first_ns.div_euclid(SECOND_NS),
            notes,
        })
    }

    /// A mean over most rows would be one over different things.
    fn refuse_several(&self, order: &[usize]) -> Result<(), Error> {
        let times = &self.times.ns;
        let pairs = order.windows(2);
        let shared: Vec<usize> = pairs
            .filter(|pair| times[pair[0]] == times[pair[1]])
            .map(|pair| pair[1])
            .collect();
        match shared.first() {
            // Of three rows at a time two are shared, of a doubled table one in two.
            Some(row) if 2 * shared.len() > order.len() => {
                let wrong = Wrong::Several {
                    rows: shared.len(),
                    all: order.len(),
                };
                Err(self.table.wrong(*row, wrong))
            }
            _ => Ok(()),
        }
    }

    /// Which rows are earlier than the one before.
    fn order_notes(&self) -> Vec<String> {
        let pairs = self.times.ns.windows(2).enumerate();
        let back: Vec<usize> = pairs
            .filter(|(_, pair)| pair[1] < pair[0])
            .map(|(row, _)| row + 1)
            .collect();
        let Some(first) = back.first() else {
            return Vec::new();
        };
        let at = |row: usize| text(self.times.ns[row].div_euclid(SECOND_NS));
        vec![format!(
            "{} {}{}: earlier ({}) than the row before ({}); rows are sorted by time",
            self.table.place,
            self.table.lines[*first],
            and_more(back.len()),
            at(*first),
            at(first - 1),
        )]
    }
}

fn and_more(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        _ => format!(", and {} more", count - 1),
    }
}

/// The median gap between times in whole seconds; `None` if all are one.
pub(super) fn usual_step(times: &[i64]) -> Option<u32> {
    let mut order: Vec<usize> = (0..times.len()).collect();
    order.sort_by_key(|row| times[*row]);
    median_gap(&order, times).map(whole_secs)
}

/// The median of the gaps between different times.
fn median_gap(order: &[usize], times: &[i64]) -> Option<i64> {
    let gaps = order
        .windows(2)
        .map(|pair| times[pair[1]].saturating_sub(times[pair[0]]));
    let mut gaps: Vec<i64> = gaps.filter(|gap| *gap > 0).collect();
    let middle = gaps.len() / 2;
    (!gaps.is_empty()).then(|| *gaps.select_nth_unstable(middle).1)
}

fn whole_secs(gap_ns: i64) -> u32 {
    let secs = (gap_ns as f64 / SECOND_NS as f64).round();
    secs.clamp(1.0, f64::from(STEP_SECS_MAX)) as u32
}

/// Where the step is not the gap.
fn step_note(step_secs: u32, gap_ns: Option<i64>) -> Option<String> {
    let gap = gap_ns? as f64 / SECOND_NS as f64;
    let step = f64::from(step_secs);
    let far = (gap - step).abs() > 0.05 * step;
    far.then(|| match gap < step {
        true => format!("rows are {gap} s apart, what comes within {step_secs} s is averaged"),
        false => format!("rows are {gap} s apart, most steps of {step_secs} s have none"),
    })
}

struct Grid {
    first_ns: i64,
    step_ns: i64,
    nearest: bool,
}

impl Grid {
    fn step(&self, ns: i64) -> usize {
        let since = i128::from(ns) - i128::from(self.first_ns);
        let half = if self.nearest { self.step_ns / 2 } else { 0 };
        let step = (since + i128::from(half)) / i128::from(self.step_ns);
        // Times are sorted, so none is before the first.
        usize::try_from(step).unwrap_or(usize::MAX)
    }
}

/// Rows that share a time, and those that share a step otherwise.
#[derive(Default)]
struct Shared {
    time: Option<(u64, usize)>,
    step: Option<(u64, usize)>,
}

impl Shared {
    fn add(&mut self, line: u64, (same_time, same_step): (bool, bool)) {
        let rows = match (same_time, same_step) {
            (true, _) => &mut self.time,
            (false, true) => &mut self.step,
            (false, false) => return,
        };
        rows.get_or_insert((line, 0)).1 += 1;
    }

    fn notes(&self, table: &Table, nearest: bool) -> Vec<String> {
        let note = |rows: Option<(u64, usize)>, what: &str| {
            rows.map(|(line, count)| {
                format!(
                    "{} {line}{}: {what}; their mean counts",
                    table.place,
                    and_more(count)
                )
            })
        };
        let time = note(self.time, "a time that another row has, too");
        // Where several rows a step are meant, it is no news.
        let step = self.step.filter(|_| nearest);
        let step = note(step, "in the step of the row before");
        time.into_iter().chain(step).collect()
    }
}

/// Steps without any row.
#[derive(Default)]
struct Gaps {
    /// Behind which line, and steps of the longest.
    longest: Option<(u64, usize)>,
    count: usize,
    steps: usize,
}

impl Gaps {
    fn add(&mut self, line: u64, steps: usize) {
        if self.longest.is_none_or(|(_, most)| steps > most) {
            self.longest = Some((line, steps));
        }
        self.count += 1;
        self.steps += steps;
    }

    fn note(&self, table: &Table, step_secs: u32, all: usize) -> Option<String> {
        let (line, most) = self.longest?;
        let secs = most as u64 * u64::from(step_secs);
        let (gaps, longest) = match self.count {
            1 => ("a gap".to_owned(), String::new()),
            count => (
                format!("the longest of {count} gaps"),
                format!("; {} of {all} steps have no row", self.steps),
            ),
        };
        Some(format!(
            "{} {line}: {gaps} before it, {most} steps ({secs} s), taken as missing{longest}",
            table.place
        ))
    }
}

/// The same in whatever order; NaN of nothing.
fn mean(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values[..] {
        [only] => only,
        _ => values.iter().sum::<f64>() / values.len() as f64,
    }
}
