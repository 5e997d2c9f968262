//! The running sensor: a thread that drains and a task that publishes.
//!
//! The thread never waits for the bus. While its short queue is full, the
//! window goes on and each drain adds to it: late, not lost. What cannot be
//! delivered at all is counted by reason.

use std::{
    fs, io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use honeyguide_bus::{Producer, PublishError, Topic, tail::Tail};
use sensor_common::{
    Signal,
    record::{HOST_SERVICE, OTHER_SERVICE},
    route::EVERY_SERVICE,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tracing::{debug, info, warn};

use self::worker::{Worker, idle_windows};
use crate::{
    batches::{Batches, EncodedBatch},
    ceiling::Load,
    clock::{WindowClock, clock_now},
    config::ValidConfig,
    cost::{KernelCost, ProbeEvents, measurement_overhead},
    drain::{Drain, WantedStalls},
    hints::{self, Follower, Owner, Shared},
    identity::{Hierarchy, Names},
    metrics::{Metrics, ReasonLabels},
    program::{
        Kernel, KernelError,
        probe::{Probe, ProbeState, ProbeStatus, TCP_WITHOUT_ROUTES},
    },
    routes::Lessons,
    steering::{self, Steering},
    tls::{Libraries, TlsStatus},
};

mod shedding;
mod worker;

/// Windows encoded and not yet accepted by the bus.
const QUEUED_WINDOWS_MAX: usize = 2;
/// Pause before a refused record is offered again.
const PUBLISH_RETRY: Duration = Duration::from_millis(200);

/// What the sensor does and costs, for people.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Every probe.
    pub probes: Vec<ProbeStatus>,
    /// What is seen inside TLS.
    pub tls: TlsStatus,
    /// Services with events.
    pub services: usize,
    /// Events lost since the start, in the kernel and on the way to the bus.
    pub events_lost: u64,
    /// CPU time in the last window as a fraction of all CPUs; `None` before the first.
    pub cost: Option<f64>,
    /// Of it, the kernel programs'.
    pub kernel_cost: KernelCost,
    /// What the cost may be, likewise.
    pub cost_ceiling: f64,
    /// What is shed because of it, in words; empty when nothing is.
    pub shedding: String,
    /// Hints in force.
    pub hints: usize,
    /// Windows drained.
    pub windows: u64,
}

/// Probes attached, nothing read yet.
pub struct AttachedSensor {
    kernel: Kernel,
    /// See [`measurement_overhead`].
    overhead_ns: f64,
    libraries: Libraries,
    config: ValidConfig,
    names: Names,
    sensor_id: String,
}

impl AttachedSensor {
    /// Loads and attaches what the configuration wants. A probe that is
    /// refused is reported in [`statuses`](Self::statuses), not an error.
    ///
    /// # Errors
    /// [`KernelError`] when nothing can be measured at all.
    pub fn attach(config: ValidConfig) -> Result<Self, KernelError> {
        let hierarchy = Hierarchy::find(&config.config.cgroup_root);
        let mut kernel = Kernel::open(config.sizes(), &hierarchy)?;
        let hostname = hostname();
        let names = Names::new(hierarchy, &hostname);
        for signal in Signal::ALL {
            let switch = steering::configured(&config, signal);
            kernel
                .tables()
                .set_signal_config(signal.number(), switch, switch);
            for service in [OTHER_SERVICE, HOST_SERVICE] {
                kernel
                    .tables()
                    .set_service_config(service, signal.number(), switch);
            }
        }
        let routes = config.config.routes_per_service_max;
        kernel.tables().set_routes_per_service(routes);
        let client_routes = config.config.client_routes;
        kernel.tables().set_client_routes(client_routes);
        let rules = config.rules.lessons();
        kernel.teach(EVERY_SERVICE, &Lessons::default(), rules)?;
        // Exchanges that begin meanwhile are forgotten, and so would be what other
        // probes have begun to measure by then.
        let mut probes = config.config.probes.clone();
        probes.sort_by_key(|probe| *probe != Probe::Tcp);
        for probe in &probes {
            let best = match (probe, routes) {
                (Probe::Tcp, 0) => TCP_WITHOUT_ROUTES,
                _ => 0,
            };
            let status = kernel.attach(*probe, best);
            match &status.state {
                ProbeState::Running { refusals, .. } if refusals.is_empty() => {
                    info!(%probe, "attached: {}", status.describe())
                }
                ProbeState::Running { refusals, .. } if !probe.is_sampled() => {
                    let why = refusals.first().map_or("", |refusal| &refusal.why);
                    info!(%probe, why, "attached: {}", status.describe());
                }
                ProbeState::Running { refusals, .. } => {
                    let why = refusals.first().map_or("", |refusal| &refusal.why);
                    warn!(%probe, why, "attached at a fallback: {}", status.describe());
                }
                _ => warn!(%probe, "refused: {}", status.describe()),
            }
        }
        let overhead_ns = measurement_overhead(&mut kernel);
        debug!(overhead_ns, "what measuring programs adds to each run");
        kernel.end_attaching();
        let mut libraries = Libraries::default();
        if config.wants_tls() {
            let is_wanted = kernel.tells_routes();
            libraries.look(&mut kernel, is_wanted);
        }
        let sensor_id = match config.config.sensor_id.as_str() {
            "" => machine_id().unwrap_or(hostname),
            id => id.to_owned(),
        };
        Ok(Self {
            kernel,
            overhead_ns,
            libraries,
            config,
            names,
            sensor_id,
        })
    }

    /// How every probe stands.
    pub fn statuses(&self) -> Vec<ProbeStatus> {
        self.kernel.statuses()
    }

    /// What is seen inside TLS.
    pub fn tls(&self) -> TlsStatus {
        self.libraries.status()
    }

    /// Starts to drain and publish; call within a tokio runtime.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start<P: Producer + 'static>(
        self,
        producer: Arc<P>,
        metrics: Metrics,
    ) -> io::Result<Sensor> {
        let (queue, queued) = mpsc::channel(QUEUED_WINDOWS_MAX);
        let (status, status_receiver) = watch::channel(Status::default());
        let stop = Arc::new(Stop::default());
        let boot_id = uuid::Uuid::new_v4().into_bytes();
        let partitions = producer.partitions(Topic::Histograms);
        let flush = self.config.config.flush_interval;
        let idle_timeout = self.config.config.idle_timeout;
        let hints = Shared::new(
            Owner {
                sensor_id: self.sensor_id.clone(),
                flush_interval: flush,
            },
            metrics.clone(),
        );
        let steering = Steering::new(&self.config, hints.clone());
        let lost = Arc::new(LostEvents {
            metrics: metrics.clone(),
            count: AtomicU64::new(0),
        });
        let worker = Worker {
            tls: self.config.wants_tls(),
            libraries: self.libraries,
            drain: Drain::new(
                self.kernel.tables(),
                self.names,
                self.config.rules.clone(),
                idle_windows(idle_timeout, flush),
            )
            .with_stalls(wanted_stalls(&self.kernel)),
            kernel: self.kernel,
            batches: Batches::new(self.sensor_id, boot_id, partitions),
            clock: WindowClock::new(clock_now()),
            flush,
            idle_timeout,
            steering,
            events: ProbeEvents::new(),
            last_user_space: Duration::ZERO,
            last_part: Load::default(),
            shed_in_window: false,
            measure: self.config.config.cost_measurement,
            overhead_ns: self.overhead_ns,
            queue,
            status,
            metrics,
            cpu_before: Duration::ZERO,
            kernel_cost: KernelCost::default(),
            lost: Arc::clone(&lost),
            windows: 0,
        };
        let thread = thread::Builder::new().name("sensor".to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || worker.run(&stop)
        })?;
        let publisher = tokio::spawn(publish(producer, queued, lost));
        Ok(Sensor {
            hints,
            followers: Vec::new(),
            stop,
            thread: Some(thread),
            publisher,
            status: status_receiver,
        })
    }
}

