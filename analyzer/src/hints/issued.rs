//! What was said to sensors: once, again before it runs out, and taken back.

use std::{collections::BTreeMap, time::Duration};

use honeyguide_proto::hint::{Hint, REASON_LEN_MAX, Scope};

use super::TTL;

/// Partitions told apart within one millisecond of epochs.
const PARTITION_BITS: u32 = 12;

/// What a scope is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    sampling_shift: Option<u8>,
    flush_interval: Option<Duration>,
    reason: String,
}

impl Wanted {
    pub(super) fn sampling(shift: u8, reason: String) -> Self {
        Self {
            sampling_shift: Some(shift),
            flush_interval: None,
            reason: fit(reason),
        }
    }

    pub(super) fn flush_interval(interval: Duration, reason: String) -> Self {
        Self {
            sampling_shift: None,
            flush_interval: Some(interval),
            reason: fit(reason),
        }
    }
}

/// Names of services and sensors in a reason may be long.
fn fit(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(REASON_LEN_MAX));
    reason
}

/// What is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// For whom.
    pub scope: Scope,
    /// What counts from now on; `None` takes back what did.
    pub hint: Option<Hint>,
    /// When it was decided, nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// The same as before, for longer.
    pub renewed: bool,
}

impl Change {
    /// What it does, as a metric label.
    pub fn kind(&self) -> &'static str {
        match &self.hint {
            None => "withdrawn",
            Some(_) if self.renewed => "renewed",
            Some(_) => "issued",
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Issued(BTreeMap<Scope, Hint>);

impl Issued {
    /// What must be published so that `wanted` counts from `at_ns` on.
    pub(super) fn reconcile(
        &mut self,
        mut wanted: BTreeMap<Scope, Wanted>,
        at_ns: u64,
        partition: u32,
        dry_run: bool,
    ) -> Vec<Change> {
        let now = Duration::from_nanos(at_ns);
        let mut changes = Vec::new();
        self.0.retain(|scope, hint| {
            if wanted.contains_key(scope) {
                return true;
            }
            // What is for a whole sensor may be another partition's wish as
            // well; it runs out by itself.
            let shared = scope.service.is_none() && scope.signal.is_none();
            if shared {
                return hint.expires_at() > now;
            }
            if hint.expires_at() > now {
                changes.push(Change {
                    scope: scope.clone(),
                    hint: None,
                    at_ns,
                    renewed: false,
                });
            }
            false
        });
        wanted.retain(|scope, wanted| self.is_due(scope, wanted, now));
        for (scope, wanted) in wanted {
            let hint = Hint {
                scope: scope.clone(),
                sampling_shift: wanted.sampling_shift,
                flush_interval: wanted.flush_interval,
                reason: wanted.reason,
                issued_at: now,
                ttl: TTL,
                // Grows with time, whoever analyzes the partition.
                epoch: ((at_ns / 1_000_000) << PARTITION_BITS)
                    + u64::from(partition) % (1 << PARTITION_BITS)
                    + 1,
                dry_run,
            };
            let before = self.0.insert(scope.clone(), hint.clone());
            changes.push(Change {
                scope,
                renewed: before.is_some_and(|before| says_same(&before, &hint)),
                hint: Some(hint),
                at_ns,
            });
        }
        changes
    }

    fn is_due(&self, scope: &Scope, wanted: &Wanted, now: Duration) -> bool {
        self.0.get(scope).is_none_or(|issued| {
            issued.sampling_shift != wanted.sampling_shift
                || issued.flush_interval != wanted.flush_interval
                || now >= issued.issued_at + TTL / 2
        })
    }

    /// In force, by scope.
    pub(super) fn hints(&self) -> impl Iterator<Item = &Hint> {
        self.0.values()
    }
}

fn says_same(a: &Hint, b: &Hint) -> bool {
    a.sampling_shift == b.sampling_shift && a.flush_interval == b.flush_interval
}
