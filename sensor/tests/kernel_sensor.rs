//! The whole sensor with real kernel events on the in-process bus. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod programs;

use std::collections::{BTreeMap, BTreeSet};

use std::{sync::Arc, time::Duration};

use honeyguide_bus::{
    Consumer, ConsumerEvent, Topic,
    memory::{self, MemoryBus},
};
use honeyguide_proto::batch::Batch;
use honeyguide_sensor::{AttachedSensor, Config, Metrics, program::probe::Probe};
use prometheus_client::registry::Registry;
use sensor_common::Signal;

fn config(probes: Vec<Probe>) -> Config {
    Config {
        flush_interval: Duration::from_secs(1),
        // Exact counts, whatever else this machine does.
        cost_ceiling: 1.0,
        probes,
        ..Config::default()
    }
}

/// Runs `work` under the sensor; returns every batch published.
async fn batches_during<W: Future<Output = ()>>(config: Config, work: W) -> Vec<Batch> {
    let bus = MemoryBus::new(memory::Config::default());
    let mut consumer = bus.consumer("test", Topic::Histograms);
    let attached = AttachedSensor::attach(config.validate().unwrap()).unwrap();
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

/// Events of `signal` of services whose key ends in `name`.
fn count(batches: &[Batch], signal: Signal, name: &str) -> u64 {
    let series = batches
        .iter()
        .flat_map(|batch| batch.series.iter().map(move |series| (batch, series)));
    series
        .filter(|(batch, series)| {
            series.signal == signal
                && batch.services[series.service as usize]
                    .key()
                    .ends_with(name)
        })
        .map(|(_, series)| series.count)
        .sum()
}

/// Events of a signal by whom they are charged to.
fn by_service(batches: &[Batch], signal: Signal) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for batch in batches {
        for series in batch.series.iter().filter(|of| of.signal == signal) {
            let key = batch.services[series.service as usize].key();
            *counts.entry(key).or_default() += series.count;
        }
    }
    counts
}

/// A copy of an executable under a name of its own, so that its events are its own.
fn executable(directory: &tempfile::TempDir, of: &str, name: &str) -> std::path::PathBuf {
    let path = directory.path().join(name);
    programs::copy(of, &path);
    path
}

