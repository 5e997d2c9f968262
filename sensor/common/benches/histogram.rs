//! What index, merge and quantile cost, beside two well-known crates, and
//! whether the index is exact. With `HONEYGUIDE_BENCH_OUT` set, writes the
//! figures there.

use std::{
    env, fs,
    hint::black_box,
    path::{Path, PathBuf},
};

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use hdrhistogram::Histogram as HdrHistogram;
use num_bigint::BigUint;
use sensor_common::{
    Histogram,
    histogram::{self, BUCKETS},
};
use serde_json::{Value, json};
use sketches_ddsketch::{Config, DDSketch};

/// Values per measured loop, so that the loop's own cost vanishes.
const VALUES: usize = 1024;
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];
/// Random values compared with big integers.
const CHECKED_VALUES: usize = 100_000;

fn main() {
    let estimates = scratch();
    let mut criterion = Criterion::default()
        .output_directory(&estimates)
        .configure_from_args();
    index(&mut criterion.benchmark_group("index"));
    merge(&mut criterion.benchmark_group("merge"));
    quantile(&mut criterion.benchmark_group("quantile"));
    criterion.final_summary();
    if let Some(out) = env::var_os("HONEYGUIDE_BENCH_OUT") {
        let report = report(&estimates);
        fs::write(&out, report.to_string()).expect("the report's folder exists");
    }
}

/// Where criterion keeps its estimates.
fn scratch() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("histogram")
}

/// Durations from 1 µs to 10 s, evenly over the logarithm: no branch of the
/// index is predictable.
fn durations_ns() -> Vec<u64> {
    let mut random = Random(1);
    let exponent = |random: &mut Random| 3.0 + 7.0 * (random.next() as f64 / u64::MAX as f64);
    (0..VALUES)
        .map(|_| 10f64.powf(exponent(&mut random)) as u64)
        .collect()
}

fn full() -> Histogram {
    let mut histogram = Histogram::new();
    for position in 0..BUCKETS {
        histogram.record(histogram::lower_bound_ns(position) as u64 + 1);
    }
    for value_ns in durations_ns() {
        histogram.record(value_ns);
    }
    histogram
}

fn full_hdr() -> HdrHistogram<u64> {
    let mut histogram = HdrHistogram::new_with_bounds(1, 16_000_000_000, 2).expect("valid bounds");
    for value_ns in durations_ns() {
        histogram.saturating_record(value_ns);
    }
    histogram
}

/// The accuracy is that of scale 3: 4.4 %.
fn full_ddsketch() -> DDSketch {
    let mut sketch = DDSketch::new(Config::new(0.044, 2048, 1.0));
    for value_ns in durations_ns() {
        sketch.add(value_ns as f64);
    }
    sketch
}

fn index(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.throughput(Throughput::Elements(VALUES as u64));
    let values = durations_ns();
    group.bench_function("honeyguide", |bencher| {
        bencher.iter(|| {
            for value_ns in &values {
                black_box(histogram::position(black_box(*value_ns)));
            }
        });
    });
    let mut hdr = full_hdr();
    group.bench_function("hdrhistogram-record", |bencher| {
        bencher.iter(|| {
            for value_ns in &values {
                hdr.saturating_record(black_box(*value_ns));
            }
        });
    });
    let mut ours = full();
    group.bench_function("honeyguide-record", |bencher| {
        bencher.iter(|| {
            for value_ns in &values {
                ours.record(black_box(*value_ns));
            }
        });
    });
    let mut sketch = full_ddsketch();
    group.bench_function("ddsketch-add", |bencher| {
        bencher.iter(|| {
            for value_ns in &values {
                sketch.add(black_box(*value_ns) as f64);
            }
        });
    });
}

