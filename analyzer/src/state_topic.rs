//! The state of partitions in the compacted topic `honeyguide.state.v1`.
//!
//! Keys: `rows/<slot>/<part>` holds rows of closed steps as Parquet; slots are
//! used in turn and together last as long as the history in memory.
//! `head/<0 or 1>/<part>` holds a [`v1::PartitionState`], and `head` says which
//! of the two is whole, and so is written last.

use std::{collections::BTreeMap, sync::Arc};

use honeyguide_bus::{
    PartitionId, Producer, Record, Topic,
    kafka::{ClientError, KafkaProducer, ValidConfig as KafkaConfig, read_table},
};
use honeyguide_proto::v1;
use prost::Message;
use tokio::runtime::Handle;
use tracing::warn;

use crate::{
    config::ValidConfig,
    frame::{rows_from_parquet, rows_to_parquet},
    pipeline::{HistoryRow, store_every},
    series::HISTORY_STEPS,
};

/// Bytes of a value at most.
const PART_LEN: usize = 900_000;
/// Rows of a value: some 200 kB.
const ROWS_PER_PART: usize = 16_384;
/// How often a record is offered before the store has failed.
const ATTEMPTS: usize = 3;
const HEAD: &[u8] = b"head";

/// Why a state was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The broker does not take it.
    #[error("the state is not stored: {0}")]
    Bus(String),
    /// Rows could not be encoded.
    #[error("rows are not encoded: {0}")]
    Rows(String),
}

/// What is restored of a partition.
#[derive(Debug, Default)]
pub struct Restored {
    /// In the order of (step, service, signal).
    pub rows: Vec<HistoryRow>,
    /// The state after them; `None` if nothing was ever stored.
    pub state: Option<v1::PartitionState>,
}

/// Reads and writes the topic.
#[derive(Clone)]
pub struct StateTopic {
    config: KafkaConfig,
    producer: Arc<KafkaProducer>,
    runtime: Handle,
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

    /// What is stored of `partition`, its rows from `first_step` on. Blocks.
    ///
    /// # Errors
    /// [`ClientError`]. What is damaged is left out and said in the log.
    pub(crate) fn restore(
        &self,
        partition: PartitionId,
        first_step: u64,
    ) -> Result<Restored, ClientError> {
        let table = read_table(&self.config, Topic::State, partition)?;
        let mut restored = Restored::default();
        for (key, value) in &table {
            if !key.starts_with(b"rows/") {
                continue;
            }
            match rows_from_parquet(value, first_step) {
                Ok(mut rows) => restored.rows.append(&mut rows),
                Err(error) => warn!(partition, %error, "part of the stored history is damaged"),
            }
        }
        restored
            .rows
            .sort_by(|a, b| (a.step, &a.service, a.signal).cmp(&(b.step, &b.service, b.signal)));
        restored
            .rows
            .dedup_by(|a, b| (a.step, &a.service, a.signal) == (b.step, &b.service, b.signal));
        restored.state = head(&table);
        if restored.state.is_none() && table.contains_key(HEAD) {
            warn!(
                partition,
                "the stored state is damaged; the partition begins anew"
            );
        }
        if let Some(state) = &restored.state {
            // Rows of a store that did not come to its end are not of the state.
            restored.rows.retain(|row| row.step < state.next_step);
        } else {
            restored.rows.clear();
        }
        Ok(restored)
    }

    /// Stores rows of steps up to `step`, and the state after them. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]; the state before is still whole then.
    pub(crate) fn store(
        &self,
        partition: PartitionId,
        step: u64,
        rows: &[HistoryRow],
        state: &v1::PartitionState,
        config: &ValidConfig,
    ) -> Result<(), StoreError> {
        let every = store_every(config);
        // Two more than the history needs, as retries shift them.
        let slots = HISTORY_STEPS as u64 / every + 2;
        let slot = (step / every) % slots;
        for (part, rows) in rows.chunks(ROWS_PER_PART).enumerate() {
            let value =
                rows_to_parquet(rows).map_err(|error| StoreError::Rows(error.to_string()))?;
            let key = format!("rows/{slot}/{part}");
            self.put(partition, key.into_bytes(), value)?;
        }
        let generation = step % 2;
        let encoded = state.encode_to_vec();
        let parts = encoded.chunks(PART_LEN);
        let count = parts.len();
        for (part, value) in parts.enumerate() {
            let key = format!("head/{generation}/{part}");
            self.put(partition, key.into_bytes(), value.to_vec())?;
        }
        let head = v1::StateHead {
            generation,
            parts: count as u32,
            length: encoded.len() as u64,
        };
        self.put(partition, HEAD.to_vec(), head.encode_to_vec())
    }

    fn put(&self, partition: PartitionId, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            let record = Record {
                topic: Topic::State,
                partition,
                key: key.clone(),
                timestamp_ns: crate::analyzer::now_ns(),
                payload: value.clone(),
            };
            match self.runtime.block_on(self.producer.publish(record)) {
                Ok(()) => return Ok(()),
                Err(error) => why = error.to_string(),
            }
        }
        Err(StoreError::Bus(why))
    }
}

/// The whole state that the head points to.
fn head(table: &BTreeMap<Vec<u8>, Vec<u8>>) -> Option<v1::PartitionState> {
    let head = v1::StateHead::decode(table.get(HEAD)?.as_slice()).ok()?;
    let mut encoded = Vec::new();
    for part in 0..head.parts {
        let key = format!("head/{}/{part}", head.generation);
        encoded.extend(table.get(key.as_bytes())?);
    }
    if encoded.len() as u64 != head.length {
        return None;
    }
    v1::PartitionState::decode(encoded.as_slice()).ok()
}
