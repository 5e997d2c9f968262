//! Recordings: what was published, in a file.
//!
//! A recording is a magic line and then frames: length, CRC-32 of the
//! compressed bytes, compressed bytes (zstd) of one record. Each frame stands
//! alone, so a recording that was cut off, by a crash or a full disk, reads up
//! to the cut. All numbers are little-endian.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
};

use crate::{
    Delivery, Offset, PartitionId, Record, Topic,
    range::{Merge, Range},
};

/// First bytes of a recording; the digit is the version.
const MAGIC: &[u8; 16] = b"honeyguide-rec1\n";
/// Bytes of a frame at most, compressed or not.
const FRAME_LEN_MAX: usize = 8 << 20;
const COMPRESSION_LEVEL: i32 = 3;
/// Bytes before the key in an uncompressed frame: topic, partition, time, length of the key.
const FIXED_LEN: usize = 1 + 4 + 8 + 4;

/// Why a recording cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file could not be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Another kind of file.
    #[error("this is no honeyguide recording (it does not begin with `honeyguide-rec1`)")]
    NoRecording,
    /// The file ends inside a frame: it was cut off. Everything before was read.
    #[error("the recording is cut off at byte {at}; everything before was read")]
    CutOff {
        /// Where the incomplete frame begins.
        at: u64,
    },
    /// A frame is not what was written.
    #[error("the recording is damaged at byte {at} ({what}); everything before was read")]
    Damaged {
        /// Where the frame begins.
        at: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Writes a recording.
#[derive(Debug)]
pub struct RecordingWriter<W: Write>(W);

impl RecordingWriter<BufWriter<File>> {
    /// Creates the file; an existing one is not overwritten.
    ///
    /// # Errors
    /// [`RecordingError::Io`].
    pub fn create(path: &Path) -> Result<Self, RecordingError> {
        Self::new(BufWriter::new(File::create_new(path)?))
    }
}

impl<W: Write> RecordingWriter<W> {
    /// Starts a recording in `writer`.
    ///
    /// # Errors
    /// [`RecordingError::Io`].
    pub fn new(mut writer: W) -> Result<Self, RecordingError> {
        writer.write_all(MAGIC)?;
        Ok(Self(writer))
    }

    /// What the recording was written to.
    pub fn into_inner(self) -> W {
        self.0
    }

    /// Appends one record; returns the bytes it took.
    ///
    /// # Errors
    /// [`RecordingError::Io`]; the recording is readable up to the last whole record.
    pub fn write(&mut self, record: &Record) -> Result<u64, RecordingError> {
        let mut frame = vec![topic_number(record.topic)];
        frame.extend(record.partition.to_le_bytes());
        frame.extend(record.timestamp_ns.to_le_bytes());
        frame.extend((record.key.len() as u32).to_le_bytes());
        frame.extend(&record.key);
        frame.extend(&record.payload);
        let compressed = zstd::bulk::compress(&frame, COMPRESSION_LEVEL)?;
        self.0.write_all(&(compressed.len() as u32).to_le_bytes())?;
        self.0
            .write_all(&crc32fast::hash(&compressed).to_le_bytes())?;
        self.0.write_all(&compressed)?;
        self.0.flush()?;
        Ok(8 + compressed.len() as u64)
    }
}

fn topic_number(topic: Topic) -> u8 {
    Topic::ALL
        .iter()
        .position(|known| *known == topic)
        .map_or(u8::MAX, |number| number as u8)
}

/// Reads a recording, record by record; ends after the first error.
#[derive(Debug)]
pub struct RecordingReader<R: Read> {
    reader: R,
    at: u64,
    ended: bool,
}

impl RecordingReader<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`RecordingError`] if it is no recording.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        Self::new(BufReader::new(File::open(path)?))
    }
}

impl<R: Read> RecordingReader<R> {
    /// Reads a recording from `reader`.
    ///
    /// # Errors
    /// [`RecordingError::NoRecording`] if it is none.
    pub fn new(mut reader: R) -> Result<Self, RecordingError> {
        let mut magic = [0; MAGIC.len()];
        match reader.read_exact(&mut magic) {
            Ok(()) if &magic == MAGIC => {}
            Ok(()) => return Err(RecordingError::NoRecording),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(RecordingError::NoRecording);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Self {
            reader,
            at: MAGIC.len() as u64,
            ended: false,
        })
    }

    fn frame(&mut self) -> Result<Option<Record>, RecordingError> {
        let at = self.at;
        let damaged = |what| RecordingError::Damaged { at, what };
        let mut head = Vec::with_capacity(8);
        self.reader.by_ref().take(8).read_to_end(&mut head)?;
        if head.is_empty() {
            return Ok(None);
        }
        let Ok(head) = <[u8; 8]>::try_from(head) else {
            return Err(RecordingError::CutOff { at });
        };
        let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if len > FRAME_LEN_MAX {
            return Err(damaged("frame too long"));
        }
        let mut compressed = Vec::new();
        self.reader
            .by_ref()
            .take(len as u64)
            .read_to_end(&mut compressed)?;
        if compressed.len() < len {
            return Err(RecordingError::CutOff { at });
        }
        if crc32fast::hash(&compressed) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(damaged("checksum"));
        }
        let frame = zstd::bulk::decompress(&compressed, FRAME_LEN_MAX)
            .map_err(|_| damaged("compression"))?;
        self.at += 8 + len as u64;
        parse(&frame).map(Some).ok_or_else(|| damaged("record"))
    }
}

