//! What changed from one reading of a counter to the next. Pure.

use std::time::{Duration, Instant};

use super::counters::Throttled;

/// Readings closer together say nothing: their distance is not known well enough.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Of a second. A group that was never stalled so much has no series, and one that was
/// tells no less: on a scale of ratios, nothing would be infinitely far from a little.
pub const STALL_MIN: Duration = Duration::from_millis(1);
/// For how long after such a stall its pressure is told, so that its history has no
/// holes.
pub const TOLD_AFTER: Duration = Duration::from_secs(60 * 60);
/// Shortest period of a quota that the kernel accepts.
const PERIOD_MIN: Duration = Duration::from_millis(1);
/// How much more than the time between two readings a counter may have counted:
/// it is not read at the moment that the clock is.
const LATE_MAX: Duration = Duration::from_millis(500);

/// Which file it was: a group made again under the same name has others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// Number of the device.
    pub device: u64,
    /// Number on it.
    pub inode: u64,
}

/// A counter went back, or further than time did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the counter holds what cannot be")]
pub struct Implausible;

#[derive(Clone, Copy, Debug)]
struct Reading<T> {
    file: FileId,
    at: Instant,
    value: T,
}

/// Pressure of one group on one resource.
#[derive(Debug, Default)]
pub struct Pressure {
    last: Option<Reading<u64>>,
    /// Of at least [`STALL_MIN`].
    stalled_at: Option<Instant>,
}

impl Pressure {
    /// Takes the total in microseconds that `file` held `at` a time; returns how
    /// much of a second was stalled since the last one, while there is something
    /// to tell.
    ///
    /// # Errors
    /// [`Implausible`]; the next reading is compared with this one.
    pub fn advance(
        &mut self,
        file: FileId,
        at: Instant,
        total_us: u64,
    ) -> Result<Option<Duration>, Implausible> {
        let now = Reading {
            file,
            at,
            value: total_us,
        };
        let Some(last) = self.last.filter(|last| last.file == file) else {
            self.last = Some(now);
            return Ok(None);
        };
        let elapsed = at.saturating_duration_since(last.at);
        if elapsed < INTERVAL_MIN {
            return Ok(None);
        }
        self.last = Some(now);
        let stalled = total_us.checked_sub(last.value).ok_or(Implausible)?;
        let stalled = Duration::from_micros(stalled);
        if stalled > elapsed + LATE_MAX {
            return Err(Implausible);
        }
        let ratio = (stalled.as_secs_f64() / elapsed.as_secs_f64()).min(1.0);
        let of_second = Duration::from_secs_f64(ratio);
        if of_second >= STALL_MIN {
            self.stalled_at = Some(at);
        }
        let told = self
            .stalled_at
            .is_some_and(|stalled| at.saturating_duration_since(stalled) <= TOLD_AFTER);
        Ok(told.then_some(of_second.max(STALL_MIN)))
    }
}

/// Use of the CPU quota of one group.
#[derive(Debug, Default)]
pub struct Throttling {
    last: Option<Reading<Throttled>>,
}

