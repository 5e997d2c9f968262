//! What the kernel programs measure against an independent measurement of the
//! same events. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod programs;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use honeyguide_proto::ServiceId;
use honeyguide_sensor::{
    drain::Drain,
    identity::{Hierarchy, Names},
    program::{
        Kernel, Sizes,
        probe::{Probe, ProbeState, TCP_WITHOUT_ROUTES},
    },
    routes::Rules,
};
use sensor_common::{Histogram, Signal, histogram::position, record::SIGNAL_OFF};

/// The kernel programs with only `signals` counting.
fn kernel(signals: &[Signal]) -> (Kernel, Drain) {
    let hierarchy = Hierarchy::find(Path::new("/sys/fs/cgroup"));
    let kernel = Kernel::open(Sizes::default(), &hierarchy).unwrap();
    for signal in Signal::ALL {
        let switch = if signals.contains(&signal) {
            0
        } else {
            SIGNAL_OFF
        };
        kernel
            .tables()
            .set_signal_config(signal.number(), switch, switch);
    }
    let drain = Drain::new(
        kernel.tables(),
        Names::new(hierarchy, "test"),
        Rules::default(),
        1000,
    );
    (kernel, drain)
}

/// Drains; the histograms of the window by service and signal.
fn window(drain: &mut Drain, kernel: &mut Kernel) -> BTreeMap<(ServiceId, Signal), Histogram> {
    drain.begin_window();
    drain.drain(kernel).unwrap();
    let window = drain.window();
    window
        .series()
        .iter()
        .map(|series| {
            let service = window.service(series.service).clone();
            let mut histogram = Histogram::new();
            series.histogram.add_to(&mut histogram);
            ((service, series.signal), histogram)
        })
        .collect()
}

/// Everything counted for `signal` by services whose key ends in `name`.
fn taken(
    series: BTreeMap<(ServiceId, Signal), Histogram>,
    signal: Signal,
    name: &str,
) -> Histogram {
    let mut total = Histogram::new();
    for ((service, of), histogram) in series {
        if of == signal && service.key().ends_with(name) {
            total.merge(&histogram);
        }
    }
    total
}

/// bash under a name of its own that sleeps and works in turns.
fn workload(directory: &Path, name: &str, cpus: &[usize]) -> Command {
    // On several CPUs more work is needed for tasks to wait at all.
    let (turns, work) = if cpus.len() > 1 {
        (200, 6000)
    } else {
        (3000, 300)
    };
    let path = directory.join(name);
    if !path.exists() {
        programs::copy("/bin/bash", &path);
    }
    let list = cpus
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",");
    let mut command = Command::new("taskset");
    let script = format!(
        "exec 3<> <(:); for ((i = 0; i < {turns}; i++)); do read -t 0.001 -u 3; \
         for ((j = 0; j < {work}; j++)); do :; done; done"
    );
    command.args(["-c", &list]).arg(path).args(["-c", &script]);
    command
}

