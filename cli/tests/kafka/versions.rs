//! What another version of an analyzer stored.

use honeyguide_analyzer::state::VERSION;
use honeyguide_bus::kafka::PartitionWriter;

use super::*;

/// Publishes these seconds, one each second.
async fn publish(
    producer: &KafkaProducer,
    seconds: std::ops::Range<u64>,
    published: &mut BTreeMap<String, u64>,
) {
    for second in seconds {
        publish_second(producer, second, published).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_of_another_version_is_refused_and_counting_goes_on_after_it() {
    let _quiet = QUIET.lock().await;
    let (mut group, config) = Group::start().await;
    let producer = KafkaProducer::connect(config.clone()).await.unwrap();
    group.start_one();
    let mut before = BTreeMap::new();
    publish(&producer, 0..6, &mut before).await;
    group.counts(&before).await;
    group.analyzers.remove(0).terminate();

    for partition in 0..PARTITIONS {
        let claim = {
            let config = config.clone();
            move || PartitionWriter::claim(&config, partition)
        };
        let writer = tokio::task::spawn_blocking(claim).await.unwrap().unwrap();
        let head = v1::StateHead {
            version: VERSION - 1,
            ..v1::StateHead::default()
        };
        let last = |_: &[u64]| (Topic::State, b"head".to_vec(), head.encode_to_vec());
        writer.write(Vec::new(), last).await.unwrap();
    }
    group.start_one();
    let mut after = BTreeMap::new();
    publish(&producer, 6..12, &mut after).await;
    // Totals are gone with the state; nothing is counted a second time.
    group.counts(&after).await;
    let logs = group.logs();
    let refused = format!(
        "the state is of version {}, this analyzer reads {VERSION}",
        VERSION - 1
    );
    assert_eq!(
        logs.matches(&refused).count(),
        PARTITIONS as usize,
        "{logs}"
    );
}
