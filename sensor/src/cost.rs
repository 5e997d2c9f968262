//! What the sensor costs: its own CPU time and the run time of its programs.
//!
//! The kernel measures the run time of BPF programs only while asked to, and
//! that itself costs each run two clock reads. So it is asked for a short part
//! of each window and the rest is extrapolated, without the clock reads.

use std::{collections::BTreeMap, os::fd::OwnedFd, time::Duration};

use caps::{CapSet, Capability};

use crate::{
    ceiling::{EventsByShift, ProbeLoad},
    program::{
        Kernel, RunStats, enable_run_stats, openssl,
        probe::{Probe, ProgramSpec},
    },
};

/// Measurements of an empty program, of which the least counts, and its runs in
/// each: some 10 ms in all.
const OVERHEAD_ROUNDS: usize = 3;
const OVERHEAD_CALLS: usize = 10_000;

/// What a run of a probe on a user-space function takes beside the program: the
/// traps that lead into the kernel and back are none of its run time. `request-cost`
/// measures 614 ns.
pub const TRAP_NS: f64 = 700.0;
/// The same where the kernel runs an instruction in a single step, as in a virtual
/// machine: what is probed at its own begin, see [`openssl::places`].
pub const SINGLE_STEP_NS: f64 = 10_000.0;

/// What `program` takes beside its run time, per run.
fn traps_ns(program: &str) -> f64 {
    match program {
        // Of no other place.
        "tls_read" => SINGLE_STEP_NS,
        _ if openssl::is_program(program) => TRAP_NS,
        _ => 0.0,
    }
}

/// Run time by program in one window, extrapolated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelCost {
    /// Nanoseconds of CPU time in the window.
    pub total_ns: u64,
    /// Nanoseconds per run and estimated runs, by program.
    pub by_program: BTreeMap<String, ProgramCost>,
}

/// Cost of one program.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProgramCost {
    /// Mean run time, without what the measurement itself takes.
    pub ns_per_run: f64,
    /// Estimated runs in the window.
    pub runs: f64,
}

impl KernelCost {
    /// Adds the cost of a span of time that belongs to the same window.
    pub fn add(&mut self, other: &KernelCost) {
        self.total_ns += other.total_ns;
        for (program, cost) in &other.by_program {
            let sum = self.by_program.entry(program.clone()).or_default();
            let run_time_ns = sum.ns_per_run * sum.runs + cost.ns_per_run * cost.runs;
            sum.runs += cost.runs;
            sum.ns_per_run = run_time_ns / sum.runs;
        }
    }
}

/// What each probe did in `cost`, where its events are those of `events`: by
/// probe, how many there were by the sampling shift they were observed at.
pub fn by_probe(cost: &KernelCost, events: &ProbeEvents) -> BTreeMap<Probe, ProbeLoad> {
    let mut loads: BTreeMap<Probe, ProbeLoad> = BTreeMap::new();
    for (program, cost) in &cost.by_program {
        let Some(probe) = Probe::of_program(program) else {
            continue;
        };
        let load = loads.entry(probe).or_default();
        load.kernel_ns += cost.ns_per_run * cost.runs;
        load.runs += cost.runs;
        if openssl::is_program(program) {
            load.inside_tls.0 += cost.ns_per_run * cost.runs;
            load.inside_tls.1 += cost.runs;
        }
        load.events_by_shift = events.get(&probe).copied().unwrap_or_default();
    }
    loads
}

/// By probe, its events by the sampling shift they were observed at.
pub type ProbeEvents = BTreeMap<Probe, EventsByShift>;

/// A measurement under way; ends when it is finished or dropped.
#[derive(Debug)]
pub struct Measurement {
    _enabled: OwnedFd,
    before: BTreeMap<String, RunStats>,
}

impl Measurement {
    /// Asks the kernel to measure.
    ///
    /// # Errors
    /// The kernel's (CAP_SYS_ADMIN is needed, and raised here if it may be).
    pub fn begin(kernel: &Kernel) -> std::io::Result<Measurement> {
        let admin = Capability::CAP_SYS_ADMIN;
        let is_raised = caps::has_cap(None, CapSet::Effective, admin).unwrap_or(false);
        // Without the capability the call below fails and says so.
        let _ = caps::raise(None, CapSet::Effective, admin);
        let enabled = enable_run_stats();
        if !is_raised {
            let _ = caps::drop(None, CapSet::Effective, admin);
        }
        Ok(Measurement {
            _enabled: enabled?,
            before: kernel.run_stats(),
        })
    }

    /// Extrapolates what was measured over `measured` to a window of `window`.
    /// `overhead_ns` is what the measurement itself takes of each run.
    pub fn finish(
        self,
        kernel: &Kernel,
        (measured, window): (Duration, Duration),
        overhead_ns: f64,
    ) -> KernelCost {
        let factor = window.as_secs_f64() / measured.as_secs_f64().max(1e-6);
        let mut cost = KernelCost::default();
        let mut total_ns = 0.0;
        for (program, now) in kernel.run_stats() {
            let before = self.before.get(&program).copied().unwrap_or_default();
            let runs = now.runs.saturating_sub(before.runs);
            let gross_ns = now.run_time_ns.saturating_sub(before.run_time_ns) as f64;
            if runs > 0 {
                let run_time_ns = (gross_ns - overhead_ns * runs as f64).max(0.0);
                let run_time_ns = run_time_ns + traps_ns(&program) * runs as f64;
                let program_cost = ProgramCost {
                    ns_per_run: run_time_ns / runs as f64,
                    runs: runs as f64 * factor,
                };
                cost.by_program.insert(program, program_cost);
                total_ns += run_time_ns * factor;
            }
        }
        cost.total_ns = total_ns as u64;
        cost
    }
}

/// Nanoseconds that the kernel's measurement adds to each run, as an empty
/// program shows that runs again and again: elsewhere, where caches are cold,
/// it adds more, and costs are said to be too much rather than too little. 0
/// where nothing can be measured.
pub fn measurement_overhead(kernel: &mut Kernel) -> f64 {
    const EMPTY: ProgramSpec = ProgramSpec {
        program: "empty_sys_enter",
        tracepoint: "sys_enter",
        offsets: &[],
    };
    if kernel.attach_programs(&[EMPTY]).is_err() {
        return 0.0;
    }
    let rounds = (0..OVERHEAD_ROUNDS).filter_map(|_| {
        let measurement = Measurement::begin(kernel).ok()?;
        for _ in 0..OVERHEAD_CALLS {
            // SAFETY: no pointers are involved.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
        let whole = Duration::from_secs(1);
        let cost = measurement.finish(kernel, (whole, whole), 0.0);
        cost.by_program
            .get(EMPTY.program)
            .map(|cost| cost.ns_per_run)
    });
    let least = rounds.min_by(f64::total_cmp);
    kernel.unload(&[EMPTY]);
    least.unwrap_or(0.0)
}

/// CPU time of the calling thread.
pub fn thread_cpu_time() -> Duration {
    // SAFETY: all-zero is a valid `timespec`.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `time` outlives the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if result != 0 {
        return Duration::ZERO;
    }
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
