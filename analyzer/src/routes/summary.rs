//! What routes do now, for those who ask.

use honeyguide_proto::v1;
use sensor_common::{Histogram, Signal, http::STATUS_CLASSES};

use super::{RecentSteps, RouteRequests, Routes, is_error};

impl Routes {
    /// What each route did in `recent`, steps of `step_ns`; in the order of
    /// (signal, route).
    pub fn summaries(
        &self,
        service: &str,
        recent: &RecentSteps,
        step_ns: u64,
    ) -> impl Iterator<Item = v1::RouteSummary> {
        self.iter()
            .map(move |requests| requests.summary(service, recent, step_ns))
    }
}

impl RouteRequests {
    fn summary(&self, service: &str, recent: &RecentSteps, step_ns: u64) -> v1::RouteSummary {
        let mut merged = Histogram::new();
        let mut by_class = [0u64; STATUS_CLASSES];
        let mut covered_ns = 0;
        // Steps before the first request say nothing of how often they come.
        for step in recent.iter().filter(|step| *step >= self.first_step) {
            let Some((_, of_step)) = self.recent.iter().find(|(known, _)| *known == step) else {
                covered_ns += step_ns;
                continue;
            };
            // Windows without such requests are not there, and count; windows
            // longer than a step are whole in each of their steps.
            covered_ns += of_step.covered_ns.max(step_ns);
            for (class, histogram) in of_step.histogram.iter() {
                histogram.add_to(&mut merged);
                by_class[usize::from(class)] += histogram.count();
            }
        }
        let covered_secs = covered_ns as f64 / 1e9;
        let per_sec = |count: u64| {
            if covered_ns == 0 {
                0.0
            } else {
                count as f64 / covered_secs
            }
        };
        let classes = self.total.iter().map(|(class, total)| v1::RouteClass {
            status_class: u32::from(class),
            rate_per_sec: per_sec(by_class[usize::from(class)]),
            requests: total.count(),
        });
        let errors = (0..).zip(by_class);
        let errors = errors.filter(|(class, _)| is_error(self.signal, *class));
        let errors: u64 = errors.map(|(_, count)| count).sum();
        let count = merged.count();
        let quantiles = merged.quantiles_ns([0.5, 0.9, 0.99, 0.999]);
        let end = recent.iter().next_back();
        v1::RouteSummary {
            service: service.to_owned(),
            side: side(self.signal).into(),
            protocol: self.route.protocol().number().into(),
            method: self.route.method().to_owned(),
            template: self.route.template().to_owned(),
            peer: self.route.peer().unwrap_or_default().to_owned(),
            peer_service: String::new(),
            route: self.route.to_string(),
            window_end: end.map(|step| crate::judge::timestamp((step + 1) * step_ns)),
            window: Some(prost_types::Duration {
                seconds: (covered_ns / 1_000_000_000).cast_signed(),
                nanos: (covered_ns % 1_000_000_000) as i32,
            }),
            latency: quantiles.map(|[p50, p90, p99, p999]| v1::LatencyQuantiles {
                p50: p50 / 1e9,
                p90: p90 / 1e9,
                p99: p99 / 1e9,
                p999: p999 / 1e9,
                max: merged.max_ns() as f64 / 1e9,
            }),
            rate_per_sec: per_sec(count),
            errors_per_sec: per_sec(errors),
            error_ratio: if count == 0 {
                0.0
            } else {
                errors as f64 / count as f64
            },
            sampling_ratio: if count == 0 {
                1.0
            } else {
                merged.samples() as f64 / count as f64
            },
            classes: classes.collect(),
            points: self
                .model
                .as_ref()
                .map_or_else(Vec::new, |model| model.points.clone()),
        }
    }
}

fn side(signal: Signal) -> v1::Side {
    match signal {
        Signal::ClientRequest => v1::Side::Client,
        _ => v1::Side::Server,
    }
}
