//! The book of hints: which are in force, and what they say of a series.
//!
//! Pure: hints and the time go in, outcomes come out. Whatever is published,
//! the book holds [`SCOPES_MAX`] hints at most, none for longer than
//! [`hint::TTL`], and every outcome has a name to be counted under.
//!
//! What a hint asks for is not yet what is done: the sensor measures nothing
//! that its configuration leaves out, and [`crate::ceiling`] has the last word.

mod follow;

use std::{collections::BTreeMap, time::Duration};

use honeyguide_proto::{
    ServiceId,
    hint::{self, Hint, HintError, Scope},
};
use sensor_common::Signal;

pub use follow::{Follower, Shared, Since, follow};

use crate::clock::Instant;

/// Hints in force at most, some 4 MB. Beyond, the one that ends first gives way.
pub const SCOPES_MAX: usize = 8192;
/// How far a hint's time of issue may be ahead of this clock.
pub const SKEW_MAX: Duration = Duration::from_secs(60);

/// What became of a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// In force: applied from the next flush on.
    Applied,
    /// Not taken.
    Rejected,
    /// No longer in force, or not any more when it came.
    Expired,
    /// Valid, and only to be counted.
    DryRun,
    /// Nothing to do: for another sensor, or known already.
    Ignored,
}

impl Outcome {
    /// As a metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Applied => "applied",
            Outcome::Rejected => "rejected",
            Outcome::Expired => "expired",
            Outcome::DryRun => "dry_run",
            Outcome::Ignored => "ignored",
        }
    }
}

/// An outcome, and why; the reason is one of a fixed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counted {
    /// What became of it.
    pub outcome: Outcome,
    /// As a metric label.
    pub reason: &'static str,
}

const fn counted(outcome: Outcome, reason: &'static str) -> Counted {
    Counted { outcome, reason }
}

/// Taken, there was none of its scope.
pub const NEW: Counted = counted(Outcome::Applied, "new");
/// Taken in place of an older one of its scope.
pub const RENEWED: Counted = counted(Outcome::Applied, "renewed");
/// A newer one of its scope is in force.
pub const OLD_EPOCH: Counted = counted(Outcome::Rejected, "old_epoch");
/// Issued further ahead than [`SKEW_MAX`].
pub const FUTURE: Counted = counted(Outcome::Rejected, "future");
/// A longer flush interval than the configured one.
pub const FLUSH_INTERVAL_TOO_LONG: Counted = counted(Outcome::Rejected, "flush_interval_too_long");
/// The book is full of hints that last longer.
pub const BOOK_FULL: Counted = counted(Outcome::Rejected, "book_full");
/// Gave way to one that lasts longer.
pub const EVICTED: Counted = counted(Outcome::Expired, "evicted");
/// Its time is over.
pub const TTL_OVER: Counted = counted(Outcome::Expired, "ttl");
/// Its time was over when it came.
pub const CAME_LATE: Counted = counted(Outcome::Expired, "came_late");
/// Taken back by whoever issued it.
pub const WITHDRAWN: Counted = counted(Outcome::Expired, "withdrawn");
/// Not to be applied.
pub const DRY_RUN: Counted = counted(Outcome::DryRun, "dry_run");
/// For another sensor.
pub const OTHER_SENSOR: Counted = counted(Outcome::Ignored, "other_sensor");
/// The same is in force already.
pub const DUPLICATE: Counted = counted(Outcome::Ignored, "duplicate");
/// Takes back what is not in force.
pub const NOTHING_TO_WITHDRAW: Counted = counted(Outcome::Ignored, "nothing_to_withdraw");

/// All that can be counted, besides [`Outcome::Rejected`] with each of
/// [`HintError::REASONS`].
pub const COUNTED: [Counted; 14] = [
    NEW,
    RENEWED,
    OLD_EPOCH,
    FUTURE,
    FLUSH_INTERVAL_TOO_LONG,
    BOOK_FULL,
    EVICTED,
    TTL_OVER,
    CAME_LATE,
    WITHDRAWN,
    DRY_RUN,
    OTHER_SENSOR,
    DUPLICATE,
    NOTHING_TO_WITHDRAW,
];

