//! The state of partitions on Kafka: models, totals and alerts in the compacted
//! topic `honeyguide.state.v1`, windows in `honeyguide.history.v1`.
//!
//! A store is one transaction, so it is there whole or not at all, and only the
//! last analyzer that claimed the partition can write. Its last record has the
//! key `head` and says where the rest is: nothing but the newest state and the
//! hours before it is ever read, however much the topics hold.

use std::{collections::VecDeque, sync::Arc};

use honeyguide_bus::{
    Offset, PartitionId, Topic,
    kafka::{
        ClientError, KafkaProducer, PartitionReader, PartitionWriter, ValidConfig as KafkaConfig,
        WriteError,
    },
};
use honeyguide_proto::v1;
use prost::Message;
use tokio::{runtime::Handle, sync::Mutex};
use tracing::{info, warn};

use super::{PIECE_LEN, StateError, StoredState, VERSION};
use crate::{pipeline::Pipeline, ring::HISTORY_STEPS};

const HEAD: &[u8] = b"head";
const PARTITION: &str = "partition";
const SERIES: &str = "series";
/// How many records before the end the head is looked for, at first and then.
const HEAD_WITHIN: [u64; 3] = [4, 256, u64::MAX];

/// Why a state was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another analyzer has it, and it could not be claimed back.
    #[error("the partition could not be claimed: {0}")]
    Claim(#[from] ClientError),
    /// The broker did not take it.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The process ends.
    #[error("the task that stores ended early")]
    Task,
}

/// Reads and writes the states.
#[derive(Clone)]
pub struct StateTopic {
    config: KafkaConfig,
    producer: Arc<KafkaProducer>,
    pub(crate) runtime: Handle,
}

impl StateTopic {
    /// Connects; call within a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect(config: KafkaConfig) -> Result<Self, ClientError> {
        let producer = KafkaProducer::connect(config.clone()).await?;
        Ok(Self {
            config,
            producer: Arc::new(producer),
            runtime: Handle::current(),
        })
    }

    /// For forecasts and alerts.
    pub(crate) fn producer(&self) -> Arc<KafkaProducer> {
        Arc::clone(&self.producer)
    }

    /// Takes a partition over: what was stored of it goes into a pipeline of
    /// `new`, and from now on nobody else stores. Returns the offset of the
    /// next record to take, unless nothing usable is stored. Blocks.
    ///
    /// # Errors
    /// [`ClientError`] when the broker is away; nothing is known then.
    pub fn claim(
        &self,
        partition: PartitionId,
        new: impl Fn() -> Pipeline,
    ) -> Result<(Claimed, Pipeline, Option<Offset>), ClientError> {
        let mut claim = Claim {
            config: self.config.clone(),
            partition,
            writer: PartitionWriter::claim(&self.config, partition)?,
            windows: VecDeque::new(),
        };
        let reader = PartitionReader::connect(&self.config)?;
        let (pipeline, offset) = match read_head(&reader, partition)? {
            None => {
                info!(partition, "partition assigned; nothing is stored of it");
                (new(), None)
            }
            Some((head, at)) => claim.restore(&reader, &head, at, new)?,
        };
        Ok((Claimed(Arc::new(Mutex::new(claim))), pipeline, offset))
    }
}

/// A partition that only this analyzer stores.
#[derive(Clone)]
pub struct Claimed(Arc<Mutex<Claim>>);

struct Claim {
    config: KafkaConfig,
    partition: PartitionId,
    writer: PartitionWriter,
    /// Last step and first offset of every store of windows, oldest first.
    windows: VecDeque<(u64, Offset)>,
}

impl Claimed {
    /// Stores a state; after the one before, if that is still under way.
    ///
    /// # Errors
    /// [`StoreError`]; the state before is still whole then.
    pub async fn store(&self, state: StoredState) -> Result<(), StoreError> {
        self.0.lock().await.store(state).await
    }

    /// After another analyzer claimed the partition: claims it back, which is
    /// right if the group still says that it is ours.
    pub(crate) async fn claim_again_if_lost(&self) -> Result<(), StoreError> {
        let mut claim = self.0.lock().await;
        if claim.writer.is_fatal() {
            let (config, partition) = (claim.config.clone(), claim.partition);
            let claimed =
                tokio::task::spawn_blocking(move || PartitionWriter::claim(&config, partition));
            claim.writer = claimed.await.map_err(|_| StoreError::Task)??;
        }
        Ok(())
    }
}