/// Writes so many single bytes, under a name of its own.
async fn write_bytes(dd: &std::path::Path, calls: u64) {
    let status = tokio::process::Command::new(dd)
        .args(["if=/dev/zero", "of=/dev/null", "bs=1", "status=none"])
        .arg(format!("count={calls}"))
        .status()
        .await
        .unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn system_calls_are_counted_exactly_from_the_first() {
    const CALLS: u64 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let dd = executable(&directory, "/bin/dd", "hg-exact-dd");
    let work = async move { write_bytes(&dd, CALLS).await };
    let batches = batches_during(config(vec![Probe::Syscall]), work).await;
    // dd writes nothing but its blocks.
    assert_eq!(count(&batches, Signal::SyscallWrite, "/hg-exact-dd"), CALLS);
}

/// Requests made by tasks of one name, as the kernel's own tracing tells of them.
struct MadeRequests {
    instance: std::path::PathBuf,
    comm: String,
}

impl MadeRequests {
    fn trace(comm: &str) -> Self {
        let instance = format!("/sys/kernel/tracing/instances/hg-{}", std::process::id());
        let traced = Self {
            instance: instance.into(),
            comm: comm.to_owned(),
        };
        std::fs::create_dir(&traced.instance).unwrap();
        // One of the first per request, in the context of whoever makes it.
        for event in ["block_getrq", "block_rq_complete"] {
            let enable = format!("events/block/{event}/enable");
            std::fs::write(traced.instance.join(enable), "1").unwrap();
        }
        traced
    }

    /// What is told of their making, and how many completions of them interrupted
    /// process 1. The kernels of some virtual machines run no BPF program while
    /// their own agent, which is that process, has the CPU; tracing tells of what
    /// happens then all the same. (Of 216,001 completions on such a machine 37
    /// interrupted it, and an empty program ran 215,964 times, with none missed by the
    /// kernel's count.)
    fn lines(&self) -> (Vec<String>, usize) {
        let trace = std::fs::read_to_string(self.instance.join("trace")).unwrap();
        let of = |event| trace.lines().filter(move |line| line.contains(event));
        let by_comm = format!("[{}]", self.comm);
        let made = of("block_getrq:").filter(|line| line.ends_with(&by_comm));
        let made: Vec<_> = made.map(str::to_owned).collect();
        // "254,0 RS 181933696 + 8 [comm]" is made, "254,0 RS () 181933696 + 8 be,0,4
        // [0]" completes: the sector is before the sign.
        let sector = |line: &str| {
            let before = line.split(" + ").next().unwrap_or_default();
            before.rsplit(' ').next().map(str::to_owned)
        };
        let sectors: BTreeSet<_> = made.iter().map(|line| sector(line)).collect();
        let threads = std::fs::read_dir("/proc/1/task").unwrap();
        let threads: Vec<_> = threads
            .map(|thread| format!("-{} ", thread.unwrap().file_name().to_string_lossy()))
            .collect();
        let interrupted = of("block_rq_complete:").filter(|line| {
            let task = line.split('[').next().unwrap_or_default();
            sectors.contains(&sector(line)) && threads.iter().any(|thread| task.contains(thread))
        });
        (made, interrupted.count())
    }
}

impl Drop for MadeRequests {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.instance);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn block_requests_are_counted_exactly_and_charged_to_the_submitter() {
    const REQUESTS: usize = 200;
    let directory = tempfile::tempdir_in(".").unwrap();
    let dd = executable(&directory, "/bin/dd", "hg-block-dd");
    let file = directory.path().join("data");
    std::fs::write(&file, vec![1u8; 4096 * REQUESTS]).unwrap();
    std::fs::File::open(&file).unwrap().sync_all().unwrap();
    let made = MadeRequests::trace("hg-block-dd");
    let work = async move {
        let mut command = tokio::process::Command::new(&dd);
        command.arg(format!("if={}", file.display())).args([
            "of=/dev/null",
            "bs=4096",
            "iflag=direct",
            "status=none",
        ]);
        assert!(command.status().await.unwrap().success());
    };
    let batches = batches_during(config(vec![Probe::Blkio]), work).await;
    // The blocks read, and whatever the file system or the loader had to read.
    let (made, may_be_unseen) = made.lines();
    assert!(made.len() >= REQUESTS, "{}", made.len());
    let expected = (made.len() - may_be_unseen) as u64..=made.len() as u64;
    for signal in [Signal::BlockIo, Signal::BlockIoDevice] {
        let counted = count(&batches, signal, "/hg-block-dd");
        let all = by_service(&batches, signal);
        assert!(
            expected.contains(&counted),
            "{signal}, {counted} of {expected:?}, counted {all:?}\n{}",
            made.join("\n")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_are_counted_exactly_on_both_sides() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const CONNECTIONS: u64 = 5;
    const EXCHANGES: u64 = 300;
    let work = async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            for _ in 0..CONNECTIONS {
                let (mut socket, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut request = [0; 64];
                    while socket.read(&mut request).await.unwrap() > 0 {
                        socket.write_all(b"response").await.unwrap();
                    }
                });
            }
        });
        for _ in 0..CONNECTIONS {
            let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
            let mut response = [0; 64];
            for _ in 0..EXCHANGES {
                socket.write_all(b"request").await.unwrap();
                assert!(socket.read(&mut response).await.unwrap() > 0);
            }
        }
        server.await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let batches = batches_during(config(vec![Probe::Tcp]), work).await;
    // Client and server are this process, named by its executable.
    let executable = std::env::current_exe().unwrap();
    let name = executable
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    for signal in [
        Signal::ServerRequest,
        Signal::ServerQueue,
        Signal::ServerService,
        Signal::ServerResponse,
        Signal::ClientRequest,
        Signal::ClientResponse,
    ] {
        assert_eq!(
            count(&batches, signal, &name),
            CONNECTIONS * EXCHANGES,
            "{signal}"
        );
    }
    assert_eq!(count(&batches, Signal::TcpConnect, &name), CONNECTIONS);
    let lost: u64 = batches
        .iter()
        .flat_map(|batch| &batch.losses)
        .map(|(_, count)| count)
        .sum();
    assert_eq!(lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_each_partition_have_no_gap() {
    let work = tokio::time::sleep(Duration::from_millis(3500));
    let batches = batches_during(config(vec![Probe::Runq]), work).await;
    for partition in 0..4 {
        let of_partition = batches
            .iter()
            .filter(|batch| batch.header.partition == partition);
        let headers: Vec<_> = of_partition.map(|batch| &batch.header).collect();
        assert!(headers.len() >= 3, "{}", headers.len());
        for (seq, header) in (1..).zip(&headers) {
            assert_eq!(header.seq, seq);
        }
        for pair in headers.windows(2) {
            assert_eq!(pair[0].window_end_ns(), pair[1].window_start_ns);
        }
    }
    assert!(batches.iter().any(|batch| !batch.series.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn sampled_counts_are_unbiased() {
    const CALLS: u64 = 400_000;
    let directory = tempfile::tempdir().unwrap();
    for shift in [1, 3, 6] {
        let name = format!("hg-sampled-{shift}");
        let dd = executable(&directory, "/bin/dd", &name);
        let work = async move { write_bytes(&dd, CALLS).await };
        let mut config = config(vec![Probe::Syscall]);
        config
            .sampling_shift
            .insert("syscall_write".to_owned(), shift);
        let batches = batches_during(config, work).await;
        let estimate = count(&batches, Signal::SyscallWrite, &name) as f64;
        // Each call counts 2^k with probability 2^-k: variance 2^k - 1 per call.
        let weight = f64::from(1u32 << shift);
        let standard_error = (CALLS as f64 * (weight - 1.0)).sqrt();
        let sigmas = (estimate - CALLS as f64).abs() / standard_error;
        assert!(
            sigmas < 4.0,
            "1/{weight}: estimated {estimate}, {sigmas:.1} standard errors off"
        );
    }
}

/// The text of `/metrics`.
fn exposed(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_stands_still_delays_windows_and_loses_nothing() {
    const CALLS: u64 = 5_000;
    let directory = tempfile::tempdir().unwrap();
    let dd = executable(&directory, "/bin/dd", "hg-slow-bus-dd");
    // Each partition holds one record, and nobody reads at first.
    let bus = MemoryBus::new(memory::Config {
        partition_bytes_max: 1,
        publish_timeout: Duration::from_millis(100),
        ..memory::Config::default()
    });
    let mut consumer = bus.consumer("test", Topic::Histograms);
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let config = config(vec![Probe::Syscall]).validate().unwrap();
    let attached = AttachedSensor::attach(config).unwrap();
    let sensor = attached.start(Arc::new(bus.clone()), metrics).unwrap();
    for _ in 0..8 {
        write_bytes(&dd, CALLS).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(bus.publish_refusals() > 0);
    let stopped = tokio::spawn(async move {
        sensor.stop().await;
        bus.close();
    });
    let mut batches = Vec::new();
    while let Ok(event) = consumer.next().await {
        if let ConsumerEvent::Delivery(delivery) = event {
            batches.push(Batch::decode(&delivery.record.payload).unwrap());
            let read = honeyguide_bus::Position {
                topic: Topic::Histograms,
                partition: delivery.record.partition,
                offset: delivery.offset + 1,
            };
            consumer.commit(&[read]).await.unwrap();
        }
    }
    stopped.await.unwrap();
    let counted = count(&batches, Signal::SyscallWrite, "/hg-slow-bus-dd");
    assert_eq!(counted, 8 * CALLS);
    let of_one = batches.iter().filter(|batch| batch.header.partition == 0);
    let headers: Vec<_> = of_one.map(|batch| &batch.header).collect();
    let longest = headers.iter().map(|header| header.window_duration_ns).max();
    assert!(longest > Some(3_000_000_000), "{longest:?}");
    for pair in headers.windows(2) {
        assert_eq!(pair[0].window_end_ns(), pair[1].window_start_ns);
    }
    let text = exposed(&registry);
    assert!(!text.contains("sensor_windows_delayed_total 0"), "{text}");
    let mut losses = text
        .lines()
        .filter(|line| line.starts_with("sensor_events_lost_total{"));
    assert!(losses.all(|line| line.ends_with("} 0")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_a_closed_bus_refuses_are_counted() {
    const CALLS: u64 = 5_000;
    let directory = tempfile::tempdir().unwrap();
    let dd = executable(&directory, "/bin/dd", "hg-closed-bus-dd");
    let bus = MemoryBus::new(memory::Config::default());
    bus.close();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let config = config(vec![Probe::Syscall]).validate().unwrap();
    let attached = AttachedSensor::attach(config).unwrap();
    let sensor = attached.start(Arc::new(bus), metrics).unwrap();
    let status = sensor.status();
    write_bytes(&dd, CALLS).await;
    sensor.stop().await;
    let text = exposed(&registry);
    let lost = text
        .lines()
        .find_map(|line| line.strip_prefix("sensor_events_lost_total{reason=\"bus_closed\"} "))
        .and_then(|count| count.parse::<u64>().ok());
    assert!(lost >= Some(CALLS), "{text}");
    assert!(status.borrow().windows > 0);
}

/// Two sensors on one machine, by mistake with one name: both count
/// everything, and whoever reads the bus can tell them apart.
#[tokio::test(flavor = "multi_thread")]
async fn two_sensors_with_one_id_do_not_disturb_each_other() {
    const CALLS: u64 = 5_000;
    let directory = tempfile::tempdir().unwrap();
    let dd = executable(&directory, "/bin/dd", "hg-twin-dd");
    let bus = MemoryBus::new(memory::Config::default());
    let mut consumer = bus.consumer("test", Topic::Histograms);
    let sensors = [(), ()].map(|()| {
        let config = Config {
            sensor_id: "twin".to_owned(),
            ..config(vec![Probe::Syscall])
        };
        let attached = AttachedSensor::attach(config.validate().unwrap()).unwrap();
        let metrics = Metrics::register(&mut Registry::default());
        attached.start(Arc::new(bus.clone()), metrics).unwrap()
    });
    write_bytes(&dd, CALLS).await;
    for sensor in sensors {
        sensor.stop().await;
    }
    bus.close();
    let mut by_boot = std::collections::BTreeMap::<_, Vec<Batch>>::new();
    while let Ok(event) = consumer.next().await {
        if let ConsumerEvent::Delivery(delivery) = event {
            let batch = Batch::decode(&delivery.record.payload).unwrap();
            assert_eq!(batch.header.sensor_id, "twin");
            by_boot.entry(batch.header.boot_id).or_default().push(batch);
        }
    }
    assert_eq!(by_boot.len(), 2);
    for batches in by_boot.values() {
        let counted = count(batches, Signal::SyscallWrite, "/hg-twin-dd");
        assert_eq!(counted, CALLS);
    }
}
