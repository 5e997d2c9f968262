use std::{cmp::Ordering, vec::Vec};

use num_bigint::BigUint;
use proptest::prelude::*;

use super::*;

/// Compares `value_ns` with 2^(index/8) seconds exactly: both sides to the
/// eighth power, as integers.
fn compare_with_bound(value_ns: u64, index: i32) -> Ordering {
    let value = BigUint::from(value_ns).pow(8);
    let second = BigUint::from(10u8).pow(72);
    if index >= 0 {
        value.cmp(&(second << index as usize))
    } else {
        (value << (-index) as usize).cmp(&second)
    }
}

fn check_index(value_ns: u64) {
    let i = index(value_ns);
    let value = value_ns.max(1);
    assert_eq!(
        compare_with_bound(value, i),
        Ordering::Greater,
        "{value_ns}"
    );
    assert_ne!(
        compare_with_bound(value, i + 1),
        Ordering::Greater,
        "{value_ns}"
    );
}

#[test]
fn index_is_exact_for_small_values() {
    (0..100_000).for_each(check_index);
}

#[test]
fn index_is_exact_around_every_bound() {
    for i in -239..276 {
        let bound = (1e9 * (f64::from(i) / 8.0).exp2()) as u64;
        for value in bound.saturating_sub(3)..=bound.saturating_add(3) {
            check_index(value);
        }
    }
    check_index(u64::MAX);
}

#[test]
fn halving_agrees_with_leading_zeros() {
    for bit in 0..64 {
        for value in [1u64 << bit, (1u64 << bit) | 1, u64::MAX >> (63 - bit)] {
            assert_eq!(normalise_by_halving(value), normalise(value));
        }
    }
}

#[test]
fn out_of_range_values_go_to_the_end_buckets() {
    for (value_ns, expected) in [(0, 0), (1, 0), (953, 0), (1_040, 1), (16_000_000_000, 191)] {
        assert_eq!(position(value_ns), expected, "{value_ns}");
    }
    assert_eq!(position(u64::MAX), BUCKETS - 1);
}

#[test]
fn bounds_are_powers_of_two_seconds() {
    assert_eq!(lower_bound_ns(160), 1e9);
    assert_eq!(lower_bound_ns(BUCKETS), 16e9);
    for position in 0..=BUCKETS {
        let expected = ((position as f64 - 160.0) / 8.0).exp2() * 1e9;
        assert!((lower_bound_ns(position) / expected - 1.0).abs() < 1e-14);
    }
}

#[test]
fn empty_histogram_has_no_quantile() {
    assert_eq!(Histogram::new().quantile_ns(0.5), None);
    assert_eq!(Histogram::new().quantiles_ns([0.5]), None);
    assert_eq!(Histogram::new().fraction_at_most(1e6), None);
}

#[test]
fn quantile_beyond_the_last_bound_is_the_maximum() {
    let mut histogram = Histogram::new();
    histogram.record(40_000_000_000);
    assert_eq!(histogram.quantile_ns(0.5), Some(40e9));
}

#[test]
fn coarser_scale_merges_neighbours() {
    let mut histogram = Histogram::new();
    for position in [0, 1, 2, 7, 8, 191] {
        histogram.add(position, 1);
    }
    let at = |scale| histogram.occupied_at_scale(scale).collect::<Vec<_>>();
    assert_eq!(at(3).len(), 6);
    assert_eq!(at(2), [(-80, 2), (-79, 1), (-77, 1), (-76, 1), (15, 1)]);
    assert_eq!(at(0), [(-20, 4), (-19, 1), (3, 1)]);
}

fn filled(values: &[u64]) -> Histogram {
    let mut histogram = Histogram::new();
    values.iter().for_each(|value| histogram.record(*value));
    histogram
}

fn durations() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(1_000u64..15_000_000_000, 1..200)
}

proptest! {
    #[test]
    fn index_is_exact(value in any::<u64>(), shift in 0u32..64) {
        check_index(value >> shift);
    }

    #[test]
    fn quantiles_stay_within_bucket_error(mut values in durations(), q in 0.0f64..=1.0) {
        let histogram = filled(&values);
        values.sort_unstable();
        let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
        let exact = values[rank - 1] as f64;
        let found = histogram.quantile_ns(q).unwrap();
        prop_assert!((found / exact).log2().abs() <= 0.125 + 1e-9, "{found} for {exact}");
        prop_assert!(found <= histogram.max_ns() as f64);
    }

    #[test]
    fn several_quantiles_equal_single_ones(values in durations(), mut qs in prop::array::uniform4(0.0f64..=1.0)) {
        qs.sort_by(f64::total_cmp);
        let histogram = filled(&values);
        let together = histogram.quantiles_ns(qs).unwrap();
        for (q, value) in qs.into_iter().zip(together) {
            let single = histogram.quantile_ns(q).unwrap();
            prop_assert!((value / single - 1.0).abs() < 1e-12, "{q}: {value} for {single}");
        }
    }

    #[test]
    fn fraction_at_most_inverts_the_quantile(values in durations(), q in 0.01f64..=0.99) {
        let histogram = filled(&values);
        let value = histogram.quantile_ns(q).unwrap();
        let fraction = histogram.fraction_at_most(value).unwrap();
        prop_assert!(fraction >= q - 1e-6, "{fraction} for {q}");
    }

    #[test]
    fn merge_equals_recording_together(a in durations(), b in durations()) {
        let mut merged = filled(&a);
        merged.merge(&filled(&b));
        prop_assert_eq!(merged, filled(&[a, b].concat()));
    }

    #[test]
    fn merge_is_associative(a in durations(), b in durations(), c in durations()) {
        let (a, b, c) = (filled(&a), filled(&b), filled(&c));
        let mut left = a.clone();
        left.merge(&b);
        left.merge(&c);
        let mut right = b;
        right.merge(&c);
        let mut whole = a;
        whole.merge(&right);
        prop_assert_eq!(left, whole);
    }

    #[test]
    fn coarser_scales_keep_the_count(values in durations(), scale in -10..=SCALE) {
        let histogram = filled(&values);
        let total: u64 = histogram.occupied_at_scale(scale).map(|(_, count)| count).sum();
        prop_assert_eq!(total, histogram.count());
    }
}
