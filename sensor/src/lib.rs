//! The sensor: latency histograms from the kernel to the bus.
//!
//! In reading order: [`program`] loads and attaches the kernel programs and
//! shares memory with them; [`drain`] takes one window; [`identity`] names
//! services and [`routes`] requests; [`stalls`] is what is read from files;
//! [`tls`] finds what is to be seen inside TLS;
//! [`batches`] numbers and encodes; [`sensor`] runs it all;
//! [`cost`] measures what it takes; [`hints`] says how closely to look, and
//! [`ceiling`] how closely at most; [`service`] is what `honeyguide-sensor` runs.
//!
//! Deliberately absent: per-event output of any kind, and knowledge of what
//! becomes of the histograms.

pub mod batches;
pub mod ceiling;
pub mod clock;
pub mod config;
pub mod cost;
pub mod drain;
pub mod hints;
pub mod identity;
pub mod metrics;
pub mod privileges;
pub mod program;
pub mod routes;
pub mod sensor;
pub mod service;
pub mod stalls;
mod steering;
mod syscall_buffer;
mod syscall_class;
pub mod tls;

pub use config::{Config, ConfigError, ValidConfig};
pub use metrics::Metrics;
pub use sensor::{AttachedSensor, Sensor, Status};
