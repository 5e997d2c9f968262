//! Volume under the surface of range-based precision and recall (VUS-PR; Paparrizos
//! et al., "Volume under the surface: a new accuracy evaluation measure for
//! time-series anomaly detection", VLDB 2022), as TSB-AD 1.5 computes it: needs no
//! threshold, and tolerates labels whose ends are not exact.

/// Thresholds tried, at evenly spaced ranks.
const THRESHOLDS: usize = 250;

/// VUS-PR of scores (one per point; higher is more anomalous; no NaN) against
/// labelled ranges (first and last point, in order, disjoint): the mean over
/// tolerances of 0 to `tolerance_max` points of the area under the curve of
/// range-based precision over recall. 0 to 1; NaN without points or ranges.
/// O(tolerance_max · points).
pub fn vus_pr(scores: &[f64], ranges: &[(usize, usize)], tolerance_max: usize) -> f64 {
    if scores.is_empty() || ranges.is_empty() {
        return f64::NAN;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let cuts = cuts(scores, &order);
    let areas = (0..=tolerance_max).map(|tolerance| {
        let surface = Slice::new(scores.len(), ranges, tolerance);
        surface.area(&order, &cuts)
    });
    areas.sum::<f64>() / (tolerance_max + 1) as f64
}

/// How many points are detected at each threshold; equal scores go together.
fn cuts(scores: &[f64], order: &[usize]) -> Vec<usize> {
    let last = order.len() - 1;
    let cut = |k: usize| {
        let threshold = scores[order[k * last / (THRESHOLDS - 1)]];
        order.partition_point(|i| scores[*i] >= threshold)
    };
    (0..THRESHOLDS).map(cut).collect()
}

/// The labels at one tolerance.
struct Slice {
    /// 1 in a range, falling around it, 0 far from all.
    labels: Vec<f64>,
    inside: Vec<bool>,
    /// Of each point, the extended range it is in, if any.
    range: Vec<Option<usize>>,
    ranges: usize,
}

impl Slice {
    fn new(points: usize, ranges: &[(usize, usize)], tolerance: usize) -> Self {
        let mut slice = Slice {
            labels: vec![0.0; points],
            inside: vec![false; points],
            range: vec![None; points],
            ranges: 0,
        };
        let half = tolerance / 2;
        let mut reach: Option<usize> = None;
        for (first, last) in ranges {
            let from = first.saturating_sub(half);
            // Ranges whose tolerances touch are one.
            if reach.is_none_or(|reach| reach + half < *first) {
                slice.ranges += 1;
            }
            reach = Some(last + half);
            for i in from..=(last + half).min(points - 1) {
                let distance = first.saturating_sub(i).max(i.saturating_sub(*last));
                let inside = distance == 0;
                let label = if inside {
                    1.0
                } else {
                    (1.0 - distance as f64 / tolerance as f64).sqrt()
                };
                slice.labels[i] = (slice.labels[i] + label).min(1.0);
                slice.inside[i] |= inside;
                slice.range[i] = Some(slice.ranges - 1);
            }
        }
        slice
    }

    /// Area under precision over recall. `order` has the points by falling score,
    /// `cuts` how many are detected at each threshold.
    fn area(&self, order: &[usize], cuts: &[usize]) -> f64 {
        let positives = self.inside.iter().filter(|inside| **inside).count() as f64;
        let mut found = vec![false; self.ranges];
        let (mut ranges, mut hits, mut tolerated) = (0, 0.0, 0.0);
        let (mut area, mut recall_before, mut done) = (0.0, 0.0, 0);
        for cut in cuts {
            for i in &order[done..*cut] {
                hits += self.labels[*i];
                if !self.inside[*i] {
                    tolerated += self.labels[*i];
                }
                if let Some(range) = self.range[*i]
                    && !std::mem::replace(&mut found[range], true)
                {
                    ranges += 1;
                }
            }
            done = *cut;
            let expected = positives + tolerated / 2.0;
            let recall = (hits / expected).min(1.0) * f64::from(ranges) / self.ranges as f64;
            area += (recall - recall_before) * hits / *cut as f64;
            recall_before = recall;
        }
        area
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_ranking_without_tolerance_is_1() {
        let scores: Vec<f64> = (0..100)
            .map(|i| f64::from(u8::from((40..50).contains(&i))))
            .collect();
        assert!((vus_pr(&scores, &[(40, 49)], 0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn equal_scores_have_the_precision_of_chance() {
        assert!((vus_pr(&[0.5; 100], &[(40, 49)], 0) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn nothing_labelled_has_no_score() {
        assert!(vus_pr(&[0.5; 100], &[], 10).is_nan());
        assert!(vus_pr(&[], &[(0, 0)], 10).is_nan());
    }

    /// The series of `tests/vus_reference.py`, which has TSB-AD's values.
    fn reference(ranges: &[(usize, usize)]) -> Vec<f64> {
        let score = |i: usize| {
            let inside = ranges
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&i));
            let noise = (i * 7919 % 1000) as f64 / 1000.0;
            noise + if inside { 0.4 } else { 0.0 }
        };
        (0..1000).map(score).collect()
    }

    #[test]
    fn values_are_those_of_tsb_ad() {
        let apart = [(100, 120), (400, 400), (700, 760)];
        let close = [(100, 120), (125, 126), (990, 999)];
        for (ranges, tolerance, expected) in [
            (apart, 0, 0.544_104_052),
            (apart, 20, 0.565_917_670),
            (apart, 100, 0.640_856_576),
            (close, 20, 0.515_547_012),
        ] {
            let found = vus_pr(&reference(&ranges), &ranges, tolerance);
            assert!(
                (found - expected).abs() < 1e-6,
                "{ranges:?} {tolerance} {found}"
            );
        }
    }
}
