//! Configuration of the analyzer; `default.toml` documents every key.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use honeyguide_models::{
    Params, Target, ValidParams,
    breach::{Objective, Paths, ValidObjective},
};
use sensor_common::Signal;
use serde::{Deserialize, Serialize};

use crate::hints;

/// Bounds of `hints.budget`.
const HINTS_BUDGET: std::ops::RangeInclusive<f64> = 0.0001..=1.0;

/// As read; [`Config::validate`] makes it usable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Grid of windows.
    #[serde(with = "humantime_serde")]
    pub step: Duration,
    /// How long a step stays open for late data.
    #[serde(with = "humantime_serde")]
    pub lateness: Duration,
    /// Series kept in each partition.
    pub series_max: usize,
    /// Series shown on `/metrics`.
    pub metrics_series_max: usize,
    /// Routes kept in each partition.
    pub routes_max: usize,
    /// Routes kept of each service.
    pub routes_per_service_max: usize,
    /// Routes forecast in each partition, those with most requests.
    pub route_forecasts_max: usize,
    /// Routes shown on `/metrics`.
    pub metrics_routes_max: usize,
    /// Where the history is kept; empty: nowhere.
    pub data_dir: PathBuf,
    /// How often new history is written, and then committed on the bus.
    #[serde(with = "humantime_serde")]
    pub store_interval: Duration,
    /// How much history is kept on disk.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// Megabytes of history on disk at most.
    pub retention_mb_max: u64,
    /// Address of the gRPC service.
    pub grpc_listen: SocketAddr,
    /// Address of `/metrics`, `/live`, `/ready`.
    pub http_listen: SocketAddr,
    /// What must hold.
    pub objectives: Vec<ObjectiveConfig>,
    /// What sensors are told.
    pub hints: HintsConfig,
}

/// What sensors are told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HintsConfig {
    /// Whether they are told anything.
    pub mode: HintsMode,
    /// What calm series may cost, as a fraction of a node's CPUs.
    pub budget: f64,
}

impl Default for HintsConfig {
    fn default() -> Self {
        Self {
            mode: HintsMode::On,
            budget: 0.003,
        }
    }
}

/// Whether sensors are told how closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HintsMode {
    /// They are, and follow.
    On,
    /// They are, and only count it.
    DryRun,
    /// They are not.
    Off,
}

/// What must hold for the series it matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectiveConfig {
    /// Name in alerts.
    pub name: String,
    /// Service key, or a prefix ending in `*`.
    pub service: String,
    /// Signal name.
    pub signal: String,
    /// What must stay below the threshold.
    pub target: Target,
    /// Fixed threshold.
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Option::is_none"
    )]
    pub threshold: Option<Duration>,
    /// Threshold as a multiple of the usual value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times_usual: Option<f64>,
    /// Least threshold of a multiple.
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Option::is_none"
    )]
    pub floor: Option<Duration>,
    /// How far ahead a breach counts.
    #[serde(with = "humantime_serde")]
    pub horizon: Duration,
    /// Probability from which a breach is expected.
    #[serde(default = "default_fire_probability")]
    pub fire_probability: f64,
    /// Steps at risk before the alert fires, and windows in a row above the threshold
    /// that are a breach.
    #[serde(default = "default_fire_after")]
    pub fire_after: u32,
    /// Calm steps before it resolves.
    #[serde(default = "default_resolve_after")]
    pub resolve_after: u32,
}

fn default_fire_probability() -> f64 {
    0.8
}
fn default_fire_after() -> u32 {
    2
}
fn default_resolve_after() -> u32 {
    3
}

