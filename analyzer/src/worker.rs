//! The threads that own the pipelines, one pipeline per partition.
//!
//! Threads, because closing a step takes longer than an async task may; as many
//! as there are CPUs, because partitions do not know each other. A partition
//! comes with its stored state or history and goes when that is stored, so that
//! it can move to another analyzer.

use std::{collections::BTreeMap, sync::Arc, thread, time::Duration};

use honeyguide_bus::{Delivery, PartitionId, Position, Topic, partition_of};
use sensor_common::Histogram;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::{
    analyzer::now_ns,
    board::Board,
    config::ValidConfig,
    exposition::Exposition,
    pipeline::{Command, HistoryRow, Input, Pipeline},
    ring::HISTORY_STEPS,
    state::{Claimed, StateTopic},
    stores::Stores,
};

/// Messages on their way to a thread; the consumer waits beyond.
const QUEUE: usize = 256;
/// Partitions that a thread takes over at once: each needs a client of Kafka
/// and its state in memory twice.
const CLAIMED_AT_ONCE: usize = 8;
/// Pause before a state is read again.
const RESTORE_RETRY: Duration = Duration::from_secs(1);

enum Message {
    Delivery(Box<Delivery>),
    /// Everything that the bus took before this time was delivered.
    CaughtUp(PartitionId, u64),
    /// Take these partitions over; answered with where to read on, as far as
    /// the restored state says.
    Assign(Vec<PartitionId>, oneshot::Sender<Vec<Position>>),
    /// Let these partitions go; answered with the positions to commit.
    Revoke(Vec<PartitionId>, oneshot::Sender<Vec<Position>>),
    /// What was stored in the background: up to this step, or why not.
    Stored(PartitionId, Result<u64, String>),
    Expose(oneshot::Sender<Exposition>),
    /// Close what is open, store, and end.
    Finish(oneshot::Sender<Vec<Position>>),
}

/// The threads, as the reader of the bus and the interfaces see them. They end
/// when they are told to [`finish`](Self::finish).
#[derive(Clone)]
pub(crate) struct Workers(Vec<mpsc::Sender<Message>>);

/// The threads have ended.
#[derive(Debug)]
pub(crate) struct Ended;

impl Workers {
    /// Starts a thread per CPU, at most one per partition.
    pub(crate) fn start(stores: &Arc<Stores>, board: &Arc<Board>) -> std::io::Result<Self> {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let mut senders = Vec::new();
        for number in 0..cpus.clamp(1, stores.partitions.max(1) as usize) {
            let (sender, messages) = mpsc::channel(QUEUE);
            let worker = Worker {
                shards: BTreeMap::new(),
                stores: Arc::clone(stores),
                board: Arc::clone(board),
                own: sender.downgrade(),
                rebalance_duration: Box::default(),
                forecast_delay: Box::default(),
            };
            thread::Builder::new()
                .name(format!("analyzer-{number}"))
                .spawn(move || worker.run(messages))?;
            senders.push(sender);
        }
        Ok(Self(senders))
    }

    fn of(&self, partition: PartitionId) -> &mpsc::Sender<Message> {
        &self.0[partition as usize % self.0.len()]
    }

    pub(crate) async fn deliver(&self, delivery: Delivery) -> Result<(), Ended> {
        let worker = self.of(delivery.record.partition);
        let message = Message::Delivery(Box::new(delivery));
        worker.send(message).await.map_err(|_| Ended)
    }

    pub(crate) async fn caught_up(
        &self,
        partition: PartitionId,
        as_of_ns: u64,
    ) -> Result<(), Ended> {
        let worker = self.of(partition);
        worker
            .send(Message::CaughtUp(partition, as_of_ns))
            .await
            .map_err(|_| Ended)
    }

    /// Takes partitions over; returns where to read on.
    pub(crate) async fn assign(&self, partitions: &[PartitionId]) -> Result<Vec<Position>, Ended> {
        self.of_each(partitions, Message::Assign).await
    }

    /// Lets partitions go; returns what to commit.
    pub(crate) async fn revoke(&self, partitions: &[PartitionId]) -> Result<Vec<Position>, Ended> {
        self.of_each(partitions, Message::Revoke).await
    }

    /// Ends the threads; returns what to commit.
    pub(crate) async fn finish(&self) -> Result<Vec<Position>, Ended> {
        let answers = self.ask(Message::Finish).await;
        Ok(answers?.into_iter().flatten().collect())
    }

    /// Everything that one scrape shows.
    pub(crate) async fn expose(&self) -> Result<Exposition, Ended> {
        let answers = self.ask(Message::Expose).await?;
        let mut exposition = Exposition::default();
        for part in answers {
            exposition.add(part);
        }
        Ok(exposition)
    }

