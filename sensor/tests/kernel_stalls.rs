//! Pressure and throttling of real cgroups, beside what their files say. Needs
//! root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod cgroups;

use std::{
    collections::BTreeSet,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use cgroups::Group;
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

/// The windows of `signal` of the service with the key `key`, each with its number.
fn windows<'a>(batches: &'a [Batch], key: &str, signal: Signal) -> Vec<(usize, &'a SeriesWindow)> {
    let starts: BTreeSet<u64> = batches
        .iter()
        .map(|batch| batch.header.window_start_ns)
        .collect();
    let all = batches
        .iter()
        .flat_map(|batch| batch.series.iter().map(move |of| (batch, of)));
    all.filter(|(batch, of)| {
        of.signal == signal && batch.services[of.service as usize].key() == key
    })
    .map(|(batch, of)| (starts.range(..batch.header.window_start_ns).count(), of))
    .collect()
}

/// The part of so many seconds in which a task of the group waited for a CPU, by
/// its file.
async fn stalled_during(group: &Group, length: f64) -> f64 {
    let (begun, before) = (Instant::now(), group.cpu_stalled());
    secs(length).await;
    let stalled = group.cpu_stalled() - before;
    stalled.as_secs_f64() / begun.elapsed().as_secs_f64()
}

/// Pressure of windows is what a file said meanwhile.
fn agrees(told: &[(usize, &SeriesWindow)], expected: f64) {
    let values: Vec<f64> = told
        .iter()
        .map(|(_, of)| of.totals.sum_ns as f64 / 1e9)
        .collect();
    println!("file {expected:.4}, windows {values:.4?}");
    assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    assert!((mean / expected - 1.0).abs() < 0.1, "{mean} {expected}");
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
    fs::copy("/bin/sh", &own).unwrap();
    let mut alone = Group::new("alone", "scope");
    alone.run(&format!("exec {} -c 'while :; do :; done'", own.display()));
    let mut expected = 0.0;
    let batches = batches_during(async {
        secs(1.0).await;
        expected = stalled_during(&group, 5.0).await;
    })
    .await;
    let key = format!("systemd/{}", group.name);
    let told = windows(&batches, &key, Signal::CpuPressure);
    let known = windows(&batches, &key, Signal::RunQueue);
    assert_eq!(told[0].0, known[0].0 + 1, "the flush after the first");
    assert!(
        told.iter()
            .all(|(_, of)| of.count == 1 && of.totals.samples == 1)
    );
    assert!(expected > 0.1, "more processes than CPUs wait: {expected}");
    agrees(&told, expected);

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
    let (mut periods, mut time, mut stalled) = (0, 0, 0.0);
    let batches = batches_during(async {
        secs(2.5).await;
        assert_eq!(group.cpu_stat("nr_throttled "), 0);
        fs::write(&go, "").unwrap();
        secs(0.5).await;
        stalled = stalled_during(&group, 4.0).await;
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
    let counted: u64 = told.iter().map(|(_, of)| of.count).sum();
    let sum_ns: u64 = told.iter().map(|(_, of)| of.totals.sum_ns).sum();
    println!("{periods} periods, {:.3} s", time as f64 / 1e9);
    assert!(periods >= 20, "{periods} of about 45 periods");
    assert_eq!(counted, periods);
    // Who may not run waits: four fifths of the time, in the windows that are whole.
    let waited = windows(&batches, &key, Signal::CpuPressure);
    let (first, last) = (told[0].0, told[told.len() - 1].0);
    let whole = |of: &&(usize, &SeriesWindow)| first < of.0 && of.0 < last;
    let waited: Vec<_> = waited.iter().filter(whole).copied().collect();
    assert!(waited.len() >= 2, "{}", waited.len());
    agrees(&waited, stalled);
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
    let mut stalled = Duration::ZERO;
    let batches = batches_during(async {
        group.run("exec sleep 60");
        secs(2.0).await;
        let before = group.cpu_stalled();
        secs(3.0).await;
        stalled = group.cpu_stalled() - before;
    })
    .await;
    let key = format!("systemd/{}", group.name);
    assert!(
        !windows(&batches, &key, Signal::RunQueue).is_empty(),
        "it is known"
    );
    assert!(stalled < Duration::from_millis(1), "{stalled:?}");
    for signal in PRESSURES.into_iter().chain([Signal::CpuThrottled]) {
        assert!(windows(&batches, &key, signal).is_empty(), "{signal}");
    }
}