impl Default for Config {
    fn default() -> Self {
        let relative = |name: &str, signal: Signal, times_usual, floor_ms| ObjectiveConfig {
            name: name.to_owned(),
            service: "*".to_owned(),
            signal: signal.name().to_owned(),
            target: Target::P99,
            threshold: None,
            times_usual: Some(times_usual),
            floor: Some(Duration::from_millis(floor_ms)),
            horizon: Duration::from_secs(900),
            fire_probability: default_fire_probability(),
            fire_after: default_fire_after(),
            resolve_after: default_resolve_after(),
        };
        Self {
            step: Duration::from_secs(10),
            lateness: Duration::from_secs(2),
            series_max: 20_000,
            metrics_series_max: 2_000,
            routes_max: 10_000,
            routes_per_service_max: 256,
            route_forecasts_max: 100,
            metrics_routes_max: 1_000,
            data_dir: PathBuf::new(),
            store_interval: Duration::from_secs(300),
            retention: Duration::from_secs(7 * 86_400),
            retention_mb_max: 1024,
            grpc_listen: SocketAddr::from(([127, 0, 0, 1], 9452)),
            http_listen: SocketAddr::from(([127, 0, 0, 1], 9453)),
            objectives: vec![
                relative("run-queue", Signal::RunQueue, 10.0, 5),
                relative("requests", Signal::ServerRequest, 5.0, 10),
                relative("block-io", Signal::BlockIo, 10.0, 20),
            ],
            hints: HintsConfig::default(),
        }
    }
}

/// Why a configuration is not usable.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A value is out of its range.
    #[error("analyzer.{key} is {value}, expected {expected}")]
    Range {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },
}

/// A checked objective.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidObjectiveConfig {
    /// As configured.
    pub config: ObjectiveConfig,
    /// The signal it is about.
    pub signal: Signal,
}

impl ValidObjectiveConfig {
    /// Whether it is about this series.
    pub fn matches(&self, service: &str, signal: Signal) -> bool {
        let pattern = self.config.service.as_str();
        let matches = match pattern.strip_suffix('*') {
            Some(prefix) => service.starts_with(prefix),
            None => service == pattern,
        };
        matches && signal == self.signal
    }

    /// The objective with its threshold for a series whose target is usually
    /// `usual` (seconds or events/s); `None` while that is not known but needed.
    pub fn with_usual(&self, usual: Option<f64>) -> Option<ValidObjective> {
        let threshold = match (self.config.threshold, self.config.times_usual) {
            (Some(threshold), _) => threshold.as_secs_f64(),
            (None, Some(times)) => {
                let floor = self.config.floor.unwrap_or_default().as_secs_f64();
                (times * usual?).max(floor)
            }
            (None, None) => return None,
        };
        let objective = Objective {
            target: self.config.target,
            threshold,
            horizon_secs: self.config.horizon.as_secs() as u32,
            windows: self.config.fire_after,
            budget_events: None,
        };
        objective.validate().ok()
    }
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidConfig {
    /// As read.
    pub config: Config,
    /// Objectives in order.
    pub objectives: Vec<ValidObjectiveConfig>,
    /// Settings of the models.
    pub params: ValidParams,
    /// What breach probabilities are simulated with; made once for all partitions.
    pub(crate) paths: Arc<Paths>,
}

impl ValidConfig {
    /// Whether there is an objective of this name.
    pub fn has_objective(&self, name: &str) -> bool {
        let mut objectives = self.objectives.iter();
        objectives.any(|objective| objective.config.name == name)
    }

    /// Length of a step in nanoseconds.
    pub fn step_ns(&self) -> u64 {
        self.config.step.as_nanos() as u64
    }

