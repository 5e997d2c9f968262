//! Which series must be seen closely, and why.

use honeyguide_models::{Forecast, HORIZON_SECS, Target};
use honeyguide_proto::v1;
use sensor_common::Signal;

use super::node;
use crate::pipeline::BREACH_SAMPLES_MIN;

/// Largest k of a ratio 1/2^k that attention asks for.
pub const SHIFT_MAX: u8 = 10;

/// Breach probabilities below say nothing.
const RISK_FROM: f64 = 0.2;
/// An `anomaly_score` from here on is unusual (1.0 is the line).
const ANOMALY_FROM: f64 = 1.0;
/// Windows for which a change of level is recent.
const CHANGE_WINDOWS: u32 = 6;
const CHANGE_PRIORITY: f64 = 0.5;
/// An 80 % interval is wide from this ratio of its bounds on.
const WIDE_FROM: f64 = 4.0;
const WIDE_PRIORITY: f64 = 0.3;
/// Windows of history before the width of an interval says something.
const WIDE_FROM_WINDOWS: u32 = 12;
/// Of a series with too few events to sample.
const FEW_PRIORITY: f64 = 0.25;
/// Samples of a window wanted at priority 0: 40 of them are above p99.
const SAMPLES: f64 = 4096.0;
/// How many times as many at priority 1: 65 of them are above p99.9.
const SAMPLES_FACTOR: f64 = 16.0;

/// Why a series must be seen closely, and how much it matters.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// From 0 to 1.
    pub priority: f64,
    /// For people.
    pub reason: String,
}

/// The signals whose sampling ratio decides how many events of `signal` are
/// seen: the events of an exchange are decided together. Empty where hints
/// change nothing.
pub fn deciders(signal: Signal) -> &'static [Signal] {
    match signal {
        Signal::RunQueue => &[Signal::RunQueue],
        Signal::BlockIo => &[Signal::BlockIo],
        Signal::BlockIoDevice => &[Signal::BlockIo, Signal::BlockIoDevice],
        Signal::TcpConnect => &[Signal::TcpConnect],
        Signal::ServerRequest
        | Signal::ServerQueue
        | Signal::ServerService
        | Signal::ServerResponse => &[Signal::ServerRequest],
        Signal::ClientRequest | Signal::ClientResponse => &[Signal::ClientRequest],
        Signal::SyscallRead => &[Signal::SyscallRead],
        Signal::SyscallWrite => &[Signal::SyscallWrite],
        Signal::SyscallSync => &[Signal::SyscallSync],
        Signal::SyscallFutex => &[Signal::SyscallFutex],
        Signal::SyscallPoll => &[Signal::SyscallPoll],
        Signal::SyscallFile => &[Signal::SyscallFile],
        Signal::SyscallSocket => &[Signal::SyscallSocket],
        Signal::SyscallMemory => &[Signal::SyscallMemory],
        Signal::SyscallProcess => &[Signal::SyscallProcess],
        Signal::SyscallSleep => &[Signal::SyscallSleep],
        Signal::SyscallOther => &[Signal::SyscallOther],
        // Decided with an exchange of either side, or too rare to matter.
        Signal::TcpRtt | Signal::TcpRetransmit | Signal::Reclaim => &[],
        // Read at every flush, never sampled.
        Signal::CpuPressure
        | Signal::IoPressure
        | Signal::MemoryPressure
        | Signal::CpuThrottled => &[],
    }
}

impl Attention {
    /// What a forecast asks for; `breaches` are the risks of its objectives, and
    /// its newest window had so many `events`.
    pub fn of(
        forecast: &Forecast,
        breaches: &[v1::BreachForecast],
        events: f64,
    ) -> Option<Attention> {
        let all = [
            risk(breaches),
            change(forecast),
            width(forecast, breaches),
            few(breaches, events),
        ];
        let all = all.into_iter().flatten();
        all.max_by(|a, b| a.priority.total_cmp(&b.priority))
    }

