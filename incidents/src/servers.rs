//! The real servers of a run.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::chown,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::process::{Process, Surroundings, answer, free_port, named, open_to_all};

/// A user that is not root, as PostgreSQL demands.
const NOBODY: u32 = 65_534;
/// The application of the shop.
const SHOP: &str = include_str!("servers/shop.py");
/// Bytes of a file that nginx serves.
const PAGE_LEN: usize = 2 << 10;

/// Where servers keep their files; of one run.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

/// What a web application has behind it, and how it runs.
#[derive(Clone, Debug, Default)]
pub struct Application {
    /// Connection string of PostgreSQL.
    pub database: String,
    /// Connections of the application to it.
    pub pool: usize,
    /// Address of Redis.
    pub cache: Option<SocketAddr>,
    /// Folder of files that it serves.
    pub files: PathBuf,
    /// Requests that it works on at a time.
    pub threads: usize,
}

impl Folder {
    /// Prepares a folder.
    pub fn prepare(path: &Path) -> Result<Folder> {
        open_to_all(path)?;
        for name in ["bin", "pages"] {
            fs::create_dir(path.join(name))?;
        }
        fs::write(path.join("shop.py"), SHOP)?;
        fs::write(path.join("pages/index.html"), vec![b'x'; PAGE_LEN])?;
        Ok(Folder {
            path: path.to_owned(),
        })
    }

    fn program(&self, name: &str, program: &str) -> Result<PathBuf> {
        named(&self.path.join("bin"), name, Path::new(program))
    }

    /// PostgreSQL with its data in `place`; returns its port. `durable`: it waits
    /// for the disk.
    pub fn postgresql(
        &self,
        name: &str,
        place: &Path,
        durable: bool,
        surroundings: Surroundings<'_>,
    ) -> Result<(Process, u16)> {
        let programs = postgresql_programs()?;
        let data = place.join("data");
        fs::create_dir(&data)?;
        chown(&data, Some(NOBODY), Some(NOBODY))?;
        let as_nobody = Surroundings {
            user: Some(NOBODY),
            ..surroundings
        };
        let path = data.to_string_lossy();
        Process::start(
            &programs.join("initdb"),
            &[
                "--auth",
                "trust",
                "-U",
                "shop",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
                "-D",
                &path,
            ],
            &[],
            Surroundings {
                user: Some(NOBODY),
                ..Surroundings::default()
            },
        )?
        .finish()?;
        let program = self.program(name, &programs.join("postgres").to_string_lossy())?;
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let text = port.to_string();
        let mut arguments = vec![
            "-D",
            &*path,
            "-p",
            &text,
            "-h",
            "127.0.0.1",
            "-k",
            "",
            "-c",
            "shared_buffers=32MB",
            "-c",
            "max_connections=40",
            "-c",
            "jit=off",
            "-c",
            "max_parallel_workers_per_gather=0",
            "-c",
            "checkpoint_timeout=1h",
        ];
        if !durable {
            arguments.push("-F");
        }
        let mut server = Process::start(&program, &arguments, &[], as_nobody)?;
        server.wait_for(address)?;
        Ok((server, port))
    }

    /// Redis at an address.
    pub fn redis(
        &self,
        name: &str,
        ip: IpAddr,
        surroundings: Surroundings<'_>,
    ) -> Result<(Process, SocketAddr)> {
        let program = self.program(name, "/usr/bin/redis-server")?;
        let address = SocketAddr::from((ip, free_port()?));
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let arguments = [
            "--bind",
            &ip,
            "--port",
            &port,
            "--save",
            "",
            "--protected-mode",
            "no",
            "--loglevel",
            "warning",
        ];
        let mut server = Process::start(&program, &arguments, &[], surroundings)?;
        server.wait_for(address)?;
        Ok((server, address))
    }

    /// nginx with pages from memory.
    pub fn nginx(&self, name: &str) -> Result<(Process, SocketAddr)> {
        let program = self.program(name, "/usr/sbin/nginx")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let folder = self.path.display();
        let configuration = format!(
            "daemon off; user root; worker_processes 1; error_log stderr crit;\n\
             pid {folder}/{name}.pid; events {{ }}\n\
             http {{ access_log off; keepalive_timeout 600; keepalive_requests 10000000;\n\
             server {{ listen {address}; root {folder}/pages; }} }}\n"
        );
        let file = self.path.join(format!("{name}.conf"));
        fs::write(&file, configuration)?;
        let file = file.to_string_lossy();
        let mut server = Process::start(&program, &["-c", &file], &[], Surroundings::default())?;
        server.wait_for(address)?;
        Ok((server, address))
    }

