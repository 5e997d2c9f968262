//! Connections that are used in unusual ways: closed by half, handed over to other
//! processes, read and written without a system call that names a buffer. Needs
//! root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod requests;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    process::Command,
    thread,
    time::Duration,
};

use io_uring::{IoUring, opcode, squeue, types::Fd};
use requests::{Client, Published, Server, config, name_of, own_name, published};
use sensor_common::record::Loss;

/// A server of Python that prints its port and is given each request; `respond`
/// is a function of a connection.
fn python_with(respond: &str) -> Server {
    let program = format!(
        r#"
import os, resource, socket, struct, threading, time
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
{respond}
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print(listener.getsockname()[1], flush=True)
while True:
    try: connection = listener.accept()[0]
    except OSError: time.sleep(0.01)
    else: respond(connection)
"#
    );
    let mut command = Command::new("python3");
    command.args(["-c", &program]);
    Server::start(command)
}

const TURNS: u64 = 20;

/// Each with a connection of its own, of which the sending half is closed if
/// `closes`.
fn ask_in_turns(address: SocketAddr, closes: bool) {
    for number in 0..TURNS {
        let mut client = Client::connect(address);
        let request = format!("GET /users/{number} HTTP/1.1\r\nHost: test\r\n\r\n");
        client.send(&[request.as_bytes()]);
        if closes {
            let socket = client.0.get_ref();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
        }
        assert_eq!(client.response(), 200);
    }
    thread::sleep(Duration::from_millis(100));
}

/// Runs `work` under the sensor: so many requests of users are answered with that
/// status class, and no others.
async fn check<W: FnOnce() + Send + 'static>(
    server: &Server,
    work: W,
    (class, requests): (u8, u64),
) -> Published {
    let found = published(config(), &name_of(&server.child), work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    let expected = BTreeMap::from([(("GET /users/{id}", class), requests)]);
    assert_eq!(found.routes(), expected);
    found.check_whole();
    found
}

/// The client says that it sends no more, and still gets its response.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_half_closed_connections_are_seen() {
    let _turn = requests::turn().await;
    let server = python_with(
        r#"
def respond(connection):
    while connection.recv(65536): pass
    time.sleep(0.005)
    connection.sendall(OK)
    connection.close()
"#,
    );
    let address = server.address;
    let work = move || ask_in_turns(address, true);
    check(&server, work, (2, TURNS)).await;
}

/// One process accepts; a child of it, that has the connection by inheritance or
/// gets it over a Unix socket (SCM_RIGHTS), answers.
#[tokio::test(flavor = "multi_thread")]
async fn requests_on_connections_that_were_handed_over_are_seen() {
    let _turn = requests::turn().await;
    for respond in [
        r#"
def respond(connection):
    if os.fork() == 0:
        connection.recv(65536)
        connection.sendall(OK)
        os._exit(0)
    connection.close()
    os.wait()
"#,
        r#"
here, there = socket.socketpair()
if os.fork() == 0:
    here.close()
    while True:
        descriptors = socket.recv_fds(there, 1, 1)[1]
        if not descriptors: os._exit(0)
        connection = socket.socket(fileno=descriptors[0])
        connection.recv(65536)
        connection.sendall(OK)
        connection.close()
def respond(connection):
    socket.send_fds(here, [b"x"], [connection.fileno()])
    connection.close()
"#,
    ] {
        let server = python_with(respond);
        let address = server.address;
        let work = move || ask_in_turns(address, false);
        check(&server, work, (2, TURNS)).await;
    }
}

/// What is spliced into a socket is in no buffer of the process.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_spliced_has_no_status_and_is_timed() {
    let _turn = requests::turn().await;
    let server = python_with(
        r#"
out, into = os.pipe()
def respond(connection):
    connection.recv(65536)
    os.write(into, OK)
    assert os.splice(out, connection.fileno(), len(OK)) == len(OK)
    connection.close()
"#,
    );
    let address = server.address;
    let work = move || ask_in_turns(address, false);
    let found = published(config(), &name_of(&server.child), work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    assert_eq!(found.routes(), BTreeMap::from([(("other", 0), TURNS)]));
    assert_eq!(found.losses[&(Loss::BufferUnknown as u32)], TURNS);
    found.check_whole();
}

/// The status was sent before, so that it counts.
#[tokio::test(flavor = "multi_thread")]
async fn responses_that_end_with_a_reset_count() {
    let _turn = requests::turn().await;
    let server = python_with(
        r#"
def respond(connection):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 1000\r\n\r\nhalf of it")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
"#,
    );
    let address = server.address;
    let work = move || {
        for number in 0..TURNS {
            let mut client = TcpStream::connect(address).unwrap();
            let request = format!("GET /users/{number} HTTP/1.1\r\nHost: test\r\n\r\n");
            client.write_all(request.as_bytes()).unwrap();
            // The end of the response, or the error, as it happens.
            while let Ok(1..) = client.read(&mut [0; 1000]) {}
        }
        thread::sleep(Duration::from_millis(100));
    };
    check(&server, work, (5, TURNS)).await;
}

