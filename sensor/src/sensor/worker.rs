//! The thread that drains: one window after the other, until it is to stop.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use honeyguide_proto::{batch::WINDOW_DURATION_NS, v1::SensorCost};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::{LostEvents, Status, Stop, shedding::cpus};
use crate::{
    batches::{Batches, EncodedBatch},
    ceiling::Load,
    clock::{self, WindowClock, clock_now},
    cost::{KernelCost, ProbeEvents, thread_cpu_time},
    drain::{Drain, Drained},
    hints,
    metrics::{BUS_STALLED, Metrics, ProbeLabels, ProgramLabels, RECOVERED, TlsLabels},
    program::{
        Kernel,
        probe::{Probe, ProbeState},
    },
    steering::Steering,
    tls::{Libraries, TlsStatus},
};

/// Parts of a window that end with a measurement each, at most, so that a storm
/// is noticed before the window ends.
const CHECKS_MAX: u32 = 4;
/// Shortest of these parts.
const CHECK_INTERVAL_MIN: Duration = Duration::from_secs(2);

/// Of the thread.
pub(super) struct Worker {
    pub(super) kernel: Kernel,
    /// Whether requests inside TLS are wanted.
    pub(super) tls: bool,
    pub(super) libraries: Libraries,
    pub(super) drain: Drain,
    pub(super) batches: Batches,
    pub(super) clock: WindowClock,
    pub(super) flush: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) steering: Steering,
    /// Of the last window.
    pub(super) events: ProbeEvents,
    pub(super) last_user_space: Duration,
    /// Cost of the last measured part of the window.
    pub(super) last_part: Load,
    /// Something was shed since the window began.
    pub(super) shed_in_window: bool,
    pub(super) measure: Duration,
    /// What measuring adds to each run of a program, in nanoseconds.
    pub(super) overhead_ns: f64,
    pub(super) queue: mpsc::Sender<Vec<EncodedBatch>>,
    pub(super) status: watch::Sender<Status>,
    pub(super) metrics: Metrics,
    pub(super) cpu_before: Duration,
    /// Of the window so far.
    pub(super) kernel_cost: KernelCost,
    pub(super) lost: Arc<LostEvents>,
    pub(super) windows: u64,
}

/// Whether a window of `length` may end after `elapsed`: so early that the rest
/// is a window of its own, with the end that this one would have had; and not
/// if this is such a rest already.
fn may_end_early(length: Duration, flush: Duration, elapsed: Duration) -> bool {
    length >= flush * 9 / 10 && length.saturating_sub(elapsed) >= flush * 6 / 10
}

impl Worker {
    pub(super) fn run(mut self, stop: &Stop) {
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
    pub(super) fn look_for_tls(&mut self) {
        if self.tls {
            let is_wanted = self.steering.ceiling.tells_routes() && self.kernel.tells_routes();
            self.libraries.look(&mut self.kernel, is_wanted);
        }
    }

    /// Drains, ends the window and queues it. The last window waits for a
    /// place. Returns a probe that may be tried again.
    pub(super) fn flush(&mut self, last: bool) -> Option<Probe> {
        thread::sleep(self.clock.until_shortest(clock_now()));
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

    pub(super) fn next_flush_interval(&mut self, user_space: Duration) {
        let flush = self.steering.flush_interval(user_space, cpus());
        if flush != self.flush {
            self.flush = flush;
            let windows = idle_windows(self.idle_timeout, flush);
            self.drain.set_idle_windows_max(windows);
        }
    }

    /// CPU time of this thread since the last window.
    pub(super) fn user_space(&mut self) -> Duration {
        let cpu = thread_cpu_time();
        let user_space = cpu.saturating_sub(self.cpu_before);
        self.cpu_before = cpu;
        user_space
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
            .filter(|series| drained.route(series.route).2.is_other());
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

/// Windows of `flush` in `timeout`.
pub(super) fn idle_windows(timeout: Duration, flush: Duration) -> u32 {
    (timeout.as_secs_f64() / flush.as_secs_f64()) as u32
}

fn events(window: &Drained) -> u64 {
    let counts = window.series().iter();
    counts.map(|series| series.histogram.count()).sum()
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
