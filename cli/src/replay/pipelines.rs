//! One pipeline for each partition, as in production, with the time of its
//! records as now.

use std::collections::BTreeMap;

use honeyguide_analyzer::{
    ValidConfig,
    judge::nanoseconds,
    pipeline::{Command, Counters, HistoryRow, Input, Pipeline},
};
use honeyguide_bus::{Delivery, PartitionId};
use honeyguide_proto::v1;

/// What a replay finds out, in the order in which it does.
#[derive(Debug)]
pub enum Finding {
    /// Forecasts of a step of a partition.
    Forecasts(PartitionId, Vec<v1::Forecast>),
    /// An alert fired or resolved.
    Alert(Box<v1::Alert>),
    /// What closed steps were like; only where the configuration has an
    /// `analyzer.data_dir`, and also of steps before those that are shown.
    Windows(Vec<HistoryRow>),
}

/// Runs records through the analyzer's logic.
pub struct Pipelines {
    config: ValidConfig,
    /// What is of earlier steps is not told.
    shown_from_ns: u64,
    partitions: BTreeMap<PartitionId, Partition>,
}

struct Partition {
    pipeline: Pipeline,
    now_ns: u64,
}

impl Pipelines {
    pub fn new(config: ValidConfig, shown_from_ns: u64) -> Self {
        Self {
            config,
            shown_from_ns,
            partitions: BTreeMap::new(),
        }
    }

    /// Takes the next record.
    pub fn take(&mut self, delivery: &Delivery, tell: &mut dyn FnMut(Finding)) {
        let id = delivery.record.partition;
        let partition = self.partitions.entry(id).or_insert_with(|| Partition {
            pipeline: Pipeline::new(self.config.clone()),
            now_ns: 0,
        });
        // As exact as Kafka keeps times, so that a recording gives the same.
        let at_ns = delivery.record.timestamp_ns / 1_000_000 * 1_000_000;
        partition.now_ns = partition.now_ns.max(at_ns);
        let now_ns = partition.now_ns;
        partition.pipeline.handle(Input::Delivery(delivery), now_ns);
        partition.execute(id, self.shown_from_ns, tell);
    }

    /// Closes what is open: at `to_ns` as an analyzer would then have, or
    /// without it every step that has data.
    pub fn end(&mut self, to_ns: Option<u64>, tell: &mut dyn FnMut(Finding)) {
        for (id, partition) in &mut self.partitions {
            match to_ns {
                Some(to_ns) => {
                    partition.now_ns = partition.now_ns.max(to_ns);
                    let input = Input::CaughtUp { as_of_ns: to_ns };
                    partition.pipeline.handle(input, to_ns);
                    partition.pipeline.store();
                }
                None => partition.pipeline.finish(),
            }
            partition.execute(*id, self.shown_from_ns, tell);
        }
    }

    /// Counts over all partitions.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        for partition in self.partitions.values() {
            counters.add(partition.pipeline.counters());
        }
        counters
    }

    /// Partitions that had records.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.partitions.keys().copied()
    }
}

impl Partition {
    fn execute(&mut self, id: PartitionId, shown_from_ns: u64, tell: &mut dyn FnMut(Finding)) {
        while let Some(command) = self.pipeline.next_command() {
            match command {
                Command::Forecasts(mut forecasts) => {
                    forecasts.retain(|forecast| {
                        let made_at = forecast.made_at.as_ref();
                        made_at.is_none_or(|at| nanoseconds(at) >= shown_from_ns)
                    });
                    if !forecasts.is_empty() {
                        tell(Finding::Forecasts(id, forecasts));
                    }
                }
                Command::Alert(alert) => {
                    if alert_time_ns(&alert) >= shown_from_ns {
                        tell(Finding::Alert(alert));
                    }
                }
                Command::Store { step, rows } => {
                    if !rows.is_empty() {
                        tell(Finding::Windows(rows));
                    }
                    // Nothing waits for it.
                    let input = Input::Stored { step };
                    self.pipeline.handle(input, self.now_ns);
                }
                // What is replayed is over: nobody follows hints, nothing waits.
                Command::Hints(_) | Command::Commit(_) => {}
            }
        }
    }
}

/// When an alert fired, or resolved if it did.
pub fn alert_time_ns(alert: &v1::Alert) -> u64 {
    let at = alert.resolved_at.as_ref().or(alert.fired_at.as_ref());
    at.map_or(0, nanoseconds)
}