impl Throttling {
    /// Takes what `file` held `at` a time; returns what was added since the last
    /// one, if a period was. The kernel counts the time when tasks run again, and
    /// the period at its end: time without a period is that of the next one.
    ///
    /// # Errors
    /// [`Implausible`]; the next reading is compared with this one.
    pub fn advance(
        &mut self,
        file: FileId,
        at: Instant,
        value: Throttled,
    ) -> Result<Option<Throttled>, Implausible> {
        let now = Reading { file, at, value };
        let Some(last) = self.last.filter(|last| last.file == file) else {
            self.last = Some(now);
            return Ok(None);
        };
        let periods = value.periods.checked_sub(last.value.periods);
        let time_ns = value.time_ns.checked_sub(last.value.time_ns);
        if periods == Some(0) && time_ns.is_some() {
            return Ok(None);
        }
        self.last = Some(now);
        let (periods, time_ns) = periods.zip(time_ns).ok_or(Implausible)?;
        let elapsed = at.saturating_duration_since(last.at) + LATE_MAX;
        if u128::from(periods) > elapsed.as_nanos() / PERIOD_MIN.as_nanos() {
            return Err(Implausible);
        }
        Ok(Some(Throttled { periods, time_ns }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId {
        device: 1,
        inode: 7,
    };
    const SECOND: Duration = Duration::from_secs(1);

    fn millis(millis: u64) -> Option<Duration> {
        Some(Duration::from_millis(millis))
    }

    #[test]
    fn pressure_is_the_stalled_part_of_a_second() {
        let (mut meter, start) = (Pressure::default(), Instant::now());
        let mut at = |secs: f64, total_us| {
            meter.advance(FILE, start + Duration::from_secs_f64(secs), total_us)
        };
        assert_eq!(at(0.0, 5_000_000), Ok(None), "since when is not known");
        assert_eq!(at(10.0, 9_000_000), Ok(millis(400)));
        assert_eq!(at(10.05, 9_050_000), Ok(None), "too early, not lost");
        assert_eq!(at(11.0, 9_500_000), Ok(millis(500)));
        assert_eq!(at(12.0, 10_510_000), Ok(millis(1000)), "never more");
        assert_eq!(at(13.0, 10_510_000), Ok(millis(1)), "never less");
    }

    #[test]
    fn a_group_that_is_not_stalled_is_not_told() {
        let (mut meter, start) = (Pressure::default(), Instant::now());
        let mut told = Vec::new();
        let mut total_us = 0;
        for number in 0..10_000u32 {
            // 0.05 % of the time; once 0.2 %.
            total_us += if number == 5_000 { 2_000 } else { 500 };
            let stall = meter.advance(FILE, start + SECOND * number, total_us);
            told.extend(stall.unwrap().map(|_| number));
        }
        let expected: Vec<u32> = (5_000..=8_600).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn nothing_is_invented_where_counters_go_back_or_too_far() {
        let (mut meter, start) = (Pressure::default(), Instant::now());
        let mut at = |secs: u32, inode, total_us| {
            let file = FileId { inode, ..FILE };
            meter.advance(file, start + SECOND * secs, total_us)
        };
        assert_eq!(at(0, 7, 8_000_000), Ok(None));
        assert_eq!(at(1, 7, 7_000_000), Err(Implausible));
        assert_eq!(at(2, 7, 7_100_000), Ok(millis(100)));
        assert_eq!(at(3, 7, u64::MAX), Err(Implausible));
        assert_eq!(at(4, 7, 7_300_000), Err(Implausible));
        assert_eq!(at(5, 8, 100_000), Ok(None), "a new group");
        assert_eq!(at(6, 8, 300_000), Ok(millis(200)));
        assert_eq!(at(6, 8, 300_000), Ok(None), "no time has passed");
    }

    #[test]
    fn every_throttled_period_is_counted_once() {
        let (mut meter, start) = (Throttling::default(), Instant::now());
        let mut at = |secs: u32, inode, periods, time_ns| {
            let file = FileId { inode, ..FILE };
            let value = Throttled { periods, time_ns };
            meter.advance(file, start + SECOND * secs, value)
        };
        let added = |periods, time_ns| Ok(Some(Throttled { periods, time_ns }));
        assert_eq!(at(0, 7, 100, 9_000), Ok(None));
        assert_eq!(at(1, 7, 110, 11_000), added(10, 2_000));
        assert_eq!(at(2, 7, 110, 11_500), Ok(None), "the period goes on");
        assert_eq!(at(3, 7, 111, 12_000), added(1, 1_000));
        assert_eq!(at(4, 7, 5, 12_000), Err(Implausible));
        assert_eq!(at(5, 7, 6, 11_000), Err(Implausible));
        assert_eq!(at(6, 7, 7, 11_300), added(1, 300));
        assert_eq!(at(7, 7, u64::MAX, u64::MAX), Err(Implausible));
        assert_eq!(at(8, 9, 3, 300), Ok(None), "a new group");
        assert_eq!(at(9, 9, 4, 400), added(1, 100));
    }
}
