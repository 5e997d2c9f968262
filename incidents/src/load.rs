//! Clients that ask at times set beforehand, whatever the answers do: so a
//! server that stands still does not hide the requests it keeps waiting.
//!
//! Latency is measured from the time at which a request was to be sent to the
//! last byte of its answer, on the client's clock; timers add up to 1 ms.

mod connection;

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use anyhow::Result;
use tokio::{
    sync::Semaphore,
    task::LocalSet,
    time::{Instant, sleep_until, timeout_at},
};

use self::connection::Connection;

/// Of the thread that asks.
const PRIORITY: libc::c_int = -15;

/// A request and its answer on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// Redis, answers of one element.
    Redis,
}

/// What one client asks of one server.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom.
    pub address: SocketAddr,
    /// How.
    pub protocol: Protocol,
    /// When, in seconds from the first window, negative ones to warm up; and what:
    /// a path, or a command.
    pub requests: Vec<(f64, String)>,
    /// Connections at most; further requests wait for one.
    pub connections_max: usize,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// Attempts after the first, each as soon as one before has failed.
    pub retries: u32,
}

/// What became of the requests of one client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// When each was to be sent in seconds, and its latency in microseconds.
    pub latencies: Vec<(f64, u32)>,
    /// Requests without an answer.
    pub failed: u64,
}

/// Connections of one client.
struct Pool {
    plan: Plan,
    idle: RefCell<Vec<Connection>>,
    places: Semaphore,
}

/// Runs clients side by side, from now to the last answer; `first_window` is the
/// time 0 of their plans.
pub fn run(plans: Vec<Plan>, first_window: std::time::Instant) -> Result<Vec<Answers>> {
    go_first();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let first_window = Instant::from_std(first_window);
    runtime.block_on(LocalSet::new().run_until(async {
        let clients: Vec<_> = plans
            .into_iter()
            .map(|plan| tokio::task::spawn_local(client(plan, first_window)))
            .collect();
        let mut answers = Vec::new();
        for client in clients {
            answers.push(client.await?);
        }
        Ok(answers)
    }))
}

/// Lets this thread run before others, so that what it measures is the servers'
/// time and not its own; where that is not allowed, it goes without.
fn go_first() {
    // SAFETY: a plain system call; 0 is the calling thread.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, PRIORITY) };
}

async fn client(mut plan: Plan, first_window: Instant) -> Answers {
    let requests = std::mem::take(&mut plan.requests);
    let pool = Rc::new(Pool {
        places: Semaphore::new(plan.connections_max),
        idle: RefCell::new(Vec::new()),
        plan,
    });
    let answers = Rc::new(RefCell::new(Answers::default()));
    let mut under_way = Vec::new();
    for (at_secs, what) in requests {
        let intended = if at_secs < 0.0 {
            first_window - Duration::from_secs_f64(-at_secs)
        } else {
            first_window + Duration::from_secs_f64(at_secs)
        };
        sleep_until(intended).await;
        let (pool, answers) = (Rc::clone(&pool), Rc::clone(&answers));
        under_way.push(tokio::task::spawn_local(async move {
            let answered = pool.ask(&what).await;
            let latency = match answered {
                true => intended.elapsed(),
                // It is as bad as the longest that a client waits.
                false => intended.elapsed().max(pool.plan.timeout),
            };
            let mut answers = answers.borrow_mut();
            answers.failed += u64::from(!answered);
            let latency_us = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
            answers.latencies.push((at_secs, latency_us));
        }));
        under_way.retain(|task| !task.is_finished());
    }
    for task in under_way {
        // A task that panicked has counted nothing.
        let _ = task.await;
    }
    answers.take()
}

impl Pool {
    /// Whether any attempt was answered.
    async fn ask(&self, what: &str) -> bool {
        for _ in 0..=self.plan.retries {
            let until = Instant::now() + self.plan.timeout;
            if matches!(timeout_at(until, self.attempt(what)).await, Ok(Ok(()))) {
                return true;
            }
        }
        false
    }

    /// A connection that failed, or that a client stopped waiting on, is closed.
    async fn attempt(&self, what: &str) -> Result<()> {
        let _place = self.places.acquire().await?;
        let idle = self.idle.borrow_mut().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(self.plan.address, self.plan.protocol).await?,
        };
        connection.exchange(what).await?;
        self.idle.borrow_mut().push(connection);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// Answers single connections: the first `slow` requests after 300 ms.
    fn server(mut slow: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut bytes = [0; 1024];
                while stream.read(&mut bytes).is_ok_and(|len| len > 0) {
                    if slow > 0 {
                        slow -= 1;
                        thread::sleep(Duration::from_millis(300));
                    }
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if stream.write_all(answer).is_err() {
                        break;
                    }
                }
            }
        });
        address
    }

    fn plan(address: SocketAddr) -> Plan {
        Plan {
            address,
            protocol: Protocol::Http,
            requests: (0..20)
                .map(|i| (f64::from(i) * 0.01, "/".to_owned()))
                .collect(),
            connections_max: 1,
            timeout: Duration::from_secs(5),
            retries: 0,
        }
    }

    #[test]
    fn requests_behind_a_slow_one_count_their_wait() {
        let plan = plan(server(1));
        let answers = run(vec![plan], std::time::Instant::now())
            .unwrap()
            .remove(0);
        assert_eq!((answers.latencies.len(), answers.failed), (20, 0));
        // All were to be sent within 200 ms, and the first answer took 300.
        for (at_secs, latency_us) in answers.latencies {
            let waited = f64::from(latency_us) * 1e-6;
            assert!(at_secs + waited > 0.3, "{at_secs} {waited}");
            assert!(at_secs + waited < 0.6, "{at_secs} {waited}");
        }
    }

    #[test]
    fn a_request_without_an_answer_counts_as_long_as_a_client_waits() {
        let mut plan = plan(server(1000));
        plan.requests.truncate(3);
        plan.connections_max = 3;
        plan.timeout = Duration::from_millis(100);
        let answers = run(vec![plan], std::time::Instant::now())
            .unwrap()
            .remove(0);
        assert_eq!(answers.failed, 3);
        assert!(answers.latencies.iter().all(|(_, us)| *us >= 100_000));
    }
}
