//! Requests of Redis by command and outcome against the real server. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod requests;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use requests::{
    Copy, Published, Server, check_sampled, client_config, config, free_port, name_of, published,
    sampled_config, wait_for,
};

fn server() -> Server {
    let port = free_port();
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(["--dir", "/tmp"])
        .stdout(Stdio::null());
    let child = command.spawn().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let server = Server { child, address };
    wait_for(address);
    server
}

async fn published_of(
    server: &Server,
    work: impl FnOnce(SocketAddr) + Send + 'static,
) -> Published {
    let address = server.address;
    published(config(), &name_of(&server.child), move || {
        work(address);
        thread::sleep(Duration::from_millis(100));
    })
    .await
}

fn benchmark(address: SocketAddr, tests: &str, requests: u32, pipeline: u32) {
    let command = Command::new("redis-benchmark");
    benchmark_by(command, address, tests, requests, pipeline);
}

fn benchmark_by(
    mut command: Command,
    address: SocketAddr,
    tests: &str,
    requests: u32,
    pipeline: u32,
) {
    let status = command
        .args(["-h", "127.0.0.1", "-p", &address.port().to_string()])
        .args(["-q", "-c", "5", "-t", tests])
        .args(["-n", &requests.to_string(), "-P", &pipeline.to_string()])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_a_load_generator_are_counted() {
    let _turn = requests::turn().await;
    let server = server();
    let found = published_of(&server, |address| benchmark(address, "set,get", 10_000, 1)).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    let routes = found.routes();
    assert_eq!(routes[&("SET", 2)], 10_000);
    assert_eq!(routes[&("GET", 2)], 10_000);
    // It asks for the configuration before each.
    assert!(routes[&("CONFIG", 2)] > 0);
    found.check_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_commands_are_counted_one_by_one() {
    let _turn = requests::turn().await;
    let server = server();
    let work = |address| benchmark(address, "set,get,ping_inline,ping_mbulk", 16_000, 16);
    let found = published_of(&server, work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    let routes = found.routes();
    assert_eq!(routes[&("SET", 2)], 16_000);
    assert_eq!(routes[&("GET", 2)], 16_000);
    assert_eq!(routes[&("PING", 2)], 32_000);
    found.check_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_told_from_results_in_pipelines_too() {
    let _turn = requests::turn().await;
    let server = server();
    let work = |address| {
        let mut connection = BufReader::new(TcpStream::connect(address).unwrap());
        let mut ask = |commands: &str, replies: usize| {
            connection.get_mut().write_all(commands.as_bytes()).unwrap();
            for _ in 0..replies {
                let mut line = String::new();
                assert!(connection.read_line(&mut line).unwrap() > 0);
                if line.starts_with('$') && !line.starts_with("$-") {
                    connection.read_line(&mut line).unwrap();
                }
            }
        };
        let set = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n";
        let get = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        let wrong = "*3\r\n$5\r\nLPUSH\r\n$1\r\nk\r\n$1\r\n1\r\n";
        let unknown = "*1\r\n$9\r\nNO.SUCH.C\r\n";
        for _ in 0..10 {
            ask(set, 1);
            ask(wrong, 1);
            ask(unknown, 1);
            ask("PING\r\n", 1);
            ask(&[set, wrong, get, unknown, get].concat(), 5);
        }
    };
    let found = published_of(&server, work).await;
    let expected = BTreeMap::from([
        (("SET", 2), 20),
        (("GET", 2), 20),
        (("LPUSH", 4), 20),
        (("PING", 2), 10),
        (("redis other", 4), 20),
    ]);
    assert_eq!(found.routes(), expected);
    found.check_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_count_on_the_side_that_sends_them() {
    let _turn = requests::turn().await;
    let server = server();
    let client = Copy::of("redis-benchmark", "hg-redis-client");
    let address = server.address;
    for (pipeline, expected) in [(1, 5000), (16, 8000)] {
        let command = client.command();
        let work = move || {
            benchmark_by(command, address, "set,get", expected, pipeline);
            thread::sleep(Duration::from_millis(100));
        };
        let found = published(client_config(), &client.service(), work).await;
        println!("{:?} {:?}", found.by_client_route, found.losses);
        let routes = found.client_routes();
        assert_eq!(routes[&("SET", 2)], u64::from(expected));
        assert_eq!(routes[&("GET", 2)], u64::from(expected));
        assert_eq!(found.by_route, BTreeMap::new());
        assert_eq!(
            found.by_client_route.values().sum::<u64>(),
            found.client_requests
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sampled_pipelines_stand_for_all() {
    let _turn = requests::turn().await;
    let server = server();
    let address = server.address;
    let work = move || {
        benchmark(address, "set", 80_000, 4);
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(sampled_config(), &name_of(&server.child), work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    check_sampled(found.routes()[&("SET", 2)], 80_000, 20_000);
    found.check_whole();
}