/// Whom the book is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Identity of the sensor.
    pub sensor_id: String,
    /// Its configured flush interval: hints may shorten it only, because the
    /// windows of all sensors belong to the same steps of the analyzer.
    pub flush_interval: Duration,
}

/// Hints in force.
#[derive(Debug)]
pub struct Book {
    owner: Owner,
    /// Of scopes that name no service.
    all: Table,
    /// Of scopes that name one.
    services: BTreeMap<ServiceId, Table>,
    /// Scopes by when they end, on the monotonic clock; the number tells those
    /// of one instant apart.
    ends: BTreeMap<(Duration, u64), Scope>,
    taken: u64,
    /// Changes whenever what the book says may have.
    version: u64,
    /// Hints taken that ask to look closer at a service.
    closer: u64,
}

/// By signal and by whether it names this sensor: a greater key is narrower.
type Table = BTreeMap<(Option<Signal>, bool), Entry>;

#[derive(Debug)]
struct Entry {
    hint: Hint,
    end: (Duration, u64),
}

fn key(scope: &Scope) -> (Option<Signal>, bool) {
    (scope.signal, scope.sensor.is_some())
}

impl Book {
    /// An empty book.
    pub fn new(owner: Owner) -> Self {
        Self {
            owner,
            all: Table::new(),
            services: BTreeMap::new(),
            ends: BTreeMap::new(),
            taken: 0,
            version: 0,
            closer: 0,
        }
    }

    /// Hints in force.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether none is in force.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Changes whenever what the book says may have changed.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Hints taken until now that ask to look closer at a service: they are
    /// worth a window of their own.
    pub fn closer(&self) -> u64 {
        self.closer
    }

    /// The hints in force, those of all services first.
    pub fn hints(&self) -> impl Iterator<Item = &Hint> {
        let tables = std::iter::once(&self.all).chain(self.services.values());
        tables.flat_map(|table| table.values().map(|entry| &entry.hint))
    }

    /// Takes a record of the topic. An empty payload withdraws. What it pushed
    /// out is the second outcome.
    pub fn take(&mut self, key: &[u8], payload: &[u8], now: Instant) -> (Counted, Option<Counted>) {
        let checked = if payload.is_empty() {
            scope_of(key).map(|scope| self.withdraw(&scope))
        } else {
            Hint::decode(payload).and_then(|hint| {
                // Else it would be compacted away by hints of another scope.
                if hint.scope.key().as_bytes() != key {
                    return Err(HintError::Key);
                }
                Ok(self.take_hint(hint, now))
            })
        };
        checked.unwrap_or_else(|error| (counted(Outcome::Rejected, error.reason()), None))
    }

    fn take_hint(&mut self, hint: Hint, now: Instant) -> (Counted, Option<Counted>) {
        if let Err(outcome) = self.check(&hint, now) {
            return (outcome, None);
        }
        let left = hint.expires_at().saturating_sub(now.wall).min(hint.ttl);
        let end = (now.monotonic + left, self.taken);
        let known = self.entry(&hint.scope);
        let asked = known.and_then(|known| known.hint.sampling_shift);
        let known = known.map(|entry| entry.end);
        let is_closer = hint
            .sampling_shift
            .is_some_and(|shift| asked.is_none_or(|asked| shift < asked));
        let mut evicted = None;
        if let Some(known) = known {
            self.remove(known);
        } else if self.ends.len() >= SCOPES_MAX {
            match self.ends.first_key_value() {
                Some((first, _)) if *first < end => {
                    let first = *first;
                    self.remove(first);
                    evicted = Some(EVICTED);
                }
                _ => return (BOOK_FULL, None),
            }
        }
        self.taken += 1;
        self.version += 1;
        self.closer += u64::from(is_closer && hint.scope.service.is_some());
        self.ends.insert(end, hint.scope.clone());
        let table = match &hint.scope.service {
            Some(service) => self.services.entry(service.clone()).or_default(),
            None => &mut self.all,
        };
        table.insert(key(&hint.scope), Entry { hint, end });
        let outcome = if known.is_some() { RENEWED } else { NEW };
        (outcome, evicted)
    }

