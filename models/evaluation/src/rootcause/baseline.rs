//! Rankings that everything must beat.

use honeyguide_models::attribution::services::Symptom;

use super::Ranking;
use crate::petshop::Issue;

/// All, by name.
pub(super) const ALL: [(&str, Ranking); 4] = [
    ("random", random),
    ("robust deviation, all metrics", deviation_of_all),
    (
        "robust deviation, the symptom's metric",
        deviation_of_symptom,
    ),
    ("random walk by correlation", random_walk),
];
/// Chance that the walk begins anew at the subject.
const RESTART: f64 = 0.15;
const STEPS: usize = 100;
/// Usual windows that correlation is taken over, before those of the incident.
const CORRELATED: usize = 12;

/// By a fixed hash of names.
fn random(issue: &Issue) -> Vec<usize> {
    let hash = |name: &str| {
        name.bytes()
            .chain(issue.name.bytes())
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
            })
    };
    let keys: Vec<f64> = issue
        .components()
        .iter()
        .map(|name| hash(name) as f64)
        .collect();
    by_falling(&keys)
}

/// Largest distance of any metric from its median in interquartile ranges (1 where
/// that is 0), as BARO ranks (Pham et al., FSE 2024).
fn deviation_of_all(issue: &Issue) -> Vec<usize> {
    let of_component = |metrics: &std::collections::BTreeMap<_, Vec<f64>>| {
        let of = |values: &Vec<f64>| deviation(values, issue.recent);
        metrics.values().map(of).fold(0.0, f64::max)
    };
    let deviations: Vec<f64> = issue.metrics.values.values().map(of_component).collect();
    by_falling(&deviations)
}

/// The same of the mean latency, or of availability.
fn deviation_of_symptom(issue: &Issue) -> Vec<usize> {
    let values = symptom(issue);
    let deviations: Vec<f64> = values.iter().map(|v| deviation(v, issue.recent)).collect();
    by_falling(&deviations)
}

fn symptom(issue: &Issue) -> Vec<Vec<f64>> {
    match issue.symptom {
        Symptom::Latency => issue.metric("latency", "Average"),
        Symptom::Errors => issue.metric("availability", "Average"),
    }
}

fn deviation(values: &[f64], recent: usize) -> f64 {
    let (usual, newest) = values.split_at(values.len().saturating_sub(recent));
    let mut usual: Vec<f64> = usual.iter().copied().filter(|v| v.is_finite()).collect();
    if usual.is_empty() {
        return 0.0;
    }
    usual.sort_by(f64::total_cmp);
    let at = |share: f64| usual[(share * (usual.len() - 1) as f64).round() as usize];
    let range = at(0.75) - at(0.25);
    let range = if range > 0.0 { range } else { 1.0 };
    let known = newest.iter().filter(|v| v.is_finite());
    known
        .map(|v| (v - at(0.5)).abs() / range)
        .fold(0.0, f64::max)
}

/// A walk from the subject along calls, to each callee in proportion to how its
/// metric goes with the subject's (and staying in proportion to the best of them);
/// by how often it is where (as MonitorRank and MicroRCA rank).
fn random_walk(issue: &Issue) -> Vec<usize> {
    let values = symptom(issue);
    let Some(subject) = issue.index(&issue.subject) else {
        return Vec::new();
    };
    let from = values[subject]
        .len()
        .saturating_sub(issue.recent + CORRELATED);
    let follows: Vec<f64> = values
        .iter()
        .map(|v| {
            correlation(&v[from..], &values[subject][from..])
                .abs()
                .max(0.01)
        })
        .collect();
    let calls = issue.calls();
    let mut at = vec![0.0; values.len()];
    at[subject] = 1.0;
    for _ in 0..STEPS {
        let mut next = vec![0.0; values.len()];
        next[subject] += RESTART;
        for (here, chance) in at.iter().enumerate() {
            let callees: Vec<usize> = calls
                .iter()
                .filter(|call| call.caller == here)
                .map(|call| call.callee)
                .collect();
            // The walk stays where no callee follows as well.
            let stay = if here == subject { 0.0 } else { follows[here] };
            let all: f64 = stay + callees.iter().map(|callee| follows[*callee]).sum::<f64>();
            if all <= 0.0 {
                next[here] += (1.0 - RESTART) * chance;
                continue;
            }
            next[here] += (1.0 - RESTART) * chance * stay / all;
            for callee in callees {
                next[callee] += (1.0 - RESTART) * chance * follows[callee] / all;
            }
        }
        at = next;
    }
    at[subject] = 0.0;
    by_falling(&at)
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let pairs = || {
        a.iter()
            .zip(b)
            .filter(|(x, y)| x.is_finite() && y.is_finite())
    };
    let n = pairs().count() as f64;
    let mean = |of: fn(&(&f64, &f64)) -> f64| pairs().map(|pair| of(&pair)).sum::<f64>() / n;
    let (x, y) = (mean(|pair| *pair.0), mean(|pair| *pair.1));
    let sum = |of: &dyn Fn(f64, f64) -> f64| pairs().map(|(a, b)| of(a - x, b - y)).sum::<f64>();
    let both = sum(&|a, b| a * b);
    let spread = (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
    if spread > 0.0 { both / spread } else { 0.0 }
}

fn by_falling(keys: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|a, b| keys[*b].total_cmp(&keys[*a]).then(a.cmp(b)));
    order
}
