//! Requests by route from the kernel to users: a real HTTP server, a known
//! number of requests, and what `honeyguide up` says of them. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod running;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
};

use running::{
    Running, get,
    loads::{SHOP, SHOP_WITH_TLS, Shop},
    wait_for,
};
use serde_json::Value;

/// Windows of one second, and every request seen, whatever that costs.
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

/// Sends requests over one connection; returns how many came back with each status.
fn send(port: u16, requests: impl Iterator<Item = String>) -> BTreeMap<u16, u64> {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut socket = BufReader::new(socket);
    let mut statuses = BTreeMap::new();
    for request in requests {
        let text = format!("{request} HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n");
        socket.get_mut().write_all(text.as_bytes()).unwrap();
        let mut line = String::new();
        socket.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        *statuses.entry(status).or_default() += 1;
        while line.trim_end() != "" {
            line.clear();
            socket.read_line(&mut line).unwrap();
        }
        socket.read_exact(&mut [0; 2]).unwrap();
    }
    statuses
}

/// Requests ever by route and status class, as `honeyguide routes` tells.
fn by_class(up: &Running, service: &str) -> BTreeMap<(String, u64), u64> {
    let mut all = BTreeMap::new();
    for route in up.ask(&["routes", service, "--json"]) {
        let name = route["route"].as_str().unwrap();
        for class in route["classes"].as_array().unwrap() {
            let number = |key: &str| class[key].as_u64().unwrap();
            all.insert(
                (name.to_owned(), number("status_class")),
                number("requests"),
            );
        }
    }
    all
}

fn route(up: &Running, args: &[&str], name: &str) -> Option<Value> {
    let all = up.ask(&[&["routes", SHOP, "--json"], args].concat());
    all.into_iter().find(|route| route["route"] == name)
}

#[test]
fn every_request_is_counted_by_route_and_status_class() {
    let directory = tempfile::tempdir().unwrap();
    let shop = Shop::start(directory.path());
    let up = Running::up(directory.path(), CONFIG, &[]);
    let users = (0..300).map(|number| format!("GET /users/{}?q=1", 1000 + number));
    let orders = (0..60).map(|number| match number % 5 {
        0 => "POST /orders/fail".to_owned(),
        _ => "POST /orders/new".to_owned(),
    });
    // Whoever tries out paths fills nothing.
    let unknown = (0..9).map(|number| format!("GET /nowhere/{number}x"));
    let statuses = send(shop.port, users.chain(orders).chain(unknown));
    assert_eq!(statuses, BTreeMap::from([(200, 348), (404, 9), (500, 12)]));

    let expected = [
        (("GET /users/{id}", 2), 300),
        (("POST /orders/new", 2), 48),
        (("POST /orders/fail", 5), 12),
        (("other", 4), 9),
    ];
    let expected: BTreeMap<_, _> = expected
        .map(|((route, class), requests)| ((route.to_owned(), class), requests))
        .into();
    wait_for("the rates of the last steps", 30, || {
        route(&up, &[], "POST /orders/fail").is_some_and(|of| of["rate_per_sec"] != 0.0)
    });
    let failing = route(&up, &["--sort", "errors", "-n", "1"], "POST /orders/fail");
    let failing = failing.expect("most errors, so it comes first");
    assert_eq!(failing["error_ratio"], 1.0, "{failing}");
    assert_eq!(failing["side"], "server");
    assert_eq!(failing["protocol"], "http");
    let p99 = failing["latency"]["p99"].as_f64().unwrap();
    assert!(p99 > 1e-5 && p99 < 1.0, "{failing}");
    wait_for("all requests", 30, || {
        by_class(&up, SHOP).values().sum::<u64>() >= 369
    });
    assert_eq!(by_class(&up, SHOP), expected);

    let metrics = get(up.analyzer_http, "/metrics").unwrap();
    let count = |labels: &str| {
        let series =
            format!("http_server_request_duration_seconds_count{{service=\"{SHOP}\",{labels}}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        line.map(|value| value.parse::<f64>().unwrap())
    };
    let class = |of| format!("http_response_status_class=\"{of}\"");
    let of = |method, route, rest: &str| {
        format!("http_request_method=\"{method}\",http_route=\"{route}\",{rest}")
    };
    assert_eq!(count(&of("GET", "/users/{id}", &class("2xx"))), Some(300.0));
    assert_eq!(count(&of("POST", "/orders/new", &class("2xx"))), Some(48.0));
    let failed = format!("{},error_type=\"5xx\"", class("5xx"));
    assert_eq!(count(&of("POST", "/orders/fail", &failed)), Some(12.0));
    assert_eq!(count(&class("4xx")), Some(9.0));
    // Nothing is counted twice in the service's own series.
    let own =
        format!("honeyguide_latency_seconds_count{{service=\"{SHOP}\",signal=\"server_request\"}}");
    assert_eq!(up.analyzer_metric(&own), Some(369.0));
    assert_eq!(
        up.analyzer_metric("analyzer_dropped_total{reason=\"unknown_route\"}"),
        None
    );
    up.terminate();
}

/// A certificate and its key, `cert.pem` and `key.pem`.
fn certify(directory: &Path) {
    let mut openssl = Command::new("openssl");
    openssl
        .args([
            "req", "-x509", "-newkey", "ec", "-nodes", "-subj", "/CN=test",
        ])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"]);
    let made = openssl.current_dir(directory).output().unwrap();
    assert!(made.status.success());
}

/// The server starts while the sensor runs already.
#[test]
fn requests_inside_tls_are_counted_likewise() {
    let directory = tempfile::tempdir().unwrap();
    certify(directory.path());
    let up = Running::up(directory.path(), CONFIG, &[]);
    let shop = Shop::start_with_tls(directory.path());
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--insecure"]);
    for number in 0..60 {
        let path = if number % 5 == 0 {
            "orders/fail"
        } else {
            "orders/new"
        };
        let url = format!("https://127.0.0.1:{}/{path}?number={number}", shop.port);
        curl.args(["-o", "/dev/null", &url]);
    }
    assert!(curl.status().unwrap().success());
    let expected = [(("GET /orders/new", 2), 48), (("GET /orders/fail", 5), 12)];
    let expected: BTreeMap<_, _> = expected
        .map(|((route, class), requests)| ((route.to_owned(), class), requests))
        .into();
    wait_for("all requests", 30, || {
        by_class(&up, SHOP_WITH_TLS).values().sum::<u64>() >= 60
    });
    assert_eq!(by_class(&up, SHOP_WITH_TLS), expected);
    up.terminate();
}
