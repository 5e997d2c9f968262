//! The thread that owns the pipelines, one per partition.
//!
//! A thread, because closing a step takes longer than an async task may. A
//! partition comes with its stored state or history and goes when that is
//! stored, so that it can move to another analyzer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use honeyguide_bus::{Delivery, PartitionId, Position, Topic, partition_of};
use honeyguide_proto::v1;
use sensor_common::Histogram;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::{
    analyzer::{Snapshot, now_ns},
    config::ValidConfig,
    exposition::Exposition,
    frame::HistoryStore,
    judge::nanoseconds,
    outbox::Outbox,
    pipeline::{Command, HistoryRow, Input, Pipeline},
    series::HISTORY_STEPS,
    state_topic::StateTopic,
};

/// Pause before a state is read again.
const RESTORE_RETRY: Duration = Duration::from_secs(1);

/// To the thread.
pub(crate) enum Message {
    Delivery(Box<Delivery>),
    Tick,
    CaughtUp(PartitionId),
    /// Take these partitions over; answered with where to read on, as far as
    /// the restored state says.
    Assign(Vec<PartitionId>, oneshot::Sender<Vec<Position>>),
    /// Let these partitions go; answered with the positions to commit.
    Revoke(Vec<PartitionId>, oneshot::Sender<Vec<Position>>),
    Expose(oneshot::Sender<Exposition>),
    /// Close what is open, store, commit, and end.
    Finish,
}

/// Owns the pipelines.
pub(crate) struct Worker {
    pub(crate) shards: BTreeMap<PartitionId, Shard>,
    pub(crate) partitions: u32,
    pub(crate) config: ValidConfig,
    pub(crate) store: Option<HistoryStore>,
    pub(crate) state: Option<StateTopic>,
    pub(crate) outbox: Option<Outbox>,
    pub(crate) snapshots: watch::Sender<Snapshot>,
    pub(crate) steps: broadcast::Sender<Arc<Vec<v1::Forecast>>>,
    pub(crate) commits: mpsc::Sender<Vec<Position>>,
    pub(crate) rebalances: u64,
    /// From the end of a step to its forecasts.
    pub(crate) forecast_delay: Box<Histogram>,
}

/// A partition.
pub(crate) struct Shard {
    pipeline: Pipeline,
    /// Of its last closed step.
    forecasts: Vec<v1::Forecast>,
}

/// What came of the commands of one shard.
#[derive(Default)]
struct Outcome {
    forecasts: bool,
    /// End of the newest step forecast, where the end of the bus is reached.
    made_at_ns: Option<u64>,
    alerts: bool,
    positions: Vec<Position>,
}

