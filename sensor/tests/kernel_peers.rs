//! Who asks whom, against real servers. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod requests;

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use requests::{Published, Server, config, free_port, own_name, published, wait_for};

/// Of TEST-NET-2 (RFC 5737): on the loopback device while it lives, and no
/// address of loopback.
struct Address(Ipv4Addr);

impl Address {
    fn add(last: u8) -> Self {
        let address = Self(Ipv4Addr::new(198, 51, 100, last));
        address.change("add");
        address
    }

    fn change(&self, action: &str) {
        let address = format!("{}/32", self.0);
        let status = Command::new("ip")
            .args(["address", action, &address, "dev", "lo"])
            .status();
        assert!(status.unwrap().success(), "{action} {address}");
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.change("del");
    }
}

fn redis(address: IpAddr) -> Server {
    let port = free_port();
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", &address.to_string()])
        .args(["--save", "", "--appendonly", "no", "--protected-mode", "no"])
        .args(["--dir", "/tmp"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let address = SocketAddr::from((address, port));
    let server = Server { child, address };
    wait_for(address);
    server
}

/// Asks `requests` times on each of `connections`.
fn ask(address: SocketAddr, connections: usize, requests: usize) {
    for _ in 0..connections {
        let mut socket = TcpStream::connect(address).unwrap();
        for _ in 0..requests {
            socket.write_all(b"PING\r\n").unwrap();
            let mut response = [0; 7];
            socket.read_exact(&mut response).unwrap();
            assert_eq!(&response, b"+PONG\r\n");
        }
    }
}

async fn published_of_us(work: impl FnOnce() + Send + 'static) -> Published {
    let found = published(config(), &own_name(), move || {
        work();
        thread::sleep(Duration::from_millis(1500));
    })
    .await;
    println!("{:?} {:?}", found.by_peer, found.endpoints);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_who_answers() {
    let _turn = requests::turn().await;
    let outside = Address::add(77);
    let (near, far) = (
        redis(Ipv4Addr::LOCALHOST.into()),
        redis(IpAddr::from(outside.0)),
    );
    let addresses = [near.address, far.address];
    let found = published_of_us(move || {
        ask(addresses[0], 3, 50);
        ask(addresses[1], 2, 20);
    })
    .await;
    let [near, far] = addresses.map(|address| address.to_string());
    assert_eq!(found.by_peer[&near], 150);
    assert_eq!(found.by_peer[&far], 40);
    let has = |address: &str, only_for_us: bool| {
        found.endpoints.iter().any(|(at, service, only)| {
            at == address && service.ends_with("/redis-server") && *only == only_for_us
        })
    };
    assert!(has(&near, true) && has(&far, true) && has(&far, false));
    assert!(
        !has(&near, false),
        "an address of loopback is no one else's"
    );
}

/// A network namespace that this thread, and what it starts from now on, has for
/// itself, with loopback up.
fn enter_own_network() {
    // SAFETY: changes the network of this thread alone.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(status.unwrap().success());
}

/// As kube-proxy does it: what goes to `from` is sent to `to` instead.
fn translate(from: SocketAddr, to: SocketAddr) {
    let rules = format!(
        "table ip honeyguide {{ chain output {{
            type nat hook output priority -100;
            ip daddr {} tcp dport {} dnat to {to};
        }}; }};",
        from.ip(),
        from.port()
    );
    let mut nft = Command::new("nft");
    let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin
        .take()
        .unwrap()
        .write_all(rules.as_bytes())
        .unwrap();
    assert!(nft.wait().unwrap().success(), "{rules}");
}

/// The address that is asked is nobody's; the connection tells who answers.
#[tokio::test(flavor = "multi_thread")]
async fn who_answers_behind_a_translated_address_is_known() {
    let _turn = requests::turn().await;
    let asked = SocketAddr::from(([198, 51, 100, 78], 80));
    let in_own_network = move || {
        enter_own_network();
        let _route = Address::add(78);
        let server = redis(Ipv4Addr::LOCALHOST.into());
        translate(asked, server.address);
        ask(asked, 3, 20);
        // So that it is there when names are asked for.
        thread::sleep(Duration::from_millis(1500));
    };
    let found = published_of_us(move || thread::spawn(in_own_network).join().unwrap()).await;
    let asked = asked.to_string();
    assert_eq!(found.by_peer[&asked], 60);
    let mut answers = found.endpoints.iter().filter(|(at, ..)| *at == asked);
    let (_, service, only_for_us) = answers.next().unwrap();
    assert!(
        service.ends_with("/redis-server") && *only_for_us,
        "{service}"
    );
    assert_eq!(answers.next(), None);
}

/// As many addresses as a service may have, and one count for the rest.
#[tokio::test(flavor = "multi_thread")]
async fn requests_to_very_many_addresses_are_counted_together() {
    let _turn = requests::turn().await;
    const ADDRESSES: u8 = 40;
    let server = redis(Ipv4Addr::UNSPECIFIED.into());
    let port = server.address.port();
    let found = published_of_us(move || {
        for last in 1..=ADDRESSES {
            ask(SocketAddr::from(([127, 0, 1, last], port)), 1, 5);
        }
    })
    .await;
    assert_eq!(found.by_peer.len(), 32, "{:?}", found.by_peer);
    assert!(found.by_peer.values().all(|requests| *requests == 5));
}
