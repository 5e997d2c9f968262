//! Reading hints: a task that keeps the book, at a bounded pace.
//!
//! It shares nothing with draining but the book: where hints come from may be
//! away for as long as it likes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use honeyguide_bus::{ConsumeError, Record, tail::Tail};
use honeyguide_proto::v1::HintCounts;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::{Book, Counted, Outcome, Owner, TTL_OVER};
use crate::{
    clock::{Instant, clock_now},
    cost::thread_cpu_time,
    metrics::{HintLabels, Metrics},
};

/// Records that are taken without a pause.
const BURST_MAX: usize = 256;
/// The pause. With [`BURST_MAX`]: some 2,500 hints a second at most, so that a
/// flood of them takes less than 1 % of a CPU. More wait where they are.
const PAUSE: Duration = Duration::from_millis(100);
/// Until reading is tried again after an error.
const RETRY: Duration = Duration::from_secs(5);

/// The book, shared by the task that reads hints and the thread that applies them.
#[derive(Clone, Debug)]
pub struct Shared {
    state: Arc<Mutex<State>>,
    metrics: Metrics,
}

#[derive(Debug)]
struct State {
    book: Book,
    counts: HintCounts,
    cpu: Duration,
}

/// What happened since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// What became of hints.
    pub counts: HintCounts,
    /// CPU time it took to read them.
    pub cpu: Duration,
}

impl Shared {
    /// An empty book; outcomes are counted in `metrics`.
    pub fn new(owner: Owner, metrics: Metrics) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                book: Book::new(owner),
                counts: HintCounts::default(),
                cpu: Duration::ZERO,
            })),
            metrics,
        }
    }

    /// Takes a record of the topic `honeyguide.hints.v1`.
    pub fn take(&self, record: &Record, now: Instant) -> Counted {
        let mut state = self.lock();
        let (outcome, evicted) = state.book.take(&record.key, &record.payload, now);
        for counted in [Some(outcome), evicted].into_iter().flatten() {
            self.count(&mut state, counted, 1);
        }
        outcome
    }

    /// Forgets what is over; what happened since the last time.
    pub(crate) fn settle(&self, now: Instant) -> Since {
        let mut state = self.lock();
        let expired = state.book.expire(now);
        if expired > 0 {
            self.count(&mut state, TTL_OVER, expired);
        }
        let active = state.book.len();
        self.metrics.hints_active.set(active as i64);
        Since {
            counts: HintCounts {
                active: active as u32,
                ..std::mem::take(&mut state.counts)
            },
            cpu: std::mem::take(&mut state.cpu),
        }
    }

    /// Lets `look` see what is in force.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.lock().book)
    }

    fn count(&self, state: &mut State, counted: Counted, times: u64) {
        let labels = HintLabels::from(counted);
        self.metrics.hints.get_or_create(&labels).inc_by(times);
        match counted.outcome {
            Outcome::Applied => state.counts.applied += times,
            Outcome::Rejected => state.counts.rejected += times,
            Outcome::Expired => state.counts.expired += times,
            Outcome::DryRun => state.counts.dry_run += times,
            Outcome::Ignored => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The book is consistent between its methods, which do not panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that reads hints; it ends when this is dropped.
#[derive(Debug)]
pub struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads hints into the book until the bus is closed; call within a tokio runtime.
pub fn follow<T: Tail + 'static>(mut tail: T, shared: Shared) -> Follower {
    Follower(tokio::spawn(async move {
        let mut burst = 0;
        let mut away = false;
        loop {
            match tail.next().await {
                Ok(record) => {
                    if std::mem::take(&mut away) {
                        info!("hints are read again");
                    }
                    // No await in between, so it is one thread's time.
                    let before = thread_cpu_time();
                    shared.take(&record, clock_now());
                    shared.lock().cpu += thread_cpu_time().saturating_sub(before);
                    burst += 1;
                    if burst == BURST_MAX {
                        burst = 0;
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                Err(ConsumeError::Closed) => return,
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        warn!(%error, "hints cannot be read; those in force end with their time");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }))
}
