//! What the programs of Honeyguide share: [`settings`] merges configuration
//! file, environment and flags; [`logging`] says where log lines go; [`ended`]
//! is the end of a program; [`program`] is the `main` of one that does nothing
//! but serve.
//!
//! Deliberately absent: what they serve. So the sensor's program holds no
//! data frames, and the analyzer's no kernel programs.
#![forbid(unsafe_code)]

pub mod logging;
pub mod program;
pub mod settings;

use std::time::Duration;

/// Exit code for wrong usage or configuration (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// Resolves at SIGINT, SIGTERM, or when the time is up.
pub async fn ended(duration: Option<Duration>) {
    use tokio::signal::unix::{SignalKind, signal};
    let time_up = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = time_up => {}
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
