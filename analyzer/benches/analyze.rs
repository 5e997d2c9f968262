//! How many series one core keeps up to date: from encoded batches to windows,
//! features, forecasts and judgements, with six hours of history; and what a
//! series takes in memory. With `HONEYGUIDE_BENCH_OUT` set, writes the figures
//! there; under `cargo test` it runs once, small.

use std::{env, fs, time::Instant};

use honeyguide_analyzer::{
    Config,
    pipeline::{Command, HistoryRow, Input, Pipeline},
};
use honeyguide_bus::{Delivery, Record, Topic, partition_of};
use honeyguide_models::Window;
use honeyguide_proto::{
    ServiceId, ServiceKind,
    batch::{Header, SeriesRef, encode},
};
use sensor_common::{Histogram, Signal};
use serde_json::json;

const STEP_SECS: u64 = 10;
const STEP_NS: u64 = STEP_SECS * 1_000_000_000;
/// The default lateness, and half a step.
const CLOSE_DELAY_NS: u64 = 2_000_000_000 + STEP_NS / 2;
/// 2023, at the begin of a step.
const FIRST_STEP: u64 = 170_000_000;
const PARTITIONS: u32 = 8;
const SIGNALS: [Signal; 5] = [
    Signal::RunQueue,
    Signal::BlockIo,
    Signal::ServerRequest,
    Signal::ServerQueue,
    Signal::ClientRequest,
];
/// Different windows; series walk through them at different phases.
const SHAPES: usize = 61;

/// How much is measured.
struct Size {
    services: usize,
    history_steps: u64,
    warm_up_ticks: u64,
    ticks: u64,
}

/// 20,000 series with six hours of history.
const FULL: Size = Size {
    services: 4000,
    history_steps: 6 * 3600 / STEP_SECS,
    warm_up_ticks: 2,
    ticks: 12,
};
const SMALL: Size = Size {
    services: 10,
    history_steps: 60,
    warm_up_ticks: 1,
    ticks: 2,
};

fn main() {
    let size = if env::args().any(|arg| arg == "--bench") {
        FULL
    } else {
        SMALL
    };
    let services = services(size.services);
    let shapes = shapes();
    let rss_before = rss_bytes();
    let mut pipeline = with_history(&size, &services, &shapes);
    let restored_bytes = rss_bytes().saturating_sub(rss_before);
    let mut cpu_ns = Vec::new();
    for tick in 0..size.warm_up_ticks + size.ticks {
        let step = FIRST_STEP + size.history_steps + tick;
        let deliveries = deliveries(step, tick, &services, &shapes);
        let (forecasts, cpu) = tick_of(&mut pipeline, &deliveries, step);
        assert_eq!(
            forecasts,
            services.len() * SIGNALS.len(),
            "a series was left out"
        );
        if tick >= size.warm_up_ticks {
            cpu_ns.push(cpu);
        }
    }
    let series = pipeline.series_count() as f64;
    let mean_ns = cpu_ns.iter().sum::<u64>() as f64 / cpu_ns.len() as f64;
    let series_per_core = series * STEP_NS as f64 / mean_ns;
    let bytes_per_series = rss_bytes().saturating_sub(rss_before) as f64 / series;
    println!(
        "{series} series: {:.1} ms of one core per tick, {series_per_core:.0} series per core, \
         {bytes_per_series:.0} bytes per series",
        mean_ns / 1e6
    );
    if let Some(out) = env::var_os("HONEYGUIDE_BENCH_OUT") {
        let report = json!({"metrics": {
            "series_per_core": series_per_core,
            "bytes_per_series": bytes_per_series,
            "us_per_series": mean_ns / series / 1e3,
            "bytes_per_series_state": pipeline.bytes() as f64 / series,
            "bytes_per_series_restored": restored_bytes as f64 / series,
            "slowest_tick_ms": cpu_ns.iter().max().copied().unwrap_or(0) as f64 / 1e6,
            "series": series,
        }, "skipped": {}});
        fs::write(&out, report.to_string()).expect("the report's folder exists");
    }
}

fn services(count: usize) -> Vec<ServiceId> {
    (0..count)
        .map(|number| ServiceId::named(ServiceKind::Process, &format!("service-{number}")))
        .collect()
}

