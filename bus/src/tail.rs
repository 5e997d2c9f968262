//! Following a whole topic: every record of every partition, from the oldest
//! that is kept, and then as they come. No group, so nobody else gets less,
//! and nothing is committed: for topics of which everybody needs all.

use std::future::Future;

use crate::{
    ConsumeError, Consumer, ConsumerEvent, Position, Record, Topic,
    memory::{MemoryBus, MemoryConsumer},
};

/// Reads all of a topic.
pub trait Tail: Send {
    /// The next record. In order within a partition; after the connection was
    /// lost, records may come again. Cancel safe. Pends while there is none.
    ///
    /// # Errors
    /// [`ConsumeError::Closed`] is the end; after any other it may be asked again.
    fn next(&mut self) -> impl Future<Output = Result<Record, ConsumeError>> + Send;
}

/// Follows a topic of the in-process bus.
#[derive(Debug)]
pub struct MemoryTail {
    consumer: MemoryConsumer,
    /// Of the last record: it need not be kept any longer.
    read: Option<Position>,
}

impl MemoryTail {
    /// Follows `topic` under a `name` of its own: the bus keeps for it what it
    /// has not read yet.
    pub fn new(bus: &MemoryBus, name: &str, topic: Topic) -> Self {
        Self {
            consumer: bus.consumer(name, topic),
            read: None,
        }
    }
}

impl Tail for MemoryTail {
    async fn next(&mut self) -> Result<Record, ConsumeError> {
        loop {
            if let Some(read) = self.read.take() {
                self.consumer.commit(&[read]).await?;
            }
            if let ConsumerEvent::Delivery(delivery) = self.consumer.next().await? {
                self.read = Some(Position {
                    topic: delivery.record.topic,
                    partition: delivery.record.partition,
                    offset: delivery.offset + 1,
                });
                return Ok(delivery.record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Producer, memory};

    fn record(partition: u32, payload: u8) -> Record {
        Record {
            topic: Topic::Hints,
            partition,
            key: vec![payload],
            timestamp_ns: u64::from(payload),
            payload: vec![payload],
        }
    }

    #[tokio::test]
    async fn each_tail_reads_all_and_lets_go_of_it() {
        let bus = MemoryBus::new(memory::Config::default());
        let mut tails = ["a", "b"].map(|name| MemoryTail::new(&bus, name, Topic::Hints));
        for payload in 0..8 {
            bus.publish(record(u32::from(payload) % 4, payload))
                .await
                .unwrap();
        }
        bus.close();
        for tail in &mut tails {
            let mut payloads = Vec::new();
            loop {
                match tail.next().await {
                    Ok(record) => payloads.push(record.payload[0]),
                    Err(ConsumeError::Closed) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(payloads, (0..8).collect::<Vec<_>>());
        }
        assert_eq!(bus.retained(Topic::Hints), 0);
    }
}
