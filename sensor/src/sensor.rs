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
    time::{Duration, Instant, SystemTime},
};

use honeyguide_bus::{Producer, PublishError, Topic};
use honeyguide_proto::{batch::WINDOW_DURATION_NS, v1::SensorCost};
use sensor_common::{
    Histogram, Signal,
    record::{HOST_SERVICE, OTHER_SERVICE, SIGNAL_OFF},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tracing::{info, warn};

use crate::{
    batches::{Batches, EncodedBatch},
    clock::{self, WindowClock},
    config::ValidConfig,
    cost::{KernelCost, Measurement, thread_cpu_time},
    drain::{Drain, Drained},
    identity::{Hierarchy, Names},
    metrics::{BUS_STALLED, Metrics, ProbeLabels, ProgramLabels, ReasonLabels},
    program::{
        Kernel, KernelError,
        probe::{Probe, ProbeState, ProbeStatus},
    },
};

/// Windows encoded and not yet accepted by the bus.
const QUEUED_WINDOWS_MAX: usize = 2;
/// Pause before a refused record is offered again.
const PUBLISH_RETRY: Duration = Duration::from_millis(200);

/// What the sensor does and costs, for people.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Every probe.
    pub probes: Vec<ProbeStatus>,
    /// Services with events.
    pub services: usize,
    /// Events lost since the start, in the kernel and on the way to the bus.
    pub events_lost: u64,
    /// CPU time in the last window as a fraction of all CPUs; `None` before the first.
    pub cost: Option<f64>,
    /// Of it, the kernel programs'.
    pub kernel_cost: KernelCost,
    /// Windows drained.
    pub windows: u64,
}

/// Probes attached, nothing read yet.
pub struct AttachedSensor {
    kernel: Kernel,
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
            let wanted = config.shifts.get(&signal).copied().unwrap_or(0);
            let switch = if config.wants(signal) {
                wanted
            } else {
                SIGNAL_OFF
            };
            kernel
                .tables()
                .set_signal_config(signal.number(), switch, switch);
            for service in [OTHER_SERVICE, HOST_SERVICE] {
                kernel
                    .tables()
                    .set_service_config(service, signal.number(), switch);
            }
        }
        for probe in &config.config.probes {
            let status = kernel.attach(*probe, 0);
            match &status.state {
                ProbeState::Running { level: 0, .. } => {
                    info!(%probe, "attached: {}", status.describe())
                }
                ProbeState::Running { refusals, .. } => {
                    let why = refusals.first().map_or("", |refusal| &refusal.why);
                    warn!(%probe, why, "attached at a fallback: {}", status.describe());
                }
                _ => warn!(%probe, "refused: {}", status.describe()),
            }
        }
        kernel.end_attaching();
        let sensor_id = match config.config.sensor_id.as_str() {
            "" => machine_id().unwrap_or(hostname),
            id => id.to_owned(),
        };
        Ok(Self {
            kernel,
            config,
            names,
            sensor_id,
        })
    }

    /// How every probe stands.
    pub fn statuses(&self) -> Vec<ProbeStatus> {
        self.kernel.statuses()
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
        let idle_windows = self.config.config.idle_timeout.as_secs_f64() / flush.as_secs_f64();
        let rows = self.kernel.tables().rows();
        let lost = Arc::new(LostEvents {
            metrics: metrics.clone(),
            count: AtomicU64::new(0),
        });
        let worker = Worker {
            drain: Drain::new(rows, self.names, idle_windows as u32),
            kernel: self.kernel,
            batches: Batches::new(self.sensor_id, boot_id, partitions),
            clock: WindowClock::new(clock_now()),
            flush,
            measure: self.config.config.cost_measurement,
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
            stop,
            thread: Some(thread),
            publisher,
            status: status_receiver,
        })
    }
}

/// A running sensor.
pub struct Sensor {
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

struct Worker {
    kernel: Kernel,
    drain: Drain,
    batches: Batches,
    clock: WindowClock,
    flush: Duration,
    measure: Duration,
    queue: mpsc::Sender<Vec<EncodedBatch>>,
    status: watch::Sender<Status>,
    metrics: Metrics,
    cpu_before: Duration,
    /// Of the window so far.
    kernel_cost: KernelCost,
    lost: Arc<LostEvents>,
    windows: u64,
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

impl Worker {
    fn run(mut self, stop: &Stop) {
        self.publish_status(None);
        loop {
            let next = Instant::now() + self.clock.until_boundary(clock_now(), self.flush);
            let mut stopping = stop.sleep_until(next - self.measure);
            let measurement = self.begin_measurement(stopping);
            let begun = Instant::now();
            stopping = stopping || stop.sleep_until(next);
            if let Some(measurement) = measurement {
                let cost = measurement.finish(&self.kernel, begun.elapsed(), self.flush);
                self.kernel_cost.add(&cost);
            }
            if stopping {
                for probe in Probe::ALL {
                    self.kernel.detach(probe);
                }
            }
            self.flush(stopping);
            if stopping {
                return;
            }
        }
    }

