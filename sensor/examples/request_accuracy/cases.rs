//! What is asked of which server.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sensor_common::Signal;

use crate::{
    exact::{Compared, Exact},
    load::{Load, delay_us, http_response, redis_reply},
    observer::{Observer, Seen},
    own_server::{Answer, OwnServer},
    servers,
};

/// A comparison with its name.
pub struct Case {
    pub name: &'static str,
    pub run: fn() -> Result<Compared>,
}

/// All of them.
pub const CASES: &[Case] = &[
    Case {
        name: "own server, delays",
        run: own_server,
    },
    Case {
        name: "own server, 1,000 connections",
        run: many_connections,
    },
    Case {
        name: "own server, reads late",
        run: reads_late,
    },
    Case {
        name: "own server, streamed",
        run: streamed,
    },
    Case {
        name: "own server, 1-byte writes",
        run: one_byte_writes,
    },
    Case {
        name: "own server, reset in the response",
        run: reset,
    },
    Case {
        name: "own server, 1 s and 30 s",
        run: slow,
    },
    Case {
        name: "nginx, from memory",
        run: nginx_small,
    },
    Case {
        name: "nginx, before a slow server",
        run: nginx_proxy,
    },
    Case {
        name: "nginx, 64 pipelined",
        run: nginx_pipelined,
    },
    Case {
        name: "Redis",
        run: redis,
    },
    Case {
        name: "PostgreSQL, pgbench",
        run: pgbench,
    },
];

/// Name of the service that the clients and servers of this program are.
const OWN: &str = "request_accuracy";

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n\r\n").into_bytes()
}

fn delayed(number: usize) -> Vec<u8> {
    get(&format!("/delay/{}", delay_us(number, 1000.0)))
}

/// Counts and quantiles of our clients, and counts of `server`.
fn compare(seen: &Seen, load: Load, exact: &Exact, server: &str) -> Compared {
    let client = seen.of(OWN, Signal::ClientRequest);
    Compared::default()
        .count(load.total(), seen.of(server, Signal::ServerRequest).count())
        .count(load.total(), client.count())
        .quantiles("client", exact, &client)
}

fn on_own_server(load: Load, answer: Answer) -> Result<Compared> {
    let server = OwnServer::start(answer)?;
    let observer = Observer::start()?;
    let exact = load.run(server.address, delayed, http_response)?;
    let seen = observer.finish()?;
    let known = server.known();
    let server = |signal| seen.of(OWN, signal);
    let compared = compare(&seen, load, &exact, OWN)
        .count(load.total(), seen.requests(OWN, "GET /delay/{id}", 2))
        .quantiles("server", &known.request, &server(Signal::ServerRequest))
        .quantiles("service", &known.service, &server(Signal::ServerService));
    if !matches!(answer, Answer::ReadLate) {
        // A wait of microseconds is not more exact than the stamps of arrival.
        return Ok(compared);
    }
    Ok(compared.quantiles("queue", &known.queue, &server(Signal::ServerQueue)))
}

fn own_server() -> Result<Compared> {
    let load = Load {
        connections: 32,
        requests: 400,
    };
    on_own_server(load, Answer::Whole)
}

fn many_connections() -> Result<Compared> {
    let load = Load {
        connections: 1000,
        requests: 10,
    };
    on_own_server(load, Answer::Whole)
}

fn reads_late() -> Result<Compared> {
    let load = Load {
        connections: 16,
        requests: 600,
    };
    on_own_server(load, Answer::ReadLate)
}

fn streamed() -> Result<Compared> {
    let load = Load {
        connections: 16,
        requests: 50,
    };
    on_own_server(load, Answer::Streamed)
}

fn one_byte_writes() -> Result<Compared> {
    let load = Load {
        connections: 4,
        requests: 100,
    };
    on_own_server(load, Answer::Bytes)
}

/// Each response breaks off: its request counts, once.
fn reset() -> Result<Compared> {
    const REQUESTS: u64 = 200;
    let server = OwnServer::start(Answer::Reset)?;
    let observer = Observer::start()?;
    for number in 0..REQUESTS {
        let mut socket = TcpStream::connect(server.address)?;
        socket.write_all(&delayed(number as usize))?;
        // Ends with half a response or with the reset.
        let _ = socket.read_to_end(&mut Vec::new());
    }
    let seen = observer.finish()?;
    let requests = seen.of(OWN, Signal::ServerRequest).count();
    Ok(Compared::default().count(REQUESTS, requests))
}

fn slow() -> Result<Compared> {
    let server = OwnServer::start(Answer::Whole)?;
    let observer = Observer::start()?;
    let ask = |seconds: u64, requests: usize| {
        let load = Load {
            connections: 1,
            requests,
        };
        let path = format!("/sleep/{}", seconds * 1_000_000);
        load.run(server.address, move |_| get(&path), http_response)
    };
    thread::scope(|scope| -> Result<()> {
        let long = scope.spawn(|| ask(30, 1));
        ask(1, 20)?;
        long.join()
            .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        Ok(())
    })?;
    let seen = observer.finish()?;
    let measured = seen.of(OWN, Signal::ServerRequest);
    let longest = measured.max_ns() as f64 / 30e9 - 1.0;
    ensure!(longest.abs() < 0.01, "30 s measured {longest:+.3} off");
    let known = server.known();
    Ok(Compared::default().count(21, measured.count()).quantiles(
        "server",
        &known.request,
        &measured,
    ))
}

