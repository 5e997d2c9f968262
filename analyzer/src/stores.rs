//! Where what the pipelines find out goes.

use honeyguide_bus::Position;
use tokio::sync::mpsc;

use crate::{config::ValidConfig, frame::HistoryStore, outbox::Outbox, state::StateTopic};

/// Shared by the threads of `worker`.
pub(crate) struct Stores {
    pub(crate) config: ValidConfig,
    /// Partitions of the topic of histograms.
    pub(crate) partitions: u32,
    /// The history of this machine.
    pub(crate) history: Option<HistoryStore>,
    /// Whole states on Kafka.
    pub(crate) state: Option<StateTopic>,
    /// Forecasts and alerts for others, hints for sensors.
    pub(crate) outbox: Option<Outbox>,
    /// Positions before which everything is stored, for the consumer.
    pub(crate) commits: mpsc::Sender<Vec<Position>>,
}
