//! Requests of PostgreSQL by verb and outcome against the real server. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod requests;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::unix::{fs::chown, process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use requests::{Copy, Published, Server, client_config, config, free_port, published, wait_for};
use tempfile::TempDir;

/// A user that is not root, as the server demands.
const NOBODY: u32 = 65_534;

/// Where Debian has the programs of the newest version.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap();
    let newest = versions.map(|entry| entry.unwrap().path()).max().unwrap();
    newest.join("bin")
}

/// A cluster of its own in a temporary directory.
fn server() -> (Server, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let data = directory.path().join("data");
    let as_nobody = |program: &str| {
        let mut command = Command::new(programs().join(program));
        command
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    let made = as_nobody("initdb")
        .args([
            "--auth",
            "trust",
            "--username",
            "test",
            "--no-sync",
            "--pgdata",
        ])
        .arg(&data)
        .status()
        .unwrap();
    assert!(made.success());
    let port = free_port();
    let child = as_nobody("postgres")
        .arg("-D")
        .arg(&data)
        .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-F"])
        .arg("-k")
        .arg(directory.path())
        .spawn()
        .unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let server = Server { child, address };
    wait_for(address);
    // It listens a moment before it answers.
    let is_ready = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(50));
        psql(address, &["SELECT 1"])
    });
    assert!(is_ready);
    (server, directory)
}

fn client(program: &str, address: SocketAddr) -> Command {
    client_by(Command::new(program), address)
}

fn client_by(mut command: Command, address: SocketAddr) -> Command {
    command
        .args(["-h", "127.0.0.1", "-p", &address.port().to_string()])
        .args(["-U", "test"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Runs statements, each a request of its own.
fn psql(address: SocketAddr, statements: &[&str]) -> bool {
    let mut command = client("psql", address);
    command.args(["-X", "-d", "postgres"]);
    for statement in statements {
        command.args(["-c", statement]);
    }
    command.status().unwrap().success()
}

/// Runs a script `times` on each of two connections.
fn pgbench(address: SocketAddr, script: &str, times: u32, protocol: &str) {
    pgbench_by(client("pgbench", address), script, times, protocol);
}

fn pgbench_by(mut client: Command, script: &str, times: u32, protocol: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("script");
    std::fs::write(&path, script).unwrap();
    let status = client
        .args([
            "-n",
            "-c",
            "2",
            "-t",
            &times.to_string(),
            "-M",
            protocol,
            "-f",
        ])
        .arg(path)
        .arg("postgres")
        .status()
        .unwrap();
    assert!(status.success());
}

async fn published_of(
    server: &Server,
    work: impl FnOnce(SocketAddr) + Send + 'static,
) -> Published {
    let address = server.address;
    // Every connection has a process, named after what it serves.
    let found = published(config(), "/postgres", move || {
        work(address);
        thread::sleep(Duration::from_millis(100));
    });
    let found = found.await;
    println!("{:?} {:?}", found.by_route, found.losses);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_counted_by_verb_and_outcome() {
    let _turn = requests::turn().await;
    let (server, _directory) = server();
    let work = |address| {
        psql(
            address,
            &[
                "CREATE TABLE t (i int)",
                "INSERT INTO t VALUES (1)",
                "  select count(*) from t",
                "UPDATE t SET i = 2",
                "WITH x AS (SELECT 1) SELECT * FROM x",
            ],
        );
        for _ in 0..3 {
            psql(address, &["SELECT nothing FROM nowhere"]);
            psql(address, &["SELEKT 1"]);
        }
        // Killed by the server: an error that is not the client's.
        psql(
            address,
            &["DO $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); END $$"],
        );
    };
    let found = published_of(&server, work).await;
    let expected = BTreeMap::from([
        (("CREATE", 2), 1),
        (("INSERT", 2), 1),
        (("SELECT", 2), 1),
        (("UPDATE", 2), 1),
        (("WITH", 2), 1),
        (("SELECT", 4), 3),
        (("postgresql other", 4), 3),
        (("DO", 5), 1),
    ]);
    assert_eq!(found.routes(), expected);
}

const SCRIPT: &str = "BEGIN;\nSELECT 1;\nSELECT 2 AS \"INSERT\";\nCOMMIT;\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_load_of_the_simple_protocol_is_counted_exactly() {
    let _turn = requests::turn().await;
    let (server, _directory) = server();
    let work = |address| pgbench(address, SCRIPT, 1000, "simple");
    let found = published_of(&server, work).await;
    let expected = BTreeMap::from([
        (("BEGIN", 2), 2000),
        (("SELECT", 2), 4000),
        (("COMMIT", 2), 2000),
    ]);
    assert_eq!(found.routes(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_of_the_extended_protocol_is_counted_exactly() {
    let _turn = requests::turn().await;
    let (server, _directory) = server();
    let work = |address| pgbench(address, SCRIPT, 1000, "extended");
    let found = published_of(&server, work).await;
    let expected = BTreeMap::from([
        (("BEGIN", 2), 2000),
        (("SELECT", 2), 4000),
        (("COMMIT", 2), 2000),
    ]);
    assert_eq!(found.routes(), expected);
}

/// What was prepared is a request with its verb, and executing it is one without.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_of_prepared_statements_is_counted_exactly() {
    let _turn = requests::turn().await;
    let (server, _directory) = server();
    let work = |address| pgbench(address, SCRIPT, 1000, "prepared");
    let found = published_of(&server, work).await;
    let expected = BTreeMap::from([
        (("BEGIN", 2), 2),
        (("SELECT", 2), 4),
        (("COMMIT", 2), 2),
        (("execute", 2), 8000),
    ]);
    assert_eq!(found.routes(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_count_on_the_side_that_sends_them() {
    let _turn = requests::turn().await;
    let (server, _directory) = server();
    let client = Copy::of(programs().join("pgbench"), "hg-pg-client");
    let address = server.address;
    for protocol in ["simple", "extended"] {
        let command = client_by(client.command(), address);
        let work = move || {
            pgbench_by(command, SCRIPT, 500, protocol);
            thread::sleep(Duration::from_millis(100));
        };
        let found = published(client_config(), &client.service(), work).await;
        println!("{:?} {:?}", found.by_client_route, found.losses);
        let expected = BTreeMap::from([
            (("BEGIN", 2), 1000),
            (("SELECT", 2), 2000),
            (("COMMIT", 2), 1000),
        ]);
        assert_eq!(found.client_routes(), expected, "{protocol}");
        assert_eq!(found.by_route, BTreeMap::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_statements_count_on_the_side_that_sends_them() {
    let _turn = requests::turn().await;
    let (server, _directory) = server();
    let client = Copy::of(programs().join("psql"), "hg-psql-client");
    let mut command = client_by(client.command(), server.address);
    command.args(["-X", "-d", "postgres", "-c", "SELECT nothing FROM nowhere"]);
    let work = move || {
        for _ in 0..5 {
            assert!(!command.status().unwrap().success());
        }
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(client_config(), &client.service(), work).await;
    println!("{:?} {:?}", found.by_client_route, found.losses);
    assert_eq!(found.client_routes(), BTreeMap::from([(("SELECT", 4), 5)]));
}
