//! What really happened in a recorded incident, from its client's own times.

use std::{collections::BTreeSet, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Windows in a row above the objective that are a breach.
pub const BREACH_RUN: usize = 3;

/// What is known of a recording besides the recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Truth {
    /// Name of the scenario.
    pub scenario: String,
    /// Seed of loads and of the fault.
    pub seed: u64,
    /// Whether what happened could have been foreseen.
    pub kind: Kind,
    /// What was done to the subject, with the sizes drawn.
    pub fault: String,
    /// What the fault is seen in; empty where quiet.
    pub causes: Vec<Cause>,
    /// Begin of the first window in nanoseconds since the Unix epoch.
    pub first_window_ns: u64,
    /// Length of a window.
    pub window_secs: u32,
    /// Window in which the fault begins; `None` where quiet.
    pub onset: Option<usize>,
    /// All services with an objective; the subject first.
    pub services: Vec<ServiceTruth>,
}

/// Whether what happened could have been foreseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The fault grows over 60 windows or more.
    Predictable,
    /// The fault is there at once.
    Sudden,
    /// There is no fault.
    Quiet,
}

/// A series that shows the fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cause {
    /// Key of the service.
    pub service: String,
    /// Name of the signal, as reasons have it.
    pub signal: String,
}

/// Requests of one service as its client saw them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceTruth {
    /// Key of the service.
    pub service: String,
    /// What the 99th percentile of a window must not exceed.
    pub objective_secs: f64,
    /// First of [`BREACH_RUN`] windows in a row that do; of the subject, since the
    /// onset.
    pub breach: Option<usize>,
    /// Requests that were to be sent in each window.
    pub count: Vec<u32>,
    /// Their 99th percentile from the time each was to be sent, in microseconds;
    /// 0 where there was none.
    pub p99_us: Vec<u32>,
    /// Requests that failed or took longer than the client waits; they count as
    /// that long.
    pub failed: u64,
}

impl ServiceTruth {
    /// From latencies in microseconds by window; breaches before the window `from`
    /// are none.
    pub fn new(
        service: &str,
        objective_secs: f64,
        mut windows: Vec<Vec<u32>>,
        from: usize,
    ) -> Self {
        let count = windows.iter().map(|window| window.len() as u32).collect();
        let p99_us: Vec<u32> = windows.iter_mut().map(|window| p99(window)).collect();
        ServiceTruth {
            service: service.to_owned(),
            objective_secs,
            breach: first_run(&p99_us, objective_secs, from),
            count,
            p99_us,
            failed: 0,
        }
    }

    /// Whether the 99th percentile of a window is above the objective.
    pub fn above(&self) -> Vec<bool> {
        above(&self.p99_us, self.objective_secs)
    }

    /// Whether a window and those before it are [`BREACH_RUN`] in a row above the
    /// objective.
    pub fn breached(&self) -> Vec<bool> {
        let above = self.above();
        let is_breached = |at: usize| {
            let row = (at + 1)
                .checked_sub(BREACH_RUN)
                .map(|from| &above[from..=at]);
            row.is_some_and(|row| !row.contains(&false))
        };
        (0..above.len()).map(is_breached).collect()
    }
}

fn above(p99_us: &[u32], objective_secs: f64) -> Vec<bool> {
    let is_above = |p99_us: &u32| f64::from(*p99_us) * 1e-6 > objective_secs;
    p99_us.iter().map(is_above).collect()
}

/// Nearest rank; 0 of nothing.
fn p99(latencies: &mut [u32]) -> u32 {
    latencies.sort_unstable();
    let rank = (latencies.len() * 99).div_ceil(100);
    rank.checked_sub(1).map_or(0, |at| latencies[at])
}

/// The first of [`BREACH_RUN`] windows in a row above an objective, `from` a window.
fn first_run(p99_us: &[u32], objective_secs: f64, from: usize) -> Option<usize> {
    let above = above(p99_us, objective_secs);
    let mut runs = above.windows(BREACH_RUN).enumerate().skip(from);
    let (at, _) = runs.find(|(_, run)| !run.contains(&false))?;
    Some(at)
}

impl Truth {
    /// Reads and checks a sidecar.
    ///
    /// # Errors
    /// [`Error`] with the path and what is wrong.
    pub fn read(path: &Path) -> Result<Truth, Error> {
        let text = fs::read(path).map_err(Error::read(path))?;
        let truth: Truth = serde_json::from_slice(&text).map_err(Error::json(path))?;
        match truth.fault_of_content() {
            Some(reason) => Err(Error::content(path, reason)),
            None => Ok(truth),
        }
    }

