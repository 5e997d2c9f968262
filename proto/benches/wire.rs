//! Bytes per series and window on the wire, of a real recording: ours beside
//! what an OTLP exporter and a Prometheus endpoint would send for the same
//! histograms, raw and with zstd.
//!
//! `cargo bench --bench wire -- FILE` measures that recording, else the first
//! of bench-data/. With `HONEYGUIDE_BENCH_OUT` set, writes the figures there.

#[path = "wire/peers.rs"]
mod peers;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use honeyguide_bus::{Topic, recording::RecordingReader};
use honeyguide_proto::batch::Batch;
use serde_json::{Value, json};

const ZSTD_LEVEL: i32 = 3;

/// Bytes of all payloads of one encoding.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    raw: usize,
    zstd: usize,
}

impl Size {
    fn add(&mut self, payload: &[u8]) {
        self.raw += payload.len();
        self.zstd += zstd::bulk::compress(payload, ZSTD_LEVEL)
            .expect("compressing to memory cannot fail")
            .len();
    }
}

#[derive(Debug, Default)]
struct Sizes {
    series_windows: usize,
    batches: usize,
    honeyguide: Size,
    otlp: Size,
    prometheus: Size,
}

fn main() {
    let report = match recording() {
        Some(file) => {
            println!("{}", file.display());
            report(&measure(&file))
        }
        None => skipped("bench-data/ holds no recording"),
    };
    if let Some(out) = env::var_os("HONEYGUIDE_BENCH_OUT") {
        fs::write(&out, report.to_string()).expect("the report's folder exists");
    }
}

/// The recording named as an argument, else the first of bench-data/.
fn recording() -> Option<PathBuf> {
    let is_recording = |path: &PathBuf| path.extension().is_some_and(|name| name == "hgr");
    if let Some(named) = env::args().skip(1).map(PathBuf::from).find(is_recording) {
        return Some(named);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench-data");
    let entries = fs::read_dir(folder).ok()?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_recording)
        .collect();
    files.sort();
    files.into_iter().next()
}

fn measure(file: &Path) -> Sizes {
    let mut sizes = Sizes::default();
    let records = RecordingReader::open(file).expect("the recording can be read");
    for record in records {
        let record = record.expect("the recording is whole");
        if record.topic != Topic::Histograms {
            continue;
        }
        let batch = Batch::decode(&record.payload).expect("the recording holds valid batches");
        if batch.series.is_empty() {
            continue;
        }
        sizes.batches += 1;
        sizes.series_windows += batch.series.len();
        sizes.honeyguide.add(&record.payload);
        sizes.otlp.add(&peers::otlp(&batch));
        sizes.prometheus.add(&peers::prometheus(&batch));
    }
    sizes
}

fn report(sizes: &Sizes) -> Value {
    if sizes.series_windows == 0 {
        return skipped("the recording holds no series");
    }
    let per_series = |bytes: usize| bytes as f64 / sizes.series_windows as f64;
    println!(
        "{} series-windows in {} batches, bytes each:",
        sizes.series_windows, sizes.batches
    );
    for (name, size) in [
        ("honeyguide", sizes.honeyguide),
        ("OTLP exponential", sizes.otlp),
        ("Prometheus native", sizes.prometheus),
    ] {
        let (raw, zstd) = (per_series(size.raw), per_series(size.zstd));
        println!("{name:>18}: {raw:7.1} raw, {zstd:7.1} zstd");
    }
    let best_raw = sizes.otlp.raw.min(sizes.prometheus.raw);
    let best_zstd = sizes.otlp.zstd.min(sizes.prometheus.zstd);
    json!({"metrics": {
        "raw_vs_best_peer": sizes.honeyguide.raw as f64 / best_raw as f64,
        "zstd_vs_best_peer": sizes.honeyguide.zstd as f64 / best_zstd as f64,
        "bytes_raw": per_series(sizes.honeyguide.raw),
        "bytes_zstd": per_series(sizes.honeyguide.zstd),
        "bytes_otlp_raw": per_series(sizes.otlp.raw),
        "bytes_otlp_zstd": per_series(sizes.otlp.zstd),
        "bytes_prometheus_raw": per_series(sizes.prometheus.raw),
        "bytes_prometheus_zstd": per_series(sizes.prometheus.zstd),
        "series_windows": sizes.series_windows,
    }, "skipped": {}})
}

fn skipped(reason: &str) -> Value {
    println!("skipped: {reason}");
    json!({"metrics": {}, "skipped": {
        "raw_vs_best_peer": reason,
        "zstd_vs_best_peer": reason,
    }})
}
