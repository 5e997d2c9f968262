//! Configuration of the sensor; `default.toml` documents every key.

use std::{
    collections::BTreeMap, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration,
};

use honeyguide_proto::route::TemplateError;
use sensor_common::{
    Signal,
    record::{FIRST_SERVICE, ROWS_MAX, SAMPLING_SHIFT_MAX, SERVICES_MAX},
    route::{ROUTE_ROWS_MAX, ROUTES_MAX},
};
use serde::{Deserialize, Serialize};

use crate::{
    program::{Sizes, probe::Probe},
    routes::{Rules, TEMPLATES_MAX},
};

pub use honeyguide_proto::hint::FLUSH_INTERVAL;

/// Bounds of `cost_ceiling`.
pub const COST_CEILING: RangeInclusive<f64> = 0.0005..=1.0;
/// Largest `routes_per_service_max`: what somebody can still look at.
pub const ROUTES_PER_SERVICE_MAX: u32 = 1024;

/// As read; [`Config::validate`] makes it usable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How often counters are read and published.
    #[serde(with = "humantime_serde")]
    pub flush_interval: Duration,
    /// What is measured.
    pub probes: Vec<Probe>,
    /// k of the sampling ratio 1/2^k by signal name.
    pub sampling_shift: BTreeMap<String, u8>,
    /// Stable name of this sensor; empty for the machine's.
    pub sensor_id: String,
    /// The cgroup tree.
    pub cgroup_root: PathBuf,
    /// Services the kernel holds memory for.
    pub services_max: u32,
    /// Histograms the kernel holds memory for.
    pub rows_max: u32,
    /// Routes of a service that HTTP requests are told apart by; 0: they are not.
    pub routes_per_service_max: u32,
    /// Requests are told apart on the side that makes them, too.
    pub client_routes: bool,
    /// Requests inside TLS are told apart as well, where OpenSSL is a library.
    pub tls: bool,
    /// Templates of paths that come before what is learned.
    pub route_templates: Vec<String>,
    /// Routes of all services the kernel holds memory for.
    pub routes_max: u32,
    /// Histograms of routes the kernel holds memory for.
    pub route_rows_max: u32,
    /// When an idle service gives its memory back.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long per flush the programs' run time is measured.
    #[serde(with = "humantime_serde")]
    pub cost_measurement: Duration,
    /// What the sensor may cost, as a fraction of the CPU time of all CPUs.
    pub cost_ceiling: f64,
    /// Address of `/metrics`, `/live`, `/ready` of a sensor that runs alone.
    pub http_listen: SocketAddr,
    /// Where what Kafka has not acknowledged yet is kept.
    pub spool_dir: PathBuf,
    /// Megabytes of it at most.
    pub spool_mb_max: u64,
    /// How long it is kept at most.
    #[serde(with = "humantime_serde")]
    pub spool_age_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_secs(10),
            probes: vec![
                Probe::Runq,
                Probe::Blkio,
                Probe::Tcp,
                Probe::TcpRetransmit,
                Probe::Reclaim,
                Probe::Pressure,
                Probe::Throttling,
            ],
            sampling_shift: BTreeMap::new(),
            sensor_id: String::new(),
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            services_max: SERVICES_MAX,
            rows_max: ROWS_MAX,
            routes_per_service_max: 64,
            client_routes: false,
            tls: true,
            route_templates: Vec::new(),
            routes_max: ROUTES_MAX,
            route_rows_max: ROUTE_ROWS_MAX,
            idle_timeout: Duration::from_secs(30 * 60),
            cost_measurement: Duration::from_millis(200),
            cost_ceiling: 0.01,
            http_listen: SocketAddr::from(([127, 0, 0, 1], 9454)),
            spool_dir: PathBuf::from("/var/lib/honeyguide/spool"),
            spool_mb_max: 1024,
            spool_age_max: Duration::from_secs(86_400),
        }
    }
}

/// Why a configuration is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A number or duration is out of its range.
    #[error("sensor.{key} is {value}, expected {expected}")]
    Range {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        expected: String,
    },
    /// No template.
    #[error("sensor.route_templates: {0}")]
    RouteTemplate(#[from] TemplateError),
    /// No such signal.
    #[error(
        "sensor.sampling_shift names the unknown signal {0:?} (signals: runq, blkio, server_request, …)"
    )]
    UnknownSignal(String),
    /// A signal of which every event is counted anyway.
    #[error("sensor.sampling_shift names {0}, which is read once per flush and cannot be sampled")]
    NotSampled(Signal),
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidConfig {
    /// As given.
    pub config: Config,
    pub(crate) shifts: BTreeMap<Signal, u8>,
    pub(crate) rules: Rules,
}

