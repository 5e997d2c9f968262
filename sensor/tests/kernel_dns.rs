//! Queries of DNS over UDP by type and outcome against a real server. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod requests;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use requests::{
    Copy, Published, Server, client_config, config, free_port, name_of, own_name, published,
    wait_for,
};

const A: u16 = 1;
const NS: u16 = 2;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;
/// For private use: no server knows it (RFC 6895).
const PRIVATE: u16 = 65_280;

/// Knows some names of `example.test`, and refuses what is not below it.
fn server() -> Server {
    let port = free_port();
    let mut command = Command::new("dnsmasq");
    command
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file",
        ])
        .args([
            "--no-resolv",
            "--no-hosts",
            "--user=root",
            "--bind-interfaces",
        ])
        .args(["--listen-address=127.0.0.1", &format!("--port={port}")])
        .arg("--host-record=www.example.test,192.0.2.1,2001:db8::1")
        .arg("--mx-host=example.test,www.example.test,10")
        .arg("--local=/example.test/")
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
    let found = published(config(), &name_of(&server.child), move || {
        work(address);
        thread::sleep(Duration::from_millis(100));
    })
    .await;
    println!("{:?} {:?}", found.by_route, found.losses);
    found
}

fn query(id: u16, name: &str, of_type: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [id, 0x0100, 1, 0, 0, 0] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&of_type.to_be_bytes());
    bytes.extend_from_slice(&1u16.to_be_bytes());
    bytes
}

/// Asks once and waits for the answer.
struct Client {
    socket: UdpSocket,
    id: u16,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(address).unwrap();
        let patience = Duration::from_secs(10);
        socket.set_read_timeout(Some(patience)).unwrap();
        Self { socket, id: 0 }
    }

    fn ask(&mut self, name: &str, of_type: u16, code: u8) {
        self.id = self.id.wrapping_add(1);
        self.socket.send(&query(self.id, name, of_type)).unwrap();
        self.answer(code);
    }

    /// Waits for the answer to what was asked last.
    fn answer(&self, code: u8) {
        let mut answer = [0; 1500];
        loop {
            let len = self.socket.recv(&mut answer).unwrap();
            if answer[..len].starts_with(&self.id.to_be_bytes()) {
                assert_eq!(answer[3] & 0xf, code);
                return;
            }
        }
    }
}

