//! A disk spool in front of another producer.
//!
//! Every record is first appended to a segment, which is a recording, and
//! published from there in order: so what was accepted survives a broker that
//! is away and a killed process. A segment goes when every record in it was
//! acknowledged; after a restart what is left is published again, and readers
//! drop what they have seen.
//!
//! The spool is bounded in bytes and age; the oldest segment is given up and
//! its records are counted. When the disk takes nothing, a record is published
//! past the spool if nothing waits in it, and else refused, so that order holds.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::Notify, task::JoinHandle};
use tracing::{info, warn};

use crate::{
    Producer, PublishError, Record, Topic,
    recording::{RecordingReader, RecordingWriter},
};

/// Bytes after which a segment is full.
const SEGMENT_BYTES: u64 = 8 << 20;
const PREFIX: &str = "spool-";
const SUFFIX: &str = ".hgr";
/// Pause before records that were not taken are offered again.
const RETRY: Duration = Duration::from_millis(500);
/// Between two lines of the log about the disk.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// Bounds of a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where segments are kept; nobody else may use it.
    pub directory: PathBuf,
    /// Bytes of all segments at most.
    pub bytes_max: u64,
    /// How long a segment waits at most.
    pub age_max: Duration,
}

/// Records that will not be published, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// The spool was full.
    pub full: u64,
    /// They waited too long.
    pub old: u64,
    /// A segment was damaged; at least so many.
    pub damaged: u64,
    /// The bus refused them for good.
    pub refused: u64,
}

/// How a spool stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Segments on disk.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Records published past the spool, because the disk took none.
    pub past: u64,
    /// Records that will not be published.
    pub lost: Lost,
}

/// See the module.
pub struct Spool<P> {
    shared: Arc<Shared<P>>,
    publisher: JoinHandle<()>,
}

struct Shared<P> {
    config: Config,
    producer: P,
    state: Mutex<State>,
    /// Something was appended, or the end is wanted.
    appended: Notify,
    /// A segment went.
    removed: Notify,
}

#[derive(Default)]
struct State {
    /// Appended to now.
    current: Option<(Segment, RecordingWriter<BufWriter<File>>)>,
    /// Waiting, oldest first.
    sealed: VecDeque<Segment>,
    /// Being published.
    in_flight: Option<Segment>,
    next_number: u64,
    disk: Disk,
    past: u64,
    lost: Lost,
}

/// What was said of the disk: at once that it takes nothing, and then at most
/// a line a minute, however often it changes and however many records come.
#[derive(Debug, Default)]
struct Disk {
    is_refusing: bool,
    said_at: Option<Instant>,
    /// Records that it did not take since.
    unsaid: u64,
}

impl Disk {
    /// Notes a record that it did not take. Returns how many there were since
    /// the last line, if it is time for another.
    fn refused(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        self.may_say(now).then(|| {
            self.is_refusing = true;
            std::mem::take(&mut self.unsaid)
        })
    }

    /// Notes a record that it took. Returns how many it did not take since the
    /// last line, if it was said that it takes none and it is time for another.
    fn took(&mut self, now: Instant) -> Option<u64> {
        (self.is_refusing && self.may_say(now)).then(|| {
            self.is_refusing = false;
            std::mem::take(&mut self.unsaid)
        })
    }

    fn may_say(&mut self, now: Instant) -> bool {
        let is_time = self.said_at.is_none_or(|at| now >= at + SAID_AGAIN);
        if is_time {
            self.said_at = Some(now);
        }
        is_time
    }
}

#[derive(Clone, Debug)]
struct Segment {
    path: PathBuf,
    bytes: u64,
    begun: SystemTime,
}

impl State {
    fn bytes(&self) -> u64 {
        let current = self.current.iter().map(|(segment, _)| segment);
        let all = current.chain(&self.sealed).chain(&self.in_flight);
        all.map(|segment| segment.bytes).sum()
    }

    fn segments(&self) -> usize {
        self.sealed.len()
            + usize::from(self.current.is_some())
            + usize::from(self.in_flight.is_some())
    }

    fn seal(&mut self) {
        if let Some((segment, _)) = self.current.take() {
            self.sealed.push_back(segment);
        }
    }
}

