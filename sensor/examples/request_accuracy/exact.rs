//! What is known of requests, and how far from it the sensor is.

use std::fmt;

use sensor_common::Histogram;

/// Latencies in nanoseconds, every one of them.
#[derive(Clone, Debug, Default)]
pub struct Exact(Vec<u64>);

impl Exact {
    pub fn new(mut latencies_ns: Vec<u64>) -> Self {
        latencies_ns.sort_unstable();
        Self(latencies_ns)
    }

    /// The smallest latency that a share `q` of all does not exceed.
    fn quantile_ns(&self, q: f64) -> f64 {
        let rank = (q * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1] as f64
    }
}

/// Relative errors; the worst of all that were compared.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    pub count_error: f64,
    pub quantile_error: f64,
    /// Where that error is.
    at: String,
    requests: u64,
}

impl Compared {
    /// Counts: `expected` requests of which `counted` were counted.
    pub fn count(mut self, expected: u64, counted: u64) -> Self {
        let error = (counted as f64 / expected as f64 - 1.0).abs();
        self.requests = self.requests.max(expected);
        self.count_error = self.count_error.max(error);
        self
    }

    /// The usual quantiles, of those that the number of requests can tell.
    pub fn quantiles(mut self, what: &str, exact: &Exact, measured: &Histogram) -> Self {
        for q in [0.5, 0.9, 0.99, 0.999] {
            let beyond = (1.0 - q) * exact.0.len() as f64;
            let (Some(ours), true) = (measured.quantile_ns(q), beyond >= QUANTILE_BEYOND_MIN)
            else {
                continue;
            };
            let error = (ours / exact.quantile_ns(q) - 1.0).abs();
            if error > self.quantile_error {
                self.quantile_error = error;
                self.at = format!(
                    "{what} p{}: {:.1} µs for {:.1} µs",
                    q * 100.0,
                    ours / 1e3,
                    exact.quantile_ns(q) / 1e3
                );
            }
        }
        self
    }

    /// The worse of each.
    pub fn or_worse(self, other: &Self) -> Self {
        let worse = if other.quantile_error > self.quantile_error {
            other
        } else {
            &self
        };
        Self {
            count_error: self.count_error.max(other.count_error),
            quantile_error: worse.quantile_error,
            at: worse.at.clone(),
            requests: self.requests + other.requests,
        }
    }
}

/// Requests beyond a quantile that make it one: with fewer it is the place of
/// a single request.
const QUANTILE_BEYOND_MIN: f64 = 5.0;

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, counts {:.4} off, quantiles {:.3}",
            self.requests, self.count_error, self.quantile_error
        )?;
        if self.at.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.at)
    }
}
