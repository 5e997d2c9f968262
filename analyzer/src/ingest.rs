//! Each batch once.
//!
//! A sensor numbers its batches per boot and partition: a number that was seen
//! is a duplicate, a number that is skipped is a loss, unless it comes a little
//! later: a broker that fails over may give an earlier batch the later place.
//!
//! What has come also tells up to when everything has come
//! ([`Deduplication::complete_until`]), the watermark of event time.

use std::collections::BTreeMap;

use honeyguide_proto::{batch::Header, v1};

use crate::state::StateError;

/// Sensors (times boots and partitions) remembered; the longest silent is forgotten.
const STREAMS_MAX: usize = 65_536;

/// The longest interval between two flushes. A longer window was held up.
const FLUSH_NS_MAX: u64 = 60_000_000_000;

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take it; so many batches before it are missing.
    New {
        /// Batches of the same stream that have not come.
        missing: u64,
    },
    /// Take it; it was missing until now.
    Found,
    /// It was taken before.
    Duplicate,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stream {
    sensor_id: String,
    partition: u32,
    boot_id: [u8; 16],
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    seq: u64,
    /// Bit k: number `seq - k` was seen.
    recent: u128,
    window_end_ns: u64,
    /// The longer of its last two windows.
    window_duration_ns: u64,
    /// Of its newest window.
    last_duration_ns: u64,
    /// End of the newest window that has come whole.
    complete_until_ns: u64,
    /// When it came, in attended time.
    came_ns: u64,
}

impl Seen {
    fn first(header: &Header, attended_ns: u64) -> Self {
        let mut seen = Self {
            seq: header.seq,
            recent: 1,
            window_end_ns: 0,
            window_duration_ns: 0,
            last_duration_ns: 0,
            complete_until_ns: 0,
            came_ns: 0,
        };
        seen.take_window(header, attended_ns);
        seen
    }

    fn take_window(&mut self, header: &Header, attended_ns: u64) {
        self.came_ns = attended_ns;
        self.window_end_ns = header.window_end_ns();
        // A window that ended early is followed by the rest of it.
        let before_ns = std::mem::replace(&mut self.last_duration_ns, header.window_duration_ns);
        self.window_duration_ns = header.window_duration_ns.max(before_ns);
        if !header.more {
            self.complete_until_ns = self.window_end_ns;
        }
    }

    /// When the next window should have come, in attended time: it may be half
    /// as long again.
    fn due_ns(&self) -> u64 {
        self.came_ns
            .saturating_add(self.window_duration_ns.min(FLUSH_NS_MAX) / 2 * 3)
    }

    fn accept(&mut self, header: &Header, attended_ns: u64) -> Verdict {
        if header.seq > self.seq {
            let step = header.seq - self.seq;
            let shift = u32::try_from(step).unwrap_or(u32::MAX);
            self.recent = self.recent.checked_shl(shift).unwrap_or(0) | 1;
            self.seq = header.seq;
            self.take_window(header, attended_ns);
            return Verdict::New { missing: step - 1 };
        }
        let ago = u32::try_from(self.seq - header.seq).unwrap_or(u32::MAX);
        let Some(bit) = 1u128.checked_shl(ago) else {
            return Verdict::Duplicate;
        };
        if self.recent & bit != 0 {
            return Verdict::Duplicate;
        }
        self.recent |= bit;
        Verdict::Found
    }
}

/// The stream that holds the watermark back. While it does, no other one needs
/// to be looked at.
#[derive(Debug)]
struct Laggard {
    stream: Stream,
    complete_until_ns: u64,
    due_ns: u64,
}

/// Remembers which batches were taken.
#[derive(Debug, Default)]
pub struct Deduplication {
    streams: BTreeMap<Stream, Seen>,
    sensor_conflicts: u64,
    laggard: Option<Laggard>,
    /// The time that passed while the bus was watched: while it is away, no
    /// sensor can send.
    attended_ns: u64,
}

/// Who is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Sensors whose next window is at most so much overdue, in nanoseconds.
    pub lateness_ns: u64,
    /// Sensors whose data was complete until then, or later: what others still
    /// send is late, whenever it comes.
    pub from_ns: u64,
}

impl Deduplication {
    /// Time passed in which whatever came was taken.
    pub fn attend(&mut self, ns: u64) {
        self.attended_ns += ns;
    }

