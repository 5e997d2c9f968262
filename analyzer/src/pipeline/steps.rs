//! Steps close: what they collected becomes windows, and forecasts follow.

use honeyguide_models::{TARGETS, Target, Window};
use honeyguide_proto::v1;

use super::{CATCH_UP_STEPS_MAX, Command, HistoryRow, Pipeline};
use crate::{ingest::Patience, routes::ClosingStep};

/// Steps without events after which a series or a route is forgotten.
const FORGET_STEPS: u32 = 8640;
/// Steps from one look for addresses that nobody tells any more to the next.
const FORGET_ADDRESSES_STEPS: u64 = 60;

impl Pipeline {
    pub(super) fn close_due_steps(&mut self) {
        let now_ns = self.newest_ns;
        let step_ns = self.config.step_ns();
        let lateness_ns = self.config.config.lateness.as_nanos() as u64;
        let next_step_ns = self.next_step.unwrap_or(0) * step_ns;
        let complete_until = self.deduplication.complete_until(Patience {
            lateness_ns,
            from_ns: next_step_ns.saturating_sub(step_ns),
        });
        // Where nobody is waited for, time passes all the same: a window with
        // its middle in a step ends at most half a step later.
        let until = complete_until.unwrap_or(now_ns.saturating_sub(step_ns / 2 + lateness_ns));
        // Not even where a sensor's clock is ahead.
        if let Some(due) = (until.min(now_ns) / step_ns).checked_sub(1) {
            self.close_until(due);
        }
    }

    /// Closes the steps up to and including `last`.
    pub(super) fn close_until(&mut self, last: u64) {
        let Some(next) = self.next_step else {
            return;
        };
        let forecast_from = (last + 1).saturating_sub(CATCH_UP_STEPS_MAX);
        let mut skipped = 0;
        for step in next..=last {
            if step >= forecast_from || self.open.contains_key(&step) {
                self.skip(std::mem::take(&mut skipped));
                self.close(step);
            } else {
                skipped += 1;
            }
        }
        self.skip(skipped);
        self.next_step = self.next_step.map(|next| next.max(last + 1));
    }

    /// Steps of which nothing is known, and which nobody asks for any more.
    fn skip(&mut self, steps: u64) {
        if steps == 0 {
            return;
        }
        for service in self.services.values_mut() {
            service.routes.skip(steps);
            for series in &mut service.series {
                series.ring.skip(steps);
                series.distribution.pass();
                let idle = u32::try_from(steps).unwrap_or(u32::MAX);
                series.facts.idle_steps = series.facts.idle_steps.saturating_add(idle);
            }
        }
    }

    fn close(&mut self, step: u64) {
        self.refit();
        self.next_step = Some(step + 1);
        self.counters.steps += 1;
        let open = self.open.remove(&step);
        let completeness = open.as_ref().map_or(0.0, |open| {
            open.batches as f64 / open.batches.saturating_add(open.missing).max(1) as f64
        });
        self.recent_steps.close(step, open.is_some());
        if step.is_multiple_of(FORGET_ADDRESSES_STEPS) {
            self.addresses.forget((step + 1) * self.config.step_ns());
        }
        let empty = without_events(completeness);
        let closing = ClosingStep {
            step,
            step_ns: self.config.step_ns(),
            empty,
            completeness,
        };
        // On the bus alone, history is kept with the state.
        let keeps_rows = !self.config.config.data_dir.as_os_str().is_empty();
        for service in self.services.values_mut() {
            service.routes.close_step(&closing, u64::from(FORGET_STEPS));
            for series in &mut service.series {
                let params = &self.config.params;
                if series.close_step(params, step, empty, completeness) && keeps_rows {
                    use honeyguide_models::History;
                    self.rows.push(HistoryRow {
                        step,
                        service: service.key.clone(),
                        signal: series.signal,
                        window: series.ring.window(0),
                    });
                }
            }
        }
        self.forget_idle(step);
        self.forecast_routes(&closing);
        self.forecast(step);
        self.hint(step);
        self.steps_until_store = self.steps_until_store.saturating_sub(1);
        if self.steps_until_store == 0 {
            self.store();
        }
    }

    fn forget_idle(&mut self, step: u64) {
        let at_ns = (step + 1) * self.config.step_ns();
        let mut ended = Vec::new();
        for service in self.services.values_mut() {
            let key = &service.key;
            service.series.retain(|series| {
                let idle = series.facts.idle_steps >= FORGET_STEPS;
                if idle || series.facts.idle_steps == crate::series::IDLE_STEPS_MAX {
                    ended.push(v1::SeriesKey {
                        service: key.clone(),
                        signal: series.signal.name().to_owned(),
                    });
                }
                !idle
            });
        }
        self.services
            .retain(|_, service| !service.series.is_empty() || !service.routes.is_empty());
        let services = self.services.values();
        self.series_count = services.map(|service| service.series.len()).sum();
        let services = self.services.values();
        self.route_count = services.map(|service| service.routes.len()).sum();
        for key in ended {
            for alert in self.judge.series_ended(&key, at_ns) {
                self.commands.push_back(Command::Alert(Box::new(alert)));
            }
        }
    }
}

/// A window in which sensors reported, but nothing of this series.
fn without_events(completeness: f64) -> Window {
    if completeness == 0.0 {
        return Window::MISSING;
    }
    let mut y = [f32::NAN; TARGETS];
    y[Target::Rate.index()] = 0.0;
    Window {
        y,
        samples: 0.0,
        completeness: completeness as f32,
    }
}

#[cfg(test)]
mod tests;
