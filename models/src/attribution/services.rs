//! Which service an incident of another comes from, by the call graph.
//!
//! Time and errors add up along calls: what a service takes longer, its callers
//! take longer, too. So of each service's excess over its usual (the median; Pham
//! et al., "BARO", FSE 2024, take it with the interquartile range for the same
//! reason: incidents do not move them) we subtract the excess of its callees, each
//! charged to its callers by how much they call. What remains is its own doing, and
//! it matters to the subject as far as the subject's calls reach it. What was as
//! unusual just before is no cause of what changed since. Noise is discounted, and
//! so is what began after the subject's own trouble, as a cause does not.
//!
//! Needs *mean* latencies: quantiles do not add up. Calls that run in parallel, or
//! that nobody waits for, are subtracted in full all the same.

use serde::{Deserialize, Serialize};

use super::{SDS_PER_IQR, quartiles};

/// Spread below this share of the usual is none, for latencies, …
const LATENCY_SPREAD_MIN: f64 = 0.02;
/// … and below this share of failed requests, for errors.
const ERROR_SPREAD_MIN: f64 = 0.002;
/// A deviation of fewer spreads is discounted in proportion, and is no onset.
const CLEAR_SPREADS: f64 = 3.0;
/// What is left of a cause that begins more than a window after the effect.
const LATE: f64 = 0.5;
/// What was just before is the median of so many windows.
const BEFORE_WINDOWS: usize = 3;
/// Smaller shares are not worth a line.
const SHARE_MIN: f64 = 0.01;
/// Calls are followed so deep.
const DEPTH_MAX: usize = 16;

/// What is wrong with the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symptom {
    /// Requests take longer.
    Latency,
    /// Requests fail.
    Errors,
}

/// One service's windows, oldest first; NaN where nothing is known. All three
/// slices, of all services, cover the same windows.
#[derive(Clone, Copy, Debug)]
pub struct ServiceHistory<'a> {
    /// Mean latency in seconds.
    pub latency_secs: &'a [f64],
    /// Share of requests that failed, 0 to 1.
    pub error_share: &'a [f64],
    /// Requests per second (or per anything, the same for all).
    pub rate: &'a [f64],
}

/// `caller` waits for `callee`; indices into the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Who calls.
    pub caller: usize,
    /// Who is called.
    pub callee: usize,
}

/// What is to be explained, and when it happened.
#[derive(Clone, Copy, Debug)]
pub struct Incident {
    /// Index of the service in trouble.
    pub subject: usize,
    /// What is wrong with it.
    pub symptom: Symptom,
    /// How many of the newest windows may be the incident; the others are usual.
    pub recent: usize,
    /// Seconds per window.
    pub step_secs: f64,
}

/// A service that an incident comes from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceCause {
    /// Index of the service.
    pub service: usize,
    /// Signed share of the subject's excess: positive made it worse. Absolute
    /// values sum to 1 over all causes found, of which the smallest are left out.
    pub contribution: f64,
    /// How many seconds before the subject's it began, negative if later; 0 when
    /// either never was clear.
    pub lead_secs: f64,
    /// Distance from its usual in spreads (IQR / 1.349), its callees included.
    pub spreads: f64,
    /// Mean of the recent windows over the usual, its callees included; 1 where the
    /// usual is 0.
    pub ratio_to_usual: f64,
    /// Its requests over their usual: load that may be behind it.
    pub rate_ratio: f64,
}

