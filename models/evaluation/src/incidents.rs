//! Recorded incidents: what a forecast of a breach is worth when it counts.

mod truth;

pub use self::truth::{BREACH_RUN, Cause, Kind, ServiceTruth, Truth};