    fn check(&self, hint: &Hint, now: Instant) -> Result<(), Counted> {
        let other = |id: &String| *id != self.owner.sensor_id;
        if hint.scope.sensor.as_ref().is_some_and(other) {
            return Err(OTHER_SENSOR);
        }
        if hint.issued_at > now.wall + SKEW_MAX {
            return Err(FUTURE);
        }
        if hint.expires_at() <= now.wall {
            return Err(CAME_LATE);
        }
        let too_long = |interval: Duration| interval > self.owner.flush_interval;
        if hint.flush_interval.is_some_and(too_long) {
            return Err(FLUSH_INTERVAL_TOO_LONG);
        }
        match self.entry(&hint.scope) {
            Some(known) if known.hint == *hint => return Err(DUPLICATE),
            Some(known) if known.hint.epoch >= hint.epoch => return Err(OLD_EPOCH),
            _ => {}
        }
        if hint.dry_run {
            return Err(DRY_RUN);
        }
        Ok(())
    }

    fn withdraw(&mut self, scope: &Scope) -> (Counted, Option<Counted>) {
        let other = |id: &String| *id != self.owner.sensor_id;
        if scope.sensor.as_ref().is_some_and(other) {
            return (OTHER_SENSOR, None);
        }
        match self.entry(scope).map(|entry| entry.end) {
            Some(end) => {
                self.remove(end);
                (WITHDRAWN, None)
            }
            None => (NOTHING_TO_WITHDRAW, None),
        }
    }

    /// Forgets what is over; how many that were.
    pub fn expire(&mut self, now: Instant) -> u64 {
        let mut expired = 0;
        while let Some((end, _)) = self.ends.first_key_value()
            && end.0 <= now.monotonic
        {
            let end = *end;
            self.remove(end);
            expired += 1;
        }
        expired
    }

    fn entry(&self, scope: &Scope) -> Option<&Entry> {
        let table = match &scope.service {
            Some(service) => self.services.get(service)?,
            None => &self.all,
        };
        table.get(&key(scope))
    }

    fn remove(&mut self, end: (Duration, u64)) {
        let Some(scope) = self.ends.remove(&end) else {
            return;
        };
        self.version += 1;
        let Some(service) = &scope.service else {
            self.all.remove(&key(&scope));
            return;
        };
        if let Some(table) = self.services.get_mut(service) {
            table.remove(&key(&scope));
            if table.is_empty() {
                self.services.remove(service);
            }
        }
    }

    /// The sampling shift that hints ask for where a service has none of its own.
    pub fn shift(&self, signal: Signal) -> Option<u8> {
        shift(&self.all, signal)
    }

    /// The sampling shift that hints for `service` ask for; `None` if
    /// [`shift`](Self::shift) says it.
    pub fn shift_of(&self, service: &ServiceId, signal: Signal) -> Option<u8> {
        shift(self.services.get(service)?, signal)
    }

    /// Whether any hint names `service`.
    pub fn names(&self, service: &ServiceId) -> bool {
        self.services.contains_key(service)
    }

    /// The flush interval that hints ask for.
    pub fn flush_interval(&self) -> Option<Duration> {
        let of_all = |own| self.all.get(&(None, own))?.hint.flush_interval;
        of_all(true).or_else(|| of_all(false))
    }
}

/// The narrowest hint of the table that says something of `signal`.
fn shift(table: &Table, signal: Signal) -> Option<u8> {
    let narrowest_first = [
        (Some(signal), true),
        (Some(signal), false),
        (None, true),
        (None, false),
    ];
    narrowest_first
        .iter()
        .find_map(|key| table.get(key)?.hint.sampling_shift)
}

fn scope_of(key: &[u8]) -> Result<Scope, HintError> {
    if key.len() > hint::HINT_LEN_MAX {
        return Err(HintError::TooLong { len: key.len() });
    }
    Scope::parse(std::str::from_utf8(key).map_err(|_| HintError::Key)?)
}

#[cfg(test)]
mod tests;
