//! Requests inside TLS against real servers. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use honeyguide_sensor::{
    Config, Sensor, Status, program::openssl::places::places, tls::LibraryStatus,
};

use requests::{
    Copy, LOCATIONS, Published, Running, Server, client_config, config, free_port, load_http2,
    name_of, published, wait_for,
};

mod grpc;
mod requests;

/// Asks for what is [`asked`], from OpenSSL, with a connection for each of four
/// clients. Of two, one says that it closes the connection, and waits for the
/// server to say so.
const CLIENT: &str = r#"
import http.client, socket, ssl, sys, threading, time
port, version = int(sys.argv[1]), sys.argv[2]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
failed = []
def ask(client):
    try: ask_all(client)
    except Exception as error: failed.append(error)
def ask_all(client):
    # A connection without a request, which may bring session tickets.
    with socket.create_connection(("127.0.0.1", port)) as idle, context.wrap_socket(idle) as idle:
        idle.settimeout(0.05)
        try: idle.recv(1)
        except TimeoutError: pass
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context)
    def request(path, status):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        if response.status != status: failed.append((path, response.status))
    for number in range(50):
        request(f"/users/{client}{number}?page={number}", 200)
        request("/api/v1/status", 200)
    for number in range(10):
        request(f"/error/{number}", 503)
        request(f"/missing/of-{client}", 404)
    if client % 2:
        try: connection.sock.unwrap()
        except (OSError, ssl.SSLError): pass
    connection.close()
clients = [threading.Thread(target=ask, args=(client,)) for client in range(4)]
for client in clients: client.start()
for client in clients: client.join()
sys.exit(str(failed[:3]) if failed else 0)
"#;

fn ask(address: SocketAddr, version: &str) {
    let mut client = Command::new("/usr/bin/python3");
    client.args(["-c", CLIENT, &address.port().to_string(), version]);
    assert!(client.status().unwrap().success());
    // The response is counted before the client has it; the drain is later.
    thread::sleep(Duration::from_millis(100));
}

/// A certificate and its key, `cert.pem` and `key.pem`.
fn certify(directory: &Path) {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(directory).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=test",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
    ]);
    assert!(openssl.output().unwrap().status.success());
}

/// How often each route and status class is asked for; `other` are unknown paths.
fn asked() -> BTreeMap<(&'static str, u8), u64> {
    BTreeMap::from([
        (("GET /users/{id}", 2), 200),
        (("GET /api/v1/status", 2), 200),
        (("GET /error/{id}", 5), 40),
        (("other", 4), 40),
    ])
}

/// Asks a server under the sensor; it listens already.
async fn check_server(server: Server, version: &'static str) -> Published {
    let address = server.address;
    let found = published(config(), &name_of(&server.child), move || {
        ask(address, version)
    })
    .await;
    assert_eq!(found.requests, 480, "{:?}", found.by_route);
    found
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
	http.ServeTLS(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/missing") {
			w.WriteHeader(404)
		} else if strings.HasPrefix(r.URL.Path, "/error") {
			w.WriteHeader(503)
		}
		w.Write([]byte("ok"))
	}), "cert.pem", "key.pem")
}
"#;

/// A server in Go, which has a TLS library of its own.
fn go(directory: &Path) -> Server {
    certify(directory);
    let program = directory.join("hg-go-tls");
    std::fs::write(directory.join("main.go"), GO).unwrap();
    let mut go = Command::new("go");
    let built = go.current_dir(directory).args(["build", "-o"]);
    assert!(
        built
            .arg(&program)
            .arg("main.go")
            .status()
            .unwrap()
            .success()
    );
    let mut command = Command::new(&program);
    command.current_dir(directory);
    Server::start(command)
}