/// Ranks where an incident comes from, the largest share first; ties by longer
/// lead, then by index. Empty when the subject is out of range or nothing it
/// reaches moved. Calls out of range are left out; cycles are followed 16 calls
/// deep. O(services · windows + depth · calls).
///
/// ```
/// use honeyguide_models::attribution::services::{
///     Call, Incident, ServiceHistory, Symptom, rank,
/// };
///
/// // The shop calls the cart and the search; the search becomes slow.
/// let windows = |usual: f64, now: f64| {
///     let noise = |i: usize| 1.0 + (i * 7 % 5) as f64 * 0.01;
///     (0..60).map(|i| noise(i) * if i < 57 { usual } else { now }).collect::<Vec<f64>>()
/// };
/// let (shop, cart, search) = (windows(0.1, 0.4), windows(0.02, 0.02), windows(0.03, 0.33));
/// let (fine, rate) = (vec![0.0; 60], vec![50.0; 60]);
/// let history = |latency| ServiceHistory { latency_secs: latency, error_share: &fine, rate: &rate };
/// let services = [history(&shop[..]), history(&cart[..]), history(&search[..])];
/// let calls = [Call { caller: 0, callee: 1 }, Call { caller: 0, callee: 2 }];
/// let incident = Incident { subject: 0, symptom: Symptom::Latency, recent: 5, step_secs: 10.0 };
/// let causes = rank(&services, &calls, incident);
/// assert_eq!(causes[0].service, 2);
/// assert!(causes[0].contribution > 0.9);
/// ```
pub fn rank(
    services: &[ServiceHistory<'_>],
    calls: &[Call],
    incident: Incident,
) -> Vec<ServiceCause> {
    let known = |call: &&Call| {
        call.caller < services.len() && call.callee < services.len() && call.caller != call.callee
    };
    let mut calls: Vec<Call> = calls.iter().filter(known).copied().collect();
    calls.sort_by_key(|call| (call.caller, call.callee));
    calls.dedup();
    let excesses: Vec<Excess> = services.iter().map(|s| Excess::of(s, incident)).collect();
    let Some(subject) = excesses.get(incident.subject) else {
        return Vec::new();
    };
    let shares = caller_shares(&excesses, &calls);
    let reach = reach(services.len(), &calls, &shares, incident.subject);
    let mut own: Vec<f64> = excesses.iter().map(|excess| excess.total).collect();
    for (call, share) in calls.iter().zip(&shares) {
        own[call.caller] -= share * excesses[call.callee].total;
    }
    let cause = |service: usize| {
        let excess = &excesses[service];
        let lead = match (subject.onset, excess.onset) {
            (Some(effect), Some(cause)) => effect as f64 - cause as f64,
            _ => 0.0,
        };
        let clear = (excess.spreads.abs() / CLEAR_SPREADS).min(1.0);
        let late = if lead < -1.0 { LATE } else { 1.0 };
        ServiceCause {
            service,
            contribution: own[service] * reach[service] * clear * late,
            lead_secs: lead * incident.step_secs,
            spreads: excess.spreads,
            ratio_to_usual: excess.ratio,
            rate_ratio: excess.rate_ratio,
        }
    };
    in_shares((0..services.len()).map(cause).collect())
}

/// Turns contributions into shares, drops what is negligible, sorts.
fn in_shares(mut causes: Vec<ServiceCause>) -> Vec<ServiceCause> {
    let total: f64 = causes.iter().map(|cause| cause.contribution.abs()).sum();
    if !(total > 0.0 && total.is_finite()) {
        return Vec::new();
    }
    causes
        .iter_mut()
        .for_each(|cause| cause.contribution /= total);
    causes.retain(|cause| cause.contribution.abs() >= SHARE_MIN);
    causes.sort_by(|a, b| {
        let by_share = b.contribution.total_cmp(&a.contribution);
        let by_lead = b.lead_secs.total_cmp(&a.lead_secs);
        by_share.then(by_lead).then(a.service.cmp(&b.service))
    });
    causes
}

/// Mean latency in seconds from log p50, p90, p99 and p99.9 (which must not fall),
/// for histories that keep quantiles alone.
///
/// Between quantiles the log of latency is linear in the log of the share above it,
/// and on beyond p99.9 (piecewise Pareto); below p50 it is mirrored. Within 4 % for
/// exponential and log-normal latencies; NaN in, NaN out.
pub fn mean_secs(log_quantiles: [f64; 4]) -> f64 {
    const ABOVE: [f64; 4] = [0.5, 0.1, 0.01, 0.001];
    /// A tail that falls more slowly has no mean worth the name.
    const INDEX_MAX: f64 = 0.9;
    let index = |i: usize| {
        let fall = (ABOVE[i] / ABOVE[i + 1]).ln();
        ((log_quantiles[i + 1] - log_quantiles[i]) / fall).max(0.0)
    };
    // ∫ q dv over shares v above, q = qᵢ·(v/vᵢ)^−s.
    let part = |i: usize, index: f64, until: f64| {
        let from = log_quantiles[i].exp() * ABOVE[i];
        let rest = 1.0 - index;
        if rest.abs() < 1e-9 {
            from * (ABOVE[i] / until).ln()
        } else {
            from * (1.0 - (until / ABOVE[i]).powf(rest)) / rest
        }
    };
    let below = log_quantiles[0].exp() * ABOVE[0] / (1.0 + index(0));
    let between: f64 = (0..3).map(|i| part(i, index(i), ABOVE[i + 1])).sum();
    below + between + part(3, index(2).min(INDEX_MAX), 0.0)
}

/// How far a service is from its usual.
#[derive(Clone, Copy, Debug, Default)]
struct Excess {
    /// Seconds (or failed requests) per window more than usual, over all requests.
    total: f64,
    /// Per request, in spreads, and as a multiple of the usual.
    spreads: f64,
    ratio: f64,
    /// First recent window that is clearly unusual.
    onset: Option<usize>,
    /// Mean requests in the recent windows.
    rate: f64,
    rate_ratio: f64,
}

impl Excess {
    fn of(service: &ServiceHistory<'_>, incident: Incident) -> Excess {
        let values = match incident.symptom {
            Symptom::Latency => service.latency_secs,
            Symptom::Errors => service.error_share,
        };
        let windows = values.len().min(service.rate.len());
        let from = windows.saturating_sub(incident.recent);
        let rate_of = |i: usize| Some(service.rate[i]).filter(|r| r.is_finite() && *r > 0.0);
        let rates: Vec<f64> = (from..windows).filter_map(rate_of).collect();
        let rate = rates.iter().sum::<f64>() / (windows - from).max(1) as f64;
        let mut excess = Excess {
            rate,
            ratio: 1.0,
            rate_ratio: usual(&service.rate[..from])
                .map_or(1.0, |(usual, _)| rate / usual.max(1e-9)),
            ..Excess::default()
        };
        let Some((usual, spread)) = usual(&values[..from]) else {
            return excess;
        };
        let spread = match incident.symptom {
            Symptom::Latency => spread.max(LATENCY_SPREAD_MIN * usual).max(1e-9),
            Symptom::Errors => spread.max(ERROR_SPREAD_MIN),
        };
        let usual = nearer(usual, &values[..from], &values[from..]);
        let mut requests = 0.0;
        for (i, value) in values.iter().enumerate().take(windows).skip(from) {
            let (Some(rate), true) = (rate_of(i), value.is_finite()) else {
                continue;
            };
            let more = value - usual;
            excess.total += more * rate;
            requests += rate;
            if excess.onset.is_none() && more.abs() >= CLEAR_SPREADS * spread {
                excess.onset = Some(i);
            }
        }
        if requests > 0.0 {
            let more = excess.total / requests;
            excess.spreads = more / spread;
            excess.ratio = if usual > 0.0 { 1.0 + more / usual } else { 1.0 };
        }
        excess.total /= (windows - from).max(1) as f64;
        excess
    }
}

/// What the incident is measured from: the usual, or what was just before it if
/// that is nearer to the incident.
fn nearer(usual_value: f64, before: &[f64], newest: &[f64]) -> f64 {
    let known = newest.iter().filter(|value| value.is_finite());
    let now = known.clone().sum::<f64>() / known.count().max(1) as f64;
    let last = &before[before.len().saturating_sub(BEFORE_WINDOWS)..];
    match usual(last) {
        Some((last, _)) if (now - last).abs() < (now - usual_value).abs() => last,
        _ => usual_value,
    }
}

/// Median and spread of what is known.
fn usual(values: &[f64]) -> Option<(f64, f64)> {
    let mut known: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    if known.is_empty() {
        return None;
    }
    let [quarter, median, three_quarters] = quartiles(&mut known);
    Some((median, (three_quarters - quarter) / SDS_PER_IQR))
}

/// Of each call, the caller's part of all that the callee is called.
fn caller_shares(excesses: &[Excess], calls: &[Call]) -> Vec<f64> {
    let mut callers = vec![0.0; excesses.len()];
    for call in calls {
        callers[call.callee] += excesses[call.caller].rate;
    }
    let share = |call: &Call| {
        let all = callers[call.callee];
        if all > 0.0 {
            excesses[call.caller].rate / all
        } else {
            0.0
        }
    };
    calls.iter().map(share).collect()
}

/// Of each service, the part of its work that the subject causes: 1 for itself.
fn reach(services: usize, calls: &[Call], shares: &[f64], subject: usize) -> Vec<f64> {
    let mut reach = vec![0.0; services];
    for _ in 0..DEPTH_MAX {
        let mut next = vec![0.0; services];
        next[subject] = 1.0;
        for (call, share) in calls.iter().zip(shares) {
            if call.callee != subject {
                next[call.callee] += share * reach[call.caller];
            }
        }
        next.iter_mut()
            .for_each(|part| *part = f64::min(*part, 1.0));
        if next == reach {
            break;
        }
        reach = next;
    }
    reach
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A service's windows: 50 usual, 10 of the incident.
    struct Made {
        latency: Vec<f64>,
        errors: Vec<f64>,
        rate: Vec<f64>,
    }

    fn made(usual: f64, more: f64, from: usize, errors: f64, rate: f64) -> Made {
        let noise = |i: usize| 1.0 + ((i * 7919) % 11) as f64 * 0.002;
        let after = |i: usize, value: f64| if i >= from { value } else { 0.0 };
        Made {
            latency: (0..60).map(|i| usual * noise(i) + after(i, more)).collect(),
            errors: (0..60).map(|i| after(i, errors)).collect(),
            rate: vec![rate; 60],
        }
    }

    fn causes(made: &[Made], calls: &[(usize, usize)], symptom: Symptom) -> Vec<ServiceCause> {
        let services: Vec<ServiceHistory<'_>> = made
            .iter()
            .map(|made| ServiceHistory {
                latency_secs: &made.latency,
                error_share: &made.errors,
                rate: &made.rate,
            })
            .collect();
        let calls: Vec<Call> = calls
            .iter()
            .map(|(caller, callee)| Call {
                caller: *caller,
                callee: *callee,
            })
            .collect();
        let incident = Incident {
            subject: 0,
            symptom,
            recent: 10,
            step_secs: 10.0,
        };
        rank(&services, &calls, incident)
    }

    #[test]
    fn the_deepest_slow_callee_is_the_cause() {
        let chain = [
            made(0.2, 0.1, 50, 0.0, 10.0),
            made(0.1, 0.1, 50, 0.0, 10.0),
            made(0.05, 0.1, 50, 0.0, 10.0),
            made(0.01, 0.0, 60, 0.0, 10.0),
        ];
        let causes = causes(&chain, &[(0, 1), (1, 2), (2, 3)], Symptom::Latency);
        assert_eq!(causes[0].service, 2);
        assert!(causes[0].contribution > 0.95, "{causes:?}");
    }

    #[test]
    fn errors_are_those_of_whoever_fails_on_its_own() {
        let services = [
            made(0.2, 0.0, 50, 0.1, 10.0),
            made(0.1, 0.0, 50, 0.1, 10.0),
            made(0.1, 0.0, 60, 0.0, 10.0),
        ];
        let causes = causes(&services, &[(0, 1), (0, 2)], Symptom::Errors);
        assert_eq!(causes[0].service, 1);
    }

    #[test]
    fn a_slow_service_that_others_call_is_charged_to_them() {
        // Service 1 is slow, and nine in ten of its calls are service 2's.
        let services = [
            made(0.2, 0.05, 50, 0.0, 10.0),
            made(0.1, 0.05, 50, 0.0, 100.0),
            made(0.1, 0.05, 50, 0.0, 90.0),
        ];
        let causes = causes(&services, &[(0, 1), (2, 1)], Symptom::Latency);
        assert_eq!(causes[0].service, 1);
        assert!(
            causes.iter().all(|cause| cause.service != 2),
            "out of reach"
        );
    }

    #[test]
    fn what_begins_first_leads_and_what_begins_late_is_discounted() {
        let services = [
            made(0.2, 0.2, 52, 0.0, 10.0),
            made(0.1, 0.1, 50, 0.0, 10.0),
            made(0.1, 0.125, 52, 0.0, 10.0),
        ];
        let found = causes(&services, &[(0, 1), (0, 2)], Symptom::Latency);
        let first = found.iter().find(|cause| cause.service == 1).unwrap();
        assert_eq!(first.lead_secs, 20.0);
    }

    #[test]
    fn means_follow_from_quantiles() {
        // R: qexp(c(.5, .9, .99, .999)) has mean 1; qlnorm(c(…), 0, 1) has exp(0.5).
        let cases = [
            ([2f64, 10.0, 100.0, 1000.0].map(f64::ln), 1.0),
            ([1.0, 3.602_224, 10.240_474, 21.982_184], 1.648_721),
            ([2.0; 4], 2.0),
        ];
        for (quantiles, mean) in cases {
            let found = mean_secs(quantiles.map(f64::ln));
            assert!((found / mean - 1.0).abs() < 0.04, "{found} {mean}");
        }
        assert!(mean_secs([f64::NAN; 4]).is_nan());
    }

    #[test]
    fn nothing_moved_or_known_has_no_cause() {
        let calm = [made(0.2, 0.0, 60, 0.0, 10.0), made(0.1, 0.0, 60, 0.0, 10.0)];
        assert!(causes(&calm, &[(0, 1)], Symptom::Errors).is_empty());
        assert!(causes(&[], &[(0, 1)], Symptom::Latency).is_empty());
        let unknown = Made {
            latency: vec![f64::NAN; 60],
            errors: vec![f64::NAN; 60],
            rate: vec![f64::NAN; 60],
        };
        assert!(causes(&[unknown], &[(0, 0), (7, 9)], Symptom::Latency).is_empty());
    }

    proptest! {
        #[test]
        fn shares_are_finite_and_their_order_does_not_depend_on_units(
            more in prop::collection::vec(0.0..1.0f64, 6),
            calls in prop::collection::vec((0usize..6, 0usize..6), 0..15),
            scale in 0.001..1000.0f64,
        ) {
            let at = |scale: f64| -> Vec<Made> {
                more.iter().map(|more| made(0.1 * scale, more * scale, 50, 0.0, 10.0)).collect()
            };
            let (one, other) = (
                causes(&at(1.0), &calls, Symptom::Latency),
                causes(&at(scale), &calls, Symptom::Latency),
            );
            prop_assert!(one.iter().all(|cause| cause.contribution.is_finite()));
            prop_assert_eq!(one.len(), other.len());
            for (a, b) in one.iter().zip(&other) {
                prop_assert!((a.contribution - b.contribution).abs() < 1e-6);
            }
        }
    }
}
