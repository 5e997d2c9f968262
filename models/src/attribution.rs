//! Why a series is at risk: ranked reasons with signed shares and leads.
//!
//! For each candidate — the series itself, its load, its drivers — three things
//! are taken from the histories: how far it is from its usual value now, in
//! robust units (median and the quartile on its other side, of the windows before the
//! last five minutes, much as BARO does for root causes; Pham et al., FSE 2024); how
//! well the series follows it, and after how many windows (best lagged correlation);
//! and by how much the series moves when it moves (least-squares slope). A
//! reason's contribution is slope × its deviation, discounted by the
//! correlation and for small deviations.
//!
//! Correlation is no proof of cause. The one causal belief put in is the
//! [`Role`]: waiting for a resource or for another service explains slow work,
//! rarely the reverse, and one part of the work hardly explains another, as they
//! contain each other.
//!
//! Which *service* it comes from, where calls between services are known, is told
//! by [`services::rank`].

pub mod services;

use serde::{Deserialize, Serialize};

use crate::correlation::{Sums, lagged};
use crate::params::ValidParams;
use crate::refit::{LEAD_MARGIN, LEADS};
use crate::series::{DriverId, History, Role, SeriesInput, Target};

/// Windows read per series.
const WINDOWS_MAX: usize = 720;
/// Windows at the end that may be the incident and do not count as usual, …
const RECENT_WINDOWS: usize = 30;
/// … at most this share of what there is: the first windows of a young series are no
/// more usual than the newest.
const RECENT_SHARE: f64 = 1.0 / 3.0;
/// "Now" is the mean of at most so many windows …
const NOW_WINDOWS: usize = 3;
/// … among the newest so many.
const NOW_WITHIN: usize = 6;
/// Correlations are taken over all windows and over the newest so many: a young
/// incident drowns in the noise of a long history, an old relation shows there.
const YOUNG_WINDOWS: usize = 60;
/// Fewer windows than this tell nothing.
const WINDOWS_MIN: usize = 4;
/// Drivers looked at, in the order of their ids: all signals of a service, and all
/// addresses that it is told of.
const DRIVERS_CONSIDERED: usize = 64;
/// Reasons given at most.
const REASONS_MAX: usize = 8;
/// Smaller shares are not worth a line.
const SHARE_MIN: f64 = 0.02;
/// IQR of a normal in standard deviations.
const SDS_PER_IQR: f64 = 1.349;
/// Smallest usual spread: half a histogram bucket.
const SPREAD_MIN: f64 = 0.05;
/// A deviation of fewer sds is discounted in proportion.
const CLEAR_SDS: f64 = 3.0;
/// Correlation over fewer pairs is not trusted.
const PAIRS_MIN: usize = 8;
/// Discounts by what explains what (see the module).
const WORK_FOR_SATURATION: f64 = 0.25;
const SAME_ROLE: f64 = 0.5;
const LOAD: f64 = 0.7;

/// What is to be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What kind of time the series measures.
    pub role: Role,
    /// Its target at risk.
    pub target: Target,
}

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The series itself: for [`Role::Saturation`] a cause in its own right, for
    /// [`Role::Work`] what nothing else explains.
    Own,
    /// More (or fewer) events of the series per second.
    Load,
    /// Another series of the service.
    Driver(DriverId),
}

/// One reason for a series' deviation or risk.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// Who.
    pub cause: Cause,
    /// Signed share: positive pushes the target up. Absolute values sum to 1
    /// over all reasons found, of which the smallest are left out.
    pub contribution: f64,
    /// By how many seconds it leads the target; 0 when simultaneous.
    pub lead_secs: f64,
    /// Its value now (p99; rate for [`Cause::Load`]) over its usual value.
    pub ratio_to_usual: f64,
}

/// Where a quantity is, against where it usually is.
#[derive(Clone, Copy, Debug)]
struct Deviation {
    change: f64,
    sds: f64,
    /// Of natural values.
    ratio: f64,
}