/// What clients begin and never finish is no request, and is in nobody's way.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_never_finished_do_not_count() {
    let _turn = requests::turn().await;
    let server = python_with(
        r#"
def answer(connection):
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(65536)
        if not more: return
        received += more
    connection.sendall(OK)
def respond(connection): threading.Thread(target=answer, args=(connection,)).start()
"#,
    );
    let address = server.address;
    let work = move || {
        let begins = ["G", "GET /users/1", "POST /orders HTTP/1.1\r\nHost: te"];
        let unfinished: Vec<_> = begins
            .iter()
            .cycle()
            .take(30)
            .map(|begin| {
                let mut client = TcpStream::connect(address).unwrap();
                client.write_all(begin.as_bytes()).unwrap();
                client
            })
            .collect();
        ask_in_turns(address, false);
        drop(unfinished);
        thread::sleep(Duration::from_millis(100));
    };
    check(&server, work, (2, TURNS)).await;
}

/// Connections wait for a descriptor of the server, and so do their requests.
#[tokio::test(flavor = "multi_thread")]
async fn requests_to_a_server_without_descriptors_wait_and_count() {
    let _turn = requests::turn().await;
    const CLIENTS: u64 = 50;
    let server = python_with(
        r#"
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
def answer(connection):
    connection.recv(65536)
    time.sleep(0.1)
    connection.sendall(OK)
    connection.recv(1)
    connection.close()
def respond(connection): threading.Thread(target=answer, args=(connection,)).start()
"#,
    );
    let address = server.address;
    let work = move || {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                thread::spawn(move || {
                    let path = format!("GET /users/{number}");
                    Client::connect(address).request(&path, 200);
                })
            })
            .collect();
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        thread::sleep(Duration::from_millis(100));
    };
    let found = check(&server, work, (2, CLIENTS)).await;
    // Three times at least those who have one are answered before the last.
    let longest = found.latency.max_ns();
    assert!(longest > 250_000_000, "{longest} ns");
}

/// Submits one operation and waits for its result.
fn complete(ring: &mut IoUring, entry: &squeue::Entry) -> i32 {
    // SAFETY: what the operation refers to lives until it is complete, which is
    // waited for here.
    unsafe { ring.submission().push(entry) }.unwrap();
    ring.submit_and_wait(1).unwrap();
    ring.completion().next().unwrap().result()
}

/// Accepts, reads and writes by io_uring; with `by_kernel` a thread of the kernel
/// takes the operations.
fn serve_by_io_uring(by_kernel: bool) -> SocketAddr {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut builder = IoUring::builder();
    if by_kernel {
        builder.setup_sqpoll(100);
    }
    let mut ring: IoUring = builder.build(8).unwrap();
    thread::spawn(move || {
        let listener = Fd(listener.as_raw_fd());
        let mut buffer = vec![0; 65_536];
        for _ in 0..TURNS {
            let (null, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
            let accept = opcode::Accept::new(listener, null, no_length);
            let connection = Fd(complete(&mut ring, &accept.build()));
            let receive = opcode::Recv::new(connection, buffer.as_mut_ptr(), buffer.len() as u32);
            assert!(complete(&mut ring, &receive.build()) > 0);
            thread::sleep(WORK);
            let send = opcode::Send::new(connection, OK.as_ptr(), OK.len() as u32);
            assert_eq!(complete(&mut ring, &send.build()), OK.len() as i32);
            complete(&mut ring, &opcode::Close::new(connection).build());
        }
    });
    address
}

/// What a server by io_uring does for each request.
const WORK: Duration = Duration::from_millis(5);

/// No system call of the server names a buffer, so there is no route; it is timed
/// all the same, whichever thread reads and writes.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_server_by_io_uring_are_timed() {
    let _turn = requests::turn().await;
    for by_kernel in [false, true] {
        let address = serve_by_io_uring(by_kernel);
        let work = move || ask_in_turns(address, false);
        let found = published(config(), &own_name(), work).await;
        println!("{:?} {:?}", found.by_route, found.losses);
        assert_eq!(found.requests, TURNS);
        assert_eq!(found.by_route, BTreeMap::new());
        assert!(found.losses[&(Loss::BufferUnknown as u32)] >= TURNS);
        let least = found.latency.quantile_ns(0.0).unwrap();
        // A bucket is 9 % wide.
        assert!(least >= 0.9 * WORK.as_nanos() as f64, "{least} ns");
        assert_eq!(found.client_requests, TURNS);
    }
}
