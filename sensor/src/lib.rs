//! The sensor: kernel programs in, batches of histograms out.
#![allow(missing_docs)]
pub mod identity;
pub mod program;
mod syscall_class;
