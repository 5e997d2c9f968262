//! Forecasts and alerts on their way to `honeyguide.forecasts.v1` and
//! `honeyguide.alerts.v1`, for others to read, and hints on their way to
//! sensors.
//!
//! The pipelines never wait for it: what does not fit is left out and counted,
//! and so is what the bus does not take for too long.
//!
//! A state is stored after what was found out before it is published. So after
//! a crash a forecast or alert may come twice, with the same contents, but none
//! is missing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use honeyguide_bus::{PartitionId, Producer, PublishError, Record, Topic, partition_of};
use honeyguide_proto::{hint::Hint, v1};
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::warn;

use crate::{hints::Change, judge::nanoseconds};

/// Steps of single partitions that wait at most.
const STEPS_MAX: usize = 64;
/// Alerts that wait at most. They do not wait behind forecasts: after a backlog
/// there are too many of those.
const ALERTS_MAX: usize = 4096;
/// Steps with hints that wait at most.
const HINTS_MAX: usize = 256;
/// How long a bus that is away is waited for. It has nothing new to forecast
/// from meanwhile.
const RETRY_FOR: Duration = Duration::from_secs(120);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long shutdown waits for it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// Records offered at once.
const AT_ONCE: usize = 4096;

enum Message {
    Records(Vec<Record>),
    /// Tell when everything before was offered to the broker.
    Flush(oneshot::Sender<()>),
}

/// Takes what is to be published.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    /// `None` where nobody reads them.
    forecasts: Option<mpsc::Sender<Message>>,
    alerts: Option<mpsc::Sender<Message>>,
    hints: mpsc::Sender<Message>,
    not_published: Arc<AtomicU64>,
}

impl Outbox {
    /// Starts to publish everything; call within a tokio runtime.
    pub(crate) fn start<P: Producer + 'static>(producer: &Arc<P>) -> Self {
        let hints = Self::of_hints(producer);
        let queue = |max| Some(queue(producer, max, &hints.not_published));
        Self {
            forecasts: queue(STEPS_MAX),
            alerts: queue(ALERTS_MAX),
            ..hints
        }
    }

    /// Starts to publish hints only; call within a tokio runtime.
    pub(crate) fn of_hints<P: Producer + 'static>(producer: &Arc<P>) -> Self {
        let not_published = Arc::default();
        Self {
            forecasts: None,
            alerts: None,
            hints: queue(producer, HINTS_MAX, &not_published),
            not_published,
        }
    }

    /// Forecasts, alerts and hints that were left out.
    pub(crate) fn not_published(&self) -> u64 {
        self.not_published.load(Relaxed)
    }

    /// Takes the forecasts of one step of a partition.
    pub(crate) fn forecasts(&self, partition: PartitionId, forecasts: &[v1::Forecast]) {
        let Some(queue) = &self.forecasts else {
            return;
        };
        let records = forecasts.iter().map(|forecast| {
            let key = forecast.key.as_ref();
            Record {
                topic: Topic::Forecasts,
                partition,
                key: key.map_or(Vec::new(), |key| key.service.clone().into_bytes()),
                timestamp_ns: forecast.made_at.as_ref().map_or(0, nanoseconds),
                payload: forecast.encode_to_vec(),
            }
        });
        self.send(queue, records.collect());
    }

    /// Takes an alert that fired or resolved.
    pub(crate) fn alert(&self, partition: PartitionId, alert: &v1::Alert) {
        let Some(queue) = &self.alerts else {
            return;
        };
        let at = alert.resolved_at.as_ref().or(alert.fired_at.as_ref());
        let record = Record {
            topic: Topic::Alerts,
            partition,
            key: alert.id.clone().into_bytes(),
            timestamp_ns: at.map_or(0, nanoseconds),
            payload: alert.encode_to_vec(),
        };
        self.send(queue, vec![record]);
    }

    /// Takes what sensors are to be told; the topic has so many `partitions`.
    pub(crate) fn hints(&self, partitions: u32, changes: &[Change]) {
        let records = changes.iter().map(|change| {
            let key = change.scope.key().into_bytes();
            Record {
                topic: Topic::Hints,
                partition: partition_of(&key, partitions),
                key,
                timestamp_ns: change.at_ns,
                payload: change.hint.as_ref().map_or(Vec::new(), Hint::encode),
            }
        });
        self.send(&self.hints, records.collect());
    }

    fn send(&self, queue: &mpsc::Sender<Message>, records: Vec<Record>) {
        let count = records.len() as u64;
        if queue.try_send(Message::Records(records)).is_err() {
            self.not_published.fetch_add(count, Relaxed);
        }
    }

    /// As [`flush`](Self::flush), but not for long: the process or a partition
    /// is to go.
    pub(crate) async fn flush_soon(&self) {
        if tokio::time::timeout(FLUSH_TIMEOUT, self.flush())
            .await
            .is_err()
        {
            warn!("forecasts or alerts are still not published; not waiting for them");
        }
    }

    /// Waits until what was given so far is published, or counted.
    pub(crate) async fn flush(&self) {
        for queue in [&self.forecasts, &self.alerts].into_iter().flatten() {
            let (sender, flushed) = oneshot::channel();
            // Gone only when the process ends.
            if queue.send(Message::Flush(sender)).await.is_ok() {
                let _ = flushed.await;
            }
        }
    }
}

