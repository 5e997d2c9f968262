//! Each batch once.
//!
//! A sensor numbers its batches per boot and partition: a number that was seen
//! is a duplicate, a number that is skipped is a loss, unless it comes a little
//! later: a broker that fails over may give an earlier batch the later place.

use std::collections::BTreeMap;

use honeyguide_proto::{batch::Header, v1};

use crate::state::StateError;

/// Sensors (times boots and partitions) remembered; the longest silent is forgotten.
const STREAMS_MAX: usize = 65_536;

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
}

impl Seen {
    fn first(header: &Header) -> Self {
        Self {
            seq: header.seq,
            recent: 1,
            window_end_ns: header.window_end_ns(),
        }
    }

    fn accept(&mut self, header: &Header) -> Verdict {
        if header.seq > self.seq {
            let step = header.seq - self.seq;
            let shift = u32::try_from(step).unwrap_or(u32::MAX);
            self.recent = self.recent.checked_shl(shift).unwrap_or(0) | 1;
            self.seq = header.seq;
            self.window_end_ns = header.window_end_ns();
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

/// Remembers which batches were taken.
#[derive(Debug, Default)]
pub struct Deduplication {
    streams: BTreeMap<Stream, Seen>,
    sensor_conflicts: u64,
}

impl Deduplication {
    /// Judges a batch and remembers it.
    pub fn accept(&mut self, header: &Header) -> Verdict {
        let stream = Stream {
            sensor_id: header.sensor_id.clone(),
            partition: header.partition,
            boot_id: header.boot_id,
        };
        if let Some(seen) = self.streams.get_mut(&stream) {
            let verdict = seen.accept(header);
            if let Verdict::New { .. } = verdict {
                self.find_conflict(&stream, header);
            }
            return verdict;
        }
        if self.streams.len() == STREAMS_MAX {
            self.forget_longest_silent();
        }
        self.streams.insert(stream, Seen::first(header));
        Verdict::New { missing: 0 }
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
        });
        streams.collect()
    }

    /// Remembers what another analyzer took.
    ///
    /// # Errors
    /// [`StateError::Field`].
    pub fn restore(&mut self, streams: &[v1::SensorStream]) -> Result<(), StateError> {
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
            };
            self.streams.insert(key, seen);
        }
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