/// The records of `topic` that belong to `range`, merged by time; see [`Merge`].
/// The offset of a record is its number among those of its partition, from 0.
///
/// The file is read once for each partition, so that it need not fit in memory.
///
/// # Errors
/// [`RecordingError`] if it is no recording. One that is damaged or cut off
/// gives what comes before, and the error last.
pub fn read_range(
    path: &Path,
    topic: Topic,
    range: &Range,
) -> Result<impl Iterator<Item = Result<Delivery, RecordingError>> + use<>, RecordingError> {
    let mut partitions = BTreeSet::new();
    let mut broken = None;
    for record in RecordingReader::open(path)? {
        match record {
            Ok(record) if record.topic == topic => drop(partitions.insert(record.partition)),
            Ok(_) => {}
            Err(error) => broken = Some(error),
        }
    }
    let mut readers = Vec::new();
    for partition in partitions.into_iter().filter(|id| range.names(*id)) {
        let reader = PartitionReader {
            reader: RecordingReader::open(path)?,
            topic,
            partition,
            next: 0,
        };
        readers.push((partition, range.of(reader)));
    }
    Ok(Merge::new(readers).chain(broken.map(Err)))
}

/// The whole records of one partition.
struct PartitionReader {
    reader: RecordingReader<BufReader<File>>,
    topic: Topic,
    partition: PartitionId,
    next: Offset,
}

impl Iterator for PartitionReader {
    type Item = Result<Delivery, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // What is broken was found when the partitions were.
            let record = self.reader.next()?.ok()?;
            if record.topic == self.topic && record.partition == self.partition {
                let offset = self.next;
                self.next += 1;
                return Some(Ok(Delivery { offset, record }));
            }
        }
    }
}

fn parse(frame: &[u8]) -> Option<Record> {
    let (fixed, rest) = frame.split_at_checked(FIXED_LEN)?;
    let key_len = u32::from_le_bytes(fixed[13..17].try_into().ok()?) as usize;
    let (key, payload) = rest.split_at_checked(key_len)?;
    Some(Record {
        topic: *Topic::ALL.get(usize::from(fixed[0]))?,
        partition: u32::from_le_bytes(fixed[1..5].try_into().ok()?),
        timestamp_ns: u64::from_le_bytes(fixed[5..13].try_into().ok()?),
        key: key.to_vec(),
        payload: payload.to_vec(),
    })
}

impl<R: Read> Iterator for RecordingReader<R> {
    type Item = Result<Record, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.frame().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> Vec<Record> {
        (0..5u32)
            .map(|number| Record {
                topic: Topic::Histograms,
                partition: number,
                key: vec![1; number as usize],
                timestamp_ns: u64::from(number) << 40,
                payload: vec![number as u8; 1000],
            })
            .collect()
    }

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = RecordingWriter::new(&mut bytes).unwrap();
        for record in records() {
            writer.write(&record).unwrap();
        }
        bytes
    }

    #[test]
    fn records_come_back() {
        let bytes = written();
        let read = RecordingReader::new(bytes.as_slice()).unwrap();
        let read: Vec<Record> = read.map(Result::unwrap).collect();
        assert_eq!(read, records());
    }

    #[test]
    fn other_files_are_refused() {
        for bytes in [&b""[..], b"PAR1", b"a text that is long enough"] {
            let opened = RecordingReader::new(bytes);
            assert!(matches!(opened, Err(RecordingError::NoRecording)));
        }
    }

    proptest! {
        #[test]
        fn cut_recording_reads_up_to_the_cut(cut: prop::sample::Index) {
            let bytes = written();
            let cut = MAGIC.len() + cut.index(bytes.len() - MAGIC.len() + 1);
            let mut reader = RecordingReader::new(&bytes[..cut]).unwrap();
            let mut count = 0;
            let end = loop {
                match reader.next() {
                    Some(Ok(record)) => prop_assert_eq!(&record, &records()[count]),
                    end => break end,
                }
                count += 1;
            };
            prop_assert!(matches!(end, None | Some(Err(RecordingError::CutOff { .. }))), "{:?}", end);
        }

        #[test]
        fn changed_byte_is_an_error_or_harmless(at: prop::sample::Index, byte: u8) {
            let mut bytes = written();
            let at = MAGIC.len() + at.index(bytes.len() - MAGIC.len());
            bytes[at] = byte;
            let good = RecordingReader::new(bytes.as_slice()).unwrap().map_while(Result::ok);
            for (read, expected) in good.zip(records()) {
                prop_assert_eq!(read, expected);
            }
        }
    }
}
