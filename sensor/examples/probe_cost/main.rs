//! What the kernel programs cost per event, for `cargo xtask bench probe-cost`.
//!
//! The kernel itself measures the run time of BPF programs
//! (`kernel.bpf_stats_enabled`). That includes two clock reads, so every figure
//! is net of empty programs on the same hooks, measured in turns with ours.
//!
//! The same logic in other tools is measured in the same turns, net of empty
//! programs on the hooks that *they* use. The empty programs are `tp_btf` ones,
//! the peers' are of type tracepoint: the kernel measures both around the
//! program only, so the way to it (dearer for a tracepoint) counts for neither.

mod peers;

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    fmt, fs,
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
        Kernel, RunStats, Sizes, enable_run_stats,
        probe::{Probe, ProgramSpec},
        run_stats_by_id,
    },
};
use peers::{Headers, Peer, RunningPeer};
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
    peers: &'static [Peer],
    /// On the hooks of the peers; the last runs once per event here too.
    peer_empty: &'static [ProgramSpec],
}

const RUNQ: Case = Case {
    probe: Probe::Runq,
    empty: &[empty("empty_sched_switch", "sched_switch")],
    load: switches,
    peers: &[peers::RUNQ_BCC, peers::RUNQ_BPFTRACE],
    peer_empty: &[
        empty("empty_sched_wakeup", "sched_wakeup"),
        empty("empty_sched_wakeup_new", "sched_wakeup_new"),
        empty("empty_sched_switch", "sched_switch"),
    ],
};
const BLKIO: Case = Case {
    probe: Probe::Blkio,
    empty: &[
        empty("empty_block_start", "block_io_start"),
        empty("empty_block_complete", "block_rq_complete"),
    ],
    load: requests,
    peers: &[peers::BLKIO_BCC],
    peer_empty: &[
        empty("empty_block_start", "block_io_start"),
        empty("empty_block_done", "block_io_done"),
    ],
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
    peers: &[],
    peer_empty: &[],
};
const SYSCALL: Case = Case {
    probe: Probe::Syscall,
    empty: &[
        empty("empty_sys_enter", "sys_enter"),
        empty("empty_sys_exit", "sys_exit"),
    ],
    load: system_calls,
    peers: &[peers::SYSCALL_BCC],
    peer_empty: &[
        empty("empty_sys_enter", "sys_enter"),
        empty("empty_sys_exit", "sys_exit"),
    ],
};
const UNSAMPLED_RUNQ: Case = Case { peers: &[], ..RUNQ };

/// Nanoseconds per event.
struct Cost {
    programs: f64,
    empty: f64,
}

impl Cost {
    fn net(&self) -> f64 {
        self.programs - self.empty
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cost { programs, empty } = self;
        let net = self.net();
        write!(
            f,
            "{net:.0} ns net, {programs:.0} with statistics, {empty:.0} empty"
        )
    }
}

