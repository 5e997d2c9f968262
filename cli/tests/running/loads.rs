//! Loads: who suffers, and who makes it suffer. Shared with the bench `loop`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each of those who share it uses a part")]

#[path = "../../../sensor/tests/programs/mod.rs"]
mod programs;

use std::{
    fs,
    io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// Who is put under load.
pub const VICTIM: &str = "process/hg-victim";

/// A child that is ended with the test, by its pid.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// bash under a name of its own, pinned to CPU 0.
pub fn pinned_bash(directory: &Path, name: &str, nice: i32, script: &str) -> Process {
    let path: PathBuf = directory.join(name);
    if !path.exists() {
        programs::copy("/bin/bash", &path);
    }
    let mut command = Command::new(path);
    command.args(["-c", script]).stdin(Stdio::null());
    // SAFETY: both calls are async-signal-safe and touch only this child.
    unsafe {
        command.pre_exec(move || {
            let mut cpus: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(0, &mut cpus);
            libc::sched_setaffinity(0, size_of_val(&cpus), &raw const cpus);
            libc::setpriority(libc::PRIO_PROCESS, 0, nice);
            Ok(())
        });
    }
    Process(command.spawn().unwrap())
}

/// [`VICTIM`]: wakes up every five milliseconds.
pub fn victim(directory: &Path) -> Process {
    let script = "exec 3<> <(:); while :; do read -t 0.005 -u 3; done";
    pinned_bash(directory, "hg-victim", 10, script)
}

/// An HTTP server in Python under a name of its own: `/orders/fail` is answered
/// with 500, `/nowhere…` with 404, all else with 200.
pub struct Shop {
    _process: Process,
    pub port: u16,
}

/// The service key of [`Shop`].
pub const SHOP: &str = "process/hg-shop";

/// Likewise, with TLS.
pub const SHOP_WITH_TLS: &str = "process/hg-shop-tls";

const SHOP_SCRIPT: &str = r#"
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        failed, unknown = "/fail" in self.path, self.path.startswith("/nowhere")
        self.send_response(500 if failed else 404 if unknown else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    do_POST = do_GET
    def log_message(self, *arguments): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
# TLS
print(server.server_port, flush=True)
server.serve_forever()
"#;

impl Shop {
    pub fn start(directory: &Path) -> Self {
        Self::start_as(directory, "hg-shop")
    }

    /// As a process of another name.
    pub fn start_as(directory: &Path, name: &str) -> Self {
        Self::start_script(directory, name, SHOP_SCRIPT)
    }

    /// With TLS by OpenSSL; `directory` has its certificate and key, `cert.pem` and
    /// `key.pem`.
    pub fn start_with_tls(directory: &Path) -> Self {
        let place = directory.display();
        let tls = format!(
            r#"
import ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("{place}/cert.pem", "{place}/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
"#
        );
        Self::start_script(
            directory,
            "hg-shop-tls",
            &SHOP_SCRIPT.replace("# TLS", &tls),
        )
    }

    /// A server in Python that prints its port.
    pub fn start_script(directory: &Path, name: &str, script: &str) -> Self {
        let path = directory.join("shop").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        programs::copy("/usr/bin/python3", &path);
        let mut command = Command::new(path);
        command.args(["-c", script]).env("PYTHONHOME", "/usr");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            _process: Process(child),
            port: line.trim().parse().unwrap(),
        }
    }
}

/// Above the victim's weight, so that each of them runs for its whole slice
/// before the victim's turn comes; few enough that it comes more often than 20
/// times a second, even where others have work as well.
pub fn hogs(directory: &Path) -> Vec<Process> {
    (0..8)
        .map(|_| pinned_bash(directory, "hg-hog", -5, "while :; do :; done"))
        .collect()
}

/// Two threads of this process that wake each other without a pause, off CPU 0
/// where there is another. Ended by dropping it.
pub struct Switches(Option<PipeWriter>);

impl Switches {
    pub fn begin() -> Self {
        let (reader, there) = pipe().unwrap();
        let (back_reader, back) = pipe().unwrap();
        let first = there.try_clone().unwrap();
        thread::spawn(move || pass_on(reader, back));
        thread::spawn(move || pass_on(back_reader, there));
        (&first).write_all(&[1]).unwrap();
        Self(Some(first))
    }
}

impl Drop for Switches {
    fn drop(&mut self) {
        // A zero ends both.
        let _ = self.0.take().map(|mut writer| writer.write_all(&[0]));
    }
}

fn pass_on(mut reader: PipeReader, mut writer: PipeWriter) {
    leave_cpu_0();
    let mut byte = [0];
    while reader.read_exact(&mut byte).is_ok() && writer.write_all(&byte).is_ok() {
        if byte == [0] {
            return;
        }
    }
}

/// Two threads of this process of which one wakes the other so many times a
/// second, and is answered. Ended by dropping it.
pub struct PacedSwitches(Arc<AtomicBool>);

impl PacedSwitches {
    /// How often the pace is kept.
    const TICK: Duration = Duration::from_millis(10);

    pub fn begin(round_trips_per_sec: u32) -> Self {
        let (reader, mut there) = pipe().unwrap();
        let (mut back_reader, back) = pipe().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let per_tick = round_trips_per_sec / (1000 / Self::TICK.as_millis() as u32);
        thread::spawn(move || pass_on(reader, back));
        thread::spawn(move || {
            let mut next = Instant::now();
            while !stopped.load(Relaxed) {
                for _ in 0..per_tick {
                    there.write_all(&[1]).unwrap();
                    back_reader.read_exact(&mut [0]).unwrap();
                }
                next += Self::TICK;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        Self(stop)
    }
}

impl Drop for PacedSwitches {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Keeps this thread, and what it starts, off the CPU that the hogs crowd, if
/// there is another: a broker that gets no turn for ten seconds loses its
/// consumers.
pub fn leave_cpu_0() {
    // SAFETY: an all-zero set is a valid one, and outlives both calls.
    unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&cpus), &raw mut cpus);
        libc::CPU_CLR(0, &mut cpus);
        if libc::CPU_COUNT(&cpus) > 0 {
            libc::sched_setaffinity(0, size_of_val(&cpus), &raw const cpus);
        }
    }
}
