//! What a closed step means for sensors.

use honeyguide_models::Forecast;
use honeyguide_proto::{ServiceId, v1};

use super::{Command, Pipeline, outlook::AT_REST_STEPS};
use crate::{
    hints::{self, Subject, attention::Attention},
    series::Series,
};

impl Pipeline {
    /// Looks at a series closely if its forecast asks for it. Where every event
    /// is seen there is nothing to ask for.
    pub(super) fn attend(
        &mut self,
        service: &ServiceId,
        series: &Series,
        forecast: &Forecast,
        message: &v1::Forecast,
    ) {
        let Some(policy) = &mut self.policy else {
            return;
        };
        let last = &series.facts.last;
        let is_sampled = hints::shift_of(last.sampling_ratio) > 0;
        if series.facts.idle_steps >= AT_REST_STEPS
            || !(is_sampled || policy.is_watched(service, series.signal))
        {
            return;
        }
        let events = last.rate * self.config.config.step.as_secs_f64();
        let Some(attention) = Attention::of(forecast, &message.breaches, events) else {
            return;
        };
        let subject = Subject {
            service,
            signal: series.signal,
            events,
            sampling_ratio: last.sampling_ratio,
        };
        let at_ns = message
            .made_at
            .as_ref()
            .map_or(0, crate::judge::nanoseconds);
        policy.attend(subject, &attention, at_ns);
    }

    /// Tells sensors what follows from `step`, unless that is long ago: who
    /// reads a backlog would be heard too late.
    pub(super) fn hint(&mut self, step: u64) {
        let at_ns = (step + 1) * self.config.step_ns();
        let half_ttl_ns = hints::TTL.as_nanos() as u64 / 2;
        let Some(policy) = &mut self.policy else {
            return;
        };
        if at_ns + half_ttl_ns < self.now_ns {
            return;
        }
        let changes = policy.decide(at_ns, self.partition);
        if !changes.is_empty() {
            for change in &changes {
                *self.counters.hints.entry(change.kind()).or_default() += 1;
            }
            self.commands.push_back(Command::Hints(changes));
        }
    }

    /// Nodes and series for which there was no room in the policy of hints.
    pub fn hints_left_out(&self) -> u64 {
        self.policy.as_ref().map_or(0, hints::Policy::left_out)
    }

    /// Hints in force, and what nodes cost.
    pub fn hints(&self) -> v1::ListHintsResponse {
        let Some(policy) = &self.policy else {
            return v1::ListHintsResponse::default();
        };
        v1::ListHintsResponse {
            hints: policy.hints(),
            nodes: policy.nodes(),
        }
    }
}

#[cfg(test)]
mod tests;
