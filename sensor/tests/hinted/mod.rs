//! A sensor that follows hints, and loads for it: shared by the kernel tests
//! and the bench `loop`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../programs/mod.rs"]
mod programs;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, SystemTime},
};

use honeyguide_bus::{
    Consumer, ConsumerEvent, Producer, Record, Topic,
    memory::{self, MemoryBus, MemoryConsumer},
    tail::MemoryTail,
};
use honeyguide_proto::{
    Hint, ServiceId,
    batch::{Batch, SeriesWindow},
    hint::Scope,
};
use honeyguide_sensor::{
    AttachedSensor, Config, Metrics, Sensor,
    hints::{COUNTED, Outcome},
    program::probe::Probe,
};
use prometheus_client::registry::Registry;
use sensor_common::Signal;

/// A sensor that follows the hints of its bus.
pub struct Running {
    bus: MemoryBus,
    batches: MemoryConsumer,
    pub sensor: Sensor,
    pub metrics: Metrics,
    epoch: u64,
}

impl Running {
    pub fn start(config: Config) -> Self {
        let bus = MemoryBus::new(memory::Config::default());
        let batches = bus.consumer("test", Topic::Histograms);
        let attached = AttachedSensor::attach(config.validate().unwrap()).unwrap();
        let metrics = Metrics::register(&mut Registry::default());
        let mut sensor = attached
            .start(Arc::new(bus.clone()), metrics.clone())
            .unwrap();
        sensor.follow_hints(MemoryTail::new(&bus, "sensor", Topic::Hints));
        Self {
            bus,
            batches,
            sensor,
            metrics,
            epoch: 0,
        }
    }

    pub async fn hint(&mut self, scope: Scope, shift: u8, ttl: Duration) {
        self.epoch += 1;
        let hint = Hint {
            scope,
            sampling_shift: Some(shift),
            flush_interval: None,
            reason: "a test".to_owned(),
            issued_at: since_epoch(),
            ttl,
            epoch: self.epoch,
            dry_run: false,
        };
        self.publish(hint.scope.key().into(), hint.encode()).await;
    }

    pub async fn publish(&self, key: Vec<u8>, payload: Vec<u8>) {
        let record = Record {
            topic: Topic::Hints,
            partition: 0,
            key,
            timestamp_ns: 0,
            payload,
        };
        self.bus.publish(record).await.unwrap();
    }

    pub fn counted(&self, outcome: Outcome) -> u64 {
        let of_outcome = COUNTED.iter().filter(|counted| counted.outcome == outcome);
        let counts = of_outcome.map(|counted| {
            let labels = (*counted).into();
            self.metrics.hints.get_or_create(&labels).get()
        });
        counts.sum()
    }

    /// Stops; every batch published.
    pub async fn stop(mut self) -> Vec<Batch> {
        self.sensor.stop().await;
        self.bus.close();
        let mut batches = Vec::new();
        while let Ok(event) = self.batches.next().await {
            if let ConsumerEvent::Delivery(delivery) = event {
                batches.push(Batch::decode(&delivery.record.payload).unwrap());
            }
        }
        batches
    }
}

pub fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
}

pub fn config(probes: Vec<Probe>) -> Config {
    Config {
        flush_interval: Duration::from_secs(1),
        probes,
        ..Config::default()
    }
}

/// A copy of an executable under a name of its own, so that its events are its own.
pub fn executable(directory: &tempfile::TempDir, of: &str, name: &str) -> PathBuf {
    let path = directory.path().join(name);
    programs::copy(of, &path);
    path
}

pub fn series_of<'a>(
    batches: &'a [Batch],
    signal: Signal,
    name: &'a str,
) -> impl Iterator<Item = (&'a SeriesWindow, &'a ServiceId)> {
    let series = batches.iter().flat_map(|batch| {
        let with_service = |series: &'a SeriesWindow| {
            let service = &batch.services[series.service as usize];
            (series, service)
        };
        batch.series.iter().map(with_service)
    });
    series.filter(move |(series, service)| series.signal == signal && service.key().ends_with(name))
}

/// Writes so many single bytes, under a name of its own.
pub async fn write_bytes(dd: &Path, calls: u64) {
    let status = tokio::process::Command::new(dd)
        .args(["if=/dev/zero", "of=/dev/null", "bs=1", "status=none"])
        .arg(format!("count={calls}"))
        .status()
        .await
        .unwrap();
    assert!(status.success());
}