    /// The k of the ratio 1/2^k that leaves the samples wanted of `events`.
    pub fn shift(&self, events: f64) -> u8 {
        let wanted = SAMPLES * SAMPLES_FACTOR.powf(self.priority);
        let shift = (events / wanted).max(1.0).log2();
        (shift as u8).min(SHIFT_MAX)
    }
}

fn risk(breaches: &[v1::BreachForecast]) -> Option<Attention> {
    let worst = breaches
        .iter()
        .max_by(|a, b| a.probability.total_cmp(&b.probability))
        .filter(|worst| worst.probability >= RISK_FROM)?;
    let minutes = worst.horizon.as_ref().map_or(0, |time| time.seconds / 60);
    Some(Attention {
        priority: worst.probability.min(1.0),
        reason: format!(
            "a breach within {minutes} min has a probability of {:.2}",
            worst.probability
        ),
    })
}

fn change(forecast: &Forecast) -> Option<Attention> {
    let score = f64::from(forecast.anomaly_score);
    if score >= ANOMALY_FROM {
        return Some(Attention {
            priority: (score / 2.0).min(1.0),
            reason: format!("the last window is unusual (anomaly score {score:.1})"),
        });
    }
    let change = forecast.change_point.as_ref()?;
    (change.windows_ago < CHANGE_WINDOWS).then(|| Attention {
        priority: CHANGE_PRIORITY,
        reason: format!(
            "{} changed by a factor of {:.2} {} windows ago",
            name(change.target),
            f64::from(change.log_change).exp(),
            change.windows_ago
        ),
    })
}

/// Of an interval so wide that a threshold may lie on either side.
fn width(forecast: &Forecast, breaches: &[v1::BreachForecast]) -> Option<Attention> {
    if forecast.history_windows < WIDE_FROM_WINDOWS {
        return None;
    }
    let horizons = 0..HORIZON_SECS.len();
    let pairs = breaches
        .iter()
        .flat_map(|breach| horizons.clone().map(move |horizon| (breach, horizon)));
    let wide = |(breach, horizon): (&v1::BreachForecast, usize)| {
        let secs = HORIZON_SECS[horizon];
        let within = breach.horizon.as_ref().map_or(0, |time| time.seconds);
        let target = target(breach.target())?;
        let point = forecast.point(horizon, target)?;
        let (lower, upper) = (f64::from(point.lower_80), f64::from(point.upper_80));
        let open = (lower..=upper).contains(&breach.threshold_secs);
        (i64::from(secs) <= within && open && upper >= lower * WIDE_FROM).then(|| Attention {
            priority: WIDE_PRIORITY,
            reason: format!(
                "{} in {} min is expected between {:.3} ms and {:.3} ms",
                name(target),
                secs / 60,
                lower * 1e3,
                upper * 1e3
            ),
        })
    };
    pairs.into_iter().find_map(wide)
}

/// Of a series with objectives that sampling would leave too few samples to
/// judge them by.
fn few(breaches: &[v1::BreachForecast], events: f64) -> Option<Attention> {
    let left = events * 0.5f64.powi(i32::from(node::SHIFT_MAX));
    (!breaches.is_empty() && left < BREACH_SAMPLES_MIN as f64).then(|| Attention {
        priority: FEW_PRIORITY,
        reason: format!("too few events to sample, {events:.0} in the last window"),
    })
}

fn target(target: v1::Target) -> Option<Target> {
    match target {
        v1::Target::P50 => Some(Target::P50),
        v1::Target::P90 => Some(Target::P90),
        v1::Target::P99 => Some(Target::P99),
        v1::Target::P999 => Some(Target::P999),
        v1::Target::Rate | v1::Target::Unspecified => None,
    }
}

fn name(target: Target) -> &'static str {
    match target {
        Target::P50 => "p50",
        Target::P90 => "p90",
        Target::P99 => "p99",
        Target::P999 => "p99.9",
        Target::Rate => "the rate",
    }
}