impl Config {
    /// Checks every value.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, the value and what is accepted.
    pub fn validate(self) -> Result<ValidConfig, ConfigError> {
        let range = |key, value: &dyn std::fmt::Debug, expected: String| ConfigError::Range {
            key,
            value: format!("{value:?}"),
            expected,
        };
        if !FLUSH_INTERVAL.contains(&self.flush_interval) {
            return Err(range(
                "flush_interval",
                &self.flush_interval,
                "1s to 60s".to_owned(),
            ));
        }
        if self.cost_measurement > self.flush_interval / 2 {
            let expected = "at most half of flush_interval".to_owned();
            return Err(range("cost_measurement", &self.cost_measurement, expected));
        }
        // Not a number is in no range.
        if !COST_CEILING.contains(&self.cost_ceiling) {
            let expected = "0.0005 to 1".to_owned();
            return Err(range("cost_ceiling", &self.cost_ceiling, expected));
        }
        if !(1..=1 << 20).contains(&self.spool_mb_max) {
            let expected = "1 to 1048576".to_owned();
            return Err(range("spool_mb_max", &self.spool_mb_max, expected));
        }
        if !(FIRST_SERVICE + 1..=SERVICES_MAX).contains(&self.services_max) {
            let expected = format!("{} to {SERVICES_MAX}", FIRST_SERVICE + 1);
            return Err(range("services_max", &self.services_max, expected));
        }
        if !(2..=ROWS_MAX).contains(&self.rows_max) {
            return Err(range(
                "rows_max",
                &self.rows_max,
                format!("2 to {ROWS_MAX}"),
            ));
        }
        if self.routes_per_service_max > ROUTES_PER_SERVICE_MAX {
            let expected = format!("0 to {ROUTES_PER_SERVICE_MAX}");
            let value = &self.routes_per_service_max;
            return Err(range("routes_per_service_max", value, expected));
        }
        for (key, value, max) in [
            ("routes_max", self.routes_max, ROUTES_MAX),
            ("route_rows_max", self.route_rows_max, ROUTE_ROWS_MAX),
        ] {
            if !(2..=max).contains(&value) {
                return Err(range(key, &value, format!("2 to {max}")));
            }
        }
        if self.idle_timeout < self.flush_interval {
            let expected = "at least flush_interval".to_owned();
            return Err(range("idle_timeout", &self.idle_timeout, expected));
        }
        let mut shifts = BTreeMap::new();
        for (name, shift) in &self.sampling_shift {
            let signal =
                Signal::from_name(name).ok_or_else(|| ConfigError::UnknownSignal(name.clone()))?;
            if !Probe::of_signal(signal).is_sampled() {
                return Err(ConfigError::NotSampled(signal));
            }
            if *shift > SAMPLING_SHIFT_MAX {
                let expected = format!("0 to {SAMPLING_SHIFT_MAX}");
                return Err(range("sampling_shift", shift, expected));
            }
            shifts.insert(signal, *shift);
        }
        if self.route_templates.len() > TEMPLATES_MAX {
            let expected = format!("at most {TEMPLATES_MAX} templates");
            return Err(range(
                "route_templates",
                &self.route_templates.len(),
                expected,
            ));
        }
        let rules = Rules::new(&self.route_templates)?;
        Ok(ValidConfig {
            config: self,
            shifts,
            rules,
        })
    }
}

impl ValidConfig {
    /// Sizes of the kernel maps.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            services: self.config.services_max,
            rows: self.config.rows_max,
            routes: self.config.routes_max,
            route_rows: self.config.route_rows_max,
        }
    }

    /// Whether requests inside TLS are told apart.
    pub fn wants_tls(&self) -> bool {
        let routes = self.config.routes_per_service_max > 0;
        self.config.tls && routes && self.config.probes.contains(&Probe::Tcp)
    }

    /// Whether `signal` is measured at all.
    pub fn wants(&self, signal: Signal) -> bool {
        self.config.probes.contains(&Probe::of_signal(signal))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn default_is_valid() {
        assert!(Config::default().validate().is_ok());
    }

    #[test]
    fn wrong_values_are_errors_that_name_the_key() {
        type Change = fn(&mut Config);
        let cases: [(&str, Change); 14] = [
            ("flush_interval", |c| {
                c.flush_interval = Duration::from_millis(999)
            }),
            ("cost_measurement", |c| {
                c.cost_measurement = Duration::from_secs(9)
            }),
            ("cost_ceiling", |c| c.cost_ceiling = 0.0),
            ("cost_ceiling", |c| c.cost_ceiling = f64::NAN),
            ("services_max", |c| c.services_max = 0),
            ("rows_max", |c| c.rows_max = 1 << 20),
            ("routes_per_service_max", |c| {
                c.routes_per_service_max = 1025
            }),
            ("routes_max", |c| c.routes_max = 1),
            ("route_templates", |c| {
                c.route_templates = vec!["users/{id}".to_owned()]
            }),
            ("route_templates", |c| {
                c.route_templates = vec!["/users".to_owned(); 257]
            }),
            ("route_rows_max", |c| c.route_rows_max = 1 << 20),
            ("idle_timeout", |c| c.idle_timeout = Duration::ZERO),
            ("nope", |c| {
                c.sampling_shift = [("nope".to_owned(), 1)].into()
            }),
            ("cpu_pressure", |c| {
                c.sampling_shift = [("cpu_pressure".to_owned(), 1)].into()
            }),
        ];
        for (name, change) in cases {
            let mut config = Config::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    proptest! {
        #[test]
        fn sampling_shifts_beyond_the_bound_are_refused(shift: u8) {
            let mut config = Config::default();
            config.sampling_shift.insert("runq".to_owned(), shift);
            prop_assert_eq!(config.validate().is_ok(), shift <= SAMPLING_SHIFT_MAX);
        }
    }
}