/// Ranks the reasons, see [`rank_by`]; ties in the order of [`Cause`].
///
/// Empty when the subject was hardly observed, or nothing moved at all. Reads
/// up to 720 windows per series, so call it for what is shown or at risk:
/// O(series · windows), some 50 µs per driver.
///
/// ```
/// use honeyguide_models::attribution::{Cause, Subject, attribute};
/// use honeyguide_models::{Driver, DriverId, Params, Role, SeriesInput, Target, Window};
///
/// let params = Params::default().validate()?;
/// let window = |ms: f32| {
///     let latency = (ms * 1e-3).ln();
///     Window { y: [latency, latency, latency, latency, 4.0], samples: 1000.0, completeness: 1.0 }
/// };
/// // The run queue rises tenfold, requests follow threefold; the disk is calm.
/// let rise = |from: usize, by: f32| -> Vec<Window> {
///     (0..120).map(|i| window(1.0 + (i % 5) as f32 * 0.05 + if i >= from { by } else { 0.0 })).collect()
/// };
/// let (request, runq, disk) = (rise(102, 2.0), rise(100, 9.0), rise(999, 0.0));
/// let drivers = [(0, &runq), (1, &disk)].map(|(id, history)| Driver {
///     id: DriverId(id), role: Role::Saturation, history: &history[..],
/// });
/// let input = SeriesInput { step: 0, own: &request[..], drivers: &drivers };
/// let reasons = attribute(&params, Subject { role: Role::Work, target: Target::P99 }, input);
/// assert_eq!(reasons[0].cause, Cause::Driver(DriverId(0)));
/// assert_eq!(reasons[0].lead_secs, 20.0);
/// assert!(reasons[0].ratio_to_usual > 8.0 && reasons[0].contribution > 0.8);
/// # Ok::<(), honeyguide_models::ParamsError>(())
/// ```
pub fn attribute<H: History + ?Sized>(
    params: &ValidParams,
    subject: Subject,
    input: SeriesInput<'_, H>,
) -> Vec<Reason> {
    let windows = input.own.len().min(WINDOWS_MAX);
    let effect = newest(input.own, windows, subject.target);
    let Some(deviation) = deviation(&effect, subject.target) else {
        return Vec::new();
    };
    let mut reasons = drivers(params, subject, &input, &effect, deviation.change);
    reasons.extend(load(params, subject, input.own, &effect, deviation.change));
    reasons.extend(itself(subject, deviation, &reasons));
    rank(reasons)
}

/// Oldest first, NaN where there is none.
fn newest<H: History + ?Sized>(history: &H, windows: usize, target: Target) -> Vec<f64> {
    let values = (0..windows).rev().map(|ago| history.value(ago, target));
    values.map(|value| value.unwrap_or(f64::NAN)).collect()
}

fn drivers<H: History + ?Sized>(
    params: &ValidParams,
    subject: Subject,
    input: &SeriesInput<'_, H>,
    effect: &[f64],
    moved: f64,
) -> Vec<Reason> {
    let mut drivers = input.drivers.to_vec();
    drivers.sort_by_key(|driver| driver.id);
    let mut reasons = Vec::with_capacity(drivers.len() + 2);
    for driver in drivers.iter().take(DRIVERS_CONSIDERED) {
        let cause = newest(driver.history, effect.len(), Target::P99);
        let discount = match (driver.role, subject.role) {
            (Role::Saturation | Role::Downstream, Role::Work) => 1.0,
            (Role::Work, Role::Saturation) => WORK_FOR_SATURATION,
            _ => SAME_ROLE,
        };
        if let Some(deviation) = deviation(&cause, Target::P99) {
            let follows = follow(&cause, effect);
            reasons.push(Reason {
                cause: Cause::Driver(driver.id),
                contribution: discount * follows.contribution(deviation, moved),
                lead_secs: follows.lead as f64 * params.step_secs(),
                ratio_to_usual: deviation.ratio,
            });
        }
    }
    reasons
}

fn load<H: History + ?Sized>(
    params: &ValidParams,
    subject: Subject,
    own: &H,
    effect: &[f64],
    moved: f64,
) -> Option<Reason> {
    if subject.target == Target::Rate {
        return None;
    }
    let rates = newest(own, effect.len(), Target::Rate);
    let deviation = deviation(&rates, Target::Rate)?;
    let follows = follow(&rates, effect);
    Some(Reason {
        cause: Cause::Load,
        contribution: LOAD * follows.contribution(deviation, moved),
        lead_secs: follows.lead as f64 * params.step_secs(),
        ratio_to_usual: deviation.ratio,
    })
}

/// The series as its own reason: all of its deviation if it is a saturation,
/// else what the others leave unexplained.
fn itself(subject: Subject, deviation: Deviation, others: &[Reason]) -> Option<Reason> {
    let explained: f64 = others.iter().map(|reason| reason.contribution).sum();
    let rest = deviation.change - explained;
    let contribution = match subject.role {
        Role::Saturation => deviation.change,
        Role::Work | Role::Downstream if rest * deviation.change > 0.0 => rest,
        Role::Work | Role::Downstream => 0.0,
    };
    Some(Reason {
        cause: Cause::Own,
        contribution,
        lead_secs: 0.0,
        ratio_to_usual: deviation.ratio,
    })
}

