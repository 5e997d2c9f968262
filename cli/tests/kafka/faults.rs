//! Faults between sensors, Kafka and analyzers. Sensors publish through a
//! spool, as `honeyguide sensor` does.

use honeyguide_bus::spool::{self, Spool};
use rdkafka::{
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    config::ClientConfig,
};

use super::*;

/// The sensors' spool.
async fn spool(group: &Group, config: &ValidConfig) -> Spool<KafkaProducer> {
    let producer = KafkaProducer::connect(config.clone()).await.unwrap();
    let bounds = spool::Config {
        directory: group.directory.path().join("spool"),
        bytes_max: 64 << 20,
        age_max: Duration::from_secs(3600),
    };
    Spool::open(bounds, producer).unwrap()
}

/// Publishes these seconds, one each second, and calls `disturb` before each.
async fn publish_seconds(
    spool: &impl Producer,
    seconds: std::ops::Range<u64>,
    published: &mut BTreeMap<String, u64>,
    mut disturb: impl FnMut(u64),
) {
    let begun = Instant::now();
    let first = seconds.start;
    for second in seconds {
        disturb(second);
        publish_second(spool, second, published).await;
        let next = begun + Duration::from_secs(second + 1 - first);
        tokio::time::sleep_until(next.into()).await;
    }
}

/// The network between everybody and Kafka stalls for longer than a session
/// lasts, breaks, comes and goes: every event counts once.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_stalls_and_breaks_loses_nothing_and_repeats_nothing() {
    let _quiet = QUIET.lock().await;
    let (mut group, config) = Group::on_own(Options {
        has_network: true,
        ..Options::default()
    })
    .await;
    let spool = spool(&group, &config).await;
    group.start_one();
    group.start_one();
    let mut published = BTreeMap::new();
    let network = group.cluster().network(0);
    publish_seconds(&spool, 0..25, &mut published, |second| match second {
        // Longer than a session and than a record's delivery may take.
        3 => network.stall(),
        15 => network.mend(),
        17 => network.cut(),
        19 => network.mend(),
        20..24 if second % 2 == 0 => network.cut(),
        20..24 => network.mend(),
        _ => {}
    })
    .await;
    group.counts(&published).await;
    assert_eq!(spool.status()().lost, spool::Lost::default());
}

/// The network is away for a minute: packets get lost, then connections break.
/// Beside other tests, because almost all of it is waiting.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_away_for_a_minute_loses_nothing_and_repeats_nothing() {
    let (mut group, config) = Group::on_own(Options {
        has_network: true,
        ..Options::default()
    })
    .await;
    let spool = spool(&group, &config).await;
    group.start_one();
    group.start_one();
    let mut published = BTreeMap::new();
    let network = group.cluster().network(0);
    publish_seconds(&spool, 0..70, &mut published, |second| match second {
        5 => network.stall(),
        35 => network.cut(),
        65 => network.mend(),
        _ => {}
    })
    .await;
    group.counts(&published).await;
    assert_eq!(spool.status()().lost, spool::Lost::default());
}

async fn delete_topic(brokers: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    let topic = Topic::Histograms.name();
    let deleted = admin.delete_topics(&[topic], &AdminOptions::new()).await;
    deleted.unwrap().remove(0).unwrap();
}

/// The topic is deleted under running sensors and analyzers, and made again;
/// then again while no analyzer runs, and grows beyond where they stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_and_made_again_is_counted_on() {
    let _quiet = QUIET.lock().await;
    let (mut group, config) = Group::start().await;
    let brokers = config.config.brokers.clone();
    let spool = spool(&group, &config).await;
    group.start_one();
    group.start_one();
    let mut published = BTreeMap::new();
    publish_seconds(&spool, 0..5, &mut published, |_| {}).await;
    // What nobody has read goes with the topic.
    group.counts(&published).await;
    delete_topic(&brokers).await;
    publish_seconds(&spool, 5..8, &mut published, |_| {}).await;
    topics::apply(&config).await.unwrap();
    publish_seconds(&spool, 8..10, &mut published, |_| {}).await;
    group.counts(&published).await;

    for analyzer in std::mem::take(&mut group.analyzers) {
        analyzer.terminate();
    }
    delete_topic(&brokers).await;
    topics::apply(&config).await.unwrap();
    for second in 10..40 {
        publish_second(&spool, second, &mut published).await;
    }
    group.start_one();
    group.counts(&published).await;
    let said = group.logs();
    assert!(said.contains("was made again"), "{said}");
}

