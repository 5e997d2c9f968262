//! The whole sensor with real kernel events on the in-process bus. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

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

/// A copy of an executable under a name of its own, so that its events are its own.
fn executable(directory: &tempfile::TempDir, of: &str, name: &str) -> std::path::PathBuf {
    let path = directory.path().join(name);
    std::fs::copy(of, &path).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn system_calls_are_counted_exactly_from_the_first() {
    const CALLS: u64 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let dd = executable(&directory, "/bin/dd", "hg-exact-dd");
    let work = async move {
        let status = tokio::process::Command::new(dd)
            .args([
                "if=/dev/zero",
                "of=/dev/null",
                "bs=1",
                &format!("count={CALLS}"),
                "status=none",
            ])
            .status()
            .await
            .unwrap();
        assert!(status.success());
    };
    let batches = batches_during(config(vec![Probe::Syscall]), work).await;
    // dd writes nothing but its blocks.
    assert_eq!(count(&batches, Signal::SyscallWrite, "/hg-exact-dd"), CALLS);
}

#[tokio::test(flavor = "multi_thread")]
async fn block_requests_are_counted_exactly_and_charged_to_the_submitter() {
    const REQUESTS: u64 = 200;
    let directory = tempfile::tempdir_in(".").unwrap();
    let dd = executable(&directory, "/bin/dd", "hg-block-dd");
    let file = directory.path().join("data");
    std::fs::write(&file, vec![1u8; 4096 * REQUESTS as usize]).unwrap();
    std::fs::File::open(&file).unwrap().sync_all().unwrap();
    let read = move || {
        let mut command = tokio::process::Command::new(&dd);
        command.arg(format!("if={}", file.display())).args([
            "of=/dev/null",
            "bs=4096",
            "iflag=direct",
            "status=none",
        ]);
        command
    };
    // Afterwards the program and the file's metadata need no requests of their own.
    assert!(read().status().await.unwrap().success());
    let work = async move {
        assert!(read().status().await.unwrap().success());
    };
    let batches = batches_during(config(vec![Probe::Blkio]), work).await;
    assert_eq!(count(&batches, Signal::BlockIo, "/hg-block-dd"), REQUESTS);
    assert_eq!(
        count(&batches, Signal::BlockIoDevice, "/hg-block-dd"),
        REQUESTS
    );
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
        let work = async move {
            let status = tokio::process::Command::new(dd)
                .args([
                    "if=/dev/zero",
                    "of=/dev/null",
                    "bs=1",
                    &format!("count={CALLS}"),
                    "status=none",
                ])
                .status()
                .await
                .unwrap();
            assert!(status.success());
        };
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