    /// Judges a batch and remembers it.
    pub fn accept(&mut self, header: &Header) -> Verdict {
        let stream = Stream {
            sensor_id: header.sensor_id.clone(),
            partition: header.partition,
            boot_id: header.boot_id,
        };
        if let Some(seen) = self.streams.get_mut(&stream) {
            let verdict = seen.accept(header, self.attended_ns);
            if let Verdict::New { .. } = verdict {
                let complete_until_ns = seen.complete_until_ns;
                self.find_conflict(&stream, header);
                self.look_again(&stream, complete_until_ns);
            }
            return verdict;
        }
        if self.streams.len() == STREAMS_MAX {
            self.forget_longest_silent();
        }
        let seen = Seen::first(header, self.attended_ns);
        self.look_again(&stream, seen.complete_until_ns);
        self.streams.insert(stream, seen);
        Verdict::New { missing: 0 }
    }

    /// Up to when every sensor's data has come, of the sensors that are waited
    /// for. `None` if no sensor is.
    pub fn complete_until(&mut self, patience: Patience) -> Option<u64> {
        let attended_ns = self.attended_ns;
        let in_time = |due_ns: u64| due_ns.saturating_add(patience.lateness_ns) >= attended_ns;
        let current = |complete_until_ns: u64| complete_until_ns >= patience.from_ns;
        if let Some(laggard) = &self.laggard
            && in_time(laggard.due_ns)
            && current(laggard.complete_until_ns)
        {
            return Some(laggard.complete_until_ns);
        }
        let waited_for = self
            .streams
            .iter()
            .filter(|(_, seen)| in_time(seen.due_ns()) && current(seen.complete_until_ns));
        let last = waited_for.min_by_key(|(_, seen)| seen.complete_until_ns);
        self.laggard = last.map(|(stream, seen)| Laggard {
            stream: stream.clone(),
            complete_until_ns: seen.complete_until_ns,
            due_ns: seen.due_ns(),
        });
        self.laggard.as_ref().map(|one| one.complete_until_ns)
    }

    /// Another stream may hold the watermark back now.
    fn look_again(&mut self, stream: &Stream, complete_until_ns: u64) {
        self.laggard = self.laggard.take().filter(|laggard| {
            laggard.stream != *stream && laggard.complete_until_ns <= complete_until_ns
        });
    }

    /// Batches of two boots of one sensor whose windows overlap: two sensors
    /// with one id. Their data is taken, as the boots tell them apart.
    pub fn sensor_conflicts(&self) -> u64 {
        self.sensor_conflicts
    }

    /// What was taken, for another analyzer.
    pub fn snapshot(&self) -> Vec<v1::SensorStream> {
        let streams = self.streams.iter().map(|(stream, seen)| v1::SensorStream {
            sensor_id: stream.sensor_id.clone(),
            boot_id: stream.boot_id.to_vec(),
            partition: stream.partition,
            seq: seen.seq,
            recent: seen.recent.to_le_bytes().to_vec(),
            window_end_ns: seen.window_end_ns,
            window_duration_ns: seen.window_duration_ns,
            complete_until_ns: seen.complete_until_ns,
            came_ago_ns: self.attended_ns - seen.came_ns,
        });
        streams.collect()
    }

    /// Remembers what another analyzer took.
    ///
    /// # Errors
    /// [`StateError::Field`].
    pub fn restore(&mut self, streams: &[v1::SensorStream]) -> Result<(), StateError> {
        self.attended_ns = streams.iter().map(|one| one.came_ago_ns).max().unwrap_or(0);
        for stream in streams {
            let boot_id = stream.boot_id.as_slice().try_into();
            let recent = stream.recent.as_slice().try_into();
            let (Ok(boot_id), Ok(recent)) = (boot_id, recent) else {
                return Err(StateError::Field("sensor stream"));
            };
            let key = Stream {
                sensor_id: stream.sensor_id.clone(),
                partition: stream.partition,
                boot_id,
            };
            let seen = Seen {
                seq: stream.seq,
                recent: u128::from_le_bytes(recent),
                window_end_ns: stream.window_end_ns,
                window_duration_ns: stream.window_duration_ns,
                last_duration_ns: stream.window_duration_ns,
                complete_until_ns: stream.complete_until_ns,
                came_ns: self.attended_ns.saturating_sub(stream.came_ago_ns),
            };
            self.streams.insert(key, seen);
        }
        self.laggard = None;
        Ok(())
    }

    fn find_conflict(&mut self, stream: &Stream, header: &Header) {
        let same_sensor = |boot_id| Stream {
            boot_id,
            ..stream.clone()
        };
        let mut others = self
            .streams
            .range(same_sensor([0; 16])..=same_sensor([255; 16]));
        let overlaps = others.any(|(other, seen)| {
            other.boot_id != stream.boot_id && seen.window_end_ns > header.window_start_ns
        });
        self.sensor_conflicts += u64::from(overlaps);
    }