    /// Asks every thread for its part of `partitions`.
    async fn of_each(
        &self,
        partitions: &[PartitionId],
        message: fn(Vec<PartitionId>, oneshot::Sender<Vec<Position>>) -> Message,
    ) -> Result<Vec<Position>, Ended> {
        let mut answers = Vec::new();
        for (number, worker) in self.0.iter().enumerate() {
            let of_worker = |partition: &PartitionId| *partition as usize % self.0.len() == number;
            let own: Vec<_> = partitions.iter().copied().filter(of_worker).collect();
            if own.is_empty() {
                continue;
            }
            let (sender, answer) = oneshot::channel();
            worker.send(message(own, sender)).await.map_err(|_| Ended)?;
            answers.push(answer);
        }
        let mut positions = Vec::new();
        for answer in answers {
            positions.extend(answer.await.map_err(|_| Ended)?);
        }
        Ok(positions)
    }

    async fn ask<T>(&self, message: fn(oneshot::Sender<T>) -> Message) -> Result<Vec<T>, Ended> {
        let mut answers = Vec::new();
        for worker in &self.0 {
            let (sender, answer) = oneshot::channel();
            worker.send(message(sender)).await.map_err(|_| Ended)?;
            answers.push(answer);
        }
        let answers = futures_util::future::join_all(answers).await;
        answers
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(|_| Ended)
    }
}

/// One thread.
struct Worker {
    shards: BTreeMap<PartitionId, Shard>,
    stores: Arc<Stores>,
    board: Arc<Board>,
    /// To itself, for what is done in the background.
    own: mpsc::WeakSender<Message>,
    /// Of restoring or storing partitions that came or went.
    rebalance_duration: Box<Histogram>,
    /// From the end of a step to its forecasts.
    forecast_delay: Box<Histogram>,
}

/// A partition that was taken over.
struct TakenOver {
    claimed: Claimed,
    pipeline: Pipeline,
    /// Of the next record to take, if a state was there.
    offset: Option<u64>,
}

/// Takes a partition over. Beginning anew where its state cannot be read for a
/// moment would lose the totals and overwrite the state, so it is tried again;
/// who cannot read it for long loses the partition to another member. Its last
/// forecasts are shown at once, whatever the other partitions still need.
fn claim(
    state: &StateTopic,
    partition: PartitionId,
    config: &ValidConfig,
    board: &Board,
) -> TakenOver {
    let new = || {
        let mut pipeline = Pipeline::new(config.clone());
        pipeline.shift_store(u64::from(partition));
        pipeline
    };
    let (claimed, mut pipeline, offset) = loop {
        match state.claim(partition, new) {
            Ok(claimed) => break claimed,
            Err(error) => warn!(partition, %error, "the state cannot be read; trying again"),
        }
        thread::sleep(RESTORE_RETRY);
    };
    board.forecasts(partition, pipeline.last_forecasts());
    board.alerts(partition, pipeline.alerts());
    board.routes(partition, pipeline.routes());
    TakenOver {
        claimed,
        pipeline,
        offset,
    }
}

/// A partition.
struct Shard {
    pipeline: Pipeline,
    /// Where its whole state is kept on Kafka.
    claimed: Option<Claimed>,
}

