//! What the kernel programs cost per event, for `cargo xtask bench probe-cost`.
//!
//! The kernel itself measures the run time of BPF programs
//! (`kernel.bpf_stats_enabled`). That includes two clock reads, so every figure
//! is net of empty programs on the same hooks, measured in turns with ours.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write, pipe},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, ensure};
use honeyguide_sensor::{
    identity::Hierarchy,
    program::{
        Kernel, Sizes, enable_run_stats,
        probe::{Probe, ProgramSpec},
    },
};
use sensor_common::Signal;
use serde_json::json;

/// Turns of ours and empty; the median counts.
const ROUNDS: usize = 9;
const SWITCHES: usize = 20_000;
const EXCHANGES: usize = 10_000;
const SYSTEM_CALLS: usize = 200_000;
const REQUESTS: usize = 2_000;
/// Sampling shift at which (nearly) no event is sampled.
const UNSAMPLED: u8 = 16;

const fn empty(program: &'static str, tracepoint: &'static str) -> ProgramSpec {
    ProgramSpec {
        program,
        tracepoint,
        offsets: &[],
    }
}

/// A probe, empty programs on its hooks, and a load. The last program of both
/// runs once per event (a switch, a request, one side of an exchange, a call).
struct Case {
    probe: Probe,
    empty: &'static [ProgramSpec],
    load: fn() -> Result<()>,
}

const RUNQ: Case = Case {
    probe: Probe::Runq,
    empty: &[empty("empty_sched_switch", "sched_switch")],
    load: switches,
};
const BLKIO: Case = Case {
    probe: Probe::Blkio,
    empty: &[
        empty("empty_block_start", "block_io_start"),
        empty("empty_block_complete", "block_rq_complete"),
    ],
    load: requests,
};
const TCP: Case = Case {
    probe: Probe::Tcp,
    empty: &[
        empty("empty_state", "inet_sock_set_state"),
        empty("empty_data_ready", "sk_data_ready"),
        empty("empty_receive", "sock_recv_length"),
        empty("empty_send", "sock_send_length"),
    ],
    load: exchanges,
};
const SYSCALL: Case = Case {
    probe: Probe::Syscall,
    empty: &[
        empty("empty_sys_enter", "sys_enter"),
        empty("empty_sys_exit", "sys_exit"),
    ],
    load: system_calls,
};

fn main() -> Result<()> {
    let mut kernel = Kernel::open(
        Sizes::default(),
        &Hierarchy::find(Path::new("/sys/fs/cgroup")),
    )?;
    let mut metrics = BTreeMap::new();
    for (key, case, shift) in [
        ("runq_net_ns", &RUNQ, 0),
        ("blkio_net_ns", &BLKIO, 0),
        ("exchange_net_ns", &TCP, 0),
        ("syscall_net_ns", &SYSCALL, 0),
        ("unsampled_net_ns", &RUNQ, UNSAMPLED),
    ] {
        for signal in Signal::ALL {
            kernel
                .tables()
                .set_signal_config(signal.number(), shift, shift);
        }
        let (ours, floor) = measure(&mut kernel, case)?;
        println!(
            "{key}: {:.0} ns (ours {ours:.0}, empty programs {floor:.0})",
            ours - floor
        );
        metrics.insert(key, ours - floor);
    }
    let mut skipped = BTreeMap::new();
    for key in [
        "runq_vs_bcc",
        "runq_vs_bpftrace",
        "blkio_vs_bcc",
        "syscall_vs_bcc",
    ] {
        skipped.insert(key, "the peers are not run by this bench yet");
    }
    if let Some(out) = std::env::var_os("HONEYGUIDE_BENCH_OUT") {
        let report = json!({ "metrics": metrics, "skipped": skipped });
        fs::write(&out, report.to_string())
            .with_context(|| format!("failed to write {}", out.display()))?;
    }
    Ok(())
}