    /// What sensors are told; `None`: nothing.
    pub(crate) fn hints(&self) -> Option<hints::Settings> {
        let dry_run = match self.config.hints.mode {
            HintsMode::Off => return None,
            mode => mode == HintsMode::DryRun,
        };
        Some(hints::Settings {
            budget: self.config.hints.budget,
            dry_run,
            step: self.config.step,
        })
    }
}

impl Config {
    /// Checks every value.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, the value and what is accepted.
    pub fn validate(self) -> Result<ValidConfig, ConfigError> {
        let range = |key: &str, value: &dyn std::fmt::Debug, expected| ConfigError::Range {
            key: key.to_owned(),
            value: format!("{value:?}"),
            expected,
        };
        let step_secs = self.step.as_secs();
        if self.step.subsec_nanos() != 0 || !(1..=300).contains(&step_secs) {
            return Err(range("step", &self.step, "whole seconds, 1s to 300s"));
        }
        if self.lateness > Duration::from_secs(300) {
            return Err(range("lateness", &self.lateness, "at most 300s"));
        }
        let hour = Duration::from_secs(3600);
        if !(self.step..=hour).contains(&self.store_interval) {
            let expected = "a step to 1h";
            return Err(range("store_interval", &self.store_interval, expected));
        }
        if !(1..=1_000_000).contains(&self.series_max) {
            return Err(range("series_max", &self.series_max, "1 to 1000000"));
        }
        for (key, value) in [
            ("routes_max", self.routes_max),
            ("routes_per_service_max", self.routes_per_service_max),
            ("route_forecasts_max", self.route_forecasts_max),
        ] {
            if value > 1_000_000 {
                return Err(range(key, &value, "at most 1000000"));
            }
        }
        if !HINTS_BUDGET.contains(&self.hints.budget) {
            let expected = "0.0001 to 1 of a node's CPUs";
            return Err(range("hints.budget", &self.hints.budget, expected));
        }
        let params = Params::for_step(step_secs as u32)
            .validate()
            .map_err(|_| range("step", &self.step, "whole seconds, 1s to 300s"))?;
        let objectives = self.objectives.iter().map(check_objective);
        let objectives = objectives.collect::<Result<Vec<_>, _>>()?;
        Ok(ValidConfig {
            config: self,
            objectives,
            paths: Arc::new(Paths::new(&params)),
            params,
        })
    }
}

fn check_objective(config: &ObjectiveConfig) -> Result<ValidObjectiveConfig, ConfigError> {
    let range = |key: &str, value: &dyn std::fmt::Debug, expected| ConfigError::Range {
        key: format!("objectives.{}.{key}", config.name),
        value: format!("{value:?}"),
        expected,
    };
    let signal = Signal::from_name(&config.signal).ok_or_else(|| {
        range(
            "signal",
            &config.signal,
            "a signal such as runq or server_request",
        )
    })?;
    if config.threshold.is_some() == config.times_usual.is_some() {
        return Err(range(
            "threshold",
            &config.threshold,
            "either threshold or times_usual",
        ));
    }
    if config
        .times_usual
        .is_some_and(|times| !(1.0..=1e6).contains(&times))
    {
        return Err(range("times_usual", &config.times_usual, "1 to 1000000"));
    }
    if !(0.05..=1.0).contains(&config.fire_probability) {
        return Err(range(
            "fire_probability",
            &config.fire_probability,
            "0.05 to 1",
        ));
    }
    let valid = ValidObjectiveConfig {
        config: config.clone(),
        signal,
    };
    // Any usual value will do to check the rest.
    match valid.with_usual(Some(1.0)) {
        Some(_) => Ok(valid),
        None => Err(range(
            "horizon",
            &config.horizon,
            "1m to 60m, with a threshold above 0",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_valid() {
        assert!(Config::default().validate().is_ok());
    }

    #[test]
    fn wrong_values_are_errors_that_name_the_key() {
        type Change = fn(&mut Config);
        let cases: [(&str, Change); 9] = [
            ("routes_max", |c| c.routes_max = 2_000_000),
            ("hints.budget", |c| c.hints.budget = 0.0),
            ("hints.budget", |c| c.hints.budget = f64::NAN),
            ("analyzer.step", |c| c.step = Duration::from_millis(1500)),
            ("lateness", |c| c.lateness = Duration::from_secs(999)),
            ("series_max", |c| c.series_max = 0),
            ("run-queue.signal", |c| {
                c.objectives[0].signal = "nope".to_owned()
            }),
            ("run-queue.threshold", |c| {
                c.objectives[0].threshold = Some(Duration::from_secs(1))
            }),
            ("run-queue.horizon", |c| {
                c.objectives[0].horizon = Duration::from_secs(7200)
            }),
        ];
        for (name, change) in cases {
            let mut config = Config::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn relative_threshold_has_a_floor() {
        let config = Config::default().validate().unwrap();
        let objective = &config.objectives[0];
        let threshold = |usual| objective.with_usual(usual).map(|o| o.get().threshold);
        assert_eq!(threshold(None), None);
        assert_eq!(threshold(Some(1e-6)), Some(0.005));
        assert_eq!(threshold(Some(0.01)), Some(0.1));
        assert!(objective.matches("process/x", Signal::RunQueue));
        assert!(!objective.matches("process/x", Signal::BlockIo));
    }
}
