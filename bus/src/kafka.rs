//! The bus on Apache Kafka: where one machine is not enough.
//!
//! Producers are idempotent and wait for all in-sync replicas; consumers share
//! partitions in a group that rebalances cooperatively. Where a partition is
//! read from is decided by whoever keeps its state, see
//! [`Consumer::begin_at`](crate::Consumer::begin_at). Topics are made and
//! checked by [`topics`].

mod client;
mod config;
mod consumer;
mod partition_writer;
mod producer;
mod range;
mod reader;
mod tail;
pub mod topics;

pub use client::ClientError;
pub use config::{Config, ConfigError, SaslMechanism, Secret, SecurityProtocol, ValidConfig};
pub use consumer::KafkaConsumer;
pub use partition_writer::{PartitionWriter, WriteError};
pub use producer::KafkaProducer;
pub use range::{RangeError, RangeReader, Span};
pub use reader::{PartitionReader, RecordRef};
pub use tail::KafkaTail;