/// Median nanoseconds per event of all programs of the probe, and of empty
/// ones on the same hooks.
fn measure(kernel: &mut Kernel, case: &Case) -> Result<(f64, f64)> {
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let status = kernel.attach(case.probe, 0);
        ensure!(status.is_running(), "{}: {}", case.probe, status.describe());
        ours.push(loaded(kernel, case.probe.levels()[0].programs, case.load)?);
        kernel.detach(case.probe);
        kernel
            .attach_programs(case.empty)
            .map_err(anyhow::Error::msg)?;
        floor.push(loaded(kernel, case.empty, case.load)?);
        kernel.unload(case.empty);
    }
    Ok((median(ours), median(floor)))
}

/// Run time of `programs` per run of the last of them.
fn loaded(kernel: &Kernel, programs: &[ProgramSpec], load: fn() -> Result<()>) -> Result<f64> {
    load()?;
    let before = kernel.run_stats();
    let statistics = enable_run_stats().context("statistics need CAP_SYS_ADMIN")?;
    load()?;
    drop(statistics);
    let after = kernel.run_stats();
    let (mut run_time_ns, mut events) = (0, 0);
    for spec in programs {
        let [before, after] =
            [&before, &after].map(|stats| stats.get(spec.program).copied().unwrap_or_default());
        run_time_ns += after.run_time_ns - before.run_time_ns;
        events = after.runs - before.runs;
    }
    ensure!(events > 0, "the load caused no event");
    Ok(run_time_ns as f64 / events as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn pin_to_cpu_0() {
    // SAFETY: an all-zero set is valid, and it outlives the call.
    unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut cpus);
        libc::sched_setaffinity(0, size_of_val(&cpus), &raw const cpus);
    }
}

/// Two threads on one CPU that wake each other.
fn switches() -> Result<()> {
    let (mut from_first, mut to_second) = pipe()?;
    let (mut from_second, mut to_first) = pipe()?;
    let second = thread::spawn(move || -> std::io::Result<()> {
        pin_to_cpu_0();
        let mut byte = [0];
        for _ in 0..SWITCHES {
            from_first.read_exact(&mut byte)?;
            to_first.write_all(&byte)?;
        }
        Ok(())
    });
    let first = thread::spawn(move || -> std::io::Result<()> {
        pin_to_cpu_0();
        let mut byte = [1];
        for _ in 0..SWITCHES {
            to_second.write_all(&byte)?;
            from_second.read_exact(&mut byte)?;
        }
        Ok(())
    });
    for thread in [first, second] {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    }
    Ok(())
}

/// One connection over loopback.
fn exchanges() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || -> std::io::Result<()> {
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let mut request = [0; 8];
        for _ in 0..EXCHANGES {
            socket.read_exact(&mut request)?;
            socket.write_all(&request)?;
        }
        Ok(())
    });
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let mut response = [0; 8];
    for _ in 0..EXCHANGES {
        socket.write_all(&response)?;
        socket.read_exact(&mut response)?;
    }
    server
        .join()
        .map_err(|_| anyhow::anyhow!("the server panicked"))??;
    Ok(())
}

fn system_calls() -> Result<()> {
    for _ in 0..SYSTEM_CALLS {
        // SAFETY: no preconditions.
        unsafe { libc::getppid() };
    }
    Ok(())
}

/// Reads past the page cache.
fn requests() -> Result<()> {
    let file = std::env::current_exe()?.with_file_name("probe-cost.data");
    if !file.exists() {
        fs::write(&file, vec![1u8; 4096 * REQUESTS])?;
        fs::File::open(&file)?.sync_all()?;
    }
    let status = Command::new("dd")
        .arg(format!("if={}", file.display()))
        .args(["of=/dev/null", "bs=4096", "iflag=direct", "status=none"])
        .stdin(Stdio::null())
        .status()?;
    ensure!(status.success(), "dd failed: {status}");
    Ok(())
}