    fn begin_measurement(&mut self, stopping: bool) -> Option<Measurement> {
        if stopping || self.measure.is_zero() {
            return None;
        }
        match Measurement::begin(&self.kernel) {
            Ok(measurement) => Some(measurement),
            Err(error) => {
                warn!(%error, "the run time of kernel programs cannot be measured (CAP_SYS_ADMIN)");
                self.measure = Duration::ZERO;
                None
            }
        }
    }

    /// Drains, ends the window and queues it. The last window waits for a place.
    fn flush(&mut self, last: bool) {
        let begun = Instant::now();
        if let Err(error) = self.drain.drain(&mut self.kernel) {
            warn!(%error, "not drained; the window goes on");
            return;
        }
        let now = clock_now();
        // The only sender, so a place seen here is still there below.
        if self.queue.capacity() == 0 && !last {
            self.metrics.windows_delayed.inc();
            self.give_up_endless_window(now);
            return;
        }
        let window = self.clock.end_window(now);
        let cpu = thread_cpu_time();
        let user_space = cpu.saturating_sub(self.cpu_before);
        self.cpu_before = cpu;
        let cpus = thread::available_parallelism().map_or(1, usize::from) as u32;
        let cost = SensorCost {
            user_space_ns: user_space.as_nanos() as u64,
            kernel_ns: self.kernel_cost.total_ns,
            cpus,
            ..SensorCost::default()
        };
        let drained = self.drain.window();
        let batches = self.batches.encode(window, drained, &cost);
        // The receiver lives until the last window.
        let _ = self.queue.blocking_send(batches);

        for (reason, count) in &drained.losses {
            self.lost.add(reason.name(), *count);
        }
        self.windows += 1;
        self.metrics.windows.inc();
        self.metrics.events.inc_by(events(drained));
        self.metrics.cpu.inc_by(user_space.as_secs_f64());
        self.metrics.services.set(self.drain.services() as i64);
        self.metrics.series.set(drained.series().len() as i64);
        self.metrics.clock_steps.set(self.clock.steps() as i64);
        for (program, program_cost) in &self.kernel_cost.by_program {
            let labels = ProgramLabels {
                program: program.clone(),
            };
            let seconds = program_cost.ns_per_run * program_cost.runs / 1e9;
            self.metrics
                .program_run_time
                .get_or_create(&labels)
                .inc_by(seconds);
        }
        self.metrics
            .flush_duration
            .observe(begun.elapsed().as_secs_f64());
        let all_cpus_ns = (window.duration_ns * u64::from(cpus)).max(1);
        let fraction = (cost.user_space_ns + cost.kernel_ns) as f64 / all_cpus_ns as f64;
        self.drain.begin_window();
        self.publish_status(Some(fraction));
        self.kernel_cost = KernelCost::default();
    }

    /// A window that would outgrow what a batch may cover is lost, counted.
    fn give_up_endless_window(&mut self, now: clock::Instant) {
        let next_end = self.clock.window_age(now) + 2 * self.flush;
        if next_end.as_nanos() < u128::from(*WINDOW_DURATION_NS.end()) {
            return;
        }
        warn!("the bus took no window for a day; the events of that day are lost");
        self.lost.add(BUS_STALLED, events(self.drain.window()));
        self.drain.begin_window();
        self.clock.end_window(now);
        self.kernel_cost = KernelCost::default();
    }

    fn publish_status(&self, cost: Option<f64>) {
        let probes = self.kernel.statuses();
        for status in &probes {
            let level = match status.state {
                ProbeState::Running { level: 0, .. } => 2,
                ProbeState::Running { .. } => 1,
                _ => 0,
            };
            let labels = ProbeLabels {
                probe: status.probe.name(),
            };
            self.metrics.probe_level.get_or_create(&labels).set(level);
        }
        self.status.send_replace(Status {
            probes,
            services: self.drain.services(),
            events_lost: self.lost.count.load(Relaxed),
            cost,
            kernel_cost: self.kernel_cost.clone(),
            windows: self.windows,
        });
    }
}

fn events(window: &Drained) -> u64 {
    let histograms = window.series().iter().map(|series| &series.histogram);
    histograms.map(Histogram::count).sum()
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

fn clock_now() -> clock::Instant {
    // SAFETY: all-zero is a valid `timespec`.
    let mut monotonic: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `monotonic` outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut monotonic) };
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    clock::Instant {
        monotonic: Duration::new(monotonic.tv_sec as u64, monotonic.tv_nsec as u32),
        wall: wall.unwrap_or_default(),
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