/// Publishes what is put into the queue.
fn queue<P: Producer + 'static>(
    producer: &Arc<P>,
    max: usize,
    not_published: &Arc<AtomicU64>,
) -> mpsc::Sender<Message> {
    let (sender, receiver) = mpsc::channel(max);
    let publishing = publish(Arc::clone(producer), receiver, Arc::clone(not_published));
    tokio::spawn(publishing);
    sender
}

async fn publish<P: Producer>(
    producer: Arc<P>,
    mut messages: mpsc::Receiver<Message>,
    not_published: Arc<AtomicU64>,
) {
    while let Some(message) = messages.recv().await {
        let mut records = match message {
            Message::Records(records) => records,
            Message::Flush(flushed) => {
                // Who asked may have given up.
                let _ = flushed.send(());
                continue;
            }
        };
        while !records.is_empty() {
            let rest = records.split_off(records.len().min(AT_ONCE));
            let given_up = publish_all(&*producer, records).await;
            not_published.fetch_add(given_up, Relaxed);
            records = rest;
        }
    }
}

/// Returns how many the bus did not take in the end. While it is away they wait.
async fn publish_all<P: Producer>(producer: &P, mut records: Vec<Record>) -> u64 {
    let deadline = Instant::now() + RETRY_FOR;
    let mut given_up = 0;
    loop {
        let offered = records.into_iter().map(|record| producer.publish(record));
        let results = futures_util::future::join_all(offered).await;
        let errors: Vec<PublishError> = results.into_iter().filter_map(Result::err).collect();
        let Some(error) = errors.first() else {
            return given_up;
        };
        warn!(%error, count = errors.len(), "forecasts, alerts or hints not published");
        let failed = errors.len();
        records = errors
            .into_iter()
            .filter_map(PublishError::try_later)
            .collect();
        given_up += (failed - records.len()) as u64;
        if Instant::now() > deadline {
            return given_up + records.len() as u64;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use honeyguide_bus::{
        Consumer, ConsumerEvent,
        memory::{self, MemoryBus},
    };

    use super::*;

    fn forecast(service: &str) -> v1::Forecast {
        v1::Forecast {
            key: Some(v1::SeriesKey {
                service: service.to_owned(),
                signal: "runq".to_owned(),
            }),
            ..v1::Forecast::default()
        }
    }

    #[tokio::test]
    async fn forecasts_and_alerts_arrive_with_their_keys() {
        let bus = MemoryBus::new(memory::Config::default());
        let mut forecasts = bus.consumer("test", Topic::Forecasts);
        let mut alerts = bus.consumer("test", Topic::Alerts);
        let outbox = Outbox::start(&Arc::new(bus.clone()));
        outbox.forecasts(2, &[forecast("process/a"), forecast("process/b")]);
        let alert = v1::Alert {
            id: "objective/process/a/runq".to_owned(),
            ..v1::Alert::default()
        };
        outbox.alert(2, &alert);
        outbox.flush().await;
        bus.close();
        let mut keys = Vec::new();
        for consumer in [&mut forecasts, &mut alerts] {
            while let Ok(event) = consumer.next().await {
                if let ConsumerEvent::Delivery(delivery) = event {
                    assert_eq!(delivery.record.partition, 2);
                    keys.push(String::from_utf8(delivery.record.key).unwrap());
                }
            }
        }
        assert_eq!(keys, ["process/a", "process/b", alert.id.as_str()]);
        assert_eq!(outbox.not_published(), 0);
    }

    #[tokio::test]
    async fn what_the_bus_does_not_take_is_counted() {
        let bus = MemoryBus::new(memory::Config::default());
        bus.close();
        let outbox = Outbox::start(&Arc::new(bus));
        outbox.forecasts(0, &[forecast("process/a"), forecast("process/b")]);
        outbox.flush().await;
        assert_eq!(outbox.not_published(), 2);
    }
}