/// Messages that are no batches, and windows of a sensor whose clock jumps,
/// lie between good ones.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_batch_is_counted_by_reason_and_touches_nothing_else() {
    let _quiet = QUIET.lock().await;
    let large = |key: &str| (key.to_owned(), "8000000".to_owned());
    let (mut group, config) = Group::on_own(Options {
        properties: vec![large("message.max.bytes")],
        ..Options::default()
    })
    .await;
    let config = Config {
        properties: BTreeMap::from([large("message.max.bytes")]),
        ..config.config
    };
    let producer = KafkaProducer::connect(config.validate().unwrap())
        .await
        .unwrap();
    group.start_one();
    let mut published = BTreeMap::new();
    for second in 0..8 {
        publish_second(&producer, second, &mut published).await;
        let good = window(second, 0);
        let cut_off = good[..good.len() - 3].to_vec();
        let hour_ns = 3600 * 1_000_000_000;
        let bad = [
            (0..=255).cycle().take(1000).collect(),
            cut_off,
            vec![0; (4 << 20) + 1],
            // A field of a later version, known to nobody.
            [good.as_slice(), &[0xfa, 0x3f, 3, 1, 2, 3]].concat(),
            window(second, hour_ns),
            window(second, -24 * 30 * hour_ns),
        ];
        for (number, payload) in (0..).zip(bad) {
            let record = Record {
                topic: Topic::Histograms,
                partition: 0,
                key: format!("bad-{number}").into_bytes(),
                timestamp_ns: now_ns(),
                payload,
            };
            producer.publish(record).await.unwrap();
        }
        // A sensor that is only a little off counts.
        for (off, payload) in [(5, 300), (6, -300)].map(|(off, secs)| {
            let payload = window(second * 10 + off, secs * 1_000_000_000);
            (off, payload)
        }) {
            let record = Record {
                topic: Topic::Histograms,
                partition: 0,
                key: format!("off-{off}").into_bytes(),
                timestamp_ns: now_ns(),
                payload,
            };
            producer.publish(record).await.unwrap();
        }
        // The newer version's batch, and those two.
        *published.entry(SERVICE.to_owned()).or_default() += 3 * EVENTS;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    group.counts(&published).await;
    let metrics = group.analyzers[0].metrics().unwrap();
    let dropped = |reason: &str| {
        let line = format!("analyzer_dropped_total{{reason=\"{reason}\"}} ");
        let value = metrics.lines().find_map(|one| one.strip_prefix(&line));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    for (reason, count) in [("too_long", 8), ("not_protobuf", 16), ("clock_skew", 16)] {
        assert_eq!(dropped(reason), count, "{reason}: {metrics}");
    }
}

const SERVICE: &str = "process/off";
const EVENTS: u64 = 3;

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_nanos() as u64
}

/// A window of a sensor whose clock is `off_ns` ahead, on partition 0.
fn window(seq: u64, off_ns: i64) -> Vec<u8> {
    let mut histogram = Histogram::new();
    (0..EVENTS).for_each(|_| histogram.record(100_000));
    let header = Header {
        sensor_id: format!("off-{off_ns}"),
        boot_id: [2; 16],
        seq: seq + 1,
        partition: 0,
        window_start_ns: now_ns().saturating_add_signed(off_ns) - 1_000_000_000,
        window_duration_ns: 1_000_000_000,
        more: false,
    };
    let services = [ServiceId::parse(SERVICE).unwrap()];
    let series = vec![SeriesRef {
        service: 0,
        signal: Signal::RunQueue,
        histogram: &histogram,
    }];
    encode(&header, &services, series, &[], None)
}