/// Histograms of a few hundred events around a millisecond that drift and jitter.
fn shapes() -> Vec<Histogram> {
    let mut state = 1u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let shape = |number: usize| {
        let level_ns = 1e6 * (1.0 + 0.3 * (number as f64 / 10.0).sin());
        let mut histogram = Histogram::new();
        for _ in 0..200 + number {
            // The sum of three has a peak and a tail.
            let spread = random() + random() + random() - 1.5;
            histogram.record((level_ns * (2.0 * spread).exp()) as u64);
        }
        histogram
    };
    (0..SHAPES).map(shape).collect()
}

fn with_history(size: &Size, services: &[ServiceId], shapes: &[Histogram]) -> Pipeline {
    let config = Config::default().validate().expect("the default is valid");
    let mut pipeline = Pipeline::new(config);
    let windows: Vec<Window> = shapes
        .iter()
        .map(|shape| Window::from_histogram(shape, STEP_SECS as f64, 1.0))
        .collect();
    let keys: Vec<String> = services.iter().map(ServiceId::key).collect();
    let rows = (0..size.history_steps).flat_map(|step| {
        let (keys, windows) = (&keys, &windows);
        keys.iter().enumerate().flat_map(move |(service, key)| {
            SIGNALS.into_iter().map(move |signal| HistoryRow {
                step: FIRST_STEP + step,
                service: key.clone(),
                signal,
                window: windows[shape_of(step, service, signal)],
            })
        })
    });
    pipeline.restore(rows);
    pipeline
}

fn shape_of(step: u64, service: usize, signal: Signal) -> usize {
    (step as usize + 7 * service + 13 * usize::from(signal.number())) % SHAPES
}

/// One batch per partition.
fn deliveries(step: u64, tick: u64, services: &[ServiceId], shapes: &[Histogram]) -> Vec<Delivery> {
    let batch = |partition: u32| {
        let header = Header {
            sensor_id: "node".to_owned(),
            boot_id: [1; 16],
            seq: tick + 1,
            partition,
            window_start_ns: step * STEP_NS,
            window_duration_ns: STEP_NS,
            more: false,
        };
        let mine: Vec<(usize, &ServiceId)> = services
            .iter()
            .enumerate()
            .filter(|(_, service)| partition_of(service.key().as_bytes(), PARTITIONS) == partition)
            .collect();
        let mut series = Vec::new();
        for (index, (service, _)) in (0u32..).zip(&mine) {
            series.extend(SIGNALS.map(|signal| SeriesRef {
                service: index,
                signal,
                histogram: &shapes[shape_of(step, *service, signal)],
            }));
        }
        let ids: Vec<ServiceId> = mine.iter().map(|(_, id)| (*id).clone()).collect();
        Delivery {
            offset: tick,
            record: Record {
                topic: Topic::Histograms,
                partition,
                key: Vec::new(),
                timestamp_ns: header.window_end_ns(),
                payload: encode(&header, &ids, series, &[], None),
            },
        }
    };
    (0..PARTITIONS).map(batch).collect()
}

/// Takes the batches of a step and closes it; returns the number of forecasts
/// and the CPU time.
fn tick_of(pipeline: &mut Pipeline, deliveries: &[Delivery], step: u64) -> (usize, u64) {
    let end_ns = (step + 1) * STEP_NS;
    let (start, wall) = (thread_cpu_ns(), Instant::now());
    for delivery in deliveries {
        pipeline.handle(Input::Delivery(delivery), end_ns);
    }
    let as_of_ns = end_ns + CLOSE_DELAY_NS;
    pipeline.handle(Input::CaughtUp { as_of_ns }, as_of_ns);
    let mut forecasts = 0;
    while let Some(command) = pipeline.next_command() {
        match command {
            Command::Forecasts(made) => forecasts += made.len(),
            Command::Store { step, .. } => {
                pipeline.handle(Input::Stored { step }, end_ns);
            }
            Command::Alert(_) | Command::Hints(_) | Command::Commit(_) => {}
        }
    }
    let cpu_ns = match (start, thread_cpu_ns()) {
        (Some(start), Some(end)) => end - start,
        _ => wall.elapsed().as_nanos() as u64,
    };
    (forecasts, cpu_ns)
}

/// CPU time of this thread, where the kernel tells it: other work on the
/// machine does not count.
fn thread_cpu_ns() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn rss_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
