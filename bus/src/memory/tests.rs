use proptest::prelude::*;

use super::*;

const TOPIC: Topic = Topic::Histograms;

fn bus(partitions: u32, partition_bytes_max: usize) -> MemoryBus {
    MemoryBus::new(Config {
        partitions,
        partition_bytes_max,
        ..Config::default()
    })
}

fn record(partition: PartitionId, number: u64) -> Record {
    Record {
        topic: TOPIC,
        partition,
        key: Vec::new(),
        timestamp_ns: number,
        payload: number.to_le_bytes().to_vec(),
    }
}

async fn delivery(consumer: &mut MemoryConsumer) -> Delivery {
    loop {
        if let ConsumerEvent::Delivery(delivery) = consumer.next().await.unwrap() {
            return delivery;
        }
    }
}

fn after(delivery: &Delivery) -> Position {
    Position {
        topic: TOPIC,
        partition: delivery.record.partition,
        offset: delivery.offset + 1,
    }
}

#[tokio::test]
async fn uncommitted_records_come_again_to_the_next_member() {
    let bus = bus(1, 1 << 20);
    let mut first = bus.consumer("group", TOPIC);
    for number in 0..3 {
        bus.publish(record(0, number)).await.unwrap();
    }
    let committed = delivery(&mut first).await;
    let lost = delivery(&mut first).await;
    first.commit(&[after(&committed)]).await.unwrap();
    drop(first);
    let mut second = bus.consumer("group", TOPIC);
    assert_eq!(delivery(&mut second).await, lost);
    assert_eq!(delivery(&mut second).await.offset, 2);
}

#[tokio::test]
async fn two_groups_each_get_everything() {
    let bus = bus(1, 1 << 20);
    let mut groups = [bus.consumer("a", TOPIC), bus.consumer("b", TOPIC)];
    bus.publish(record(0, 7)).await.unwrap();
    for group in &mut groups {
        let delivery = delivery(group).await;
        group.commit(&[after(&delivery)]).await.unwrap();
    }
    assert_eq!(bus.retained(TOPIC), 0);
}

#[tokio::test(start_paused = true)]
async fn full_partition_refuses_after_the_timeout_and_gives_the_record_back() {
    let bus = bus(1, 8);
    let _member = bus.consumer("group", TOPIC);
    bus.publish(record(0, 1)).await.unwrap();
    match bus.publish(record(0, 2)).await {
        Err(PublishError::Full(returned)) => assert_eq!(*returned, record(0, 2)),
        other => panic!("{other:?}"),
    }
    assert_eq!((bus.publish_waits(), bus.publish_refusals()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn commit_makes_room_for_a_waiting_producer() {
    let bus = bus(1, 8);
    let mut member = bus.consumer("group", TOPIC);
    bus.publish(record(0, 1)).await.unwrap();
    let producer = tokio::spawn({
        let bus = bus.clone();
        async move { bus.publish(record(0, 2)).await }
    });
    let first = delivery(&mut member).await;
    tokio::task::yield_now().await;
    member.commit(&[after(&first)]).await.unwrap();
    producer.await.unwrap().unwrap();
    assert_eq!(delivery(&mut member).await.record, record(0, 2));
}

#[tokio::test]
async fn topic_without_readers_keeps_the_newest() {
    let bus = bus(1, 16);
    for number in 0..100 {
        bus.publish(record(0, number)).await.unwrap();
    }
    assert_eq!(bus.retained(TOPIC), 2);
}

#[tokio::test]
async fn closed_bus_delivers_the_rest_and_refuses_more() {
    let bus = bus(1, 1 << 20);
    let mut member = bus.consumer("group", TOPIC);
    bus.publish(record(0, 1)).await.unwrap();
    bus.close();
    assert!(matches!(
        bus.publish(record(0, 2)).await,
        Err(PublishError::Closed(_))
    ));
    assert_eq!(delivery(&mut member).await.record, record(0, 1));
    assert!(matches!(member.next().await, Err(ConsumeError::Closed)));
}

#[tokio::test]
async fn commit_beyond_what_was_delivered_is_an_error() {
    let bus = bus(1, 1 << 20);
    let mut member = bus.consumer("group", TOPIC);
    let position = Position {
        topic: TOPIC,
        partition: 0,
        offset: 1,
    };
    let error = member.commit(&[position]).await;
    assert!(matches!(error, Err(ConsumeError::NeverDelivered(_))));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish,
    Read,
    Commit,
    Restart,
}

proptest! {
    /// Whatever the schedule, each record is delivered in order, and after a
    /// restart delivery continues exactly at the committed position.
    #[test]
    fn delivery_continues_at_the_commit(steps in prop::collection::vec(
        prop_oneof![Just(Step::Publish), Just(Step::Read), Just(Step::Commit), Just(Step::Restart)], 1..60,
    )) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bus = bus(1, 1 << 20);
            let mut member = bus.consumer("group", TOPIC);
            let (mut published, mut read, mut committed) = (0, 0, 0);
            for step in steps {
                match step {
                    Step::Publish => {
                        bus.publish(record(0, published)).await.unwrap();
                        published += 1;
                    }
                    Step::Read if read < published => {
                        assert_eq!(delivery(&mut member).await.record, record(0, read));
                        read += 1;
                    }
                    Step::Read => {}
                    Step::Commit => {
                        committed = read;
                        let position = Position { topic: TOPIC, partition: 0, offset: committed };
                        member.commit(&[position]).await.unwrap();
                    }
                    Step::Restart => {
                        member = bus.consumer("group", TOPIC);
                        read = committed;
                    }
                }
            }
            assert_eq!(bus.retained(TOPIC) as u64, published - committed);
        });
    }
}
