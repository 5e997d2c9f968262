//! The shell around the pipeline: reads the bus and the clock, stores, serves.
//!
//! One task owns the consumer and hands everything to one thread that owns the
//! pipelines, one per partition, because closing a step takes longer than an
//! async thread may. A partition comes with its stored history and goes when
//! its state is stored, so that it can move to another analyzer.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use honeyguide_bus::{
    ConsumeError, Consumer, ConsumerEvent, Delivery, PartitionId, Position, Topic, partition_of,
};
use honeyguide_proto::v1::{self, SeriesKey, forecast_service_server::ForecastServiceServer};
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    sync::{broadcast, mpsc, oneshot, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    api::Api,
    config::ValidConfig,
    exposition::Exposition,
    frame::{HistoryError, HistoryStore},
    http,
    pipeline::{Command, HistoryRow, Input, Pipeline},
    series::HISTORY_STEPS,
    state_topic::StateTopic,
};

/// How often the pipeline is told the time.
const TICK: Duration = Duration::from_millis(500);
/// Messages on their way to the pipeline; the consumer waits beyond.
const QUEUE: usize = 256;
/// Closed steps kept for watchers that read slowly.
const STEPS_BUFFERED: usize = 16;

/// Why the analyzer does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is taken, or not allowed.
    #[error(
        "failed to listen on {address}: {source} (see analyzer.grpc_listen and analyzer.http_listen)"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The history cannot be opened.
    #[error("failed to open the history: {0} (see analyzer.data_dir)")]
    History(#[from] HistoryError),
    /// No reflection descriptors; a broken build.
    #[error("failed to set up gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// No thread could be started.
    #[error("failed to start the analyzer's thread: {0}")]
    Thread(io::Error),
}

/// The newest forecasts and alerts.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Forecasts of the last closed step, by service and signal.
    pub forecasts: Arc<Vec<v1::Forecast>>,
    /// Alerts that fire, then those that resolved lately.
    pub alerts: Arc<Vec<v1::Alert>>,
    /// Steps closed since the start.
    pub steps: u64,
}

impl Snapshot {
    /// The forecast of a series.
    pub fn forecast(&self, key: &SeriesKey) -> Option<&v1::Forecast> {
        self.forecasts
            .iter()
            .find(|forecast| forecast.key.as_ref() == Some(key))
    }
}

/// What the interfaces share.
pub(crate) struct Shared {
    snapshot: watch::Receiver<Snapshot>,
    steps: broadcast::Sender<Arc<Vec<v1::Forecast>>>,
    to_pipeline: mpsc::Sender<Message>,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Vec<v1::Forecast>>> {
        self.steps.subscribe()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.snapshot.borrow().steps > 0
    }

    pub(crate) async fn exposition(&self) -> Option<Exposition> {
        let (answer, answered) = oneshot::channel();
        self.to_pipeline.send(Message::Expose(answer)).await.ok()?;
        answered.await.ok()
    }
}