impl Worker {
    pub(crate) fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        while let Some(message) = messages.blocking_recv() {
            match message {
                Message::Delivery(delivery) => {
                    let partition = delivery.record.partition;
                    self.handle(&[partition], |pipeline| {
                        pipeline.handle(Input::Delivery(&delivery), now_ns());
                    });
                }
                Message::CaughtUp(partition) => self.handle(&[partition], |pipeline| {
                    pipeline.handle(Input::CaughtUp, now_ns());
                }),
                Message::Tick => {
                    let now_ns = now_ns();
                    self.handle(&self.assigned(), |pipeline| {
                        pipeline.handle(Input::Tick, now_ns);
                    });
                }
                Message::Assign(partitions, restored) => {
                    self.rebalances += 1;
                    let positions = self.assign(&partitions);
                    // The reader is gone only at the end.
                    let _ = restored.send(positions);
                }
                Message::Revoke(partitions, stored) => {
                    self.rebalances += 1;
                    let outcome = self.end(&partitions);
                    for partition in &partitions {
                        self.shards.remove(partition);
                    }
                    self.publish();
                    let _ = stored.send(outcome.positions);
                }
                Message::Expose(answer) => {
                    // A scraper that went away needs no answer.
                    let _ = answer.send(self.exposition());
                }
                Message::Finish => {
                    let outcome = self.end(&self.assigned());
                    self.publish();
                    self.commit(outcome.positions);
                    return;
                }
            }
        }
    }

    fn assigned(&self) -> Vec<PartitionId> {
        self.shards.keys().copied().collect()
    }

    /// Makes a pipeline for each partition, with what is stored of it. Returns
    /// where the restored states end.
    fn assign(&mut self, partitions: &[PartitionId]) -> Vec<Position> {
        let step_now = now_ns() / self.config.step_ns();
        let first_step = step_now.saturating_sub(HISTORY_STEPS as u64);
        let mut positions = Vec::new();
        if let Some(state) = self.state.clone() {
            for partition in partitions {
                let pipeline = self.restored(&state, *partition, first_step, &mut positions);
                self.add_shard(*partition, pipeline);
            }
            return positions;
        }
        let mut rows = BTreeMap::<PartitionId, Vec<HistoryRow>>::new();
        if let Some(store) = &self.store {
            let (all, errors) = store.read(first_step);
            for error in errors {
                warn!(%error, "part of the history is damaged and left out");
            }
            for row in all {
                let partition = partition_of(row.service.as_bytes(), self.partitions);
                rows.entry(partition).or_default().push(row);
            }
        }
        for partition in partitions {
            let mut pipeline = Pipeline::new(self.config.clone());
            let rows = rows.remove(partition).unwrap_or_default();
            info!(partition, rows = rows.len(), "history restored");
            pipeline.restore(rows);
            self.add_shard(*partition, pipeline);
        }
        positions
    }

    fn add_shard(&mut self, partition: PartitionId, pipeline: Pipeline) {
        let forecasts = Vec::new();
        self.shards.insert(
            partition,
            Shard {
                pipeline,
                forecasts,
            },
        );
    }

    /// The pipeline of a partition as another analyzer left it; a new one where
    /// nothing usable is stored.
    fn restored(
        &self,
        state: &StateTopic,
        partition: PartitionId,
        first_step: u64,
        positions: &mut Vec<Position>,
    ) -> Pipeline {
        let new = || Pipeline::new(self.config.clone());
        // Beginning anew would lose the totals and overwrite the state. Who
        // cannot read it for long loses the partition to another member.
        let restored = loop {
            match state.restore(partition, first_step) {
                Ok(restored) => break restored,
                Err(error) => warn!(partition, %error, "the state cannot be read; trying again"),
            }
            std::thread::sleep(RESTORE_RETRY);
        };
        let Some(snapshot) = restored.state else {
            info!(partition, "partition assigned; nothing is stored of it");
            return new();
        };
        let mut pipeline = new();
        let rows = restored.rows.len();
        pipeline.restore(restored.rows);
        match pipeline.restore_snapshot(snapshot) {
            Ok(offset) => {
                info!(
                    partition,
                    rows, offset, "partition assigned, state restored"
                );
                positions.push(Position {
                    topic: Topic::Histograms,
                    partition,
                    offset,
                });
                pipeline
            }
            Err(error) => {
                warn!(partition, %error, "the stored state is of no use; the partition begins anew");
                new()
            }
        }
    }

    /// Stores everything of `partitions`. Where the whole state is kept, steps
    /// that still collect are part of it; else they are closed.
    fn end(&mut self, partitions: &[PartitionId]) -> Outcome {
        if self.state.is_some() {
            self.execute_all(partitions, Pipeline::store)
        } else {
            self.execute_all(partitions, Pipeline::finish)
        }
    }

    /// Lets the pipelines of `partitions` do something, and carries out what
    /// they ask for.
    fn handle(&mut self, partitions: &[PartitionId], work: impl Fn(&mut Pipeline)) {
        let outcome = self.execute_all(partitions, work);
        if outcome.forecasts {
            if let Some(made_at_ns) = outcome.made_at_ns {
                let delay_ns = now_ns().saturating_sub(made_at_ns);
                self.forecast_delay.record(delay_ns);
            }
            self.publish();
        } else if outcome.alerts {
            let alerts = Arc::new(self.alerts());
            self.snapshots
                .send_modify(|snapshot| snapshot.alerts = alerts);
        }
        self.commit(outcome.positions);
    }

    fn commit(&self, positions: Vec<Position>) {
        if !positions.is_empty() && self.commits.blocking_send(positions).is_err() {
            warn!("positions not committed: the reader is gone");
        }
    }

    fn execute_all(&mut self, partitions: &[PartitionId], work: impl Fn(&mut Pipeline)) -> Outcome {
        let mut outcome = Outcome::default();
        for partition in partitions {
            if let Some(shard) = self.shards.get_mut(partition) {
                work(&mut shard.pipeline);
                let stores = Stores {
                    history: self.store.as_ref(),
                    state: self.state.as_ref(),
                    outbox: self.outbox.as_ref(),
                    config: &self.config,
                };
                shard.execute(*partition, stores, &mut outcome);
            }
        }
        outcome
    }

    /// Shows what the shards forecast, in the order of services.
    fn publish(&mut self) {
        let all = self.shards.values().flat_map(|shard| &shard.forecasts);
        let mut forecasts: Vec<_> = all.cloned().collect();
        forecasts.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
        let forecasts = Arc::new(forecasts);
        // Nobody may be watching.
        let _ = self.steps.send(Arc::clone(&forecasts));
        let steps = self.shards.values();
        let steps = steps.map(|shard| shard.pipeline.counters().steps).max();
        self.snapshots.send_replace(Snapshot {
            forecasts,
            alerts: Arc::new(self.alerts()),
            steps: steps.unwrap_or(0),
        });
    }

    /// Those that fire first.
    fn alerts(&self) -> Vec<v1::Alert> {
        let all = self.shards.values();
        let mut alerts: Vec<_> = all.flat_map(|shard| shard.pipeline.alerts()).collect();
        alerts.sort_by_key(|alert| alert.state() != v1::AlertState::Firing);
        alerts
    }

    fn exposition(&self) -> Exposition {
        let snapshot = self.snapshots.borrow().clone();
        let series_max = self.config.config.metrics_series_max;
        let shown = snapshot.forecasts.iter().take(series_max);
        let firing = snapshot
            .alerts
            .iter()
            .filter(|alert| alert.state() == v1::AlertState::Firing);
        let mut exposition = Exposition {
            partitions: self.shards.len(),
            rebalances: self.rebalances,
            not_published: self.outbox.as_ref().map_or(0, Outbox::not_published),
            forecast_delay: (*self.forecast_delay).clone(),
            forecasts: shown.cloned().collect(),
            firing: firing.cloned().collect(),
            ..Exposition::default()
        };
        for Shard { pipeline, .. } in self.shards.values() {
            let room = series_max - exposition.series.len();
            exposition.series.extend(pipeline.cumulative(room));
            exposition.counters.add(pipeline.counters());
            exposition.sensor_conflicts += pipeline.sensor_conflicts();
            exposition.series_count += pipeline.series_count();
        }
        exposition
    }
}

