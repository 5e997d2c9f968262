//! The shell around the pipeline: reads the bus and the clock, stores, serves.
//!
//! One task owns the consumer and hands everything to the thread of
//! `worker`.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use honeyguide_bus::{ConsumeError, Consumer, ConsumerEvent, Position};
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
    outbox::Outbox,
    state_topic::StateTopic,
    worker::{Message, Worker},
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
    /// `state`, and forecasts and alerts are published beside it; without it,
    /// only the history is kept, in `analyzer.data_dir`.
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
            outbox: state.as_ref().map(|state| Outbox::start(state.producer())),
            state,
            snapshots,
            steps,
            commits,
            rebalances: 0,
            forecast_delay: Box::default(),
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
                    // Earlier ones first: committed later they would go back.
                    while let Ok(earlier) = committed.try_recv() {
                        commit(&mut consumer, &earlier).await;
                    }
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

pub(crate) fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}