/// To the thread of the pipeline.
enum Message {
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

/// A running analyzer.
pub struct Analyzer {
    shared: Arc<Shared>,
    /// Where gRPC listens.
    pub grpc_address: SocketAddr,
    /// Where HTTP listens.
    pub http_address: SocketAddr,
    finished: tokio::task::JoinHandle<()>,
    stop_reading: CancellationToken,
}

impl Analyzer {
    /// Binds the ports and starts to read. The state of partitions is kept in
    /// `state`; without it, only their history, in `analyzer.data_dir`.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start<C: Consumer + 'static>(
        config: ValidConfig,
        consumer: C,
        state: Option<StateTopic>,
        registry: Arc<Registry>,
    ) -> Result<Analyzer, StartError> {
        let grpc = bind(config.config.grpc_listen).await?;
        let http = bind(config.config.http_listen).await?;
        let grpc_address = grpc
            .local_addr()
            .map_err(listen_error(config.config.grpc_listen))?;
        let http_address = http
            .local_addr()
            .map_err(listen_error(config.config.http_listen))?;
        let store = open_store(&config)?;
        let (to_pipeline, messages) = mpsc::channel(QUEUE);
        let (commits, committed) = mpsc::channel(QUEUE);
        let (snapshots, snapshot) = watch::channel(Snapshot::default());
        let (steps, _) = broadcast::channel(STEPS_BUFFERED);
        let shared = Arc::new(Shared {
            snapshot,
            steps: steps.clone(),
            to_pipeline: to_pipeline.clone(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let worker = Worker {
            shards: BTreeMap::new(),
            partitions: consumer.partitions(),
            config,
            store,
            state,
            snapshots,
            steps,
            commits,
        };
        std::thread::Builder::new()
            .name("analyzer".to_owned())
            .spawn(move || worker.run(messages))
            .map_err(StartError::Thread)?;
        let stop_reading = CancellationToken::new();
        let finished = tokio::spawn(read(consumer, to_pipeline, committed, stop_reading.clone()));
        serve(&shared, grpc, http, registry)?;
        info!(%grpc_address, %http_address, "analyzer listens");
        Ok(Analyzer {
            shared,
            grpc_address,
            http_address,
            finished,
            stop_reading,
        })
    }

    /// The newest forecasts and alerts; changes with every closed step.
    pub fn snapshot(&self) -> watch::Receiver<Snapshot> {
        self.shared.snapshot.clone()
    }

    /// Takes what is on the bus, stores, commits, and closes the interfaces.
    pub async fn stop(self) {
        self.stop_reading.cancel();
        if let Err(error) = self.finished.await {
            warn!(%error, "the analyzer's reader ended early");
        }
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(listen_error(address))
}

fn listen_error(address: SocketAddr) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Listen { address, source }
}

fn open_store(config: &ValidConfig) -> Result<Option<HistoryStore>, StartError> {
    let directory = &config.config.data_dir;
    if directory.as_os_str().is_empty() {
        return Ok(None);
    }
    let steps = config.config.retention.as_secs() / config.config.step.as_secs().max(1);
    let store = HistoryStore::open(directory, steps, config.config.retention_mb_max << 20)?;
    Ok(Some(store))
}

fn serve(
    shared: &Arc<Shared>,
    grpc: TcpListener,
    http: TcpListener,
    registry: Arc<Registry>,
) -> Result<(), StartError> {
    let (health_reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let reflection_v1 = reflection.build_v1()?;
    let reflection_v1alpha = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .build_v1alpha()?;
    let api = ForecastServiceServer::new(Api(Arc::clone(shared)));
    let stopping = shared.stopping.clone();
    shared.tasks.spawn(async move {
        health_reporter
            .set_serving::<ForecastServiceServer<Api>>()
            .await;
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(grpc);
        let served = tonic::transport::Server::builder()
            .add_service(health)
            .add_service(reflection_v1)
            .add_service(reflection_v1alpha)
            .add_service(api)
            .serve_with_incoming_shutdown(incoming, stopping.cancelled_owned())
            .await;
        if let Err(error) = served {
            warn!(%error, "gRPC ended");
        }
    });
    let router = http::router(Arc::clone(shared), registry);
    let stopping = shared.stopping.clone();
    shared.tasks.spawn(async move {
        let served = axum::serve(http, router)
            .with_graceful_shutdown(stopping.cancelled_owned())
            .await;
        if let Err(error) = served {
            warn!(%error, "HTTP ended");
        }
    });
    Ok(())
}

/// Reads the bus until told to stop; then what is there, and no more.
async fn read<C: Consumer>(
    mut consumer: C,
    to_pipeline: mpsc::Sender<Message>,
    mut committed: mpsc::Receiver<Vec<Position>>,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        let message = tokio::select! {
            biased;
            Some(positions) = committed.recv() => {
                commit(&mut consumer, &positions).await;
                continue;
            }
            () = stop.cancelled() => break,
            _ = tick.tick() => Message::Tick,
            event = consumer.next() => match event {
                Ok(ConsumerEvent::Delivery(delivery)) => Message::Delivery(Box::new(delivery)),
                Ok(ConsumerEvent::CaughtUp(partition)) => Message::CaughtUp(partition),
                Ok(ConsumerEvent::Assigned(partitions)) => {
                    let (restored, answer) = oneshot::channel();
                    let message = Message::Assign(partitions, restored);
                    if to_pipeline.send(message).await.is_err() {
                        return;
                    }
                    let Ok(positions) = answer.await else {
                        return;
                    };
                    for position in positions {
                        consumer.begin_at(position);
                    }
                    continue;
                }
                Ok(ConsumerEvent::Revoked(partitions)) => {
                    let (stored, answer) = oneshot::channel();
                    let message = Message::Revoke(partitions, stored);
                    if to_pipeline.send(message).await.is_err() {
                        return;
                    }
                    let Ok(positions) = answer.await else {
                        return;
                    };
                    commit(&mut consumer, &positions).await;
                    continue;
                }
                Err(ConsumeError::Closed) => break,
                Err(error) => {
                    warn!(%error, "the bus cannot be read any more");
                    break;
                }
            },
        };
        if to_pipeline.send(message).await.is_err() {
            return;
        }
    }
    while let Ok(Ok(event)) = tokio::time::timeout(Duration::from_millis(50), consumer.next()).await
    {
        let ConsumerEvent::Delivery(delivery) = event else {
            continue;
        };
        if to_pipeline
            .send(Message::Delivery(Box::new(delivery)))
            .await
            .is_err()
        {
            return;
        }
    }
    if to_pipeline.send(Message::Finish).await.is_ok() {
        while let Some(positions) = committed.recv().await {
            commit(&mut consumer, &positions).await;
        }
    }
}

async fn commit<C: Consumer>(consumer: &mut C, positions: &[Position]) {
    if positions.is_empty() {
        return;
    }
    if let Err(error) = consumer.commit(positions).await {
        warn!(%error, "positions not committed; records will be read again after a restart");
    }
}

/// Owns the pipelines.
struct Worker {
    shards: BTreeMap<PartitionId, Shard>,
    partitions: u32,
    config: ValidConfig,
    store: Option<HistoryStore>,
    state: Option<StateTopic>,
    snapshots: watch::Sender<Snapshot>,
    steps: broadcast::Sender<Arc<Vec<v1::Forecast>>>,
    commits: mpsc::Sender<Vec<Position>>,
}

/// A partition.
struct Shard {
    pipeline: Pipeline,
    /// Of its last closed step.
    forecasts: Vec<v1::Forecast>,
}

/// What came of the commands of one shard.
#[derive(Default)]
struct Outcome {
    forecasts: bool,
    alerts: bool,
    positions: Vec<Position>,
}

impl Worker {
    fn run(mut self, mut messages: mpsc::Receiver<Message>) {
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
                    let positions = self.assign(&partitions);
                    // The reader is gone only at the end.
                    let _ = restored.send(positions);
                }
                Message::Revoke(partitions, stored) => {
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
    /// that cannot be had.
    fn restored(
        &self,
        state: &StateTopic,
        partition: PartitionId,
        first_step: u64,
        positions: &mut Vec<Position>,
    ) -> Pipeline {
        let new = || Pipeline::new(self.config.clone());
        let restored = match state.restore(partition, first_step) {
            Ok(restored) => restored,
            Err(error) => {
                warn!(partition, %error, "the state cannot be read; the partition begins anew");
                return new();
            }
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

/// Where the state of a shard is kept.
#[derive(Clone, Copy)]
struct Stores<'a> {
    history: Option<&'a HistoryStore>,
    state: Option<&'a StateTopic>,
    config: &'a ValidConfig,
}

impl Shard {
    fn execute(&mut self, partition: PartitionId, stores: Stores<'_>, outcome: &mut Outcome) {
        while let Some(command) = self.pipeline.next_command() {
            match command {
                Command::Forecasts(forecasts) => {
                    self.forecasts = forecasts;
                    outcome.forecasts = true;
                }
                Command::Alert(alert) => {
                    let state = alert
                        .state()
                        .as_str_name()
                        .trim_start_matches("ALERT_STATE_");
                    warn!(state, "{}", alert.summary);
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

pub(crate) fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}