/// Bytes that are the same at every run.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(next).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_counted_by_type_and_outcome() {
    let _turn = requests::turn().await;
    let server = server();
    let work = |address| {
        let mut client = Client::new(address);
        for number in 0..300 {
            client.ask("www.example.test", A, 0);
            if number % 3 == 0 {
                client.ask("www.example.test", AAAA, 0);
                client.ask(&format!("no{number}.example.test"), A, 3);
            }
            if number % 6 == 0 {
                client.ask("example.test", MX, 0);
                client.ask("www.example.org", TXT, 5);
                client.ask("www.example.test", PRIVATE, 0);
            }
        }
    };
    let found = published_of(&server, work).await;
    let expected = BTreeMap::from([
        (("A", 2), 300),
        (("A", 4), 100),
        (("AAAA", 2), 100),
        (("MX", 2), 50),
        (("TXT", 5), 50),
        (("dns other", 2), 50),
    ]);
    assert_eq!(found.routes(), expected);
    found.check_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_of_dig_are_counted() {
    let _turn = requests::turn().await;
    let server = server();
    let work = |address: SocketAddr| {
        for (name, of_type, count) in [
            ("www.example.test", "AAAA", 7),
            ("none.example.test", "A", 5),
        ] {
            for _ in 0..count {
                let status = Command::new("dig")
                    .args(["@127.0.0.1", "-p", &address.port().to_string()])
                    .args(["+tries=1", "+time=10", name, of_type])
                    .stdout(Stdio::null())
                    .status();
                assert!(status.unwrap().success());
            }
        }
    };
    let found = published_of(&server, work).await;
    let expected = BTreeMap::from([(("AAAA", 2), 7), (("A", 4), 5)]);
    assert_eq!(found.routes(), expected);
    found.check_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_with_the_same_ids_are_told_apart_by_what_they_ask_for() {
    let _turn = requests::turn().await;
    let server = server();
    let work = |address| {
        thread::scope(|scope| {
            for number in 0..4 {
                scope.spawn(move || {
                    let mut client = Client::new(address);
                    let name = format!("client{number}.example.test");
                    for _ in 0..1000 {
                        client.ask(&name, A, 3);
                    }
                });
            }
        });
    };
    let found = published_of(&server, work).await;
    assert_eq!(found.routes(), BTreeMap::from([(("A", 4), 4000)]));
    found.check_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_waits_from_when_it_arrived() {
    const WAIT: Duration = Duration::from_millis(50);
    let _turn = requests::turn().await;
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let work = move || {
        let mut client = Client::new(address);
        for _ in 0..20 {
            client.id += 1;
            let asked = query(client.id, "www.example.test", NS);
            client.socket.send(&asked).unwrap();
            thread::sleep(WAIT);
            let mut answer = [0; 1500];
            let (len, from) = server.recv_from(&mut answer).unwrap();
            answer[2] |= 0x80;
            server.send_to(&answer[..len], from).unwrap();
            client.answer(0);
        }
    };
    let found = published(config(), &own_name(), work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    assert_eq!(found.routes(), BTreeMap::from([(("NS", 2), 20)]));
    found.check_whole();
    assert_eq!(found.client_requests, 20);
    // All but the first, before which the socket was none of DNS.
    assert!(found.latency.sum_ns() >= 19 * WAIT.as_nanos() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_dns_has_no_routes() {
    let _turn = requests::turn().await;
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let work = move || {
        let client = Client::new(address);
        for number in 0..2000 {
            let mut asked = noise(1 + number * 7 % 600, number as u64);
            match number % 3 {
                // Only the begin is one of DNS.
                0 => asked = [&query(7, "a.b", A)[..12], &asked].concat(),
                // A query, but what comes back is none of its responses.
                1 => asked = query(number as u16, "a.b", A),
                _ => {}
            }
            client.socket.send(&asked).unwrap();
            let mut answer = [0; 1500];
            let (len, from) = server.recv_from(&mut answer).unwrap();
            server.send_to(&answer[..len], from).unwrap();
            client.socket.recv(&mut answer).unwrap();
        }
    };
    let found = published(config(), &own_name(), work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    assert_eq!((found.by_route.len(), found.requests), (0, 0));
    assert_eq!(found.client_requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_between_queries_does_no_harm() {
    let _turn = requests::turn().await;
    let server = server();
    let work = |address| {
        let mut client = Client::new(address);
        client.ask("www.example.test", A, 0);
        for number in 0..500 {
            for place in 0..10 {
                let seed = number * 10 + place;
                let mut bytes = noise(1 + seed as usize % 300, seed);
                if place < 4 {
                    // Below the ids of what is asked: an answer to it is no other's.
                    bytes = [&query(60_000, "a.b", A)[..12], &bytes].concat();
                } else if let Some(first) = bytes.first_mut() {
                    *first = 0xff;
                }
                // The socket may have an error of the last one.
                let _ = client.socket.send(&bytes);
            }
            client.ask("www.example.test", AAAA, 0);
        }
    };
    let found = published_of(&server, work).await;
    let routes = found.routes();
    assert_eq!(routes[&("A", 2)], 1);
    assert_eq!(routes[&("AAAA", 2)], 500);
    found.check_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_count_on_the_side_that_asks() {
    let _turn = requests::turn().await;
    let server = server();
    let client = Copy::of("dig", "hg-dns-client");
    let mut command = client.command();
    let port = server.address.port().to_string();
    command
        .args(["@127.0.0.1", "-p", &port, "+noall"])
        .args(["www.example.test", "A", "www.example.test", "A"])
        .args(["www.example.test", "AAAA", "missing.example.test", "A"])
        .stdout(Stdio::null());
    let ask = |mut command: Command| {
        for _ in 0..10 {
            assert!(command.status().unwrap().success());
        }
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(client_config(), &client.service(), move || ask(command)).await;
    println!("{:?} {:?}", found.by_client_route, found.losses);
    let expected = BTreeMap::from([(("A", 2), 20), (("AAAA", 2), 10), (("A", 4), 10)]);
    assert_eq!(found.client_routes(), expected);
    assert_eq!((found.client_requests, found.requests), (40, 0));
}