/// Medians of the probe, and of each peer or why it cannot be measured here.
struct Measured {
    ours: Cost,
    peers: Vec<(&'static Peer, Result<Cost, String>)>,
}

fn main() -> Result<()> {
    let mut kernel = Kernel::open(
        Sizes::default(),
        &Hierarchy::find(Path::new("/sys/fs/cgroup")),
    )?;
    let headers = Headers::find()?;
    let (mut metrics, mut skipped) = (BTreeMap::new(), BTreeMap::new());
    for (key, case, shift) in [
        ("runq_net_ns", &RUNQ, 0),
        ("blkio_net_ns", &BLKIO, 0),
        ("exchange_net_ns", &TCP, 0),
        ("syscall_net_ns", &SYSCALL, 0),
        ("unsampled_net_ns", &UNSAMPLED_RUNQ, UNSAMPLED),
    ] {
        for signal in Signal::ALL {
            kernel
                .tables()
                .set_signal_config(signal.number(), shift, shift);
        }
        let measured = measure(&mut kernel, case, &headers)?;
        let net = measured.ours.net();
        println!("{key}: {}", measured.ours);
        metrics.insert(key, net);
        for (peer, cost) in measured.peers {
            match cost {
                Ok(cost) => {
                    let ratio = net / cost.net();
                    println!("{}: {ratio:.3} ({cost})", peer.key);
                    metrics.insert(peer.key, ratio);
                }
                Err(why) => {
                    println!("{}: skipped: {why}", peer.key);
                    skipped.insert(peer.key, why);
                }
            }
        }
    }
    if let Some(out) = std::env::var_os("HONEYGUIDE_BENCH_OUT") {
        let report = json!({ "metrics": metrics, "skipped": skipped });
        fs::write(&out, report.to_string())
            .with_context(|| format!("failed to write {}", out.display()))?;
    }
    Ok(())
}

/// Probe, peers, and empty programs on the hooks of each, in turns.
fn measure(kernel: &mut Kernel, case: &Case, headers: &Headers) -> Result<Measured> {
    let (mut ours, mut floor, mut peer_floor) = (Vec::new(), Vec::new(), Vec::new());
    let mut peers: Vec<_> = case
        .peers
        .iter()
        .map(|peer| (peer, Ok(Vec::new())))
        .collect();
    for _ in 0..ROUNDS {
        let status = kernel.attach(case.probe, 0);
        ensure!(status.is_running(), "{}: {}", case.probe, status.describe());
        ours.push(loaded(kernel, case.probe.levels()[0].programs, case.load)?);
        kernel.detach(case.probe);
        floor.push(empty_cost(kernel, case.empty, case.load)?);
        for (peer, costs) in &mut peers {
            if let Ok(rounds) = costs {
                match peer_cost(kernel, peer, case, headers) {
                    Ok(cost) => rounds.push(cost),
                    Err(why) => *costs = Err(format!("{why:#}")),
                }
            }
        }
        if peers.iter().any(|(_, costs)| costs.is_ok()) {
            peer_floor.push(empty_cost(kernel, case.peer_empty, case.load)?);
        }
    }
    let cost = |programs, floor: &[f64]| Cost {
        programs: median(programs),
        empty: median(floor.to_vec()),
    };
    Ok(Measured {
        ours: cost(ours, &floor),
        peers: peers
            .into_iter()
            .map(|(peer, costs)| (peer, costs.map(|rounds| cost(rounds, &peer_floor))))
            .collect(),
    })
}

fn empty_cost(
    kernel: &mut Kernel,
    programs: &[ProgramSpec],
    load: fn() -> Result<()>,
) -> Result<f64> {
    kernel
        .attach_programs(programs)
        .map_err(anyhow::Error::msg)?;
    let cost = loaded(kernel, programs, load);
    kernel.unload(programs);
    cost
}

/// Run time of the peer's programs per event as we count events: by an empty
/// program on the hook of our last one, attached beside the peer.
fn peer_cost(kernel: &mut Kernel, peer: &Peer, case: &Case, headers: &Headers) -> Result<f64> {
    let running = RunningPeer::start(peer, headers)?;
    let counter = &case.empty[case.empty.len() - 1..];
    kernel
        .attach_programs(counter)
        .map_err(anyhow::Error::msg)?;
    let during = with_statistics(case.load, || {
        (run_stats_by_id(running.programs()), kernel.run_stats())
    });
    kernel.unload(counter);
    let ((before, counted_before), (after, counted_after)) = during?;
    let (events, _) = difference(&counted_before, &counted_after, counter[0].program);
    ensure!(events > 0, "the load caused no event");
    let (mut run_time_ns, mut most_runs) = (0, 0);
    for id in running.programs() {
        let (runs, nanoseconds) = difference(&before, &after, id);
        run_time_ns += nanoseconds;
        most_runs = most_runs.max(runs);
    }
    // Not attached, or only in part.
    ensure!(
        most_runs >= events / 10 * 9,
        "its programs ran for {most_runs} of {events} events"
    );
    Ok(run_time_ns as f64 / events as f64)
}

/// Run time of `programs` per run of the last of them.
fn loaded(kernel: &Kernel, programs: &[ProgramSpec], load: fn() -> Result<()>) -> Result<f64> {
    let (before, after) = with_statistics(load, || kernel.run_stats())?;
    let (mut run_time_ns, mut events) = (0, 0);
    for spec in programs {
        let (runs, nanoseconds) = difference(&before, &after, spec.program);
        run_time_ns += nanoseconds;
        events = runs;
    }
    ensure!(events > 0, "the load caused no event");
    Ok(run_time_ns as f64 / events as f64)
}

/// `read` before and after the load, which ran once before to warm up.
fn with_statistics<T>(load: fn() -> Result<()>, read: impl Fn() -> T) -> Result<(T, T)> {
    load()?;
    let before = read();
    let statistics = enable_run_stats().context("statistics need CAP_SYS_ADMIN")?;
    load()?;
    drop(statistics);
    Ok((before, read()))
}

/// Runs and nanoseconds between two readings.
fn difference<K: Ord + Borrow<Q>, Q: Ord + ?Sized>(
    before: &BTreeMap<K, RunStats>,
    after: &BTreeMap<K, RunStats>,
    program: &Q,
) -> (u64, u64) {
    let [before, after] = [before, after].map(|stats| stats.get(program).copied());
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    (
        after.runs.saturating_sub(before.runs),
        after.run_time_ns.saturating_sub(before.run_time_ns),
    )
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