impl Worker {
    fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        while let Some(message) = messages.blocking_recv() {
            match message {
                Message::Delivery(delivery) => {
                    let partition = delivery.record.partition;
                    let read_until_ns = delivery.record.timestamp_ns;
                    self.handle(partition, Input::Delivery(&delivery));
                    self.board.read_until(partition, read_until_ns);
                }
                Message::CaughtUp(partition, as_of_ns) => {
                    self.handle(partition, Input::CaughtUp { as_of_ns });
                    self.board.caught_up(partition, as_of_ns);
                }
                Message::Assign(partitions, restored) => {
                    let positions = self.measured(|worker| worker.assign(&partitions));
                    // The reader is gone only at the end.
                    let _ = restored.send(positions);
                }
                Message::Revoke(partitions, stored) => {
                    let positions = self.measured(|worker| worker.end(&partitions));
                    for partition in &partitions {
                        self.shards.remove(partition);
                        self.board.remove(*partition);
                    }
                    let _ = stored.send(positions);
                }
                Message::Stored(partition, Ok(step)) => {
                    self.handle(partition, Input::Stored { step });
                }
                Message::Stored(partition, Err(why)) => {
                    warn!(partition, "{why}; it is tried again soon");
                    self.handle(partition, Input::NotStored { rows: Vec::new() });
                }
                Message::Expose(answer) => {
                    // A scraper that went away needs no answer.
                    let _ = answer.send(self.exposition());
                }
                Message::Finish(stored) => {
                    let partitions: Vec<_> = self.shards.keys().copied().collect();
                    let _ = stored.send(self.end(&partitions));
                    return;
                }
            }
        }
    }

    fn measured<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let begun = std::time::Instant::now();
        let result = work(self);
        let elapsed = begun.elapsed().as_nanos();
        self.rebalance_duration
            .record(u64::try_from(elapsed).unwrap_or(u64::MAX));
        result
    }

    /// Makes a pipeline for each partition, with what is stored of it. Returns
    /// where the restored states end.
    fn assign(&mut self, partitions: &[PartitionId]) -> Vec<Position> {
        if let Some(state) = self.stores.state.clone() {
            return partitions
                .chunks(CLAIMED_AT_ONCE)
                .flat_map(|partitions| self.claim(&state, partitions))
                .collect();
        }
        let step_now = now_ns() / self.stores.config.step_ns();
        let first_step = step_now.saturating_sub(HISTORY_STEPS as u64);
        let mut rows = BTreeMap::<PartitionId, Vec<HistoryRow>>::new();
        if let Some(store) = &self.stores.history {
            let (mut all, errors) = store.read(first_step);
            for error in errors {
                warn!(%error, "part of the history is left out");
            }
            // Of a clock that was ahead: nothing would come after it for as long.
            let before = all.len();
            all.retain(|row| row.step <= step_now);
            if all.len() < before {
                warn!(
                    rows = before - all.len(),
                    "history of the future is left out"
                );
            }
            for row in all {
                let partition = partition_of(row.service.as_bytes(), self.stores.partitions);
                rows.entry(partition).or_default().push(row);
            }
        }
        for partition in partitions {
            let mut pipeline = Pipeline::new(self.stores.config.clone());
            let rows = rows.remove(partition).unwrap_or_default();
            info!(partition, rows = rows.len(), "history restored");
            pipeline.restore(rows);
            self.add(*partition, pipeline, None);
        }
        Vec::new()
    }

    /// Takes partitions over from the analyzers that had them, all at once,
    /// because most of it is waiting for the broker.
    fn claim(&mut self, state: &StateTopic, partitions: &[PartitionId]) -> Vec<Position> {
        let (config, board) = (&self.stores.config, &*self.board);
        let claimed: Vec<_> = thread::scope(|scope| {
            let claiming = partitions.iter().map(|partition| {
                let claiming = move || (*partition, claim(state, *partition, config, board));
                scope.spawn(claiming)
            });
            let claiming: Vec<_> = claiming.collect();
            let joined = claiming.into_iter().map(thread::ScopedJoinHandle::join);
            joined.collect()
        });
        let mut positions = Vec::new();
        for claimed in claimed {
            let (partition, claimed) = match claimed {
                Ok(claimed) => claimed,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            let offset = claimed.offset.map(|offset| position(partition, offset));
            positions.extend(offset);
            self.add(partition, claimed.pipeline, Some(claimed.claimed));
        }
        positions
    }

    fn add(&mut self, partition: PartitionId, pipeline: Pipeline, claimed: Option<Claimed>) {
        self.board.add(partition);
        self.shards.insert(partition, Shard { pipeline, claimed });
    }

    /// Stores everything of `partitions`. Where the whole state is kept, steps
    /// that still collect are part of it; else they are closed.
    fn end(&mut self, partitions: &[PartitionId]) -> Vec<Position> {
        let mut positions = Vec::new();
        for partition in partitions {
            let Some(shard) = self.shards.get_mut(partition) else {
                continue;
            };
            let (Some(claimed), Some(topic)) = (&shard.claimed, &self.stores.state) else {
                shard.pipeline.finish();
                self.execute(*partition, &mut positions);
                continue;
            };
            let state = shard.pipeline.state();
            let offset = state.next_offset();
            let stored = async {
                if let Some(outbox) = &self.stores.outbox {
                    outbox.flush_soon().await;
                }
                claimed.store(state).await
            };
            match topic.runtime.block_on(stored) {
                Ok(()) => positions.push(position(*partition, offset)),
                Err(error) => warn!(
                    partition,
                    %error, "the state is not stored; what came since the last store is read again"
                ),
            }
        }
        positions
    }

    /// Gives an input to a pipeline, and carries out what it asks for.
    fn handle(&mut self, partition: PartitionId, input: Input<'_>) {
        let Some(shard) = self.shards.get_mut(&partition) else {
            // Of a partition that went in the meantime.
            return;
        };
        shard.pipeline.handle(input, now_ns());
        let mut positions = Vec::new();
        self.execute(partition, &mut positions);
        if !positions.is_empty() && self.stores.commits.blocking_send(positions).is_err() {
            warn!("positions not committed: the reader is gone");
        }
    }

    fn execute(&mut self, partition: PartitionId, positions: &mut Vec<Position>) {
        let Some(shard) = self.shards.get_mut(&partition) else {
            return;
        };
        while let Some(command) = shard.pipeline.next_command() {
            match command {
                Command::Forecasts(forecasts) => {
                    if let Some(outbox) = &self.stores.outbox {
                        outbox.forecasts(partition, &forecasts);
                    }
                    if let Some(made_at_ns) = shard.pipeline.last_step_end_ns() {
                        let delay_ns = now_ns().saturating_sub(made_at_ns);
                        self.forecast_delay.record(delay_ns);
                    }
                    self.board.routes(partition, shard.pipeline.routes());
                    let alerts = shard.pipeline.alerts();
                    self.board.step(partition, forecasts, alerts);
                    self.board.hints(partition, shard.pipeline.hints());
                }
                Command::Hints(changes) => {
                    if let Some(outbox) = &self.stores.outbox {
                        outbox.hints(self.stores.partitions, &changes);
                    }
                    self.board.hints(partition, shard.pipeline.hints());
                }
                Command::Alert(alert) => {
                    let state = alert.state().as_str_name();
                    let state = state.trim_start_matches("ALERT_STATE_");
                    warn!(state, "{}", alert.summary);
                    if let Some(outbox) = &self.stores.outbox {
                        outbox.alert(partition, &alert);
                    }
                    self.board.alerts(partition, shard.pipeline.alerts());
                }
                Command::Store { step, rows } => {
                    let input = match shard.store(partition, &self.stores, &self.own, step, rows) {
                        Some(input) => input,
                        // `Message::Stored` will tell.
                        None => continue,
                    };
                    shard.pipeline.handle(input, now_ns());
                }
                // The offset of a whole state is exact; see `Stores`.
                Command::Commit(_) if shard.claimed.is_some() => {}
                Command::Commit(committed) => positions.extend(committed),
            }
        }
    }

    fn exposition(&self) -> Exposition {
        let series_max = self.stores.config.config.metrics_series_max;
        let routes_max = self.stores.config.config.metrics_routes_max;
        let mut exposition = Exposition {
            partitions: self.shards.len(),
            forecast_delay: (*self.forecast_delay).clone(),
            rebalance_duration: (*self.rebalance_duration).clone(),
            ..Exposition::default()
        };
        for Shard { pipeline, .. } in self.shards.values() {
            let room = series_max - exposition.series.len();
            exposition.series.extend(pipeline.cumulative(room));
            let room = routes_max - exposition.routes.len();
            exposition.routes.extend(pipeline.route_totals(room));
            exposition.route_count += pipeline.route_count();
            exposition.counters.add(pipeline.counters());
            exposition.sensor_conflicts += pipeline.sensor_conflicts();
            exposition.series_count += pipeline.series_count();
            exposition.hints_left_out += pipeline.hints_left_out();
        }
        exposition
    }
}

