//! The shell around the pipeline: reads the bus and the clock, stores, serves.
//!
//! One task owns the consumer and hands everything to the threads of
//! `worker`.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use honeyguide_bus::{ConsumeError, Consumer, ConsumerEvent, Position, memory::MemoryBus};
use honeyguide_proto::v1::{self, forecast_service_server::ForecastServiceServer};
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    api::Api,
    board::{Board, Snapshot},
    config::ValidConfig,
    exposition::Exposition,
    frame::{HistoryError, HistoryStore},
    http,
    outbox::Outbox,
    pipeline::RouteTotal,
    state::StateTopic,
    stores::Stores,
    worker::{Ended, Workers},
};

/// Positions that wait to be committed.
const QUEUE: usize = 256;

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

/// Where what an analyzer finds out goes, beside its interfaces.
pub enum Outlet {
    /// Nowhere; the history is kept in `analyzer.data_dir`.
    None,
    /// Hints to the sensor of this process; the history as before.
    Hints(MemoryBus),
    /// Everything to Kafka, where the state of partitions is kept.
    Kafka(Box<StateTopic>),
}

/// What the interfaces share.
pub(crate) struct Shared {
    pub(crate) board: Arc<Board>,
    workers: Workers,
    not_published: Box<dyn Fn() -> u64 + Send + Sync>,
    series_max: usize,
    routes_max: usize,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    /// Everything that one scrape shows; `None` when the analyzer stops.
    pub(crate) async fn exposition(&self) -> Option<Exposition> {
        let mut exposition = self.workers.expose().await.ok()?;
        exposition
            .series
            .sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        exposition.series.truncate(self.series_max);
        let key = |one: &RouteTotal| (one.service.clone(), one.signal, one.route.clone());
        exposition.routes.sort_by_cached_key(key);
        exposition.routes.truncate(self.routes_max);
        let snapshot = self.board.snapshot();
        let shown = snapshot.forecasts().into_iter().take(self.series_max);
        exposition.forecasts = shown.cloned().collect();
        exposition.firing = snapshot.alerts();
        let firing = |alert: &v1::Alert| alert.state() == v1::AlertState::Firing;
        exposition.firing.retain(firing);
        exposition.rebalances = self.board.rebalances();
        exposition.behind_secs = self.board.behind_secs();
        exposition.not_published = (self.not_published)();
        exposition.hints = snapshot.hints();
        Some(exposition)
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
    /// Binds the ports and starts to read. What is found out goes to `outlet`.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start<C: Consumer + 'static>(
        config: ValidConfig,
        consumer: C,
        outlet: Outlet,
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
        let history = open_history(&config)?;
        let (commits, committed) = mpsc::channel(QUEUE);
        let (state, outbox) = match outlet {
            Outlet::None => (None, None),
            Outlet::Hints(bus) => (None, Some(Outbox::of_hints(&Arc::new(bus)))),
            Outlet::Kafka(state) => {
                let outbox = Outbox::start(&state.producer());
                (Some(*state), Some(outbox))
            }
        };
        let board = Arc::new(Board::new(state.is_none()));
        let series_max = config.config.metrics_series_max;
        let routes_max = config.config.metrics_routes_max;
        let stores = Arc::new(Stores {
            partitions: consumer.partitions(),
            config,
            history,
            state,
            outbox: outbox.clone(),
            commits,
        });
        let workers = Workers::start(&stores, &board).map_err(StartError::Thread)?;
        let shared = Arc::new(Shared {
            board: Arc::clone(&board),
            workers: workers.clone(),
            not_published: Box::new(move || outbox.as_ref().map_or(0, Outbox::not_published)),
            series_max,
            routes_max,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let stop_reading = CancellationToken::new();
        let reading = Reading {
            consumer,
            workers,
            board,
            committed,
        };
        let finished = tokio::spawn(reading.run(stop_reading.clone()));
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
        self.shared.board.snapshots()
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

fn open_history(config: &ValidConfig) -> Result<Option<HistoryStore>, StartError> {
    let directory = &config.config.data_dir;
    if directory.as_os_str().is_empty() {
        return Ok(None);
    }
    let step_secs = config.config.step.as_secs().max(1);
    let steps = config.config.retention.as_secs() / step_secs;
    let bytes_max = config.config.retention_mb_max << 20;
    let store = HistoryStore::open(directory, step_secs, steps, bytes_max)?;
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

/// The task that owns the consumer.
struct Reading<C> {
    consumer: C,
    workers: Workers,
    board: Arc<Board>,
    committed: mpsc::Receiver<Vec<Position>>,
}

impl<C: Consumer> Reading<C> {
    /// Reads the bus until told to stop; then what is there, and no more.
    async fn run(mut self, stop: CancellationToken) {
        if self.read(&stop).await.is_ok() {
            self.read_rest().await;
        }
        if let Ok(positions) = self.workers.finish().await {
            self.commit_earlier().await;
            commit(&mut self.consumer, &positions).await;
        }
    }

    /// Ends well when told to stop, or when the bus is closed.
    async fn read(&mut self, stop: &CancellationToken) -> Result<(), Ended> {
        loop {
            tokio::select! {
                biased;
                Some(positions) = self.committed.recv() => {
                    commit(&mut self.consumer, &positions).await;
                }
                () = stop.cancelled() => return Ok(()),
                event = self.consumer.next() => match event {
                    Ok(event) => self.take(event).await?,
                    Err(ConsumeError::Closed) => return Ok(()),
                    Err(error) => {
                        warn!(%error, "the bus cannot be read any more");
                        return Ok(());
                    }
                },
            }
        }
    }

    async fn take(&mut self, event: ConsumerEvent) -> Result<(), Ended> {
        match event {
            ConsumerEvent::Delivery(delivery) => self.workers.deliver(delivery).await?,
            ConsumerEvent::CaughtUp {
                partition,
                as_of_ns,
            } => self.workers.caught_up(partition, as_of_ns).await?,
            ConsumerEvent::Assigned(partitions) => {
                for position in self.workers.assign(&partitions).await? {
                    self.consumer.begin_at(position);
                }
                self.board.rebalanced();
            }
            ConsumerEvent::Revoked(partitions) => {
                let positions = self.workers.revoke(&partitions).await?;
                // Earlier ones first: committed later they would go back.
                self.commit_earlier().await;
                commit(&mut self.consumer, &positions).await;
                self.board.rebalanced();
            }
        }
        Ok(())
    }

    async fn commit_earlier(&mut self) {
        while let Ok(earlier) = self.committed.try_recv() {
            commit(&mut self.consumer, &earlier).await;
        }
    }

    async fn read_rest(&mut self) {
        let soon = Duration::from_millis(50);
        while let Ok(Ok(event)) = tokio::time::timeout(soon, self.consumer.next()).await {
            if let ConsumerEvent::Delivery(delivery) = event
                && self.workers.deliver(delivery).await.is_err()
            {
                return;
            }
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
