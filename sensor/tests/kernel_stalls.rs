//! Pressure and throttling of real cgroups, beside what their files say. Needs
//! root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod cgroups;
mod programs;

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, UNIX_EPOCH},
};

use cgroups::{Group, stalled};
use honeyguide_bus::{
    Consumer, ConsumerEvent, Topic,
    memory::{self, MemoryBus},
};
use honeyguide_proto::batch::{Batch, SeriesWindow};
use honeyguide_sensor::{AttachedSensor, Config, Metrics, program::probe::Probe};
use prometheus_client::registry::Registry;
use sensor_common::Signal;

const PRESSURES: [Signal; 3] = [
    Signal::CpuPressure,
    Signal::IoPressure,
    Signal::MemoryPressure,
];

/// Runs `work` under the sensor with a flush every second; returns every batch.
async fn batches_during<W: Future<Output = ()>>(work: W) -> Vec<Batch> {
    let config = Config {
        flush_interval: Duration::from_secs(1),
        cost_ceiling: 1.0,
        probes: vec![Probe::Runq, Probe::Pressure, Probe::Throttling],
        ..Config::default()
    };
    let bus = MemoryBus::new(memory::Config::default());
    let mut consumer = bus.consumer("test", Topic::Histograms);
    let attached = AttachedSensor::attach(config.validate().unwrap()).unwrap();
    for status in attached.statuses() {
        println!("{}: {}", status.probe, status.describe());
    }
    let metrics = Metrics::register(&mut Registry::default());
    let sensor = attached.start(Arc::new(bus.clone()), metrics).unwrap();
    work.await;
    sensor.stop().await;
    bus.close();
    let mut batches = Vec::new();
    while let Ok(event) = consumer.next().await {
        if let ConsumerEvent::Delivery(delivery) = event {
            batches.push(Batch::decode(&delivery.record.payload).unwrap());
        }
    }
    batches
}

/// A window of a series.
#[derive(Clone, Copy)]
struct Told<'a> {
    /// Of the window.
    number: usize,
    start_ns: u64,
    duration_ns: u64,
    series: &'a SeriesWindow,
}

/// The windows of `signal` of the service with the key `key`.
fn windows<'a>(batches: &'a [Batch], key: &str, signal: Signal) -> Vec<Told<'a>> {
    let starts = batches.iter().map(|batch| batch.header.window_start_ns);
    let starts: BTreeSet<u64> = starts.collect();
    let all = batches
        .iter()
        .flat_map(|batch| batch.series.iter().map(move |of| (batch, of)));
    let told = all.filter(|(batch, of)| {
        of.signal == signal && batch.services[of.service as usize].key() == key
    });
    told.map(|(batch, series)| Told {
        number: starts.range(..batch.header.window_start_ns).count(),
        start_ns: batch.header.window_start_ns,
        duration_ns: batch.header.window_duration_ns,
        series,
    })
    .collect()
}

/// Reads for how long some task of a group waited for a CPU, all the time.
struct Watch {
    stop: Arc<AtomicBool>,
    /// Nanoseconds since the Unix epoch, and of waiting.
    read: JoinHandle<Vec<(f64, f64)>>,
}