/// Threads that make system calls as fast as they can.
pub struct Storm {
    calls: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Storm {
    pub fn begin() -> Self {
        let calls = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = thread::available_parallelism().unwrap().get();
        let threads = (0..threads).map(|_| {
            let (calls, stop) = (Arc::clone(&calls), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Relaxed) {
                    for _ in 0..1000 {
                        // SAFETY: no pointers are involved.
                        unsafe { libc::syscall(libc::SYS_getppid) };
                    }
                    calls.fetch_add(1000, Relaxed);
                }
            })
        });
        Self {
            threads: threads.collect(),
            calls,
            stop,
        }
    }

    pub fn end(self) -> u64 {
        self.stop.store(true, Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.calls.load(Relaxed)
    }
}

/// What was counted at one sampling ratio.
#[derive(Debug)]
pub struct Ratio {
    /// k of the ratio 1/2^k.
    pub shift: u8,
    pub truth: u64,
    /// Estimated from `samples`.
    pub count: u64,
    pub samples: u64,
}

impl Ratio {
    /// |estimate - truth| in standard errors of such a sampling.
    pub fn sigmas(&self) -> f64 {
        let error = self.count.abs_diff(self.truth) as f64;
        let sigma = (self.truth as f64 * f64::from((1u32 << self.shift) - 1)).sqrt();
        if error == 0.0 { 0.0 } else { error / sigma }
    }
}

/// Counts a known number of system calls at 1/1 to 1/64, as hints say.
pub async fn ratios() -> Vec<Ratio> {
    const CALLS: u64 = 300_000;
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(Config {
        cost_ceiling: 1.0,
        ..config(vec![Probe::Syscall])
    });
    let of_writes = Scope {
        signal: Some(Signal::SyscallWrite),
        ..Scope::default()
    };
    let names: Vec<String> = (0..=6).map(|shift| format!("hg-ratio-{shift}")).collect();
    for (shift, name) in (0..).zip(&names) {
        let dd = executable(&directory, "/bin/dd", name);
        running
            .hint(of_writes.clone(), shift, Duration::from_secs(600))
            .await;
        // Applied at the next flush.
        tokio::time::sleep(Duration::from_millis(2200)).await;
        write_bytes(&dd, CALLS).await;
    }
    let batches = running.stop().await;
    let ratio = |(shift, name): (u8, &String)| {
        let series: Vec<_> = series_of(&batches, Signal::SyscallWrite, name).collect();
        Ratio {
            shift,
            truth: CALLS,
            count: series.iter().map(|(series, _)| series.count).sum(),
            samples: series.iter().map(|(series, _)| series.totals.samples).sum(),
        }
    };
    (0..).zip(&names).map(ratio).collect()
}

/// What a window cost, in relation to the begin of a storm.
#[derive(Debug)]
pub struct StormWindow {
    pub start_secs: f64,
    pub end_secs: f64,
    /// Cost as a part of the ceiling.
    pub of_ceiling: f64,
    pub level: u32,
}

/// A storm and what it cost.
#[derive(Debug)]
pub struct Weathered {
    pub calls_per_sec: f64,
    /// Windows that ended before the storm did, calm ones before it included.
    pub windows: Vec<StormWindow>,
}

impl Weathered {
    /// Flushes above the ceiling after the second of the storm.
    pub fn violations(&self) -> usize {
        let in_storm = self.windows.iter().filter(|window| window.end_secs > 0.0);
        let late = in_storm.skip(2);
        late.filter(|window| window.of_ceiling > 1.0).count()
    }
}

/// A storm of system calls, while hints ask for all of them.
pub async fn weather() -> Weathered {
    let mut running = Running::start(config(vec![Probe::Runq, Probe::Syscall]));
    running
        .hint(Scope::default(), 0, Duration::from_secs(600))
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let begun = since_epoch();
    let storm = Storm::begin();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let calls = storm.end();
    let lasted = (since_epoch() - begun).as_secs_f64();
    let batches = running.stop().await;
    let since_begin = |ns| Duration::from_nanos(ns).as_secs_f64() - begun.as_secs_f64();
    let window = |batch: &Batch| {
        let cost = batch.cost.as_ref()?;
        let used = cost.user_space_ns + cost.kernel_ns;
        Some(StormWindow {
            start_secs: since_begin(batch.header.window_start_ns),
            end_secs: since_begin(batch.header.window_end_ns()),
            of_ceiling: used as f64 / cost.ceiling_ns as f64,
            level: cost.shedding_level,
        })
    };
    let windows = batches.iter().filter_map(window);
    Weathered {
        calls_per_sec: calls as f64 / lasted,
        windows: windows.filter(|window| window.end_secs <= lasted).collect(),
    }
}
