//! Hints: how closely sensors should look, and for how long.
//!
//! [`Hint::decode`] checks every field of a record of the topic
//! `honeyguide.hints.v1`; what is left to the sensor is whether it knows the
//! service, how old the hint is, and what it may cost.

use std::{
    fmt,
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};

use prost::Message;
use sensor_common::{Signal, record::SAMPLING_SHIFT_MAX};

use crate::{
    ServiceId,
    service::{PART_LEN_MAX, ServiceIdError},
    v1,
};

/// Bytes of an encoded hint at most; larger payloads are refused unread. The
/// longest valid one has about 1.3 kB.
pub const HINT_LEN_MAX: usize = 4096;
/// Bytes of [`Hint::reason`] at most.
pub const REASON_LEN_MAX: usize = 256;
/// Bounds of [`Hint::ttl`]. An hour at most, so that no sensor follows for
/// long an analyzer that is gone.
pub const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// Bounds of [`Hint::flush_interval`], and of a sensor's own.
pub const FLUSH_INTERVAL: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(60);

/// What a hint is for; `None` is all of them.
///
/// The order is by width: where several scopes cover a series, the greatest
/// counts. A service before all of them, then a signal, then a sensor.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The service.
    pub service: Option<ServiceId>,
    /// The signal.
    pub signal: Option<Signal>,
    /// Identity of the sensor, without `/`.
    pub sensor: Option<String>,
}

impl Scope {
    /// The key of the compacted topic, `sensor/service/signal` with nothing
    /// where a part is `None`. Each scope has its own.
    pub fn key(&self) -> String {
        self.to_string()
    }

    /// Parses a [`key`](Self::key).
    ///
    /// # Errors
    /// [`HintError`] of the first part that is wrong.
    pub fn parse(key: &str) -> Result<Scope, HintError> {
        let (sensor, rest) = key.split_once('/').ok_or(HintError::Key)?;
        let (service, signal) = rest.rsplit_once('/').ok_or(HintError::Key)?;
        Scope::from_parts(sensor, service, signal)
    }

    /// Whether a series of `service` and `signal` is covered.
    pub fn covers(&self, service: &ServiceId, signal: Signal) -> bool {
        self.service.as_ref().is_none_or(|of| of == service)
            && self.signal.is_none_or(|of| of == signal)
    }

    fn from_parts(sensor: &str, service: &str, signal: &str) -> Result<Scope, HintError> {
        let given = |text: &str| !text.is_empty();
        let wrong = |c: char| c == '/' || c.is_control();
        if sensor.len() > PART_LEN_MAX || sensor.contains(wrong) {
            return Err(HintError::SensorId);
        }
        let service = Some(service).filter(|text| given(text));
        let signal = Some(signal).filter(|text| given(text));
        Ok(Scope {
            service: service.map(ServiceId::parse).transpose()?,
            signal: match signal {
                Some(name) => Some(Signal::from_name(name).ok_or(HintError::UnknownSignal)?),
                None => None,
            },
            sensor: Some(sensor.to_owned()).filter(|text| given(text)),
        })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sensor.as_deref().unwrap_or_default())?;
        f.write_str("/")?;
        if let Some(service) = &self.service {
            write!(f, "{service}")?;
        }
        f.write_str("/")?;
        f.write_str(self.signal.map_or("", Signal::name))
    }
}

/// A checked hint; see `hint.proto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// What it is for.
    pub scope: Scope,
    /// k of the sampling ratio 1/2^k, at most [`SAMPLING_SHIFT_MAX`]; `None`
    /// for the sensor's own.
    pub sampling_shift: Option<u8>,
    /// Within [`FLUSH_INTERVAL`], only where the scope names no service and no
    /// signal; `None` for the sensor's own.
    pub flush_interval: Option<Duration>,
    /// For people; at most [`REASON_LEN_MAX`] bytes, printable.
    pub reason: String,
    /// Since the Unix epoch.
    pub issued_at: Duration,
    /// Within [`TTL`].
    pub ttl: Duration,
    /// From 1; the greatest of a scope counts.
    pub epoch: u64,
    /// To be counted, not applied.
    pub dry_run: bool,
}

/// Why a payload is no hint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HintError {
    /// Longer than a hint may be.
    #[error("payload of {len} bytes exceeds {HINT_LEN_MAX}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Not a protobuf message of this kind.
    #[error("not a Hint: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Not `sensor/service/signal`.
    #[error("the key is not sensor/service/signal")]
    Key,
    /// No sensor can be called so.
    #[error("sensor_id is longer than {PART_LEN_MAX} bytes, or has a `/` or a control character")]
    SensorId,
    /// No service can be called so.
    #[error("service: {0}")]
    Service(#[from] ServiceIdError),
    /// This reader knows no such signal.
    #[error("signal is none of those known here (runq, blkio, server_request, …)")]
    UnknownSignal,
    /// A ratio below 1/2^16.
    #[error("sampling_shift is {0}, expected 0 to {SAMPLING_SHIFT_MAX}")]
    SamplingShift(u32),
    /// No duration from 1 s to 60 s.
    #[error("flush_interval is not within 1 s to 60 s")]
    FlushInterval,
    /// The flush interval is the sensor's, not a service's or a signal's.
    #[error("flush_interval needs an empty service and an empty signal")]
    FlushIntervalOfSeries,
    /// Neither a ratio nor an interval.
    #[error("neither sampling_shift nor flush_interval is set")]
    Nothing,
    /// Longer than it may be, or not printable.
    #[error("reason is longer than {REASON_LEN_MAX} bytes or has control characters")]
    Reason,
    /// Not set, or not after 1970.
    #[error("issued_at is not set, or no time from 1970 on")]
    IssuedAt,
    /// No duration from 1 s to 1 h.
    #[error("ttl is not within 1 s to 1 h")]
    Ttl,
    /// 0.
    #[error("epoch is 0, expected 1 or more")]
    Epoch,
}

