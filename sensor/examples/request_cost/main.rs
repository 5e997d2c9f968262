//! What requests cost in the kernel, for `cargo xtask bench request-cost`.
//!
//! As in `probe-cost`: run time as the kernel measures it, net of empty programs
//! on the same hooks, measured in turns, per request and side. The load is one
//! connection on loopback whose requests are of HTTP/1.1.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
};

use anyhow::{Context, Result, ensure};
use honeyguide_sensor::{
    identity::Hierarchy,
    program::{
        Kernel, Sizes, enable_run_stats,
        probe::{Probe, ProgramSpec, TCP_WITHOUT_ROUTES},
    },
};
use sensor_common::Signal;
use serde_json::json;

mod tls;

/// Turns of each case; the median counts.
const ROUNDS: usize = 9;
const REQUESTS: usize = 10_000;
const ROUTES_PER_SERVICE: u32 = 64;
/// Sampling shift at which (nearly) no exchange is sampled.
const UNSAMPLED: u8 = 16;

const fn empty(program: &'static str, tracepoint: &'static str) -> ProgramSpec {
    ProgramSpec {
        program,
        tracepoint,
        offsets: &[],
    }
}

const EMPTY: [ProgramSpec; 4] = [
    empty("empty_state", "inet_sock_set_state"),
    empty("empty_data_ready", "sk_data_ready"),
    empty("empty_receive", "sock_recv_length"),
    empty("empty_send", "sock_send_length"),
];

fn main() -> Result<()> {
    let hierarchy = Hierarchy::find(Path::new("/sys/fs/cgroup"));
    let mut kernel = Kernel::open(Sizes::default(), &hierarchy)?;
    kernel.tables().set_routes_per_service(ROUTES_PER_SERVICE);
    let levels = Probe::Tcp.levels();
    let [with, without] = [0, TCP_WITHOUT_ROUTES].map(|level| levels[level].programs);
    let mut costs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut of_programs: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for (case, programs, shift) in [
            ("empty", &EMPTY[..], 0),
            ("exchange", without, 0),
            ("http", with, 0),
            ("unsampled", with, UNSAMPLED),
        ] {
            for signal in Signal::ALL {
                kernel
                    .tables()
                    .set_signal_config(signal.number(), shift, shift);
            }
            let by_program = cost(&mut kernel, programs)?;
            let sum = by_program.values().sum();
            costs.entry(case).or_default().push(sum);
            for (program, cost) in by_program {
                let costs = of_programs.entry((case, program)).or_default();
                costs.push(cost);
            }
        }
    }
    for ((case, program), rounds) in of_programs {
        println!("{case:>10} {program:<24} {:4.0}", median(rounds));
    }
    let medians: BTreeMap<&str, f64> = costs
        .into_iter()
        .map(|(case, rounds)| (case, median(rounds)))
        .collect();
    let net = |case| medians[case] - medians["empty"];
    println!("with statistics, per side: {medians:.0?}");
    // Means over both sides, of which only the server's looks at requests.
    let server_side = net("exchange") + 2.0 * (net("http") - net("exchange"));
    println!("a server's side, if both cost the same without routes: {server_side:.0}");
    let tls = tls::cost(&mut kernel)?;
    let metrics = BTreeMap::from([
        ("tls_read_ns", tls.read_ns),
        ("tls_write_ns", tls.write_ns),
        ("tls_trap_ns", tls.trap_ns),
        ("exchange_net_ns", net("exchange")),
        ("http_net_ns", net("http")),
        ("unsampled_net_ns", net("unsampled")),
    ]);
    println!("{metrics:.0?}");
    if let Some(out) = std::env::var_os("HONEYGUIDE_BENCH_OUT") {
        fs::write(&out, json!({ "metrics": metrics }).to_string())
            .with_context(|| format!("failed to write {}", out.display()))?;
    }
    Ok(())
}

/// Run time of each of `programs` in nanoseconds per request and side.
fn cost(kernel: &mut Kernel, programs: &[ProgramSpec]) -> Result<BTreeMap<&'static str, f64>> {
    kernel
        .attach_programs(programs)
        .map_err(anyhow::Error::msg)?;
    requests()?;
    let before = kernel.run_stats();
    let statistics = enable_run_stats().context("statistics need CAP_SYS_ADMIN")?;
    requests()?;
    drop(statistics);
    let after = kernel.run_stats();
    kernel.unload(programs);
    let run_time_ns: BTreeMap<&str, u64> = programs
        .iter()
        .map(|spec| {
            let [before, after] = [&before, &after].map(|stats| stats.get(spec.program));
            let before = before.copied().unwrap_or_default();
            let after = after.copied().unwrap_or_default();
            let run_time_ns = after.run_time_ns.saturating_sub(before.run_time_ns);
            (spec.program, run_time_ns)
        })
        .collect();
    ensure!(
        run_time_ns.values().any(|time| *time > 0),
        "the programs did not run"
    );
    let per_side = |(program, time)| (program, time as f64 / (2 * REQUESTS) as f64);
    Ok(run_time_ns.into_iter().map(per_side).collect())
}

/// One connection over loopback; the paths are of three routes.
fn requests() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || -> std::io::Result<()> {
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let mut reader = BufReader::new(socket.try_clone()?);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            if line == "\r\n" {
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            }
            line.clear();
        }
        Ok(())
    });
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut line = String::new();
    for number in 0..REQUESTS {
        let path = match number % 3 {
            0 => format!("/api/v1/users/{number}"),
            1 => format!("/api/v1/users/{number}/orders?page=2"),
            _ => "/health".to_owned(),
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: example.org\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
        );
        socket.write_all(request.as_bytes())?;
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line)?;
        }
        line.clear();
    }
    drop((socket, reader));
    server
        .join()
        .map_err(|_| anyhow::anyhow!("the server panicked"))??;
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
