//! Where windows lie in time.
//!
//! A window's length comes from the monotonic clock, its place from the wall
//! clock. Windows follow each other without gap or overlap; when the wall
//! clock was stepped, the next window is placed anew and the step is counted.

use std::time::{Duration, SystemTime};

use honeyguide_proto::batch::WINDOW_DURATION_NS;

use crate::batches::Window;

/// A difference between the clocks that is a step and not drift.
const STEP_MIN: Duration = Duration::from_secs(1);
/// So long after a multiple of their length windows end: never before it, or
/// the analyzer would wait for the rest.
const AFTER_BOUNDARY: Duration = Duration::from_millis(2);

/// Both clocks at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// Since boot, never steps.
    pub monotonic: Duration,
    /// Since the Unix epoch.
    pub wall: Duration,
}

/// Reads both clocks.
pub fn clock_now() -> Instant {
    // SAFETY: all-zero is a valid `timespec`.
    let mut monotonic: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `monotonic` outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut monotonic) };
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Instant {
        monotonic: Duration::new(monotonic.tv_sec as u64, monotonic.tv_nsec as u32),
        wall: wall.unwrap_or_default(),
    }
}

/// Places windows.
#[derive(Debug)]
pub struct WindowClock {
    last: Instant,
    steps: u64,
}

impl WindowClock {
    /// The first window begins now.
    pub fn new(now: Instant) -> Self {
        Self {
            last: now,
            steps: 0,
        }
    }

    /// Length of the window if it ended now.
    pub fn window_age(&self, now: Instant) -> Duration {
        now.monotonic.saturating_sub(self.last.monotonic)
    }

    /// Time from `now` until the window is long enough to be told: a sensor may stop
    /// right after a window ended.
    pub fn until_shortest(&self, now: Instant) -> Duration {
        let shortest = Duration::from_nanos(*WINDOW_DURATION_NS.start());
        shortest.saturating_sub(self.window_age(now))
    }

    /// The window that ends now; the next begins.
    pub fn end_window(&mut self, now: Instant) -> Window {
        let duration = self.window_age(now);
        let expected = self.last.wall + duration;
        let stepped = now.wall.abs_diff(expected) >= STEP_MIN;
        self.steps += u64::from(stepped);
        let end = if stepped { now.wall } else { expected };
        self.last = Instant {
            monotonic: now.monotonic,
            wall: end,
        };
        Window {
            start_ns: end.saturating_sub(duration).as_nanos() as u64,
            duration_ns: duration.as_nanos() as u64,
        }
    }

    /// Time from `now` until a window of about `length` is to end: just after a
    /// multiple of `length` since the epoch, so that the windows of all sensors
    /// end together and no step of the analyzer waits for the half of one.
    pub fn until_boundary(&self, now: Instant, length: Duration) -> Duration {
        let length_ns = length.as_nanos().max(1);
        let wall = self.last.wall + self.window_age(now);
        let to_go = length_ns - wall.as_nanos() % length_ns;
        // A window of less than half the length would be hardly one.
        let to_go = if to_go < length_ns / 2 {
            to_go + length_ns
        } else {
            to_go
        };
        Duration::from_nanos(u64::try_from(to_go).unwrap_or(u64::MAX)) + AFTER_BOUNDARY
    }

    /// Steps of the wall clock seen.
    pub fn steps(&self) -> u64 {
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(monotonic_ms: u64, wall_ms: u64) -> Instant {
        Instant {
            monotonic: Duration::from_millis(monotonic_ms),
            wall: Duration::from_millis(wall_ms),
        }
    }

    #[test]
    fn windows_follow_each_other_despite_drift() {
        let mut clock = WindowClock::new(at(0, 1_000_000));
        let first = clock.end_window(at(10_000, 1_010_003));
        let second = clock.end_window(at(20_000, 1_020_006));
        assert_eq!(first.start_ns + first.duration_ns, second.start_ns);
        assert_eq!(clock.steps(), 0);
    }

    #[test]
    fn stepped_clock_keeps_durations_and_is_counted() {
        let mut clock = WindowClock::new(at(0, 1_000_000));
        let window = clock.end_window(at(10_000, 400_000));
        assert_eq!(window.duration_ns, 10_000_000_000);
        assert_eq!(window.start_ns, 390_000 * 1_000_000);
        assert_eq!(clock.steps(), 1);
        let next = clock.end_window(at(20_000, 410_000));
        assert_eq!(next.start_ns, 400_000 * 1_000_000);
    }

    #[test]
    fn no_window_is_shorter_than_may_be_told() {
        let clock = WindowClock::new(at(7, 1_000_000));
        let after = |micros: u64| Instant {
            monotonic: Duration::from_micros(7000 + micros),
            wall: Duration::from_secs(1000),
        };
        for (micros, left) in [(0, 1000), (690, 310), (1000, 0), (5000, 0)] {
            let until = clock.until_shortest(after(micros));
            assert_eq!(until, Duration::from_micros(left), "{micros}");
        }
    }

    #[test]
    fn windows_end_just_after_a_multiple_of_their_length() {
        let at = |millis: u64| Instant {
            monotonic: Duration::from_millis(millis),
            wall: Duration::from_millis(1_000_000 + millis),
        };
        let clock = WindowClock::new(at(0));
        let length = Duration::from_secs(10);
        for (now, to_go) in [(0, 10_002), (2, 10_000), (4_000, 6_002), (7_000, 13_002)] {
            let until = clock.until_boundary(at(now), length);
            assert_eq!(until, Duration::from_millis(to_go), "{now}");
        }
    }
}