impl Claim {
    fn restore(
        &mut self,
        reader: &PartitionReader,
        head: &v1::StateHead,
        head_at: Offset,
        new: impl Fn() -> Pipeline,
    ) -> Result<(Pipeline, Option<Offset>), ClientError> {
        let partition = self.partition;
        let mut pipeline = new();
        let restored = match pieces(reader, partition, head, head_at)? {
            Ok((state, series)) => pipeline.restore_state(state, &series),
            Err(error) => Err(error),
        };
        let offset = match restored {
            Ok(offset) => offset,
            Err(error) => {
                warn!(partition, %error, "the stored state is of no use; the partition begins anew");
                return Ok((new(), None));
            }
        };
        if let Some(history) = head.history_offset {
            let end = reader.bounds(Topic::History, partition)?.end;
            let mut windows = pipeline.windows();
            reader.read(
                Topic::History,
                partition,
                history..end,
                |record| match windows.take(record.value) {
                    Ok(last_step) => self.windows.push_back((last_step, record.offset)),
                    Err(error) => warn!(partition, %error, "windows are missing"),
                },
            )?;
            windows.finish();
        }
        let series = pipeline.series_count();
        info!(
            partition,
            series, offset, "partition assigned, state restored"
        );
        Ok((pipeline, Some(offset)))
    }

    async fn store(&mut self, state: StoredState) -> Result<(), StoreError> {
        let last_step = state.last_step;
        let encoded = state.partition.encode_to_vec();
        let windows = state.windows.len();
        let mut records = Vec::with_capacity(windows + state.series.len() + 1);
        for piece in state.windows {
            records.push((Topic::History, Vec::new(), piece));
        }
        let partition_pieces: Vec<Vec<u8>> =
            encoded.chunks(PIECE_LEN).map(<[u8]>::to_vec).collect();
        let counts = (partition_pieces.len(), state.series.len());
        for (kind, pieces) in [(PARTITION, partition_pieces), (SERIES, state.series)] {
            for (number, piece) in pieces.into_iter().enumerate() {
                records.push((Topic::State, key(kind, number), piece));
            }
        }
        while (self.windows.front())
            .is_some_and(|(step, _)| step + HISTORY_STEPS as u64 <= last_step)
        {
            self.windows.pop_front();
        }
        let oldest = self.windows.front().map(|(_, offset)| *offset);
        let mut new_windows = None;
        let last = |offsets: &[Offset]| {
            new_windows = offsets[..windows].first().copied();
            let head = v1::StateHead {
                version: VERSION,
                first_offset: offsets.get(windows).copied().unwrap_or(0),
                partition_pieces: counts.0 as u32,
                series_pieces: counts.1 as u32,
                history_offset: oldest.or(new_windows),
            };
            (Topic::State, HEAD.to_vec(), head.encode_to_vec())
        };
        self.writer.write(records, last).await?;
        self.windows
            .extend(new_windows.map(|offset| (last_step, offset)));
        Ok(())
    }
}

fn key(kind: &str, number: usize) -> Vec<u8> {
    format!("{kind}/{number}").into_bytes()
}

/// The newest head and its offset.
fn read_head(
    reader: &PartitionReader,
    partition: PartitionId,
) -> Result<Option<(v1::StateHead, Offset)>, ClientError> {
    let bounds = reader.bounds(Topic::State, partition)?;
    for within in HEAD_WITHIN {
        let begin = bounds.end.saturating_sub(within).max(bounds.start);
        let mut newest = None;
        reader.read(Topic::State, partition, begin..bounds.end, |record| {
            if record.key == HEAD {
                let head = v1::StateHead::decode(record.value).unwrap_or_default();
                newest = Some((head, record.offset));
            }
        })?;
        if newest.is_some() || begin == bounds.start {
            return Ok(newest);
        }
    }
    Ok(None)
}

type Pieces = (v1::PartitionState, Vec<Vec<u8>>);

/// What the head points to; the inner error says why it cannot be used.
fn pieces(
    reader: &PartitionReader,
    partition: PartitionId,
    head: &v1::StateHead,
    head_at: Offset,
) -> Result<Result<Pieces, StateError>, ClientError> {
    if head.version != VERSION {
        return Ok(Err(StateError::Version(head.version)));
    }
    let mut records = std::collections::BTreeMap::new();
    let range = head.first_offset..head_at;
    reader.read(Topic::State, partition, range, |record| {
        records.insert(record.key.to_vec(), record.value.to_vec());
    })?;
    let mut all = |kind, count| -> Option<Vec<Vec<u8>>> {
        (0..count as usize)
            .map(|number| records.remove(&key(kind, number)))
            .collect()
    };
    let parts = all(PARTITION, head.partition_pieces);
    let series = all(SERIES, head.series_pieces);
    let state = parts.and_then(|parts| v1::PartitionState::decode(parts.concat().as_slice()).ok());
    Ok(match (state, series) {
        (Some(state), Some(series)) => Ok((state, series)),
        (None, _) => Err(StateError::Damaged("partition")),
        (_, None) => Err(StateError::Damaged("series")),
    })
}
