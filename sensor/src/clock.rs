//! Where windows lie in time.
//!
//! A window's length comes from the monotonic clock, its place from the wall
//! clock. Windows follow each other without gap or overlap; when the wall
//! clock was stepped, the next window is placed anew and the step is counted.

use std::time::Duration;

use crate::batches::Window;

/// A difference between the clocks that is a step and not drift.
const STEP_MIN: Duration = Duration::from_secs(1);

/// Both clocks at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// Since boot, never steps.
    pub monotonic: Duration,
    /// Since the Unix epoch.
    pub wall: Duration,
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
}