/// A running sensor.
pub struct Sensor {
    hints: Shared,
    followers: Vec<Follower>,
    stop: Arc<Stop>,
    thread: Option<thread::JoinHandle<()>>,
    publisher: JoinHandle<()>,
    status: watch::Receiver<Status>,
}

impl Sensor {
    /// What it does and costs; changes with every window.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Follows the hints that `tail` brings from now on; call within a tokio
    /// runtime. Whether there are any never holds up draining.
    pub fn follow_hints<T: Tail + 'static>(&mut self, tail: T) {
        self.followers.push(hints::follow(tail, self.hints.clone()));
    }

    /// Detaches, drains once more, publishes, and returns when the bus has it all.
    pub async fn stop(mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                warn!("the sensor thread panicked");
            }
        }
        if let Err(error) = self.publisher.await {
            warn!(%error, "the publisher ended early");
        }
    }
}

/// A wish to stop that interrupts sleeping.
#[derive(Debug, Default)]
struct Stop {
    requested: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn request(&self) {
        *self
            .requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Sleeps until `deadline`; true if the wish came.
    fn sleep_until(&self, deadline: Instant) -> bool {
        let requested = self
            .requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let timeout = deadline.saturating_duration_since(Instant::now());
        let waited = self
            .changed
            .wait_timeout_while(requested, timeout, |requested| !*requested);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Counts what will never arrive.
struct LostEvents {
    metrics: Metrics,
    count: AtomicU64,
}

impl LostEvents {
    fn add(&self, reason: &'static str, events: u64) {
        let labels = ReasonLabels { reason };
        let counter = self.metrics.events_lost.get_or_create(&labels);
        counter.inc_by(events);
        self.count.fetch_add(events, Relaxed);
    }
}

/// Hands windows to the bus in order. A full bus is waited for; what it
/// refuses for good is counted.
async fn publish<P: Producer>(
    producer: Arc<P>,
    mut queued: mpsc::Receiver<Vec<EncodedBatch>>,
    lost: Arc<LostEvents>,
) {
    while let Some(batches) = queued.recv().await {
        for EncodedBatch { mut record, events } in batches {
            loop {
                record = match producer.publish(record).await {
                    Ok(()) => break,
                    Err(PublishError::Full(record) | PublishError::Unavailable { record, .. }) => {
                        *record
                    }
                    Err(error) => {
                        warn!(%error, events, "events lost on the way to the bus");
                        lost.add(error.reason(), events);
                        break;
                    }
                };
                tokio::time::sleep(PUBLISH_RETRY).await;
            }
        }
    }
}

/// What of stalls the probes that run read.
fn wanted_stalls(kernel: &Kernel) -> WantedStalls {
    let level = |probe| match kernel.status(probe).state {
        ProbeState::Running { level, .. } => Some(level),
        _ => None,
    };
    let pressure = level(Probe::Pressure);
    WantedStalls {
        places: kernel.places().clone(),
        machine: pressure.is_some(),
        pressure: pressure == Some(0),
        throttling: level(Probe::Throttling).is_some(),
    }
}

fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

fn machine_id() -> Option<String> {
    let id = fs::read_to_string("/etc/machine-id").ok()?;
    let id = id.trim();
    let valid = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| id.to_owned())
}