fn sort_key(forecast: &v1::Forecast) -> Option<(&str, &str)> {
    let key = forecast.key.as_ref()?;
    Some((&key.service, &key.signal))
}

/// Where the state of a shard is kept, and what it finds out goes.
#[derive(Clone, Copy)]
struct Stores<'a> {
    history: Option<&'a HistoryStore>,
    state: Option<&'a StateTopic>,
    outbox: Option<&'a Outbox>,
    config: &'a ValidConfig,
}

impl Shard {
    fn execute(&mut self, partition: PartitionId, stores: Stores<'_>, outcome: &mut Outcome) {
        while let Some(command) = self.pipeline.next_command() {
            match command {
                Command::Forecasts(forecasts) => {
                    if let Some(outbox) = stores.outbox {
                        outbox.forecasts(partition, &forecasts);
                    }
                    if self.pipeline.is_caught_up() {
                        let made_at = forecasts.iter().filter_map(|one| one.made_at.as_ref());
                        let newest = made_at.map(nanoseconds).max();
                        outcome.made_at_ns = outcome.made_at_ns.max(newest);
                    }
                    self.forecasts = forecasts;
                    outcome.forecasts = true;
                }
                Command::Alert(alert) => {
                    let state = alert
                        .state()
                        .as_str_name()
                        .trim_start_matches("ALERT_STATE_");
                    warn!(state, "{}", alert.summary);
                    if let Some(outbox) = stores.outbox {
                        outbox.alert(partition, &alert);
                    }
                    outcome.alerts = true;
                }
                Command::Store { step, rows } => {
                    let input = match self.store(partition, stores, step, &rows, outcome) {
                        Ok(()) => Input::Stored { step },
                        Err(why) => {
                            warn!(rows = rows.len(), "{why}; it is tried again soon");
                            Input::NotStored { rows }
                        }
                    };
                    self.pipeline.handle(input, now_ns());
                }
                // The offset of a whole state is exact; see `store`.
                Command::Commit(_) if stores.state.is_some() => {}
                Command::Commit(positions) => outcome.positions.extend(positions),
            }
        }
    }

    fn store(
        &self,
        partition: PartitionId,
        stores: Stores<'_>,
        step: u64,
        rows: &[HistoryRow],
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let local = match stores.history {
            Some(history) => history.write(partition, step, rows),
            None => Ok(()),
        };
        let local = local.map_err(|error| format!("history not stored: {error}"));
        let Some(topic) = stores.state else {
            return local;
        };
        if let Err(why) = local {
            // The topic has the same rows, and these are for people to read.
            warn!("{why}");
        }
        let snapshot = self.pipeline.snapshot();
        topic
            .store(partition, step, rows, &snapshot, stores.config)
            .map_err(|error| error.to_string())?;
        outcome.positions.push(Position {
            topic: Topic::Histograms,
            partition,
            offset: snapshot.next_offset,
        });
        Ok(())
    }
}
