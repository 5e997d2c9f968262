//! A service that is slow because another one is: from the kernel to the reason
//! that users read. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod running;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use running::{Running, get, loads::Shop, wait_for};
use serde_json::Value;

const FRONT: &str = "process/hg-front";
const BACK: &str = "process/hg-back";

const CONFIG: &str = r#"
[sensor]
flush_interval = "1s"
cost_measurement = "100ms"
cost_ceiling = 1.0
[analyzer]
step = "1s"
lateness = "500ms"
[analyzer.hints]
mode = "off"
"#;

/// What both servers do after a request came in.
const ANSWER: &str = r#"
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *arguments): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// Answers after as many seconds as the file `delay` says.
fn back(directory: &Path) -> Shop {
    let delay = directory.join("delay").display().to_string();
    let script = format!(
        r#"
import http.server, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep(float(open("{delay}").read())){ANSWER}"#
    );
    Shop::start_script(directory, "hg-back", &script)
}

/// Asks the one behind for each request, on one connection.
fn front(directory: &Path, behind: u16) -> Shop {
    let script = format!(
        r#"
import http.client, http.server
back = http.client.HTTPConnection("127.0.0.1", {behind})
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        back.request("GET", "/stock")
        back.getresponse().read(){ANSWER}"#
    );
    Shop::start_script(directory, "hg-front", &script)
}

fn set_delay(directory: &Path, secs: &str) {
    // In one step, so that nobody reads half of it.
    fs::write(directory.join("delay.next"), secs).unwrap();
    fs::rename(directory.join("delay.next"), directory.join("delay")).unwrap();
}

fn edge(up: &Running) -> Option<Value> {
    up.ask(&["graph", FRONT, "--json"])
        .into_iter()
        .find(|edge| edge["peer_service"] == BACK)
}

#[test]
fn a_service_behind_is_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    set_delay(directory.path(), "0.002");
    let back = back(directory.path());
    let front = front(directory.path(), back.port);
    let up = Running::up(directory.path(), CONFIG, &[]);
    let (port, goes_on) = (front.port, Arc::new(AtomicBool::new(true)));
    let load = {
        let goes_on = Arc::clone(&goes_on);
        thread::spawn(move || {
            // One after the other: they share the connection behind.
            while goes_on.load(Relaxed) {
                assert_eq!(get(port, "/cart").as_deref(), Some("ok"));
                thread::sleep(Duration::from_millis(15));
            }
        })
    };
    let mut found = None;
    // The first window of it may have a single request.
    wait_for("the edge", 60, || {
        found = edge(&up).filter(|edge| edge["rate_per_sec"].as_f64().unwrap() > 1.0);
        found.is_some()
    });
    let found = found.unwrap();
    assert_eq!(found["peer"], format!("127.0.0.1:{}", back.port));
    assert_eq!(found["side"], "client");
    // Usual is what was before the last windows.
    thread::sleep(Duration::from_secs(50));
    set_delay(directory.path(), "0.08");
    let reason = || {
        let forecast = up.forecast(FRONT, "server_request")?;
        let reasons = forecast["reasons"].as_array()?.clone();
        reasons.into_iter().find(|of| of["key"]["service"] == BACK)
    };
    // Each step has reasons of its own, and before the delay is felt they are of noise.
    let mut told = None;
    wait_for("the reason", 40, || {
        told = reason().filter(|of| {
            let number = |field: &str| of[field].as_f64().unwrap();
            number("contribution") > 0.2 && number("ratio_to_usual") > 3.0
        });
        told.is_some()
    });
    let reason = told.unwrap();
    assert_eq!(reason["key"]["signal"], "server_request");
    assert_eq!(reason["peer"], found["peer"]);
    goes_on.store(false, Relaxed);
    load.join().unwrap();
    up.terminate();
}
