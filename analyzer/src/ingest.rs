//! Each batch once.
//!
//! A sensor numbers its batches per boot and partition, and a partition keeps
//! their order: a number that was seen is a duplicate, a number that is skipped
//! is a loss.

use std::collections::BTreeMap;

use honeyguide_proto::batch::Header;

/// Sensors (times boots and partitions) remembered; the longest silent is forgotten.
const STREAMS_MAX: usize = 65_536;

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take it; so many batches before it are missing.
    New {
        /// Batches of the same stream that never came.
        missing: u64,
    },
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
    window_end_ns: u64,
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
            if header.seq <= seen.seq {
                return Verdict::Duplicate;
            }
            let missing = header.seq - seen.seq - 1;
            *seen = Seen {
                seq: header.seq,
                window_end_ns: header.window_end_ns(),
            };
            self.find_conflict(&stream, header);
            return Verdict::New { missing };
        }
        if self.streams.len() == STREAMS_MAX {
            self.forget_longest_silent();
        }
        let seen = Seen {
            seq: header.seq,
            window_end_ns: header.window_end_ns(),
        };
        self.streams.insert(stream, seen);
        // What a stream sent before this analyzer knew it is not missing.
        Verdict::New { missing: 0 }
    }

    /// Batches of two boots of one sensor whose windows overlap: two sensors
    /// with one id. Their data is taken, as the boots tell them apart.
    pub fn sensor_conflicts(&self) -> u64 {
        self.sensor_conflicts
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
