//! Requests of HTTP/1.1 by route and status class against real servers. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod requests;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    process::Command,
    thread,
    time::Duration,
};

use honeyguide_sensor::Config;
use requests::{
    Client, Copy, LOCATIONS, Server, client_config, config, name_of, own_name, published, serve,
    wait_for,
};
use sensor_common::record::Loss;

fn status(status: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// 404 for what begins with `/missing`, 503 for `/error`, else 200.
fn by_path(line: &str) -> Vec<u8> {
    let path = line.split(' ').nth(1).unwrap_or_default();
    match path {
        _ if path.starts_with("/missing") => status("404 Not Found"),
        _ if path.starts_with("/error") => status("503 Service Unavailable"),
        _ => status("200 OK"),
    }
}

/// The requests that each real server is asked, with a known number of each.
fn ask(address: SocketAddr) {
    let clients: Vec<_> = (0..4)
        .map(|client| {
            thread::spawn(move || {
                let mut connection = Client::connect(address);
                for number in 0..50 {
                    connection.request(&format!("GET /users/{client}{number}?page={number}"), 200);
                    connection.request("GET /api/v1/status", 200);
                }
                for number in 0..10 {
                    connection.request(&format!("GET /error/{number}"), 503);
                    connection.request(&format!("GET /missing/of-{client}"), 404);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    // The response is counted before the client has it; the drain is later.
    thread::sleep(Duration::from_millis(100));
}

fn asked() -> BTreeMap<(&'static str, u8), u64> {
    BTreeMap::from([
        (("GET /users/{id}", 2), 200),
        (("GET /api/v1/status", 2), 200),
        (("GET /error/{id}", 5), 40),
        (("other", 4), 40),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_route_and_status_class_from_the_first() {
    let _turn = requests::turn().await;
    let address = serve(4, by_path);
    let found = published(config(), &own_name(), move || ask(address)).await;
    assert_eq!(found.routes(), asked());
    assert_eq!(found.requests, 480);
    found.check_whole();
    // It has to be wanted.
    assert_eq!(found.by_client_route, BTreeMap::new());
    assert_eq!(found.client_requests, 480);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_count_on_both_sides_if_that_is_wanted() {
    let _turn = requests::turn().await;
    let address = serve(4, by_path);
    let found = published(client_config(), &own_name(), move || ask(address)).await;
    println!("{:?} {:?}", found.by_client_route, found.losses);
    assert_eq!(found.routes(), asked());
    assert_eq!(found.client_routes(), asked());
    assert_eq!(found.client_requests, 480);
    found.check_whole();
    let peer = found.by_peer.get(&address.to_string()).copied();
    assert_eq!(peer, Some(480), "{:?}", found.by_peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_curl_count_on_its_side() {
    let _turn = requests::turn().await;
    let address = serve(10, by_path);
    let client = Copy::of("curl", "hg-http-client");
    let mut command = client.command();
    command.args(["-s", "-X", "PUT", "-d", "some=thing"]);
    for path in ["/users/1?page=2", "/users/2", "/error/3", "/users/4"] {
        command.arg(format!("http://{address}{path}"));
    }
    let work = move || {
        for _ in 0..10 {
            assert!(command.status().unwrap().success());
        }
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(client_config(), &client.service(), work).await;
    println!("{:?} {:?}", found.by_client_route, found.losses);
    let expected = BTreeMap::from([(("PUT /users/{id}", 2), 30), (("PUT /error/{id}", 5), 10)]);
    assert_eq!(found.client_routes(), expected);
    assert_eq!((found.client_requests, found.requests), (40, 0));
}

/// A path that anything may follow is learned, and what is often asked for
/// there, like everything else, keeps its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_too_many_routes_teaches_what_they_have_in_common() {
    let _turn = requests::turn().await;
    let address = serve(1, by_path);
    let work = move || {
        let mut connection = Client::connect(address);
        let mut ask = |users: std::ops::Range<u8>| {
            for user in users {
                let (one, two) = (char::from(b'g' + user / 16), char::from(b'g' + user % 16));
                connection.request(&format!("GET /users/{one}{two}"), 200);
                connection.request("GET /users/me", 200);
                connection.request("GET /status", 200);
            }
        };
        ask(0..70);
        thread::sleep(Duration::from_millis(2500));
        ask(100..250);
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(config(), &own_name(), work).await;
    let routes = found.routes();
    assert_eq!(routes[&("GET /users/{id}", 2)], 150, "{routes:?}");
    assert_eq!(routes[&("GET /users/me", 2)], 220, "{routes:?}");
    assert_eq!(routes[&("GET /status", 2)], 220, "{routes:?}");
    found.check_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_of_the_configuration_count_from_the_first_request() {
    let _turn = requests::turn().await;
    let address = serve(1, by_path);
    let config = Config {
        route_templates: ["/shop/sale", "/shop/{product}", "/archive/2024"]
            .map(str::to_owned)
            .to_vec(),
        ..config()
    };
    let work = move || {
        let mut connection = Client::connect(address);
        for product in b'g'..=b'z' {
            let product = char::from(product);
            connection.request(&format!("GET /shop/{product}?size=1"), 200);
            connection.request("GET /shop/sale", 200);
            connection.request("POST /archive/2024", 200);
            connection.request("GET /archive/2023", 200);
        }
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(config, &own_name(), work).await;
    let expected = BTreeMap::from([
        (("GET /shop/{product}", 2), 20),
        (("GET /shop/sale", 2), 20),
        (("POST /archive/2024", 2), 20),
        (("GET /archive/{id}", 2), 20),
    ]);
    assert_eq!(found.routes(), expected);
}

/// 101 for `/chat`, else 200.
fn by_chat(line: &str) -> Vec<u8> {
    match line.split(' ').nth(1).unwrap_or_default() {
        "/chat" => status("101 Switching Protocols"),
        _ => status("200 OK"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_pieces_and_with_huge_heads_are_seen_or_counted() {
    let _turn = requests::turn().await;
    let address = serve(1, by_chat);
    let work = move || {
        let mut connection = Client::connect(address);
        let mut ask = |parts: &[&[u8]], status| {
            connection.send(parts);
            assert_eq!(connection.response(), status);
        };
        // Cut in the method, and right behind it.
        for _ in 0..3 {
            ask(&[b"G", b"ET /users/1 HTTP/1.1\r\n\r\n"], 200);
            ask(&[b"DEL", b"ETE /users/1 HTTP/1.1\r\n\r\n"], 200);
            ask(&[b"G", b"E", b"T", b" ", b"/users/1 HTTP/1.1\r\n\r\n"], 200);
        }
        // Cut in the path.
        for _ in 0..4 {
            ask(&[b"GET /users", b"/1 HTTP/1.1\r\n\r\n"], 200);
        }
        let huge = format!("X-Huge: {}\r\n\r\n", "x".repeat(200_000));
        for _ in 0..5 {
            ask(&[b"GET /huge?q=1 HTTP/1.1\r\n", huge.as_bytes()], 200);
        }
        // What follows is another protocol, whatever it looks like.
        ask(&[b"GET /chat HTTP/1.1\r\n\r\n"], 101);
        for _ in 0..6 {
            ask(&[b"GET /not/a/request HTTP/1.1\r\n\r\n"], 200);
        }
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(config(), &own_name(), work).await;
    let expected = BTreeMap::from([
        (("GET /users/{id}", 2), 6),
        (("DELETE /users/{id}", 2), 3),
        (("GET /huge", 2), 5),
        (("GET /chat", 1), 1),
    ]);
    assert_eq!(found.routes(), expected);
    assert_eq!(found.requests, 25);
    assert_eq!(found.losses[&(Loss::RequestIncomplete as u32)], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_line_in_pieces_is_a_request_without_a_status() {
    let _turn = requests::turn().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_nodelay(true).unwrap();
        let mut request = [0; 1000];
        while socket.read(&mut request).unwrap() > 0 {
            for part in ["HTTP/1.1", " 200 OK\r\nContent-Length: 0\r\n\r\n"] {
                socket.write_all(part.as_bytes()).unwrap();
            }
        }
    });
    let work = move || {
        let mut connection = Client::connect(address);
        for _ in 0..5 {
            connection.request("GET /users/1", 200);
        }
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(config(), &own_name(), work).await;
    assert_eq!(found.routes(), BTreeMap::from([(("other", 0), 5)]));
    assert_eq!(found.losses[&(Loss::RequestIncomplete as u32)], 5);
}

/// What comes before a response is none, and does not end the wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_interim_response_is_not_the_response() {
    let _turn = requests::turn().await;
    const WAIT: Duration = Duration::from_millis(50);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_nodelay(true).unwrap();
        let mut request = [0; 1000];
        while socket.read(&mut request).unwrap() > 0 {
            socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            // The body.
            assert_eq!(socket.read(&mut request).unwrap(), 4);
            thread::sleep(WAIT);
            socket.write_all(&status("201 Created")).unwrap();
        }
    });
    let work = move || {
        let mut connection = Client::connect(address);
        for _ in 0..5 {
            connection.send(&[b"POST /things HTTP/1.1\r\nExpect: 100-continue\r\n\r\n"]);
            assert_eq!(connection.response(), 100);
            connection.send(&[b"body"]);
            assert_eq!(connection.response(), 201);
        }
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(config(), &own_name(), work).await;
    assert_eq!(found.routes(), BTreeMap::from([(("POST /things", 2), 5)]));
    assert_eq!(found.requests, 5);
    assert!(found.latency.sum_ns() >= 5 * WAIT.as_nanos() as u64);
}

const PYTHON: &str = r#"
import http.server, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(404 if self.path.startswith("/missing") else 503 if self.path.startswith("/error") else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *arguments): pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer): daemon_threads = True
server = Server(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_python_server_is_seen() {
    let _turn = requests::turn().await;
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", PYTHON]);
    check_server(command).await;
}

const NODE: &str = r#"
const server = require("http").createServer((request, response) => {
    const path = request.url;
    response.writeHead(path.startsWith("/missing") ? 404 : path.startsWith("/error") ? 503 : 200,
        { "Content-Length": 2 });
    response.end("ok");
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_server_is_seen() {
    let _turn = requests::turn().await;
    let mut command = Command::new("node");
    command.args(["-e", NODE]);
    check_server(command).await;
}

const GO: &str = r#"
package main

import (
	"fmt"
	"net"
	"net/http"
	"strings"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/missing") {
			w.WriteHeader(404)
		} else if strings.HasPrefix(r.URL.Path, "/error") {
			w.WriteHeader(503)
		}
		w.Write([]byte("ok"))
	}))
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_go_server_is_seen() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let (source, program) = (
        directory.path().join("main.go"),
        directory.path().join("hg-go"),
    );
    std::fs::write(&source, GO).unwrap();
    let mut go = Command::new("go");
    let built = go.arg("build").arg("-o").arg(&program).arg(&source);
    assert!(built.status().unwrap().success());
    check_server(Command::new(&program)).await;
}

/// Answers by itself, and with a file: `writev` and `sendfile`.
#[tokio::test(flavor = "multi_thread")]
async fn nginx_is_seen() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    check_running(Server::nginx(directory.path(), "", LOCATIONS)).await;
}

/// Asks a server in another process under the sensor.
async fn check_server(command: Command) {
    let server = Server::start(command);
    wait_for(server.address);
    check_running(server).await;
}

async fn check_running(server: Server) {
    let address = server.address;
    let name = name_of(&server.child);
    let found = published(config(), &name, move || ask(address)).await;
    assert_eq!(found.routes(), asked());
    assert_eq!(found.requests, 480);
    found.check_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_like_http_has_no_route_and_is_timed_all_the_same() {
    let _turn = requests::turn().await;
    // Answers everything with something that is no HTTP.
    let address = serve(2, |_| b"+OK\r\n".to_vec());
    let work = move || {
        for begin in [
            "GET /users/1 HTTP/1.1",
            "\0\u{1}binary",
            "GET http://x/ HTTP/1.1",
        ] {
            let mut client = Client::connect(address);
            for _ in 0..5 {
                client.send(&[begin.as_bytes(), b"\r\n\r\n"]);
                let mut answer = [0; 5];
                client.0.read_exact(&mut answer).unwrap();
            }
            if begin.starts_with('\0') {
                break;
            }
        }
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(config(), &own_name(), work).await;
    assert_eq!(found.routes(), BTreeMap::new());
    assert_eq!(found.requests, 10);
}

/// Bytes that begin like some protocol and go on at random, in both directions:
/// whatever is found, no bound is exceeded, and exchanges are timed all the same
/// but for the first of what begins like HTTP/2.
#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_do_no_harm() {
    let _turn = requests::turn().await;
    const CONNECTIONS: u64 = 200;
    const EXCHANGES: u64 = 20;
    const BEGINS: [&[u8]; 12] = [
        b"",
        b"GET /",
        b"*3\r\n$3\r\nSET\r\n$",
        b"*1\r\n$4\r\nPING\r\n*99999\r\n$-1\r\n",
        b"PING\r\n",
        b"Q\0\0\0\x10SELECT 1",
        b"P\0\0\0\x10",
        b"\0\0\0\x20\0\x12\0\x04",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x20\x01\x05\0\0\0\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x04\x01\x04\0\0\0\x01\x82\x84\xbe\x7f",
        b"HTTP/1.1 200 OK\r\n",
        b"-ERR ",
    ];
    // xorshift64 (Marsaglia 2003), from a fixed seed.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut message = move || {
        let mut bytes = BEGINS[random() as usize % BEGINS.len()].to_vec();
        for _ in 0..random() % 400 {
            bytes.extend(random().to_le_bytes());
        }
        bytes.push(random() as u8);
        bytes
    };
    let work = move || {
        for _ in 0..CONNECTIONS {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            for _ in 0..EXCHANGES {
                let (request, response) = (message(), message());
                let mut read = vec![0; request.len().max(response.len())];
                client.write_all(&request).unwrap();
                server.read_exact(&mut read[..request.len()]).unwrap();
                server.write_all(&response).unwrap();
                client.read_exact(&mut read[..response.len()]).unwrap();
            }
        }
        thread::sleep(Duration::from_millis(100));
    };
    let config = config();
    let bound = config.routes_per_service_max as usize;
    let found = published(config, &own_name(), work).await;
    println!("{:?} {:?} {}", found.by_route, found.losses, found.requests);
    // Of each protocol one for the others.
    assert!(found.by_route.len() <= 6 * (bound + 5));
    let untimed = CONNECTIONS * EXCHANGES - found.requests;
    assert!(
        untimed <= CONNECTIONS * EXCHANGES / 10,
        "{untimed} are not timed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_distinct_paths_stay_within_the_bound() {
    let _turn = requests::turn().await;
    const PATHS: u64 = 1_000_000;
    const CONNECTIONS: u64 = 4;
    let address = serve(CONNECTIONS as usize, |_| status("200 OK"));
    let work = move || {
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|client| thread::spawn(move || ask_distinct(address, client, PATHS / CONNECTIONS)))
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        thread::sleep(Duration::from_millis(100));
    };
    let config = config();
    let bound = u64::from(config.routes_per_service_max);
    let found = published(config, &own_name(), work).await;
    println!("{} routes, {:?}", found.by_route.len(), found.losses);
    assert_eq!(found.requests, PATHS);
    found.check_whole();
    // Those before anything was learned, and the others.
    let routes = found.by_route.len() as u64;
    assert!((bound..=bound + 2).contains(&routes), "{routes}");
    assert!(found.routes()[&("GET /{id}", 2)] > PATHS / 2);
    assert!(found.losses.values().all(|lost| *lost == 0));
}

/// Letters only, so that no segment looks generated.
fn ask_distinct(address: SocketAddr, client: u64, paths: u64) {
    let mut connection = Client::connect(address);
    for path in client * paths..(client + 1) * paths {
        let letters: String = (0..6)
            .map(|place| char::from(b'g' + (path / 10u64.pow(place) % 10) as u8))
            .collect();
        connection.request(&format!("GET /{letters}"), 200);
    }
}