impl<P: Producer + 'static> Spool<P> {
    /// Opens the spool and begins to publish what an earlier process left;
    /// call within a tokio runtime.
    ///
    /// # Errors
    /// If the directory cannot be made or read.
    pub fn open(config: Config, producer: P) -> io::Result<Self> {
        fs::create_dir_all(&config.directory)?;
        let left = segments(&config.directory)?;
        if !left.is_empty() {
            info!(
                segments = left.len(),
                "spool: an earlier process left records"
            );
        }
        let next_number = left
            .iter()
            .filter_map(|segment| number(&segment.path))
            .max()
            .map_or(0, |number| number + 1);
        let state = State {
            sealed: left.into(),
            next_number,
            ..State::default()
        };
        let shared = Arc::new(Shared {
            config,
            producer,
            state: Mutex::new(state),
            appended: Notify::new(),
            removed: Notify::new(),
        });
        shared.appended.notify_one();
        let publisher = tokio::spawn(publish(Arc::clone(&shared)));
        Ok(Self { shared, publisher })
    }

    /// Asks how it stands.
    pub fn status(&self) -> impl Fn() -> Status + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let state = shared.lock();
            Status {
                segments: state.segments(),
                bytes: state.bytes(),
                past: state.past,
                lost: state.lost,
            }
        }
    }

    /// Waits until everything is published, at most `timeout`; what is left
    /// stays for the next process.
    pub async fn close(self, timeout: Duration) {
        let emptied = async {
            loop {
                let removed = self.shared.removed.notified();
                if self.shared.lock().segments() == 0 {
                    return;
                }
                removed.await;
            }
        };
        if tokio::time::timeout(timeout, emptied).await.is_err() {
            info!("spool: what is not published stays for the next start");
        }
        self.publisher.abort();
    }
}

impl<P: Producer + 'static> Producer for Spool<P> {
    fn partitions(&self, topic: Topic) -> u32 {
        self.shared.producer.partitions(topic)
    }

    /// Returns once the record is in a file of the operating system.
    async fn publish(&self, record: Record) -> Result<(), PublishError> {
        let appended = self.shared.append(&record);
        self.shared.say(appended.as_ref().err());
        if appended.is_ok() {
            self.shared.appended.notify_one();
            return Ok(());
        }
        if self.shared.lock().segments() > 0 {
            return Err(PublishError::Full(Box::new(record)));
        }
        self.shared.producer.publish(record).await?;
        self.shared.lock().past += 1;
        Ok(())
    }
}

impl<P> Shared<P> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // State is consistent between statements, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, record: &Record) -> io::Result<()> {
        let mut state = self.lock();
        if state.current.is_none() {
            let number = state.next_number;
            state.next_number += 1;
            let name = format!("{PREFIX}{number:020}{SUFFIX}");
            let segment = Segment {
                path: self.config.directory.join(name),
                bytes: 0,
                begun: SystemTime::now(),
            };
            let writer = RecordingWriter::create(&segment.path).map_err(io::Error::other);
            let writer = writer.inspect_err(|_| drop(fs::remove_file(&segment.path)))?;
            state.current = Some((segment, writer));
        }
        let Some((segment, writer)) = &mut state.current else {
            return Ok(());
        };
        match writer.write(record) {
            Ok(bytes) => segment.bytes += bytes,
            Err(error) => {
                self.end_damaged(&mut state);
                return Err(io::Error::other(error));
            }
        }
        if segment.bytes >= SEGMENT_BYTES {
            state.seal();
        }
        self.keep_bounds(&mut state);
        Ok(())
    }

    /// Says how the disk takes records, if that is worth a line.
    fn say(&self, refused: Option<&io::Error>) {
        let mut state = self.lock();
        let directory = self.config.directory.display();
        match refused {
            Some(error) => {
                if let Some(records) = state.disk.refused(Instant::now()) {
                    warn!(%error, %directory, records, "spool: not written");
                }
            }
            None => {
                if let Some(records) = state.disk.took(Instant::now()) {
                    info!(%directory, not_written = records, "spool: written again");
                }
            }
        }
    }

    /// The end of the current segment may be half a record: nothing may follow it.
    fn end_damaged(&self, state: &mut State) {
        let Some((segment, writer)) = state.current.take() else {
            return;
        };
        // Dropping the buffer would write what the disk has just refused.
        let (file, _refused) = writer.into_inner().into_parts();
        drop(file);
        if segment.bytes == 0 {
            let _ = fs::remove_file(&segment.path);
        } else {
            state.sealed.push_back(segment);
        }
    }

    fn keep_bounds(&self, state: &mut State) {
        loop {
            let age = |segment: &Segment| segment.begun.elapsed().unwrap_or_default();
            let oldest = state.sealed.front();
            let is_old = oldest.is_some_and(|segment| age(segment) > self.config.age_max);
            if !is_old && state.bytes() <= self.config.bytes_max {
                return;
            }
            let Some(segment) = state.sealed.pop_front() else {
                return;
            };
            let records = read(&segment.path).0.len() as u64;
            warn!(records, is_old, "spool: its oldest segment is given up");
            if is_old {
                state.lost.old += records;
            } else {
                state.lost.full += records;
            }
            let _ = fs::remove_file(&segment.path);
        }
    }

    /// The oldest segment, to be published.
    fn take(&self) -> Option<Segment> {
        let mut state = self.lock();
        self.keep_bounds(&mut state);
        if state.sealed.is_empty() {
            state.seal();
        }
        let segment = state.sealed.pop_front()?;
        state.in_flight = Some(segment.clone());
        Some(segment)
    }

    fn remove(&self, segment: &Segment) {
        if let Err(error) = fs::remove_file(&segment.path) {
            warn!(%error, path = %segment.path.display(), "spool: a segment cannot be removed");
        }
        self.lock().in_flight = None;
        self.removed.notify_waiters();
    }
}