impl HintError {
    /// Every [`reason`](Self::reason).
    pub const REASONS: [&str; 10] = [
        "too_long",
        "not_protobuf",
        "bad_key",
        "bad_sensor_id",
        "bad_service",
        "unknown_signal",
        "bad_sampling_shift",
        "bad_flush_interval",
        "nothing_set",
        "bad_field",
    ];

    /// The kind of error as a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            HintError::TooLong { .. } => "too_long",
            HintError::Protobuf(_) => "not_protobuf",
            HintError::Key => "bad_key",
            HintError::SensorId => "bad_sensor_id",
            HintError::Service(_) => "bad_service",
            HintError::UnknownSignal => "unknown_signal",
            HintError::SamplingShift(_) => "bad_sampling_shift",
            HintError::FlushInterval | HintError::FlushIntervalOfSeries => "bad_flush_interval",
            HintError::Nothing => "nothing_set",
            HintError::Reason | HintError::IssuedAt | HintError::Ttl | HintError::Epoch => {
                "bad_field"
            }
        }
    }
}

impl Hint {
    /// Decodes and checks a payload of the topic `honeyguide.hints.v1`.
    ///
    /// # Errors
    /// [`HintError`] says which field is wrong.
    pub fn decode(payload: &[u8]) -> Result<Hint, HintError> {
        if payload.len() > HINT_LEN_MAX {
            return Err(HintError::TooLong { len: payload.len() });
        }
        v1::Hint::decode(payload)?.try_into()
    }

    /// The payload; its key is [`Scope::key`].
    pub fn encode(&self) -> Vec<u8> {
        v1::Hint::from(self).encode_to_vec()
    }

    /// When it ends, since the Unix epoch.
    pub fn expires_at(&self) -> Duration {
        self.issued_at.saturating_add(self.ttl)
    }
}

impl TryFrom<v1::Hint> for Hint {
    type Error = HintError;

    fn try_from(hint: v1::Hint) -> Result<Hint, HintError> {
        let scope = Scope::from_parts(&hint.sensor_id, &hint.service, &hint.signal)?;
        let sampling_shift = match hint.sampling_shift {
            Some(shift) => {
                let bounded = u8::try_from(shift).ok();
                let bounded = bounded.filter(|shift| *shift <= SAMPLING_SHIFT_MAX);
                Some(bounded.ok_or(HintError::SamplingShift(shift))?)
            }
            None => None,
        };
        let flush_interval = match hint.flush_interval {
            Some(_) if scope.service.is_some() || scope.signal.is_some() => {
                return Err(HintError::FlushIntervalOfSeries);
            }
            Some(interval) => {
                Some(within(interval, &FLUSH_INTERVAL).ok_or(HintError::FlushInterval)?)
            }
            None => None,
        };
        if sampling_shift.is_none() && flush_interval.is_none() {
            return Err(HintError::Nothing);
        }
        if hint.reason.len() > REASON_LEN_MAX || hint.reason.contains(char::is_control) {
            return Err(HintError::Reason);
        }
        if hint.epoch == 0 {
            return Err(HintError::Epoch);
        }
        Ok(Hint {
            scope,
            sampling_shift,
            flush_interval,
            reason: hint.reason,
            issued_at: since_epoch(hint.issued_at).ok_or(HintError::IssuedAt)?,
            ttl: hint
                .ttl
                .and_then(|ttl| within(ttl, &TTL))
                .ok_or(HintError::Ttl)?,
            epoch: hint.epoch,
            dry_run: hint.dry_run,
        })
    }
}

impl From<&Hint> for v1::Hint {
    fn from(hint: &Hint) -> v1::Hint {
        let scope = &hint.scope;
        // Both fit: they are below 2^63 seconds.
        let duration = |duration: Duration| prost_types::Duration {
            seconds: duration.as_secs().cast_signed(),
            nanos: duration.subsec_nanos().cast_signed(),
        };
        let issued_at = duration(hint.issued_at);
        v1::Hint {
            sensor_id: scope.sensor.clone().unwrap_or_default(),
            service: scope.service.as_ref().map_or(String::new(), ServiceId::key),
            signal: scope.signal.map_or("", Signal::name).to_owned(),
            sampling_shift: hint.sampling_shift.map(u32::from),
            flush_interval: hint.flush_interval.map(duration),
            reason: hint.reason.clone(),
            issued_at: Some(prost_types::Timestamp {
                seconds: issued_at.seconds,
                nanos: issued_at.nanos,
            }),
            ttl: Some(duration(hint.ttl)),
            epoch: hint.epoch,
            dry_run: hint.dry_run,
        }
    }
}

fn within(duration: prost_types::Duration, range: &RangeInclusive<Duration>) -> Option<Duration> {
    let duration = Duration::try_from(duration).ok()?;
    range.contains(&duration).then_some(duration)
}

/// `None` unless it is a time from 1970 to what a clock can hold.
fn since_epoch(timestamp: Option<prost_types::Timestamp>) -> Option<Duration> {
    let time = SystemTime::try_from(timestamp?).ok()?;
    time.duration_since(SystemTime::UNIX_EPOCH).ok()
}

#[cfg(test)]
mod tests;
