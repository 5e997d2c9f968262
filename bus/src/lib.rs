//! The bus between sensors and analyzers.
//!
//! A topic has partitions; a record has an offset in its partition. Producers
//! choose the partition with [`partition_of`]; a consumer reads the partitions
//! it is assigned, and commits the offset up to which its state is stored, so
//! that after a crash it is given again whatever was not yet stored.
//!
//! [`memory`] is the in-process bus of one machine, [`kafka`] the one of many.
//! [`recording`] keeps records in a file, [`range`] is a part of either, read
//! back; [`tail`] follows all of a topic. The bus deliberately knows nothing of
//! what the payloads mean. Read [`Producer`] and [`Consumer`] first.

pub mod kafka;
pub mod memory;
mod partition;
pub mod range;
mod record;
pub mod recording;
pub mod spool;
pub mod tail;
mod transport;

pub use partition::partition_of;
pub use record::{Delivery, Offset, PartitionId, Position, Record, Topic};
pub use transport::{ConsumeError, Consumer, ConsumerEvent, Producer, PublishError};