/// Publishes segment after segment.
async fn publish<P: Producer + 'static>(shared: Arc<Shared<P>>) {
    loop {
        let Some(segment) = shared.take() else {
            shared.appended.notified().await;
            continue;
        };
        let (records, is_damaged) = read(&segment.path);
        if is_damaged {
            warn!(path = %segment.path.display(), "spool: a segment is damaged; its rest is lost");
            shared.lock().lost.damaged += 1;
        }
        publish_all(&shared, records).await;
        shared.remove(&segment);
    }
}

/// Publishes records in order; those that the bus does not take now are
/// offered until it does.
async fn publish_all<P: Producer>(shared: &Shared<P>, mut records: Vec<Record>) {
    let mut warned = false;
    while !records.is_empty() {
        // All at once, so that a broker's answer is waited for once.
        let offered = records
            .drain(..)
            .map(|record| shared.producer.publish(record));
        for result in futures_util::future::join_all(offered).await {
            match result {
                Ok(()) => {}
                Err(PublishError::Full(record)) => records.push(*record),
                Err(PublishError::Unavailable { record, why }) => {
                    if !warned {
                        warned = true;
                        warn!("the bus takes nothing now ({why}); records wait in the spool");
                    }
                    records.push(*record);
                }
                Err(error) => {
                    warn!(%error, "spool: a record is lost");
                    shared.lock().lost.refused += 1;
                }
            }
        }
        if !records.is_empty() {
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// The records of a segment, and whether it is damaged otherwise than by
/// being cut off, as a killed process leaves it.
fn read(path: &Path) -> (Vec<Record>, bool) {
    use crate::recording::RecordingError::CutOff;
    let reader = match RecordingReader::open(path) {
        Ok(reader) => reader,
        // Killed before the first bytes were written.
        Err(_) if fs::metadata(path).is_ok_and(|file| file.len() < 16) => {
            return (Vec::new(), false);
        }
        Err(_) => return (Vec::new(), true),
    };
    let mut records = Vec::new();
    for record in reader {
        match record {
            Ok(record) => records.push(record),
            Err(CutOff { .. }) => return (records, false),
            Err(_) => return (records, true),
        }
    }
    (records, false)
}

fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(PREFIX)?
        .strip_suffix(SUFFIX)?
        .parse()
        .ok()
}

/// Segments in a directory, oldest first.
fn segments(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if number(&entry.path()).is_some() {
            let file = entry.metadata()?;
            segments.push(Segment {
                path: entry.path(),
                bytes: file.len(),
                begun: file.modified()?,
            });
        }
    }
    segments.sort_by_key(|segment| number(&segment.path));
    Ok(segments)
}

#[cfg(test)]
mod tests;