/// Sorts reasons: first those that push to where all of them together do, then those
/// that push against it, the larger contributions first. Equals stay as they are.
pub fn rank_by<T>(reasons: &mut [T], contribution: impl Fn(&T) -> f64) {
    let sum: f64 = reasons.iter().map(&contribution).sum();
    let is_against = |reason: &T| contribution(reason) * sum < 0.0;
    reasons.sort_by(|a, b| {
        let by_side = is_against(a).cmp(&is_against(b));
        let by_size = contribution(b).abs().total_cmp(&contribution(a).abs());
        by_side.then(by_size)
    });
}

/// Turns contributions into shares, drops what is negligible, sorts.
fn rank(mut reasons: Vec<Reason>) -> Vec<Reason> {
    let total: f64 = reasons.iter().map(|reason| reason.contribution.abs()).sum();
    if total <= 0.0 || !total.is_finite() {
        return Vec::new();
    }
    for reason in &mut reasons {
        reason.contribution /= total;
    }
    reasons.retain(|reason| reason.contribution.abs() >= SHARE_MIN);
    reasons.sort_by_key(|reason| reason.cause);
    rank_by(&mut reasons, |reason| reason.contribution);
    reasons.truncate(REASONS_MAX);
    reasons
}

/// Compares the newest values with the median before the last minutes.
fn deviation(values: &[f64], target: Target) -> Option<Deviation> {
    if values.len() < WINDOWS_MIN {
        return None;
    }
    let recent = RECENT_WINDOWS.min((RECENT_SHARE * values.len() as f64) as usize);
    let mut usual: Vec<f64> = values[..values.len() - recent].to_vec();
    usual.retain(|value| value.is_finite());
    let newest = values
        .iter()
        .rev()
        .take(NOW_WITHIN)
        .filter(|value| value.is_finite());
    let now: Vec<f64> = newest.take(NOW_WINDOWS).copied().collect();
    if usual.is_empty() || now.is_empty() {
        return None;
    }
    let now = now.iter().sum::<f64>() / now.len() as f64;
    let [quarter, median, three_quarters] = quartiles(&mut usual);
    let change = now - median;
    // On the other side: what is usual of a young series has the incident in it, too.
    let half = if change > 0.0 {
        median - quarter
    } else {
        three_quarters - median
    };
    let spread = (2.0 * half / SDS_PER_IQR).max(SPREAD_MIN);
    Some(Deviation {
        change,
        sds: change / spread,
        ratio: target.to_natural(now) / target.to_natural(median).max(1e-12),
    })
}

/// Of at least one finite value, each the nearest in rank. Sorting them all
/// would take ten times as long.
fn quartiles(values: &mut [f64]) -> [f64; 3] {
    let rank = |share: f64| (share * (values.len() - 1) as f64).round() as usize;
    let ranks = [0.25, 0.5, 0.75].map(rank);
    let mut from = 0;
    ranks.map(|rank| {
        // Everything before `from` is no larger than what follows.
        let (_, value, _) = values[from..].select_nth_unstable_by(rank - from, f64::total_cmp);
        let value = *value;
        from = rank;
        value
    })
}

/// How an effect follows a cause.
#[derive(Clone, Copy, Debug)]
struct Follows {
    sums: Sums,
    lead: usize,
}

impl Follows {
    /// The effect's movement that the cause's deviation accounts for: at most
    /// the effect's own movement and the cause's, whichever is larger.
    fn contribution(&self, cause: Deviation, effect_moved: f64) -> f64 {
        let correlation = self.sums.correlation();
        if self.sums.pairs() < PAIRS_MIN || correlation <= 0.0 {
            return 0.0;
        }
        let clear = (cause.sds.abs() / CLEAR_SDS).min(1.0);
        let limit = effect_moved.abs().max(cause.change.abs());
        clear * correlation * (self.sums.slope() * cause.change).clamp(-limit, limit)
    }
}

/// The lead at which the effect follows best, over all windows or the newest;
/// the shorter lead and the longer history when in doubt.
fn follow(cause: &[f64], effect: &[f64]) -> Follows {
    let mut best = Follows {
        sums: lagged(cause, effect, 0),
        lead: 0,
    };
    let young = cause.len().saturating_sub(YOUNG_WINDOWS);
    for from in [0, young] {
        // That is what `best` begins with.
        let is_new = |lead: &usize| (from, *lead) != (0, 0);
        for lead in LEADS.into_iter().filter(is_new) {
            let sums = lagged(&cause[from..], &effect[from..], lead);
            let better = sums.correlation() > best.sums.correlation() + LEAD_MARGIN;
            if sums.pairs() >= PAIRS_MIN && better {
                best = Follows { sums, lead };
            }
        }
    }
    best
}

#[cfg(test)]
mod tests;
