//! The targets: what each bench reports, and the value it must reach.

use Comparison::{AtLeast, AtMost, Exactly};

/// How a value is compared with its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Value ≤ target.
    AtMost,
    /// Value ≥ target.
    AtLeast,
    /// Value = target.
    Exactly,
}

/// The target of one key.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// Key, unit last.
    pub key: &'static str,
    /// How to compare.
    pub comparison: Comparison,
    /// What must be reached.
    pub must: f64,
    /// Where we want to be.
    pub aim: Option<f64>,
    /// What is measured, where the key does not say it.
    pub what: &'static str,
}

impl Bar {
    const fn new(key: &'static str, comparison: Comparison, must: f64) -> Self {
        Self {
            key,
            comparison,
            must,
            aim: None,
            what: "",
        }
    }

    const fn aim(mut self, aim: f64) -> Self {
        self.aim = Some(aim);
        self
    }

    const fn what(mut self, what: &'static str) -> Self {
        self.what = what;
        self
    }

    /// Whether `value` reaches `bound`.
    pub fn reaches(&self, value: f64, bound: f64) -> bool {
        match self.comparison {
            AtMost => value <= bound,
            AtLeast => value >= bound,
            Exactly => value == bound,
        }
    }

    /// Unit, from the end of the key.
    pub fn unit(&self) -> &'static str {
        match self.key.rsplit('_').next() {
            Some("ns") => "ns",
            Some("ms") => "ms",
            Some("mb") => "MB",
            _ if self.key.starts_with("bytes_") => "B",
            _ => "",
        }
    }

    /// "≤ 5, aim ≤ 3".
    pub fn target(&self) -> String {
        let sign = match self.comparison {
            AtMost => "≤",
            AtLeast => "≥",
            Exactly => "=",
        };
        match self.aim {
            Some(aim) => format!("{sign} {}, aim {sign} {aim}", self.must),
            None => format!("{sign} {}", self.must),
        }
    }
}

