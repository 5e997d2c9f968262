//! The running sensor: a thread that drains and a task that publishes.
//!
//! The thread never waits for the bus. While its short queue is full, the
//! window goes on and each drain adds to it: late, not lost. What cannot be
//! delivered at all is counted by reason.

use std::{
    collections::BTreeMap,
    fs, io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use honeyguide_bus::{Producer, PublishError, Topic, tail::Tail};
use honeyguide_proto::{
    batch::WINDOW_DURATION_NS,
    v1::{SensorCost, SignalCost},
};
use sensor_common::{
    Histogram, Signal,
    record::{HOST_SERVICE, OTHER_SERVICE},
    route::EVERY_SERVICE,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tracing::{debug, info, warn};

use crate::{
    batches::{Batches, EncodedBatch, Window},
    ceiling::{FIXED_NS, Load, ProbeLoad},
    clock::{self, WindowClock, clock_now},
    config::ValidConfig,
    cost::{KernelCost, Measurement, ProbeEvents, by_probe, measurement_overhead, thread_cpu_time},
    drain::{Drain, Drained},
    hints::{self, Follower, Owner, Shared},
    identity::{Hierarchy, Names},
    metrics::{
        BUS_STALLED, Metrics, ProbeLabels, ProgramLabels, RECOVERED, ReasonLabels, SHED,
        ShedLabels, TRIAL_FAILED, TlsLabels,
    },
    program::{
        Kernel, KernelError,
        probe::{Probe, ProbeState, ProbeStatus, TCP_WITHOUT_ROUTES},
    },
    routes::Lessons,
    steering::{self, Steering},
    tls::{Libraries, TlsStatus},
};

/// Windows encoded and not yet accepted by the bus.
const QUEUED_WINDOWS_MAX: usize = 2;
/// Pause before a refused record is offered again.
const PUBLISH_RETRY: Duration = Duration::from_millis(200);

/// Parts of a window that end with a measurement each, at most, so that a storm
/// is noticed before the window ends.
const CHECKS_MAX: u32 = 4;
/// Shortest of these parts.
const CHECK_INTERVAL_MIN: Duration = Duration::from_secs(2);
/// For how long a paused probe is tried at most.
const TRIAL_MAX: Duration = Duration::from_millis(50);

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
        let rules = config.rules.lessons();
        kernel.teach(EVERY_SERVICE, &Lessons::default(), rules)?;
        for probe in &config.config.probes {
            let best = match (probe, routes) {
                (Probe::Tcp, 0) => TCP_WITHOUT_ROUTES,
                _ => 0,
            };
            let status = kernel.attach(*probe, best);
            match &status.state {
                ProbeState::Running { refusals, .. } if refusals.is_empty() => {
                    info!(%probe, "attached: {}", status.describe())
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
            ),
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

struct Worker {
    kernel: Kernel,
    /// Whether requests inside TLS are wanted.
    tls: bool,
    libraries: Libraries,
    drain: Drain,
    batches: Batches,
    clock: WindowClock,
    flush: Duration,
    idle_timeout: Duration,
    steering: Steering,
    /// Of the last window.
    events: ProbeEvents,
    last_user_space: Duration,
    /// Cost of the last measured part of the window.
    last_part: Load,
    /// Something was shed since the window began.
    shed_in_window: bool,
    measure: Duration,
    /// What measuring adds to each run of a program, in nanoseconds.
    overhead_ns: f64,
    queue: mpsc::Sender<Vec<EncodedBatch>>,
    status: watch::Sender<Status>,
    metrics: Metrics,
    cpu_before: Duration,
    /// Of the window so far.
    kernel_cost: KernelCost,
    lost: Arc<LostEvents>,
    windows: u64,
}

/// Whether a window of `length` may end after `elapsed`: so early that the rest
/// is a window of its own, with the end that this one would have had; and not
/// if this is such a rest already.
fn may_end_early(length: Duration, flush: Duration, elapsed: Duration) -> bool {
    length >= flush * 9 / 10 && length.saturating_sub(elapsed) >= flush * 6 / 10
}

/// Events of all signals of a probe in a window.
#[derive(Clone, Copy, Default)]
struct Observed {
    samples: u64,
    estimated: u64,
}

impl Observed {
    /// What of the cost of the probe is of a signal with so many events: what
    /// all runs take by the events there were, the rest by those observed.
    fn share(self, load: &ProbeLoad, samples: u64, estimated: u64) -> u64 {
        let fixed_ns = (load.runs * FIXED_NS).min(load.kernel_ns);
        let part = |of: u64, all: u64| of as f64 / all.max(1) as f64;
        let rest_ns = load.kernel_ns - fixed_ns;
        (fixed_ns * part(estimated, self.estimated) + rest_ns * part(samples, self.samples)) as u64
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

impl Worker {
    fn run(mut self, stop: &Stop) {
        let limit = self.steering.ceiling.limit();
        self.metrics.cost_ceiling_ratio.set(limit);
        self.publish_status(None);
        loop {
            let begun = Instant::now();
            let length = self.clock.until_boundary(clock_now(), self.flush);
            let checks = length.as_secs_f64() / CHECK_INTERVAL_MIN.as_secs_f64();
            let checks = (checks as u32).clamp(1, CHECKS_MAX);
            let mut stopping = false;
            for check in 1..=checks {
                let part = length / checks;
                let end = if check == checks {
                    begun + length
                } else {
                    begun + part * check
                };
                stopping = self.measure_until(end, part, (check == checks, stop));
                self.look_for_tls();
                let ends_early =
                    may_end_early(length, self.flush, end - begun) && self.steering.looks_closer();
                if stopping || ends_early {
                    break;
                }
            }
            if stopping {
                self.libraries.detach(&mut self.kernel);
                for probe in Probe::ALL {
                    self.kernel.detach(probe);
                }
            }
            let trial = self.flush(stopping);
            if stopping {
                return;
            }
            if let Some(probe) = trial {
                self.try_again(probe, stop);
            }
        }
    }

    /// Attaches to what new processes decrypt with; nothing while no requests are
    /// told apart.
    fn look_for_tls(&mut self) {
        if self.tls {
            let is_wanted = self.steering.ceiling.tells_routes() && self.kernel.tells_routes();
            self.libraries.look(&mut self.kernel, is_wanted);
        }
    }

    /// Sleeps until `end`; measures at the end of that part of the window, and
    /// sheds if it was above the ceiling (after the `last` part the end of the
    /// window does). True if the sensor is to stop.
    fn measure_until(&mut self, end: Instant, part: Duration, (last, stop): (bool, &Stop)) -> bool {
        // Each part has its share of the time that a window is measured for.
        let measured = self
            .measure
            .mul_f64(part.as_secs_f64() / self.flush.as_secs_f64());
        let measured = measured.min(part / 2);
        let stopping = stop.sleep_until(end - measured);
        let measurement = self.begin_measurement(stopping);
        let begun = Instant::now();
        let stopping = stopping || stop.sleep_until(end);
        if let Some(measurement) = measurement {
            let cost = measurement.finish(&self.kernel, (begun.elapsed(), part), self.overhead_ns);
            self.kernel_cost.add(&cost);
            let load = Load {
                all_cpus_ns: part.as_nanos() as f64 * f64::from(cpus()),
                user_space_ns: self.last_user_space.as_nanos() as f64 * part.as_secs_f64()
                    / self.flush.as_secs_f64(),
                probes: by_probe(&cost, &self.events),
            };
            if !last && self.steering.ceiling.check(&load) {
                self.shed(load.ratio());
                self.steering.apply_floors(&self.kernel);
                self.shed_in_window = true;
            }
            self.last_part = load;
        }
        stopping
    }

    /// Pauses what the ceiling wants paused, and says so.
    fn shed(&mut self, ratio: f64) {
        let ceiling = &self.steering.ceiling;
        let (shed, limit) = (ceiling.describe(), ceiling.limit());
        warn!(
            shed,
            "costs {:.2} % of this machine, more than {:.2} %: looks less closely",
            ratio * 100.0,
            limit * 100.0
        );
        for probe in Probe::ALL {
            if ceiling.is_paused(probe) {
                self.kernel.pause(probe);
            }
        }
        self.look_for_tls();
        self.count_shedding(&SHED);
    }

    fn count_shedding(&self, action: &ShedLabels) {
        let level = self.steering.ceiling.level();
        self.metrics.shedding_level.set(i64::from(level));
        self.metrics.shedding.get_or_create(action).inc();
    }

    /// Lets a paused probe run for a moment, and on if it is cheap enough now.
    fn try_again(&mut self, probe: Probe, stop: &Stop) {
        let length = (self.measure / 2).min(TRIAL_MAX);
        let measurement = self.begin_measurement(false);
        if let Err(why) = self.kernel.resume(probe) {
            warn!(%probe, why, "not attached again");
            self.steering.ceiling.trial_failed(probe);
            self.count_shedding(&TRIAL_FAILED);
            return;
        }
        let begun = Instant::now();
        // Where nothing is measured, its next window is the trial.
        let mut passed = true;
        if let Some(measurement) = measurement {
            let stopping = stop.sleep_until(begun + length);
            let measured = begun.elapsed();
            let cost = measurement.finish(&self.kernel, (measured, measured), self.overhead_ns);
            let mut probes = by_probe(&cost, &self.events);
            probes.retain(|of, _| *of == probe);
            let load = Load {
                all_cpus_ns: measured.as_nanos() as f64 * f64::from(cpus()),
                user_space_ns: 0.0,
                probes,
            };
            passed = !stopping && self.steering.ceiling.trial_passes(&load);
        }
        if passed {
            info!(%probe, "attached again, it is cheap enough now");
            self.steering.ceiling.resume(probe);
            self.count_shedding(&RECOVERED);
        } else {
            self.kernel.pause(probe);
            self.steering.ceiling.trial_failed(probe);
            self.count_shedding(&TRIAL_FAILED);
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

    /// Drains, ends the window and queues it. The last window waits for a
    /// place. Returns a probe that may be tried again.
    fn flush(&mut self, last: bool) -> Option<Probe> {
        let begun = Instant::now();
        if let Err(error) = self.drain.drain(&mut self.kernel) {
            warn!(%error, "not drained; the window goes on");
            return None;
        }
        let now = clock_now();
        // The only sender, so a place seen here is still there below.
        if self.queue.capacity() == 0 && !last {
            self.metrics.windows_delayed.inc();
            self.give_up_endless_window(now);
            return None;
        }
        let window = self.clock.end_window(now);
        let since = self.steering.hints.settle(now);
        let user_space = self.user_space() + since.cpu;
        let load = self.load(window, user_space);
        // What was shed in this window already must not be shed again for it,
        // and what the start took comes once.
        let mut judged = match std::mem::take(&mut self.shed_in_window) {
            true => self.last_part.clone(),
            false => load.clone(),
        };
        if self.windows == 0 {
            judged.user_space_ns = 0.0;
        }
        let decision = self.steering.ceiling.end_window(&judged);
        if decision.changed {
            match self.steering.ceiling.is_above() {
                true => self.shed(judged.ratio()),
                false => self.count_shedding(&RECOVERED),
            }
        }
        self.steering.apply(&self.kernel, &self.drain);
        let all_cpus_ns = (window.duration_ns * u64::from(cpus())).max(1);
        let cost = SensorCost {
            user_space_ns: user_space.as_nanos() as u64,
            kernel_ns: self.kernel_cost.total_ns,
            cpus: cpus(),
            signals: self.signal_costs(&load),
            hints: Some(since.counts),
            ceiling_ns: (self.steering.ceiling.limit() * all_cpus_ns as f64) as u64,
            shedding_level: self.steering.ceiling.level(),
        };
        let drained = self.drain.window();
        let batches = self.batches.encode(window, drained, &cost);
        // The receiver lives until the last window.
        let _ = self.queue.blocking_send(batches);

        self.count_window(user_space);
        let flush_duration = begun.elapsed().as_secs_f64();
        self.metrics.flush_duration.observe(flush_duration);
        self.metrics.cost_ratio.set(load.ratio());
        self.drain.begin_window();
        self.publish_status(Some(load.ratio()));
        self.kernel_cost = KernelCost::default();
        self.last_user_space = user_space;
        self.next_flush_interval(user_space);
        decision.trial.filter(|_| !last)
    }

    fn next_flush_interval(&mut self, user_space: Duration) {
        let flush = self.steering.flush_interval(user_space, cpus());
        if flush != self.flush {
            self.flush = flush;
            let windows = idle_windows(self.idle_timeout, flush);
            self.drain.set_idle_windows_max(windows);
        }
    }

    /// CPU time of this thread since the last window.
    fn user_space(&mut self) -> Duration {
        let cpu = thread_cpu_time();
        let user_space = cpu.saturating_sub(self.cpu_before);
        self.cpu_before = cpu;
        user_space
    }

    /// What the window that ends cost; remembers its events.
    fn load(&mut self, window: Window, user_space: Duration) -> Load {
        self.events.clear();
        for series in self.drain.window().series() {
            let (count, samples) = (series.histogram.count(), series.histogram.samples());
            let ratio = count as f64 / samples.max(1) as f64;
            let events = self.events.entry(Probe::of_signal(series.signal));
            let events = events.or_default();
            let shift = (ratio.log2().round() as usize).min(events.len() - 1);
            events[shift] += count as f64;
        }
        let assumed = self.measure.is_zero();
        Load {
            all_cpus_ns: (window.duration_ns * u64::from(cpus())) as f64,
            user_space_ns: user_space.as_nanos() as f64,
            probes: if assumed {
                let events = self.events.iter();
                events
                    .map(|(probe, events)| (*probe, ProbeLoad::assumed(*events)))
                    .collect()
            } else {
                by_probe(&self.kernel_cost, &self.events)
            },
        }
    }

    /// By signal what it cost and gave, in the order of numbers.
    fn signal_costs(&self, load: &Load) -> Vec<SignalCost> {
        let mut events = [(0u64, 0u64); Signal::ALL.len()];
        let mut of_probe = BTreeMap::<Probe, Observed>::new();
        for series in self.drain.window().series() {
            let (samples, estimated) = &mut events[usize::from(series.signal.number())];
            *samples += series.histogram.samples();
            *estimated += series.histogram.count();
            let of_probe = of_probe.entry(Probe::of_signal(series.signal)).or_default();
            of_probe.samples += series.histogram.samples();
            of_probe.estimated += series.histogram.count();
        }
        let measured = self.kernel_cost.total_ns > 0;
        let costs = Signal::ALL.into_iter().zip(events);
        let costs = costs.map(|(signal, (samples, estimated))| {
            let probe = Probe::of_signal(signal);
            let of_probe = of_probe.get(&probe).copied().unwrap_or_default();
            let load = load.probes.get(&probe).filter(|_| measured);
            SignalCost {
                signal: u32::from(signal.number()),
                kernel_ns: load.map_or(0, |load| of_probe.share(load, samples, estimated)),
                events: samples,
                estimated_events: estimated,
                shed_shift: u32::from(self.steering.ceiling.floor(probe)),
                detached: self.steering.ceiling.is_paused(probe),
            }
        });
        let tells = |cost: &SignalCost| cost.events > 0 || cost.shed_shift > 0 || cost.detached;
        costs.filter(tells).collect()
    }

    fn count_window(&mut self, user_space: Duration) {
        let drained = self.drain.window();
        for (reason, count) in &drained.losses {
            self.lost.add(reason.name(), *count);
        }
        self.windows += 1;
        self.metrics.windows.inc();
        self.metrics.events.inc_by(events(drained));
        self.metrics.cpu.inc_by(user_space.as_secs_f64());
        self.metrics.services.set(self.drain.services() as i64);
        self.metrics.series.set(drained.series().len() as i64);
        self.metrics.routes.set(self.drain.known_routes() as i64);
        let others = drained
            .routes()
            .iter()
            .filter(|series| drained.route(series.route).1.is_other());
        let others = others.map(|series| series.histogram.count()).sum();
        self.metrics.requests_other.inc_by(others);
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

    fn count_tls(&self, tls: &TlsStatus) {
        self.metrics.tls_libraries.set(tls.attached() as i64);
        for (library, processes) in [
            ("openssl", tls.processes),
            ("other", tls.unseen),
            ("unknown", tls.unreadable),
        ] {
            let labels = TlsLabels { library };
            let gauge = self.metrics.tls_processes.get_or_create(&labels);
            gauge.set(processes as i64);
        }
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
        let tls = self.libraries.status();
        self.count_tls(&tls);
        self.status.send_replace(Status {
            probes,
            tls,
            services: self.drain.services(),
            events_lost: self.lost.count.load(Relaxed),
            cost,
            kernel_cost: self.kernel_cost.clone(),
            cost_ceiling: self.steering.ceiling.limit(),
            shedding: self.steering.ceiling.describe(),
            hints: self.steering.hints.look(hints::Book::len),
            windows: self.windows,
        });
    }
}

fn cpus() -> u32 {
    thread::available_parallelism().map_or(1, usize::from) as u32
}

/// Windows of `flush` in `timeout`.
fn idle_windows(timeout: Duration, flush: Duration) -> u32 {
    (timeout.as_secs_f64() / flush.as_secs_f64()) as u32
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_early_once_and_leaves_a_rest() {
        let secs = Duration::from_secs_f64;
        let may = |length, elapsed| may_end_early(secs(length), secs(10.0), secs(elapsed));
        assert!(may(10.0, 2.5));
        assert!(!may(10.0, 5.0), "the rest would be merged with the next");
        assert!(!may(7.5, 1.9), "it is a rest itself");
        assert!(may(14.0, 7.0), "the first after the start may be longer");
        assert!(!may(10.0, 10.0));
    }
}