impl Shard {
    /// Stores rows in the history of this machine, and where the partition is
    /// claimed the whole state on Kafka, in the background. Returns what to
    /// tell the pipeline, if that is known already.
    fn store(
        &mut self,
        partition: PartitionId,
        stores: &Arc<Stores>,
        own: &mpsc::WeakSender<Message>,
        step: u64,
        rows: Vec<HistoryRow>,
    ) -> Option<Input<'static>> {
        let local = match &stores.history {
            Some(history) => history.write(partition, step, &rows),
            None => Ok(()),
        };
        if let Err(error) = &local {
            warn!(rows = rows.len(), %error, "history not stored");
        }
        let (Some(claimed), Some(topic)) = (&self.claimed, &stores.state) else {
            return Some(match local {
                Ok(()) => Input::Stored { step },
                Err(_) => Input::NotStored { rows },
            });
        };
        // A history that failed is for people to read; Kafka has the same.
        let state = self.pipeline.state();
        let (last_step, offset) = (state.last_step, state.next_offset());
        let (claimed, stores, own) = (claimed.clone(), Arc::clone(stores), own.clone());
        topic.runtime.spawn(async move {
            let stored = async {
                if let Some(outbox) = &stores.outbox {
                    outbox.flush().await;
                }
                claimed.claim_again_if_lost().await?;
                claimed.store(state).await
            };
            let stored = stored.await.map_err(|error| error.to_string());
            if stored.is_ok() {
                // Nobody listens any more at the end.
                let _ = stores.commits.send(vec![position(partition, offset)]).await;
            }
            if let Some(own) = own.upgrade() {
                let stored = stored.map(|()| last_step);
                let _ = own.send(Message::Stored(partition, stored)).await;
            }
        });
        None
    }
}

fn position(partition: PartitionId, offset: u64) -> Position {
    Position {
        topic: Topic::Histograms,
        partition,
        offset,
    }
}