fn merge(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (mut ours, other) = (full(), full());
    group.bench_function("honeyguide", |bencher| {
        bencher.iter(|| ours.merge(black_box(&other)));
    });
    let (mut hdr, other) = (full_hdr(), full_hdr());
    group.bench_function("hdrhistogram", |bencher| {
        bencher.iter(|| hdr.add(black_box(&other)).expect("equal bounds"));
    });
    let (mut sketch, other) = (full_ddsketch(), full_ddsketch());
    group.bench_function("ddsketch", |bencher| {
        bencher.iter(|| {
            sketch
                .merge(black_box(&other))
                .expect("equal configurations")
        });
    });
}

fn quantile(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.throughput(Throughput::Elements(QUANTILES.len() as u64));
    let ours = full();
    group.bench_function("honeyguide", |bencher| {
        bencher.iter(|| QUANTILES.map(|q| black_box(&ours).quantile_ns(black_box(q))));
    });
    let hdr = full_hdr();
    group.bench_function("hdrhistogram", |bencher| {
        bencher.iter(|| QUANTILES.map(|q| black_box(&hdr).value_at_quantile(black_box(q))));
    });
    let sketch = full_ddsketch();
    group.bench_function("ddsketch", |bencher| {
        bencher.iter(|| QUANTILES.map(|q| black_box(&sketch).quantile(black_box(q))));
    });
}

/// Values whose index is off, judged with integers of any size: around every
/// bound and at random.
fn mismatches() -> usize {
    let mut random = Random(2);
    let around_bounds = (-239..276).flat_map(|index| {
        let bound = (1e9 * (f64::from(index) / 8.0).exp2()) as u64;
        bound.saturating_sub(3)..=bound.saturating_add(3)
    });
    let at_random = (0..CHECKED_VALUES).map(|_| {
        let bits = random.next() % 64;
        random.next() >> bits
    });
    around_bounds
        .chain(at_random)
        .filter(|value_ns| !is_exact((*value_ns).max(1)))
        .count()
}

/// 2^(i/8) s < value ≤ 2^((i+1)/8) s, both sides to the eighth power.
fn is_exact(value_ns: u64) -> bool {
    let above_bound = |index: i32| {
        let value = BigUint::from(value_ns).pow(8);
        let second = BigUint::from(10u8).pow(72);
        let shift = index.unsigned_abs() as usize;
        if index >= 0 {
            value > second << shift
        } else {
            value << shift > second
        }
    };
    let index = histogram::index(value_ns);
    above_bound(index) && !above_bound(index + 1)
}

fn report(estimates: &Path) -> Value {
    let mut metrics = serde_json::Map::new();
    let cases = [
        ("index_ns", "index/honeyguide", VALUES),
        ("record_ns", "index/honeyguide-record", VALUES),
        (
            "hdrhistogram_record_ns",
            "index/hdrhistogram-record",
            VALUES,
        ),
        ("ddsketch_record_ns", "index/ddsketch-add", VALUES),
        ("merge_ns", "merge/honeyguide", 1),
        ("hdrhistogram_merge_ns", "merge/hdrhistogram", 1),
        ("ddsketch_merge_ns", "merge/ddsketch", 1),
        ("quantile_ns", "quantile/honeyguide", QUANTILES.len()),
        (
            "hdrhistogram_quantile_ns",
            "quantile/hdrhistogram",
            QUANTILES.len(),
        ),
        ("ddsketch_quantile_ns", "quantile/ddsketch", QUANTILES.len()),
    ];
    for (key, case, calls) in cases {
        if let Some(median_ns) = median_ns(&estimates.join(case)) {
            metrics.insert(key.to_owned(), json!(median_ns / calls as f64));
        }
    }
    metrics.insert("mismatches".to_owned(), json!(mismatches()));
    json!({ "metrics": metrics, "skipped": {} })
}

/// Median time of one iteration.
fn median_ns(case: &Path) -> Option<f64> {
    let text = fs::read_to_string(case.join("new/estimates.json")).ok()?;
    let estimates: Value = serde_json::from_str(&text).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}

/// SplitMix64, so that every run measures the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
