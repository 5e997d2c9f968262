//! What travels on the bus.

/// A topic and its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Histogram batches, sensor to analyzer.
    Histograms,
    /// Forecasts, analyzer to whoever listens.
    Forecasts,
    /// Alerts, analyzer to whoever listens.
    Alerts,
    /// Sampling hints, analyzer to sensors (compacted by key).
    Hints,
    /// What analyzers know of each partition, analyzer to analyzer (compacted by key).
    State,
    /// Windows of the hours before that state, analyzer to analyzer.
    History,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Topic; 6] = [
        Topic::Histograms,
        Topic::Forecasts,
        Topic::Alerts,
        Topic::Hints,
        Topic::State,
        Topic::History,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Topic::Histograms => "honeyguide.histograms.v1",
            Topic::Forecasts => "honeyguide.forecasts.v1",
            Topic::Alerts => "honeyguide.alerts.v1",
            Topic::Hints => "honeyguide.hints.v1",
            Topic::State => "honeyguide.state.v1",
            Topic::History => "honeyguide.history.v1",
        }
    }
}

/// Number of a partition within its topic.
pub type PartitionId = u32;
/// Place of a record within its partition; the first has 0.
pub type Offset = u64;

/// A record to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where to.
    pub topic: Topic,
    /// Chosen by the producer, see [`crate::partition_of`].
    pub partition: PartitionId,
    /// What a compacted topic keeps the newest record of.
    pub key: Vec<u8>,
    /// Event time in nanoseconds since the Unix epoch: the end of the window.
    pub timestamp_ns: u64,
    /// Opaque to the bus.
    pub payload: Vec<u8>,
}

/// A record as a consumer receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its place in the partition.
    pub offset: Offset,
    /// What was published.
    pub record: Record,
}

/// The next offset to read of a partition; committing it says that the state
/// of everything before is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Topic of the partition.
    pub topic: Topic,
    /// Partition within the topic.
    pub partition: PartitionId,
    /// Next offset.
    pub offset: Offset,
}