/// Every bench with its targets.
const BENCHES: [(&str, &[Bar]); 14] = [
    (
        "histogram",
        &[
            Bar::new("mismatches", Exactly, 0.0)
                .what("kernel and user-space index against big-integer reference"),
            Bar::new("index_ns", AtMost, 5.0).aim(3.0),
            Bar::new("merge_ns", AtMost, 60.0)
                .aim(30.0)
                .what("two full 192-bucket histograms"),
            Bar::new("quantile_ns", AtMost, 100.0),
        ],
    ),
    (
        "probe-cost",
        &[
            Bar::new("runq_net_ns", AtMost, 80.0)
                .aim(60.0)
                .what("all programs per context switch, above empty"),
            Bar::new("runq_vs_bcc", AtMost, 0.25).what("net, same logic in bcc"),
            Bar::new("runq_vs_bpftrace", AtMost, 0.15),
            Bar::new("blkio_net_ns", AtMost, 250.0),
            Bar::new("blkio_vs_bcc", AtMost, 0.33),
            Bar::new("exchange_net_ns", AtMost, 600.0)
                .aim(400.0)
                .what("per request and side"),
            Bar::new("syscall_net_ns", AtMost, 210.0),
            Bar::new("syscall_vs_bcc", AtMost, 0.6),
            Bar::new("unsampled_net_ns", AtMost, 20.0),
        ],
    ),
    (
        "request-cost",
        &[
            Bar::new("exchange_net_ns", AtMost, 500.0).what("per request and side, no routes"),
            Bar::new("http_net_ns", AtMost, 650.0)
                .what("per request and side, route and status of HTTP/1.1 on the server's"),
            Bar::new("unsampled_net_ns", AtMost, 60.0),
            Bar::new("nginx_small_slowdown", AtMost, 0.05).what("12-byte page, requests/s"),
            Bar::new("nginx_small_slowdown_1_16", AtMost, 0.02),
            Bar::new("nginx_1ms_slowdown", AtMost, 0.01),
            Bar::new("rss_mb", AtMost, 64.0).what("1,000 services of 20 routes"),
        ],
    ),
    (
        "request-accuracy",
        &[
            Bar::new("count_error", AtMost, 0.001),
            Bar::new("quantile_error", AtMost, 0.09)
                .what("worst of p50, p90, p99, p99.9 over all servers"),
        ],
    ),
    (
        "overhead",
        &[
            Bar::new("pipe_slowdown_vs_empty", AtMost, 0.02)
                .what("perf bench sched pipe against the same hooks with empty programs"),
            Bar::new("fio_slowdown", AtMost, 0.01),
            Bar::new("nginx_small_slowdown", AtMost, 0.08)
                .aim(0.04)
                .what("12-byte page, requests/s"),
            Bar::new("nginx_1ms_slowdown", AtMost, 0.01),
            Bar::new("drain_6000_ms", AtMost, 3.0),
            Bar::new("sensor_cpu_fraction", AtMost, 0.005)
                .what("of one core, user space, 1,000 active services, 10 s flush"),
            Bar::new("sensor_rss_mb", AtMost, 64.0).aim(32.0),
        ],
    ),
    (
        "wire",
        &[
            Bar::new("raw_vs_best_peer", AtMost, 0.5).what(
                "bytes per series-window against the smaller of OTLP exponential and Prometheus native",
            ),
            Bar::new("zstd_vs_best_peer", AtMost, 0.5),
        ],
    ),
    (
        "analyze",
        &[
            Bar::new("series_per_core", AtLeast, 20_000.0)
                .aim(100_000.0)
                .what("refreshed per 10 s tick on one core: decode, window, features, forecast"),
            Bar::new("bytes_per_series", AtMost, 65_536.0)
                .aim(16_384.0)
                .what("with 6 h of history"),
        ],
    ),
    (
        "kafka",
        &[
            Bar::new("series_windows_per_s", AtLeast, 200_000.0)
                .what("sensor encoder to analyzer windows, broker on the same cores"),
            Bar::new("vs_bare_loop", AtLeast, 0.7)
                .what("messages/s against bare rdkafka produce and consume of the same payload"),
            Bar::new("restart_50k_s", AtMost, 10.0)
                .what("50,000 series of 6 h history, to serving forecasts"),
            Bar::new("e2e_p99_over_flush_s", AtMost, 1.5)
                .what("window end to forecast out, 10,000 series"),
            Bar::new("lost_or_doubled", Exactly, 0.0)
                .what("series-windows over all fault runs, within declared bounds"),
        ],
    ),
    (
        "eval-forecast",
        &[
            Bar::new("crps_rel", AtMost, 0.50).aim(0.395).what(
                "BizITObs nine configurations, geometric mean relative to seasonal naive",
            ),
            Bar::new("crps_rel_app", AtMost, 0.50).aim(0.45),
            Bar::new("mase_rel", AtMost, 0.55).aim(0.45),
            Bar::new("coverage95_day_min", AtLeast, 0.93).aim(0.94),
            Bar::new("coverage95_day_max", AtMost, 0.97).aim(0.96),
            Bar::new("coverage95_in_faults", AtLeast, 0.85).aim(0.90),
        ],
    ),
    (
        "eval-breach",
        &[
            Bar::new("ece_15m", AtMost, 0.05).aim(0.02),
            Bar::new("recall_lead5", AtLeast, 0.7).aim(0.9).what(
                "predictable recorded incidents, lead >= 30 windows, 1 false alarm per 60,480 windows",
            ),
            Bar::new("recall_lead5_over_best_baseline", AtLeast, 0.10),
            Bar::new("median_lead_vs_best_baseline", AtLeast, 1.5).aim(2.0),
        ],
    ),
    (
        "models",
        &[
            Bar::new("detect_us_per_point", AtMost, 5.0).aim(1.0),
            Bar::new("refresh_60_ms", AtMost, 5.0)
                .aim(0.5)
                .what("60 steps, 40,320 points of history"),
            Bar::new("refresh_vs_flair", AtMost, 0.1).what("time ratio, same run"),
            Bar::new("sweep_10k_cores", AtMost, 1.0)
                .aim(0.25)
                .what("10,000 series every 10 s"),
            Bar::new("state_bytes_per_series", AtMost, 16_384.0),
        ],
    ),
    (
        "eval-detect",
        &[
            Bar::new("nab_standard", AtLeast, 70.0)
                .aim(78.0)
                .what("the series of nab/, no look-ahead, one threshold"),
            Bar::new("nab_low_fp", AtLeast, 64.0).aim(70.0),
        ],
    ),
    (
        "eval-rootcause",
        &[
            Bar::new("top1_over_best_baseline", AtLeast, 0.0)
                .aim(0.1)
                .what("share of the issues of petshop/"),
            Bar::new("top3_over_best_baseline", AtLeast, 0.0).aim(0.1),
        ],
    ),
    (
        "loop",
        &[
            Bar::new("cost_vs_full", AtMost, 0.35)
                .what("sensor cost with the loop against full sampling"),
            Bar::new("react_s", AtMost, 10.0).what("risk rises to kernel map applied"),
            Bar::new("lead_lost_windows", AtMost, 1.0)
                .what("against full sampling everywhere, paired"),
            Bar::new("ceiling_violations", Exactly, 0.0)
                .what("flushes above the ceiling after the second, in storms"),
            Bar::new("unsampled_net_ns", AtMost, 20.0),
            Bar::new("bias_sigma", AtMost, 3.0)
                .what("worst |estimate - truth| in standard errors over 1/1 to 1/64"),
        ],
    ),
];

/// Names of all benches.
pub fn names() -> impl Iterator<Item = &'static str> {
    BENCHES.iter().map(|(name, _)| *name)
}

/// Targets of a bench.
pub fn of(name: &str) -> &'static [Bar] {
    BENCHES
        .iter()
        .find(|(bench, _)| *bench == name)
        .map_or(&[], |(_, bars)| bars)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_is_harder_than_its_bar() {
        for bar in names().flat_map(of) {
            if let Some(aim) = bar.aim {
                assert!(
                    bar.reaches(aim, bar.must) && !bar.reaches(bar.must, aim),
                    "{}",
                    bar.key
                );
            }
        }
    }

    #[test]
    fn units_come_from_keys() {
        for (key, unit) in [
            ("index_ns", "ns"),
            ("sensor_rss_mb", "MB"),
            ("bytes_per_series", "B"),
            ("runq_vs_bcc", ""),
        ] {
            assert_eq!(Bar::new(key, AtMost, 0.0).unit(), unit);
        }
    }
}
