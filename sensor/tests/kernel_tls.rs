//! Requests inside TLS against real servers. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use requested::{Published, Server, asked, config, published};

mod requested;

/// What [`requested::ask`] asks, from OpenSSL, with a connection for each of so
/// many clients. Of two, one says that it closes the connection, and waits for
/// the server to say so.
const CLIENT: &str = r#"
import http.client, ssl, sys, threading, time
port, version = int(sys.argv[1]), sys.argv[2]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
failed = []
def ask(client):
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

/// Asks a server under the sensor; it listens already.
async fn check_server(server: Server, version: &'static str) -> Published {
    let address = server.address;
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", server.child.id())).unwrap();
    let name = format!("/{}", comm.trim_end());
    let found = published(config(), &name, move || ask(address, version)).await;
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

/// It has a TLS library of its own, of which the plaintext is not seen.
async fn check_go(version: &'static str) {
    let directory = tempfile::tempdir().unwrap();
    certify(directory.path());
    let program = directory.path().join("hg-go-tls");
    std::fs::write(directory.path().join("main.go"), GO).unwrap();
    let mut go = Command::new("go");
    let built = go.current_dir(directory.path()).args(["build", "-o"]);
    assert!(
        built
            .arg(&program)
            .arg("main.go")
            .status()
            .unwrap()
            .success()
    );
    let mut command = Command::new(&program);
    command.current_dir(directory.path());
    let found = check_server(Server::start(command), version).await;
    assert_eq!(found.routes(), BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_no_requests_in_tls_1_3() {
    check_go("TLSv1_3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_no_requests_in_tls_1_2() {
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

fn python(directory: &Path) -> Server {
    certify(directory);
    let mut command = Command::new("/usr/bin/python3");
    command.current_dir(directory).args(["-c", PYTHON]);
    Server::start(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_server_is_seen_in_tls_1_3() {
    let directory = tempfile::tempdir().unwrap();
    check_openssl(python(directory.path()), "TLSv1_3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_server_is_seen_in_tls_1_2() {
    let directory = tempfile::tempdir().unwrap();
    check_openssl(python(directory.path()), "TLSv1_2").await;
}

const NGINX: &str = r#"
daemon off; master_process off; error_log stderr emerg; pid DIRECTORY/pid;
events {}
http {
    access_log off; sendfile on; keepalive_requests 100000;
    client_body_temp_path DIRECTORY/1; proxy_temp_path DIRECTORY/2; fastcgi_temp_path DIRECTORY/3;
    uwsgi_temp_path DIRECTORY/4; scgi_temp_path DIRECTORY/5;
    server {
        listen 127.0.0.1:PORT ssl;
        ssl_certificate DIRECTORY/cert.pem; ssl_certificate_key DIRECTORY/key.pem;
        location /missing { return 404; }
        location /error { return 503; }
        location /api { return 200 "ok"; }
        location / { root DIRECTORY; rewrite ^ /file break; }
    }
}
"#;

fn nginx(directory: &Path) -> Server {
    certify(directory);
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    std::fs::write(directory.join("file"), vec![b'x'; 100_000]).unwrap();
    let configuration = directory.join("nginx.conf");
    let text = NGINX
        .replace("DIRECTORY", &directory.display().to_string())
        .replace("PORT", &port.to_string());
    std::fs::write(&configuration, text).unwrap();
    let mut command = Command::new("sh");
    let script = format!("echo {port}; exec nginx -c {}", configuration.display());
    command.args(["-c", &script]);
    let server = Server::start(command);
    let listens = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(50));
        TcpStream::connect(server.address).is_ok()
    });
    assert!(listens);
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_is_seen_in_tls_1_3() {
    let directory = tempfile::tempdir().unwrap();
    check_openssl(nginx(directory.path()), "TLSv1_3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_is_seen_in_tls_1_2() {
    let directory = tempfile::tempdir().unwrap();
    check_openssl(nginx(directory.path()), "TLSv1_2").await;
}