impl Watch {
    fn start(group: &Group) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, pressure) = (Arc::clone(&stop), group.cpu_pressure());
        let read = thread::spawn(move || {
            let mut read = Vec::new();
            loop {
                let is_last = stopped.load(Relaxed);
                let now = UNIX_EPOCH.elapsed().unwrap();
                read.push((now.as_nanos() as f64, stalled(&pressure).as_nanos() as f64));
                if is_last {
                    return read;
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self { stop, read }
    }

    /// Stops; the pressure of each window is what the file said at its ends.
    fn agrees(self, told: &[Told<'_>]) {
        self.stop.store(true, Relaxed);
        let read = self.read.join().unwrap();
        let at = |time_ns: u64| {
            let after = read.partition_point(|(time, _)| *time < time_ns as f64);
            let [(time, stalled), (next_time, next)] = read[after - 1..=after] else {
                unreachable!("two readings");
            };
            stalled + (next - stalled) * (time_ns as f64 - time) / (next_time - time)
        };
        for of in told {
            let end_ns = of.start_ns + of.duration_ns;
            let expected = (at(end_ns) - at(of.start_ns)) / of.duration_ns as f64;
            let value = of.series.totals.sum_ns as f64 / 1e9;
            println!("window {}: {value:.4}, file {expected:.4}", of.number);
            assert_eq!((of.series.count, of.series.totals.samples), (1, 1));
            assert!((0.0..=1.0).contains(&value));
            assert!((value - expected).abs() < 0.05, "{value} {expected}");
        }
    }
}

async fn secs(secs: f64) {
    tokio::time::sleep(Duration::from_secs_f64(secs)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pressure_is_what_the_file_says_and_the_service_s_own() {
    let mut group = Group::new("busy", "service");
    for _ in 0..=std::thread::available_parallelism().unwrap().get() {
        group.run("while :; do :; done");
    }
    // Executables that share a group are not told apart by it; one that has a
    // group for itself is.
    let mut shared = Group::new("shared", "scope");
    shared.run("while :; do :; done");
    shared.run("exec yes > /dev/null");
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("hg-alone");
    programs::copy("/bin/sh", &own);
    let mut alone = Group::new("alone", "scope");
    alone.run(&format!("exec {} -c 'while :; do :; done'", own.display()));
    let watch = Watch::start(&group);
    let batches = batches_during(secs(6.0)).await;
    let key = format!("systemd/{}", group.name);
    let told = windows(&batches, &key, Signal::CpuPressure);
    let known = windows(&batches, &key, Signal::RunQueue);
    assert_eq!(
        told[0].number,
        known[0].number + 1,
        "the flush after the first"
    );
    assert!(told.len() >= 4, "{}", told.len());
    // More processes than CPUs wait.
    assert!(told.iter().all(|of| of.series.totals.sum_ns > 100_000_000));
    watch.agrees(&told);

    let with_pressure = |batch: &Batch| {
        let series = batch.series.iter();
        let of = series.filter(|of| PRESSURES.contains(&of.signal));
        of.map(|of| batch.services[of.service as usize].key())
            .collect::<Vec<_>>()
    };
    let services: Vec<String> = batches.iter().flat_map(with_pressure).collect();
    assert!(
        services.iter().any(|key| key.starts_with("host/")),
        "the machine"
    );
    assert!(services.iter().any(|key| key == "process/hg-alone"));
    for name in ["process/sh", "process/yes"] {
        assert!(!windows(&batches, name, Signal::RunQueue).is_empty());
        assert!(services.iter().all(|key| key != name), "{services:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_throttled_period_is_counted() {
    let mut group = Group::new("quota", "service");
    group.allow_a_fifth();
    let directory = tempfile::tempdir().unwrap();
    let go = directory.path().join("go");
    // Known, and within its quota, until told to go.
    group.run(&format!(
        "while ! [ -e {} ]; do sleep 0.2; done; while :; do :; done",
        go.display()
    ));
    let (mut periods, mut time) = (0, 0);
    let watch = Watch::start(&group);
    let batches = batches_during(async {
        secs(2.5).await;
        assert_eq!(group.cpu_stat("nr_throttled "), 0);
        fs::write(&go, "").unwrap();
        secs(4.0).await;
        group.end();
        // The last period ends.
        secs(0.5).await;
        periods = group.cpu_stat("nr_throttled ");
        time = match group.cpu == group.v2 {
            true => 1000 * group.cpu_stat("throttled_usec "),
            false => group.cpu_stat("throttled_time "),
        };
    })
    .await;
    let key = format!("systemd/{}", group.name);
    let told = windows(&batches, &key, Signal::CpuThrottled);
    let counted: u64 = told.iter().map(|of| of.series.count).sum();
    let sum_ns: u64 = told.iter().map(|of| of.series.totals.sum_ns).sum();
    println!("{periods} periods, {:.3} s", time as f64 / 1e9);
    assert!(periods >= 20, "{periods} of about 40 periods");
    assert_eq!(counted, periods);
    // Who may not run waits.
    let waited = windows(&batches, &key, Signal::CpuPressure);
    assert!(waited.len() >= 4, "{}", waited.len());
    watch.agrees(&waited);
    // What came after the last period is not told.
    assert!(
        sum_ns <= time && sum_ns as f64 >= 0.9 * time as f64,
        "{sum_ns} {time}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_not_stalled_has_no_series() {
    let mut group = Group::new("calm", "service");
    group.allow_a_fifth();
    let mut waited = Duration::ZERO;
    let batches = batches_during(async {
        group.run("exec sleep 60");
        secs(2.0).await;
        let before = stalled(&group.cpu_pressure());
        secs(3.0).await;
        waited = stalled(&group.cpu_pressure()) - before;
    })
    .await;
    let key = format!("systemd/{}", group.name);
    assert!(
        !windows(&batches, &key, Signal::RunQueue).is_empty(),
        "it is known"
    );
    assert!(waited < Duration::from_millis(1), "{waited:?}");
    for signal in PRESSURES.into_iter().chain([Signal::CpuThrottled]) {
        assert!(windows(&batches, &key, signal).is_empty(), "{signal}");
    }
}