/// Runs `count` workloads on `cpus` under the run-queue probe at level `best`.
/// Returns what it measured of them.
fn run_queue(best: usize, count: usize, cpus: &[usize]) -> Histogram {
    let directory = tempfile::tempdir().unwrap();
    let (mut kernel, mut drain) = kernel(&[Signal::RunQueue]);
    assert!(kernel.attach(Probe::Runq, best).is_running());
    let children: Vec<_> = (0..count)
        .map(|_| workload(directory.path(), "hg-runq", cpus).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    kernel.detach(Probe::Runq);
    taken(
        window(&mut drain, &mut kernel),
        Signal::RunQueue,
        "/hg-runq",
    )
}

/// Tests that load the CPUs run one at a time.
static QUIET: Mutex<()> = Mutex::new(());

/// Compares where tasks do wait. A wakeup straight onto an idle CPU is no wait
/// by the scheduler's clock, which is not updated in between; it counts in the
/// first bucket, where timing from wakeup to switch sees some microseconds.
///
/// Two measurements of the same events differ by a few of them: an event
/// while attaching, a wakeup in an interrupt that hit the other program's
/// state. So a rank is only certain to a thousandth, and a quantile may lie
/// between those of both ends.
const RANK: f64 = 0.001;

fn check_run_queue(count: usize, cpus: &[usize]) {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let (own, classic) = both_levels(count, cpus);
    let events = own.count() as f64 / classic.count() as f64;
    assert!(
        (events - 1.0).abs() < 0.02,
        "{} and {} events",
        own.count(),
        classic.count()
    );
    for q in [0.5, 0.99] {
        let ours = own.quantile_ns(q).unwrap();
        let [low, high] = [q - RANK, q + RANK].map(|q| classic.quantile_ns(q).unwrap());
        println!("p{}: {ours:.0} ns in [{low:.0}, {high:.0}]", q * 100.0);
        assert!(
            ours > low * 0.98 && ours < high * 1.02,
            "p{}: {ours} not in [{low}, {high}]",
            q * 100.0
        );
    }
}

/// Both levels at once, on the same events: the scheduler's own times, and
/// timing from wakeup to switch.
fn both_levels(count: usize, cpus: &[usize]) -> (Histogram, Histogram) {
    let directory = tempfile::tempdir().unwrap();
    let (mut own_times, mut own_drain) = kernel(&[Signal::RunQueue]);
    let (mut classic, mut classic_drain) = kernel(&[Signal::RunQueue]);
    assert!(classic.attach(Probe::Runq, 1).is_running());
    assert!(own_times.attach(Probe::Runq, 0).is_running());
    let children: Vec<_> = (0..count)
        .map(|_| workload(directory.path(), "hg-runq", cpus).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    own_times.detach(Probe::Runq);
    classic.detach(Probe::Runq);
    let take = |drain: &mut Drain, kernel: &mut Kernel| {
        taken(window(drain, kernel), Signal::RunQueue, "/hg-runq")
    };
    let own = take(&mut own_drain, &mut own_times);
    (own, take(&mut classic_drain, &mut classic))
}

#[test]
fn run_queue_delay_agrees_with_wakeup_to_switch_when_pinned() {
    check_run_queue(4, &[0]);
}

#[test]
fn run_queue_delay_agrees_with_wakeup_to_switch_under_migration() {
    let cpus: Vec<usize> = (0..thread::available_parallelism().unwrap().get().min(2)).collect();
    check_run_queue(8, &cpus);
}

#[test]
fn fallback_of_the_run_queue_probe_measures() {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(run_queue(1, 1, &[0]).count() > 1000);
}

/// Delays of the server's answers in microseconds, log-normal-like: mostly
/// short, some long.
fn delay_us(number: usize) -> u64 {
    match number % 1000 {
        0..2 => 20_000,
        2..30 => 6_000,
        30..250 => 1_500,
        _ => 300,
    }
}

#[test]
fn exchange_latencies_agree_with_the_client_within_a_bucket() {
    check_exchanges(0);
}

#[test]
fn exchange_latencies_without_routes_agree_with_the_client_within_a_bucket() {
    check_exchanges(TCP_WITHOUT_ROUTES);
}

#[test]
fn exchange_latencies_from_packets_agree_with_the_client_within_a_bucket() {
    check_exchanges(TCP_WITHOUT_ROUTES + 1);
}

/// Exchanges on one connection under the TCP probe at level `level`.
fn check_exchanges(level: usize) {
    const EXCHANGES: usize = 2_000;
    let signals = [
        Signal::ClientRequest,
        Signal::ServerRequest,
        Signal::ServerQueue,
        Signal::ServerService,
        Signal::ServerResponse,
        Signal::ClientResponse,
    ];
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut kernel, mut drain) = kernel(&signals);
    let status = kernel.attach(Probe::Tcp, level);
    let ProbeState::Running {
        level: attached, ..
    } = status.state
    else {
        panic!("{}", status.describe());
    };
    assert_eq!(attached, level);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_nodelay(true).unwrap();
        let mut request = [0; 64];
        for number in 0..EXCHANGES {
            assert!(socket.read(&mut request).unwrap() > 0);
            thread::sleep(Duration::from_micros(delay_us(number)));
            socket.write_all(b"response").unwrap();
        }
    });
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut exact = Histogram::new();
    let mut response = [0; 64];
    for _ in 0..EXCHANGES {
        let begin = Instant::now();
        socket.write_all(b"request").unwrap();
        assert!(socket.read(&mut response).unwrap() > 0);
        exact.record(begin.elapsed().as_nanos() as u64);
    }
    server.join().unwrap();
    drop(socket);
    thread::sleep(Duration::from_millis(50));
    assert!(kernel.run_stats().values().all(|run| run.missed_runs == 0));
    kernel.detach(Probe::Tcp);
    let executable = std::env::current_exe().unwrap();
    let name = executable
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let series = window(&mut drain, &mut kernel);
    for signal in signals {
        let measured = taken(series.clone(), signal, &name);
        assert_eq!(measured.count(), EXCHANGES as u64, "{signal}");
    }
    for signal in [Signal::ClientRequest, Signal::ServerRequest] {
        let measured = taken(series.clone(), signal, &name);
        for q in [0.5, 0.9, 0.99, 0.999] {
            let bucket = |histogram: &Histogram| position(histogram.quantile_ns(q).unwrap() as u64);
            let (ours, theirs) = (bucket(&measured), bucket(&exact));
            println!(
                "{signal} p{}: bucket {ours}, the client's {theirs}",
                q * 100.0
            );
            assert!(
                ours.abs_diff(theirs) <= 1,
                "{signal} p{}: {ours} and {theirs}",
                q * 100.0
            );
        }
    }
}