    fn forget_longest_silent(&mut self) {
        let silent = self
            .streams
            .iter()
            .min_by_key(|(_, seen)| seen.window_end_ns);
        if let Some((stream, _)) = silent.map(|(stream, seen)| (stream.clone(), seen)) {
            self.streams.remove(&stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(boot: u8, seq: u64) -> Header {
        Header {
            sensor_id: "node".to_owned(),
            boot_id: [boot; 16],
            seq,
            partition: 0,
            window_start_ns: seq * 10,
            window_duration_ns: 10,
            more: false,
        }
    }

    #[test]
    fn duplicates_and_gaps_are_found() {
        let mut deduplication = Deduplication::default();
        let cases = [
            (1, Verdict::New { missing: 0 }),
            (2, Verdict::New { missing: 0 }),
            (2, Verdict::Duplicate),
            (1, Verdict::Duplicate),
            (5, Verdict::New { missing: 2 }),
            (3, Verdict::Found),
            (3, Verdict::Duplicate),
            (500, Verdict::New { missing: 494 }),
            (5, Verdict::Duplicate),
            (400, Verdict::Found),
            (300, Verdict::Duplicate),
        ];
        for (seq, expected) in cases {
            assert_eq!(deduplication.accept(&header(1, seq)), expected, "{seq}");
        }
    }

    #[test]
    fn the_slowest_sensor_that_is_waited_for_holds_the_watermark() {
        let mut seen = Deduplication::default();
        let window = |boot, end_ns: u64, more| Header {
            seq: end_ns / 10,
            window_start_ns: end_ns - 10,
            more,
            ..header(boot, 1)
        };
        let patience = |from_ns| Patience {
            lateness_ns: 5,
            from_ns,
        };
        let any = patience(0);
        assert_eq!(seen.complete_until(any), None);
        seen.accept(&window(1, 100, false));
        seen.accept(&window(2, 100, false));
        assert_eq!(seen.complete_until(any), Some(100));
        seen.attend(10);
        seen.accept(&window(1, 110, false));
        assert_eq!(seen.complete_until(any), Some(100), "boot 2 is not there");
        assert_eq!(
            seen.complete_until(patience(101)),
            Some(110),
            "it is too late"
        );
        seen.accept(&window(2, 110, true));
        assert_eq!(seen.complete_until(any), Some(100), "half of it is not");
        seen.accept(&Header {
            seq: 12,
            ..window(2, 110, false)
        });
        assert_eq!(seen.complete_until(any), Some(110));
        seen.attend(10);
        seen.accept(&window(1, 120, false));
        seen.attend(10);
        assert_eq!(seen.complete_until(any), Some(110), "it may still come");
        seen.attend(1);
        assert_eq!(seen.complete_until(any), Some(120), "it is not waited for");
        seen.attend(10);
        assert_eq!(seen.complete_until(any), None);
    }

    #[test]
    fn a_sensor_whose_window_ended_early_is_waited_for_as_long_as_ever() {
        let mut seen = Deduplication::default();
        let window = |seq, start_ns, duration_ns| Header {
            seq,
            window_start_ns: start_ns,
            window_duration_ns: duration_ns,
            ..header(1, 1)
        };
        let any = Patience {
            lateness_ns: 1000,
            from_ns: 0,
        };
        seen.accept(&window(1, 100, 10));
        seen.attend(2);
        seen.accept(&window(2, 110, 2));
        seen.attend(8);
        assert_eq!(seen.complete_until(any), Some(112), "the rest comes now");
        seen.accept(&window(3, 112, 8));
        seen.attend(10);
        assert_eq!(seen.complete_until(any), Some(120));
    }

    #[test]
    fn restarted_sensor_begins_anew_without_a_conflict() {
        let mut deduplication = Deduplication::default();
        deduplication.accept(&header(1, 7));
        let mut restarted = header(2, 1);
        restarted.window_start_ns = 80;
        assert_eq!(
            deduplication.accept(&restarted),
            Verdict::New { missing: 0 }
        );
        restarted.seq = 2;
        restarted.window_start_ns = 90;
        deduplication.accept(&restarted);
        assert_eq!(deduplication.sensor_conflicts(), 0);
    }

    #[test]
    fn two_sensors_with_one_id_are_noticed() {
        let mut deduplication = Deduplication::default();
        for seq in 1..4 {
            deduplication.accept(&header(1, seq));
            deduplication.accept(&header(2, seq));
        }
        assert!(deduplication.sensor_conflicts() > 0);
    }
}
