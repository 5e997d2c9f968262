//! Real servers as processes on loopback, each in a folder of its own, ended
//! with the value.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A program that is not installed.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not installed")]
pub struct Missing(&'static str);

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl Server {
    /// Where it keeps its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn start(
        program: &'static str,
        folder: TempDir,
        port: u16,
        command: &mut Command,
    ) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match child {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(Missing(program)),
            child => child.with_context(|| format!("failed to start {program}"))?,
        };
        let server = Self {
            address: (Ipv4Addr::LOCALHOST, port).into(),
            child,
            folder,
        };
        let start = Instant::now();
        while TcpStream::connect(server.address).is_err() {
            ensure!(start.elapsed() < START_TIMEOUT, "{program} does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, so that servers with children end those.
        // SAFETY: a signal to our own child, which was not waited for yet.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// nginx with one worker: `/small` from memory, everything else from `behind`.
pub fn nginx(behind: SocketAddr) -> Result<Server> {
    let (folder, port) = (TempDir::new()?, free_port()?);
    let config = folder.path().join("nginx.conf");
    let place = folder.path().display();
    fs::write(
        &config,
        format!(
            "daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000;
    client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    upstream behind {{ server {behind}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /small {{ return 200 'hello world\\n'; }}
        location / {{ proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ''; }}
    }}
}}
"
        ),
    )?;
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(folder.path())
        .arg("-c")
        .arg(&config)
        .args(["-e", "stderr"]);
    Server::start("nginx", folder, port, &mut command)
}

/// redis-server without persistence.
pub fn redis() -> Result<Server> {
    let (folder, port) = (TempDir::new()?, free_port()?);
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(folder.path());
    Server::start("redis-server", folder, port, &mut command)
}

/// PostgreSQL with a fresh cluster, run as the user `postgres` if we are root.
pub fn postgres() -> Result<Server> {
    let programs = postgres_programs().ok_or(Missing("postgresql"))?;
    let (folder, port) = (TempDir::new()?, free_port()?);
    let user = postgres_user()?;
    chown(folder.path(), Some(user.0), Some(user.1))?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let data = folder.path().join("data");
    let as_user = |program: &str| {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(programs.join(program));
        command.uid(user.0).gid(user.1).current_dir("/");
        command
    };
    let made = as_user("initdb")
        .args(["--auth", "trust", "--username", "postgres", "-D"])
        .arg(&data)
        .stdout(Stdio::null())
        .status()?;
    ensure!(made.success(), "initdb failed");
    let mut command = as_user("postgres");
    command
        .arg("-D")
        .arg(&data)
        .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""])
        .args(["-c", "max_connections=64", "-c", "fsync=off"]);
    Server::start("postgresql", folder, port, &mut command)
}

/// The newest installed version's folder of programs.
pub fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|programs| programs.join("initdb").exists())
        .max()
}

/// User and group that own the cluster: its own server refuses to run as root.
fn postgres_user() -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users
        .lines()
        .find_map(|line| line.strip_prefix("postgres:"))
        .ok_or(Missing("the user postgres"))?;
    let mut numbers = line.split(':').skip(1).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(user)), Some(Ok(group))) => Ok((user, group)),
        _ => bail!("/etc/passwd has another form"),
    }
}