/// Programs are attached one after the other while requests are under way: a
/// begin that is seen must not be given the end of the next request.
#[test]
fn requests_under_way_while_programs_are_attached_do_not_count() {
    const CONNECTIONS: u32 = 64;
    const ANSWER: Duration = Duration::from_millis(150);
    /// Between two requests of a connection.
    const PAUSE: Duration = Duration::from_millis(1350);
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let mut socket = TcpStream::connect(address).unwrap();
            let (mut served, _) = listener.accept().unwrap();
            thread::spawn(move || {
                let mut request = [0; 64];
                while served.read(&mut request).unwrap() > 0 {
                    thread::sleep(ANSWER);
                    served.write_all(b"response").unwrap();
                }
            });
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                // So that at all times some are under way.
                thread::sleep((ANSWER + PAUSE) * number / CONNECTIONS);
                let mut response = [0; 64];
                while !stop.load(Ordering::Relaxed) {
                    socket.write_all(b"request").unwrap();
                    assert!(socket.read(&mut response).unwrap() > 0);
                    thread::sleep(PAUSE);
                }
            })
        })
        .collect();
    thread::sleep(ANSWER + PAUSE);
    let signals = [Signal::ClientRequest, Signal::ServerRequest];
    let (mut kernel, mut drain) = kernel(&signals);
    assert!(kernel.attach(Probe::Tcp, 0).is_running());
    thread::sleep(2 * (ANSWER + PAUSE));
    kernel.detach(Probe::Tcp);
    stop.store(true, Ordering::Relaxed);
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
    let series = window(&mut drain, &mut kernel);
    let executable = std::env::current_exe().unwrap();
    let name = executable.file_name().unwrap().to_string_lossy();
    for signal in signals {
        let measured = taken(series.clone(), signal, &name);
        assert!(measured.count() >= u64::from(CONNECTIONS), "{signal}");
        let longest = Duration::from_nanos(measured.max_ns());
        assert!(longest < PAUSE, "{signal}: {longest:?}");
    }
}

/// Draining while the other CPU counts: what is read half of is in one window
/// or the next, and no window has more samples than events.
#[test]
fn windows_of_a_busy_row_add_up() {
    const CALLS: u64 = 2_000_000;
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut kernel, mut drain) = kernel(&[Signal::SyscallOther]);
    assert!(kernel.attach(Probe::Syscall, 0).is_running());
    let calls = thread::spawn(|| {
        for _ in 0..CALLS {
            // SAFETY: no preconditions.
            unsafe { libc::getppid() };
        }
    });
    let executable = std::env::current_exe().unwrap();
    let name = executable
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let (mut counted, mut windows) = (0, 0);
    loop {
        let is_last = calls.is_finished();
        let series = window(&mut drain, &mut kernel);
        let own = taken(series, Signal::SyscallOther, &name);
        assert!(own.samples() <= own.count(), "{windows}: {own:?}");
        (counted, windows) = (counted + own.count(), windows + 1);
        if is_last {
            break;
        }
    }
    println!("{windows} windows");
    calls.join().unwrap();
    kernel.detach(Probe::Syscall);
    assert!(counted >= CALLS, "{counted}");
}

#[test]
fn full_tables_are_counted_as_lost() {
    let hierarchy = Hierarchy::find(Path::new("/sys/fs/cgroup"));
    let sizes = Sizes {
        services: 4,
        rows: 3,
        ..Sizes::default()
    };
    let mut kernel = Kernel::open(sizes, &hierarchy).unwrap();
    for signal in Signal::ALL {
        kernel.tables().set_signal_config(signal.number(), 0, 0);
    }
    assert!(kernel.attach(Probe::Runq, 0).is_running());
    assert!(kernel.attach(Probe::Syscall, 0).is_running());
    for _ in 0..5 {
        assert!(Command::new("true").status().unwrap().success());
    }
    let losses = kernel.losses().unwrap();
    println!("{losses:?}");
    assert!(losses[sensor_common::record::Loss::RowsFull as usize] > 0);
    assert!(losses[sensor_common::record::Loss::ServicesFull as usize] > 0);
}