    /// Windows.
    pub fn windows(&self) -> usize {
        self.services
            .first()
            .map_or(0, |service| service.count.len())
    }

    /// What contradicts itself, if anything.
    fn fault_of_content(&self) -> Option<&'static str> {
        let windows = self.windows();
        let names: BTreeSet<&str> = self.services.iter().map(|s| s.service.as_str()).collect();
        let same_length = self
            .services
            .iter()
            .all(|s| s.count.len() == windows && s.p99_us.len() == windows);
        let breaches = self.services.iter().enumerate().all(|(number, s)| {
            let from = self.onset.filter(|_| number == 0).unwrap_or(0);
            s.breach == first_run(&s.p99_us, s.objective_secs, from)
        });
        if windows == 0 {
            return Some("no windows");
        }
        if self.window_secs == 0 {
            return Some("windows of no length");
        }
        if names.len() < self.services.len() {
            return Some("a service twice");
        }
        if !same_length {
            return Some("services with different numbers of windows");
        }
        if self
            .services
            .iter()
            .any(|s| s.objective_secs.is_nan() || s.objective_secs <= 0.0)
        {
            return Some("an objective that is not above 0");
        }
        if !breaches {
            return Some("a time of breach that its own latencies contradict");
        }
        if self.onset.is_some_and(|onset| onset >= windows) {
            return Some("an onset behind its last window");
        }
        if self.onset.is_some() == (self.kind == Kind::Quiet) {
            return Some("an onset where it is quiet, or none where it is not");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn a_breach_is_three_windows_in_a_row() {
        let window = |ms: u32| vec![ms * 1000; 10];
        let windows = [50, 150, 150, 50, 150, 150, 150, 50].map(window).to_vec();
        let truth = |from| ServiceTruth::new("process/shop", 0.1, windows.clone(), from);
        assert_eq!(truth(5).breach, None);
        let truth = truth(2);
        assert_eq!(truth.breach, Some(4));
        assert_eq!(truth.p99_us[1], 150_000);
    }

    #[test]
    fn ninety_ninth_percentile_is_the_nearest_rank() {
        let mut hundred: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(p99(&mut hundred), 99);
        assert_eq!(p99(&mut [7, 3]), 7);
        assert_eq!(p99(&mut []), 0);
    }

    fn truth() -> Truth {
        Truth {
            scenario: "made-up".to_owned(),
            seed: 1,
            kind: Kind::Sudden,
            fault: String::new(),
            causes: Vec::new(),
            first_window_ns: 0,
            window_secs: 1,
            onset: Some(2),
            services: vec![ServiceTruth::new(
                "process/shop",
                0.1,
                vec![vec![1000]; 5],
                2,
            )],
        }
    }

    #[test]
    fn sidecars_that_contradict_themselves_are_refused() {
        let folder = std::env::temp_dir().join(format!("truth-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("made-up-1.json");
        let read = |truth: &Truth| {
            fs::write(&path, serde_json::to_vec(truth).unwrap()).unwrap();
            Truth::read(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read(&truth()).unwrap(), truth());
        type Change = fn(&mut Truth);
        let changes: [(&str, Change); 7] = [
            ("no windows", |t| t.services.clear()),
            ("a service twice", |t| {
                t.services.push(t.services[0].clone())
            }),
            ("different numbers", |t| t.services[0].count.truncate(2)),
            ("contradict", |t| t.services[0].breach = Some(1)),
            ("not above 0", |t| t.services[0].objective_secs = 0.0),
            ("behind its last", |t| t.onset = Some(5)),
            ("where it is quiet", |t| t.kind = Kind::Quiet),
        ];
        for (expected, change) in changes {
            let mut changed = truth();
            change(&mut changed);
            let error = read(&changed).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("made-up-1.json"), "{error}");
        }
        fs::write(&path, b"{\"scenario\": 1}").unwrap();
        let error = Truth::read(&path).unwrap_err().to_string();
        assert!(error.contains("made-up-1.json as JSON"), "{error}");
        fs::remove_dir_all(folder).unwrap();
        let error = Truth::read(&path).unwrap_err().to_string();
        assert!(error.contains("failed to read"), "{error}");
    }
}
