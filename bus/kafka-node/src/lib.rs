//! Real Apache Kafka nodes on loopback, for development and tests.
//!
//! The broker's jars come from Maven Central into the tool cache ([`Jars`]).
//! A [`Cluster`] formats KRaft storage and runs one or more combined nodes
//! (broker and controller) as child processes with a bounded heap on free
//! ports. Nodes are ended by their pid, and can be killed and started again on
//! the same data and ports. With [`Options::has_network`] a [`Network`] that can
//! stall or be cut is between clients and nodes.
//!
//! Tests that only need some broker take [`Lent`] (feature `client`).

mod cluster;
mod jars;
#[cfg(feature = "client")]
mod lent;
mod network;

pub use cluster::{Cluster, Options};
pub use jars::Jars;
#[cfg(feature = "client")]
pub use lent::Lent;
pub use network::Network;