/// The plaintext is not seen.
async fn check_go(version: &'static str) {
    let directory = tempfile::tempdir().unwrap();
    let found = check_server(go(directory.path()), version).await;
    assert_eq!(found.routes(), BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_no_requests_in_tls_1_3() {
    let _turn = requests::turn().await;
    check_go("TLSv1_3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_no_requests_in_tls_1_2() {
    let _turn = requests::turn().await;
    check_go("TLSv1_2").await;
}

/// Asks a server that uses OpenSSL: every request is in its route, with the same
/// latency.
async fn check_openssl(server: Server, version: &'static str) {
    let found = check_server(server, version).await;
    assert_eq!(found.routes(), asked(), "{:?}", found.losses);
    found.check_whole();
}

const PYTHON: &str = r#"
import http.server, socketserver, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(404 if self.path.startswith("/missing") else 503 if self.path.startswith("/error") else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *arguments): pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    def finish_request(self, request, address):
        super().finish_request(context.wrap_socket(request, server_side=True), address)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
server = Server(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"#;

fn python(directory: &Path, program: &str) -> Command {
    certify(directory);
    let mut command = Command::new("/usr/bin/python3");
    command.current_dir(directory).args(["-c", program]);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_server_is_seen_in_tls_1_3() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    check_openssl(Server::start(python(directory.path(), PYTHON)), "TLSv1_3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_server_is_seen_in_tls_1_2() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    check_openssl(Server::start(python(directory.path(), PYTHON)), "TLSv1_2").await;
}

fn nginx(directory: &Path) -> Server {
    nginx_with(directory, "ssl")
}

fn nginx_with(directory: &Path, listen: &str) -> Server {
    nginx_at(directory, listen, LOCATIONS)
}

fn nginx_at(directory: &Path, listen: &str, locations: &str) -> Server {
    certify(directory);
    let tls = "ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate DIRECTORY/cert.pem; ssl_certificate_key DIRECTORY/key.pem;";
    Server::nginx(directory, listen, &format!("{tls}{locations}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_is_seen_in_tls_1_3() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    check_openssl(nginx(directory.path()), "TLSv1_3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_is_seen_in_tls_1_2() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    check_openssl(nginx(directory.path()), "TLSv1_2").await;
}

/// Its loop reads and writes sockets, and gives OpenSSL memory.
const ASYNCIO: &str = r#"
import asyncio, ssl
async def serve(reader, writer):
    while head := await reader.readuntil(b"\r\n\r\n"):
        path = head.split(b" ")[1]
        status = b"404 No" if path.startswith(b"/missing") else b"503 No" if path.startswith(b"/error") else b"200 OK"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_gives_openssl_memory_is_seen() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let mut command = python(directory.path(), ASYNCIO);
    // It says much about clients that close.
    command.stderr(Stdio::null());
    check_openssl(Server::start(command), "TLSv1_3").await;
}

/// A copy of the library, so that no other process uses it.
fn own_library(directory: &Path) -> PathBuf {
    let maps = Command::new("/usr/bin/python3")
        .args(["-c", "import ssl; print(open('/proc/self/maps').read())"])
        .output()
        .unwrap();
    let maps = String::from_utf8(maps.stdout).unwrap();
    let library = maps.split_whitespace().find(|of| of.contains("/libssl.so"));
    let library = Path::new(library.unwrap());
    let copy = directory.join(library.file_name().unwrap());
    std::fs::copy(library, &copy).unwrap();
    copy
}

fn of_directory(status: &Status, directory: &Path) -> Option<LibraryStatus> {
    let mut libraries = status.tls.libraries.iter();
    libraries
        .find(|of| Path::new(&of.name).starts_with(directory))
        .cloned()
}

/// Waits until the file of the library in `directory` has so many processes.
async fn await_processes(sensor: &Sensor, directory: &Path, processes: usize) {
    let mut status = sensor.status();
    let is_so = |status: &Status| {
        let found = of_directory(status, directory);
        let found = found.filter(|library| library.is_attached);
        found.map_or(0, |library| library.processes) == processes
    };
    let wait = status.wait_for(is_so);
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    waited.expect("the library is not as expected").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_starts_later_is_attached_to_until_it_ends() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    own_library(path);
    let running = Running::start(config());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let start = || {
        let mut command = python(path, PYTHON);
        command.env("LD_LIBRARY_PATH", path);
        Server::start(command)
    };
    let first = start();
    await_processes(&running.sensor, path, 1).await;
    let address = first.address;
    tokio::task::spawn_blocking(move || ask(address, "TLSv1_3"))
        .await
        .unwrap();
    // The next one is seen at once, because the file is.
    let second = start();
    let (address, name) = (second.address, name_of(&second.child));
    tokio::task::spawn_blocking(move || ask(address, "TLSv1_3"))
        .await
        .unwrap();
    await_processes(&running.sensor, path, 2).await;
    drop(first);
    await_processes(&running.sensor, path, 1).await;
    drop(second);
    await_processes(&running.sensor, path, 0).await;
    let found = running.stop(&name).await;
    let twice = asked().into_iter().map(|(route, count)| (route, 2 * count));
    assert_eq!(found.routes(), twice.collect(), "{:?}", found.losses);
    found.check_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_turned_off() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let server = nginx(directory.path());
    let address = server.address;
    let config = Config {
        tls: false,
        ..config()
    };
    let work = move || ask(address, "TLSv1_3");
    let found = published(config, &name_of(&server.child), work).await;
    assert_eq!(found.routes(), BTreeMap::new());
    assert_eq!(found.requests, 480);
}

/// Answers each request after a time that its path says, in milliseconds.
const SLOW: &str = r#"
import http.server, ssl, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep(int(self.path.split("-")[1]) / 1e3)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *arguments): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_latency_is_that_of_the_request() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(python(directory.path(), SLOW));
    let address = server.address;
    let work = move || {
        let urls = (0..20).flat_map(|number| {
            let delay = 20 + 60 * (number % 2);
            [
                "-o".to_owned(),
                "/dev/null".to_owned(),
                format!("https://{address}/slow-{delay}"),
            ]
        });
        let mut curl = Command::new("curl");
        curl.args(["-s", "-S", "--insecure"]).args(urls);
        assert!(curl.status().unwrap().success());
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(config(), &name_of(&server.child), work).await;
    assert_eq!(found.requests, 20);
    found.check_whole();
    for (quantile, milliseconds) in [(0.25, 20.0), (0.75, 80.0)] {
        let measured = found.latency_in_routes.quantile_ns(quantile).unwrap() / 1e6;
        // A bucket is 9 % wide; sleeping takes a little longer than asked for.
        assert!(
            (milliseconds * 0.95..milliseconds * 1.2 + 2.0).contains(&measured),
            "{measured} ms at {quantile}"
        );
    }
}

/// Where it is seen to call one function for both ways to read, and for both to
/// write, that one is probed.
#[test]
fn the_library_of_this_machine_is_probed_where_it_costs_least() {
    let directory = tempfile::tempdir().unwrap();
    let library = own_library(directory.path());
    let places = places(&std::fs::read(library).unwrap()).unwrap();
    let programs: Vec<&str> = places.iter().map(|place| place.program).collect();
    let expected = [
        "tls_handshake",
        "tls_read_done",
        "tls_read_ex",
        "tls_write_done",
        "tls_write_ex",
    ];
    assert_eq!(programs, expected);
    assert_eq!(places[1].offset, places[2].offset);
    assert_eq!(places[3].offset, places[4].offset);
}

/// Other protocols are told apart inside TLS as they are without.
#[tokio::test(flavor = "multi_thread")]
async fn commands_of_redis_are_seen_inside_tls() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    certify(directory.path());
    let port = free_port();
    let child = Command::new("redis-server")
        .current_dir(directory.path())
        .args(["--port", "0", "--bind", "127.0.0.1", "--save", ""])
        .args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no"])
        .args(["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"])
        .args(["--tls-ca-cert-file", "cert.pem"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let server = Server { child, address };
    wait_for(address);
    let work = move || {
        for (command, pipeline) in [("set", "1"), ("get", "8")] {
            let status = Command::new("redis-benchmark")
                .args(["--tls", "--insecure", "-h", "127.0.0.1"])
                .args(["-p", &port.to_string(), "-q", "-c", "5", "-t", command])
                .args(["-n", "2000", "-P", pipeline])
                .stdout(Stdio::null())
                .status();
            assert!(status.unwrap().success());
        }
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(config(), &name_of(&server.child), work).await;
    let routes = found.routes();
    assert_eq!(routes[&("SET", 2)], 2000, "{routes:?} {:?}", found.losses);
    assert_eq!(routes[&("GET", 2)], 2000, "{routes:?} {:?}", found.losses);
    found.check_whole();
}

fn load(address: SocketAddr, requests: u32, streams: u32, paths: &[&str]) {
    let server = format!("https://{address}");
    load_http2(Command::new("h2load"), &server, (requests, streams), paths);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_http2_are_seen_inside_tls() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let server = nginx_with(directory.path(), "ssl http2");
    let address = server.address;
    let paths = [
        "/api/v1/status",
        "/api/v1/users/123?q",
        "/error/of/4711",
        "/missing",
    ];
    for streams in [1, 20] {
        let work = move || load(address, 4000, streams, &paths);
        let found = published(config(), &name_of(&server.child), work).await;
        println!("{:?} {:?}", found.by_route, found.losses);
        let expected = BTreeMap::from([
            (("GET /api/v1/status", 2), 1000),
            (("GET /api/v1/users/{id}", 2), 1000),
            (("GET /error/of/{id}", 5), 1000),
            (("other", 4), 1000),
        ]);
        assert_eq!(found.routes(), expected);
        found.check_whole();
    }
}

/// They do not fit into what the socket takes at once, so that calls of OpenSSL
/// are made again.
#[tokio::test(flavor = "multi_thread")]
async fn large_responses_of_http2_are_followed_inside_tls() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let server = nginx_with(directory.path(), "ssl http2 sndbuf=16k");
    let address = server.address;
    let work = move || load(address, 500, 5, &["/files/large"]);
    let found = published(config(), &name_of(&server.child), work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    let expected = BTreeMap::from([(("GET /files/large", 2), 500)]);
    assert_eq!(found.routes(), expected);
    found.check_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_grpc_are_seen_inside_tls() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let called = grpc::serve().await;
    let location = format!("location / {{ grpc_pass grpc://{called}; }}");
    let server = nginx_at(directory.path(), "ssl http2", &location);
    let address = server.address;
    // A message of no bytes, not compressed.
    let message = directory.path().join("message");
    std::fs::write(&message, [0; 5]).unwrap();
    let work = move || {
        let mut command = Command::new("h2load");
        command
            .args(["-H", "content-type: application/grpc"])
            .args(["-H", "te: trailers", "-d"])
            .arg(message);
        let methods = ["ListSeries", "GetForecast", "ListAlerts"];
        let paths = methods.map(|method| format!("{}/{method}", grpc::PATH));
        let server = format!("https://{address}");
        let paths = paths.each_ref().map(String::as_str);
        load_http2(command, &server, (3000, 10), &paths);
    };
    let found = published(config(), &name_of(&server.child), work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    let expected: BTreeMap<(String, u8), u64> =
        [("ListSeries", 2), ("GetForecast", 4), ("ListAlerts", 5)]
            .into_iter()
            .map(|(method, class)| ((format!("{}/{method}", grpc::PATH), class), 1000))
            .collect();
    assert_eq!(found.by_route, expected);
    found.check_whole();
}

/// Where the plaintext is not seen, what is multiplexed is timed together.
#[tokio::test(flavor = "multi_thread")]
async fn http2_inside_tls_of_another_library_is_timed_as_a_connection() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let server = go(directory.path());
    let address = server.address;
    wait_for(address);
    let work = move || load(address, 2000, 10, &["/api", "/error"]);
    let found = published(config(), &name_of(&server.child), work).await;
    assert_eq!(found.routes(), BTreeMap::new());
    assert!((1..2000).contains(&found.requests), "{}", found.requests);
}

/// Of the side that asks nothing but the time is seen.
#[tokio::test(flavor = "multi_thread")]
async fn clients_inside_tls_are_timed() {
    let _turn = requests::turn().await;
    const REQUESTS: u64 = 20;
    let directory = tempfile::tempdir().unwrap();
    let server = nginx(directory.path());
    let address = server.address;
    let client = Copy::of("curl", "hg-tls-client");
    let mut curl = client.command();
    curl.args(["-sS", "--insecure"]);
    for number in 0..REQUESTS {
        curl.args([
            "-o",
            "/dev/null",
            &format!("https://{address}/api/{number}"),
        ]);
    }
    let work = move || {
        assert!(curl.status().unwrap().success());
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(client_config(), &client.service(), work).await;
    assert_eq!(found.client_routes(), BTreeMap::new());
    // Session tickets may seem to be the begin of the first response.
    let counted = found.client_requests;
    assert!(
        (REQUESTS - 1..=REQUESTS + 1).contains(&counted),
        "{counted}"
    );
}