fn nginx_small() -> Result<Compared> {
    let load = Load {
        connections: 8,
        requests: 2500,
    };
    let behind = OwnServer::start(Answer::Whole)?;
    let server = servers::nginx(behind.address)?;
    let observer = Observer::start()?;
    let exact = load.run(server.address, |_| get("/small"), http_response)?;
    let seen = observer.finish()?;
    Ok(compare(&seen, load, &exact, "nginx")
        .count(load.total(), seen.requests("nginx", "GET /small", 2)))
}

fn nginx_proxy() -> Result<Compared> {
    let load = Load {
        connections: 32,
        requests: 300,
    };
    let behind = OwnServer::start(Answer::Whole)?;
    let server = servers::nginx(behind.address)?;
    let observer = Observer::start()?;
    let exact = load.run(server.address, delayed, http_response)?;
    let seen = observer.finish()?;
    let known = behind.known();
    let client = seen.of(OWN, Signal::ClientRequest);
    Ok(Compared::default()
        .count(load.total(), client.count())
        .count(load.total(), seen.requests("nginx", "GET /delay/{id}", 2))
        .count(
            load.total(),
            seen.of("nginx", Signal::ClientRequest).count(),
        )
        .quantiles("client", &exact, &client)
        // Its delays are most of what is behind it.
        .quantiles(
            "behind",
            &known.request,
            &seen.of(OWN, Signal::ServerRequest),
        ))
}

/// Requests of a connection written at once, answered in order.
fn nginx_pipelined() -> Result<Compared> {
    const PIPELINED: usize = 64;
    const TURNS: usize = 50;
    let behind = OwnServer::start(Answer::Whole)?;
    let server = servers::nginx(behind.address)?;
    let observer = Observer::start()?;
    let mut socket = TcpStream::connect(server.address)?;
    let requests = get("/small").repeat(PIPELINED);
    for _ in 0..TURNS {
        socket.write_all(&requests)?;
        let mut received = Vec::new();
        let mut left = PIPELINED;
        while left > 0 {
            let mut buffer = [0; 16_384];
            let read = socket.read(&mut buffer)?;
            ensure!(read > 0, "nginx closed the connection");
            received.extend_from_slice(&buffer[..read]);
            while let Some(len) = http_response(&received) {
                received.drain(..len);
                left -= 1;
            }
        }
    }
    let seen = observer.finish()?;
    let counted = seen.requests("nginx", "GET /small", 2);
    Ok(Compared::default().count((PIPELINED * TURNS) as u64, counted))
}

fn redis() -> Result<Compared> {
    let load = Load {
        connections: 8,
        requests: 2500,
    };
    let server = servers::redis()?;
    let observer = Observer::start()?;
    let request = |number: usize| -> Vec<u8> {
        // Some commands take a while, and all others wait for them.
        if number.is_multiple_of(100) {
            let script = "local x=0 for i=1,tonumber(ARGV[1]) do x=x+i end return x";
            let loops = (20 * delay_us(number, 1000.0)).to_string();
            command(&["EVAL", script, "0", &loops])
        } else {
            command(&["SET", "key", "value"])
        }
    };
    let exact = load.run(server.address, request, redis_reply)?;
    let seen = observer.finish()?;
    Ok(compare(&seen, load, &exact, "redis-server"))
}

fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        bytes += &format!("${}\r\n{word}\r\n", word.len());
    }
    bytes.into_bytes()
}

/// pgbench logs the latency of every transaction, here of one statement each.
fn pgbench() -> Result<Compared> {
    const CLIENTS: usize = 8;
    const TRANSACTIONS: usize = 1000;
    let load = Load {
        connections: CLIENTS,
        requests: TRANSACTIONS,
    };
    let server = servers::postgres()?;
    let programs = servers::postgres_programs().context("PostgreSQL was there just now")?;
    let script = server.folder().join("delay.sql");
    // Exponential from 1 to 50 ms.
    std::fs::write(
        &script,
        "\\set us random_exponential(1000, 50000, 6)\nSELECT pg_sleep(:us / 1e6);\n",
    )?;
    let log = server.folder().join("latency");
    let observer = Observer::start()?;
    let begin = Instant::now();
    let output = Command::new(programs.join("pgbench"))
        .args(["--no-vacuum", "--log", "--log-prefix"])
        .arg(&log)
        .args(["-c", &CLIENTS.to_string(), "-t", &TRANSACTIONS.to_string()])
        .args(["-h", "127.0.0.1", "-U", "postgres", "-p"])
        .arg(server.address.port().to_string())
        .arg("-f")
        .arg(&script)
        .arg("postgres")
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "pgbench failed: {text}");
    ensure!(
        begin.elapsed() > Duration::from_secs(1),
        "pgbench ended at once"
    );
    let seen = observer.finish()?;
    let exact = logged(server.folder(), "latency")?;
    let client = seen.of("pgbench", Signal::ClientRequest);
    let requests = seen.requests("postgres", "SELECT", 2);
    Ok(Compared::default()
        .count(load.total(), requests)
        .quantiles("client", &exact, &client))
}

/// Latencies in pgbench's logs: the third field is microseconds.
fn logged(folder: &std::path::Path, prefix: &str) -> Result<Exact> {
    let mut latencies = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        for line in std::fs::read_to_string(entry.path())?.lines() {
            let field = line.split(' ').nth(2).context("a log line is short")?;
            latencies.push(field.parse::<u64>()? * 1000);
        }
    }
    ensure!(!latencies.is_empty(), "pgbench logged nothing");
    Ok(Exact::new(latencies))
}
