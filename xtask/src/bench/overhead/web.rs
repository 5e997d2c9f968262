//! A web server under load: nginx, asked by wrk over the loopback device.

use std::{
    env, fs,
    hint::black_box,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::workloads::output;

/// Seconds of load per round.
pub const ROUND_SECS: u32 = 1;
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Page {
    /// 12 bytes from memory: the worst case for any observer.
    Small,
    /// Made by a handler behind nginx that works for a millisecond.
    OneMillisecond,
}

/// nginx with one worker, and the handler behind it.
pub struct Server {
    nginx: Child,
    folder: PathBuf,
    port: u16,
}

impl Server {
    /// Starts both on free ports.
    pub fn start() -> Result<Self> {
        let handler = Handler::start()?;
        let port = free_port()?;
        let folder = env::temp_dir().join(format!("honeyguide-nginx-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let config = folder.join("nginx.conf");
        fs::write(&config, configuration(&folder, port, handler))?;
        let mut nginx = on_cpu(0, "nginx");
        nginx.arg("-p").arg(&folder).arg("-c").arg(&config);
        let nginx = nginx
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start nginx")?;
        let server = Self {
            nginx,
            folder,
            port,
        };
        server.wait()?;
        Ok(server)
    }

    fn wait(&self) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if start.elapsed() > START_TIMEOUT {
                let log = fs::read_to_string(self.folder.join("error.log")).unwrap_or_default();
                bail!("nginx does not listen: {log}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Mean time per request with as many connections as keep it busy.
    pub fn secs_per_request(&self, page: Page) -> Result<f64> {
        let (path, connections) = match page {
            Page::Small => ("small", 32),
            Page::OneMillisecond => ("1ms", 4),
        };
        let mut wrk = on_cpu(1, "wrk");
        wrk.args([
            "-t1",
            &format!("-c{connections}"),
            &format!("-d{ROUND_SECS}s"),
        ]);
        let text = output(wrk.arg(format!("http://127.0.0.1:{}/{path}", self.port)))?;
        requests_per_sec(&text).map(|requests| 1.0 / requests)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Without daemon and master its only process is our child.
        let _ = self.nginx.kill();
        let _ = self.nginx.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn configuration(folder: &Path, port: u16, handler: u16) -> String {
    let folder = folder.display();
    format!(
        "daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream handler {{ server 127.0.0.1:{handler}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        location /small {{ return 200 'hello world\\n'; }}
        location /1ms {{
            proxy_pass http://handler;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
        }}
    }}
}}
"
    )
}

/// `program`, pinned where there are CPUs to choose from.
fn on_cpu(cpu: usize, program: &str) -> Command {
    if thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 2) {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", &cpu.to_string(), program]);
    command
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn requests_per_sec(text: &str) -> Result<f64> {
    if let Some(errors) = text.lines().find(|line| line.contains("Non-2xx")) {
        bail!("wrk got errors: {}", errors.trim());
    }
    text.lines()
        .find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok())
        .with_context(|| format!("wrk printed no rate: {text}"))
}

/// An HTTP/1.1 server whose every answer takes a millisecond of work: a fixed
/// amount, not a wait by the clock, which would hide what slows it down.
struct Handler;

impl Handler {
    fn start() -> Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let loops = loops_per_ms();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream, loops));
            }
        });
        Ok(port)
    }
}

/// Answers requests without a body until the connection ends.
fn serve(mut stream: TcpStream, loops: u64) {
    let mut request = [0; 4096];
    let mut len = 0;
    while let Ok(read @ 1..) = stream.read(&mut request[len..]) {
        len += read;
        if !request[..len].ends_with(b"\r\n\r\n") {
            continue;
        }
        work(loops);
        len = 0;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello world\n";
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

fn work(loops: u64) {
    let mut state = 1u64;
    for _ in 0..loops {
        state = black_box(
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1),
        );
    }
}

/// The best of many tries: the machine undisturbed.
fn loops_per_ms() -> u64 {
    const LOOPS: u64 = 200_000;
    let fastest = (0..50)
        .map(|_| {
            let start = Instant::now();
            work(LOOPS);
            start.elapsed()
        })
        .min()
        .unwrap_or_default();
    (LOOPS as f64 * 1e-3 / fastest.as_secs_f64().max(1e-9)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_errors_noticed() {
        let text = "Running 2s test\nRequests/sec:  57712.33\nTransfer/sec: 9MB\n";
        assert_eq!(requests_per_sec(text).unwrap(), 57712.33);
        assert!(requests_per_sec("  Non-2xx or 3xx responses: 12\nRequests/sec: 3\n").is_err());
        assert!(requests_per_sec("").is_err());
    }

    #[test]
    fn the_handler_answers_after_a_millisecond_of_work() {
        let port = Handler::start().unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let start = Instant::now();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = [0; 256];
        let read = stream.read(&mut answer).unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
        assert!(start.elapsed() > Duration::from_micros(500));
    }
}
