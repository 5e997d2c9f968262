//! Requests of HTTP/1.1 that are written at once, by route and status class,
//! against real servers. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod requests;

use std::{collections::BTreeMap, net::SocketAddr, thread, time::Duration};

use requests::{
    Client, Published, Server, check_sampled, client_config, config, name_of, own_name, published,
    sampled_config, serve,
};
use sensor_common::record::Loss;
use tempfile::TempDir;

/// Requests of one write.
const PIPELINED: usize = 64;
const TURNS: usize = 20;

fn nginx(directory: &TempDir) -> Server {
    let locations = "
        root DIRECTORY;
        location /users/ { return 200 'hello world'; }
        location /error/ { return 503; }";
    Server::nginx(directory.path(), "", locations)
}

/// The request of a place in a pipeline, and its status.
fn request(place: usize) -> (&'static str, String, u16) {
    match place % 4 {
        0 | 2 => ("GET", format!("/users/{place}?page={place}"), 200),
        1 => ("DELETE", format!("/error/{place}"), 503),
        _ => ("HEAD", "/file".to_owned(), 200),
    }
}

/// Writes `turns` times `count` requests at once, each with a field of `fill`
/// bytes.
fn ask(address: SocketAddr, (turns, count): (usize, usize), fill: usize) {
    let mut client = Client::connect(address);
    for _ in 0..turns {
        let text: String = (0..count)
            .map(|place| {
                let (method, path, _) = request(place);
                let fill = "x".repeat(fill);
                format!("{method} {path} HTTP/1.1\r\nHost: test\r\nFill: {fill}\r\n\r\n")
            })
            .collect();
        client.send(&[text.as_bytes()]);
        for place in 0..count {
            let (method, path, status) = request(place);
            let found = if method == "HEAD" {
                client.head()
            } else {
                client.response()
            };
            assert_eq!(found, status, "{method} {path}");
        }
    }
    thread::sleep(Duration::from_millis(100));
}

fn asked(turns: usize, count: usize) -> BTreeMap<(&'static str, u8), u64> {
    let mut asked = BTreeMap::new();
    for place in 0..count {
        let route = match place % 4 {
            0 | 2 => ("GET /users/{id}", 2),
            1 => ("DELETE /error/{id}", 5),
            _ => ("HEAD /file", 2),
        };
        *asked.entry(route).or_default() += turns as u64;
    }
    asked
}

fn check(found: &Published, asked: &BTreeMap<(&'static str, u8), u64>) {
    println!("{:?} {:?}", found.by_route, found.losses);
    assert_eq!(&found.routes(), asked);
    found.check_whole();
    assert!(!found.losses.contains_key(&(Loss::RequestIncomplete as u32)));
}

/// It reads 1024 bytes first, so that a request is cut.
#[tokio::test(flavor = "multi_thread")]
async fn requests_written_at_once_to_nginx_are_counted_one_by_one() {
    let _turn = requests::turn().await;
    let directory = TempDir::new().unwrap();
    let server = nginx(&directory);
    let address = server.address;
    let work = move || ask(address, (TURNS, PIPELINED), 0);
    let found = published(config(), &name_of(&server.child), work).await;
    check(&found, &asked(TURNS, PIPELINED));
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_follow_single_requests_and_the_other_way_round() {
    let _turn = requests::turn().await;
    let directory = TempDir::new().unwrap();
    let server = nginx(&directory);
    let address = server.address;
    let work = move || {
        let mut clients: Vec<_> = (0..4).map(|_| Client::connect(address)).collect();
        let request = b"GET /users/1 HTTP/1.1\r\nHost: test\r\n\r\n";
        for count in [1, 1, 2, 1, 3, 1, 1, 5, 30, 1] {
            for client in &mut clients {
                client.send(&[&request.repeat(count)]);
                for _ in 0..count {
                    assert_eq!(client.response(), 200);
                }
            }
        }
        thread::sleep(Duration::from_millis(100));
    };
    let found = published(config(), &name_of(&server.child), work).await;
    check(&found, &BTreeMap::from([(("GET /users/{id}", 2), 4 * 46)]));
}

fn by_path(line: &str) -> Vec<u8> {
    let status = if line.contains("/error/") {
        "503 Service Unavailable"
    } else {
        "200 OK"
    };
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_read_are_matched_with_a_write_for_each_response() {
    let _turn = requests::turn().await;
    let address = serve(1, by_path);
    let work = move || ask(address, (TURNS, 50), 0);
    let found = published(config(), &own_name(), work).await;
    check(&found, &asked(TURNS, 50));
}

/// All responses to what one read holds are one write.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_read_are_matched_with_responses_in_one_write() {
    let _turn = requests::turn().await;
    let address = requests::serve_at_once(by_path);
    let work = move || ask(address, (TURNS, 50), 0);
    let found = published(config(), &own_name(), work).await;
    check(&found, &asked(TURNS, 50));
}

/// What is behind the bounds of the scan is said.
#[tokio::test(flavor = "multi_thread")]
async fn requests_behind_the_bounds_of_the_scan_count_as_incomplete() {
    let _turn = requests::turn().await;
    let address = requests::serve_at_once(by_path);
    let work = move || ask(address, (5, 30), 300);
    let found = published(config(), &own_name(), work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    found.check_whole();
    assert!(found.requests < 5 * 30);
    assert!(found.requests >= 5 * 10);
    assert!(found.losses[&(Loss::RequestIncomplete as u32)] >= 5);
}

/// Who writes them at once reads their responses in order.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_write_count_on_the_side_that_makes_them() {
    let _turn = requests::turn().await;
    let address = requests::serve_at_once(by_path);
    let work = move || ask(address, (TURNS, 50), 0);
    let found = published(client_config(), &own_name(), work).await;
    check(&found, &asked(TURNS, 50));
    assert_eq!(found.client_routes(), asked(TURNS, 50));
    assert_eq!(found.client_requests, found.requests);
}

/// Those of one read are sampled as one.
#[tokio::test(flavor = "multi_thread")]
async fn sampled_requests_of_one_read_stand_for_all() {
    let _turn = requests::turn().await;
    const WRITES: usize = 4000;
    const AT_ONCE: usize = 8;
    let address = requests::serve_at_once(by_path);
    let work = move || ask(address, (WRITES, AT_ONCE), 0);
    let found = published(sampled_config(), &own_name(), work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    let routes = found.routes();
    let asked = asked(WRITES, AT_ONCE);
    assert!(routes.keys().eq(asked.keys()));
    for (route, requests) in asked {
        check_sampled(routes[&route], requests, WRITES as u64);
    }
    found.check_whole();
}