    /// The application under gunicorn.
    pub fn application(
        &self,
        name: &str,
        application: &Application,
        surroundings: Surroundings<'_>,
    ) -> Result<(Process, SocketAddr)> {
        let program = self.program(name, "/usr/bin/python3")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let (folder, bind) = (self.path.to_string_lossy(), address.to_string());
        let threads = application.threads.to_string();
        let arguments = [
            "-m",
            "gunicorn.app.wsgiapp",
            "--chdir",
            &folder,
            "--worker-class",
            "gthread",
            "--workers",
            "1",
            "--threads",
            &threads,
            "--keep-alive",
            "600",
            "--timeout",
            "0",
            "--worker-tmp-dir",
            "/dev/shm",
            "--log-level",
            "critical",
            "--bind",
            &bind,
            "shop:application",
        ];
        let pool = application.pool.to_string();
        let cache = application.cache.map(|cache| cache.to_string());
        let environment = [
            ("SHOP_DATABASE", application.database.as_str()),
            ("SHOP_POOL", &pool),
            ("SHOP_CACHE", cache.as_deref().unwrap_or_default()),
            ("SHOP_FILES", &application.files.to_string_lossy()),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ];
        let mut server = Process::start(&program, &arguments, &environment, surroundings)?;
        server.wait_for(address)?;
        Ok((server, address))
    }
}

/// A session that statements are written to.
pub fn sql(port: u16) -> Result<Process> {
    let program = postgresql_programs()?.join("psql");
    let address = format!("host=127.0.0.1 port={port} user=shop dbname=postgres");
    let arguments = [
        "-X",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-o",
        "/dev/null",
        &address,
    ];
    Process::start(&program, &arguments, &[], Surroundings::default())
}

/// The shop's tables; waits until the server answers.
pub fn fill(port: u16) -> Result<()> {
    for attempt in 0.. {
        let mut session = sql(port)?;
        for statement in [
            "CREATE TABLE item (id int PRIMARY KEY, stock int, name text);",
            "INSERT INTO item SELECT i, 1000000, 'item ' || i FROM generate_series(0, 999) i;",
            "CREATE TABLE purchase (id serial PRIMARY KEY, item int, at timestamptz DEFAULT now());",
            "CREATE TABLE remark (id serial, words text);",
            "INSERT INTO remark (words) SELECT md5(i::text) FROM generate_series(1, 500) i;",
            "VACUUM ANALYZE;",
        ] {
            session.tell(statement)?;
        }
        match session.finish() {
            Err(_) if attempt < 20 => thread::sleep(Duration::from_millis(100)),
            done => return done.context("failed to fill the database"),
        }
    }
    unreachable!("the last attempt returns")
}

/// Where Debian has the programs of the newest version.
fn postgresql_programs() -> Result<PathBuf> {
    let folder = Path::new("/usr/lib/postgresql");
    let versions = fs::read_dir(folder).context("PostgreSQL is not installed")?;
    let newest = versions.flatten().map(|entry| entry.path()).max();
    Ok(newest.context("PostgreSQL is not installed")?.join("bin"))
}

/// Whether all programs are there that a run may need.
pub fn check() -> Result<()> {
    for (program, package) in [
        ("/usr/bin/redis-server", "redis-server"),
        ("/usr/sbin/nginx", "nginx-light"),
        ("/usr/bin/gunicorn", "gunicorn"),
        ("/usr/sbin/nft", "nftables"),
        ("/usr/sbin/mkfs.ext4", "e2fsprogs"),
    ] {
        ensure!(
            Path::new(program).exists(),
            "{program} is missing: apt-get install {package}"
        );
    }
    answer(
        "/usr/bin/python3",
        &["-c", "import psycopg2, redis, gunicorn"],
    )
    .context("apt-get install python3-psycopg2 python3-redis gunicorn")?;
    postgresql_programs().map(drop)
}
