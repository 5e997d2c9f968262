//! What a closed step means: forecasts, risks, reasons, alerts.

use honeyguide_models::{
    Context, Driver, DriverId, Forecast, History, Role, SeriesInput, SeriesModel, Target,
    attribution::{Cause, Reason, Subject, attribute, rank_by},
    breach::{Breach, ValidObjective, breach},
    pressure::pressure,
    recalibration::observed,
    similar::Groups,
};
use honeyguide_proto::v1;
use sensor_common::Signal;

use super::{
    Command, Pipeline, Service, Services,
    causes::Memo,
    messages::{Observed, breach_message, message, reason_message, service_reason, summary},
};
use crate::{
    config::ValidObjectiveConfig,
    judge::{Evidence, Patience},
    ring::Ring,
    series::{Because, IDLE_STEPS_MAX, Series},
};

/// Refits per step at least; more series share the work over as many steps.
const REFITS_MIN: u64 = 8;
/// Steps over which refits of all series are spread.
const REFIT_SPREAD_STEPS: u64 = 30;
/// Steps from one look at which series are similar to the next.
const GROUP_STEPS: u64 = 60;
/// Reasons are looked for from this probability on.
const REASONS_FROM: f64 = 0.2;
/// Reasons told at most, and the smallest share that is.
const REASONS_MAX: usize = 8;
const SHARE_MIN: f64 = 0.02;
/// Steps without events after which a series is at no risk: there is nobody to
/// be slow for.
pub(super) const AT_REST_STEPS: u32 = 3;
/// Windows with events before a breach that is only expected may fire.
const EXPECT_FROM_WINDOWS: u32 = 12;
/// Events a window needs for its quantile to count as a breach: with fewer, a
/// high quantile is just the longest of them.
pub const BREACH_SAMPLES_MIN: u64 = 20;

const AT_REST: Breach = Breach {
    probability: 0.0,
    eta: None,
    budget_exhausted_in_secs: None,
};

/// Series of one signal may be similar.
pub(super) fn class(signal: Signal) -> u32 {
    u32::from(signal.number())
}

/// Whether a signal is waiting for a resource or work that suffers from it.
fn role(signal: Signal) -> Role {
    match signal {
        Signal::RunQueue
        | Signal::BlockIo
        | Signal::BlockIoDevice
        | Signal::TcpRetransmit
        | Signal::Reclaim
        | Signal::CpuPressure
        | Signal::IoPressure
        | Signal::MemoryPressure
        | Signal::CpuThrottled => Role::Saturation,
        _ => Role::Work,
    }
}

impl Pipeline {
    /// Forecasts and judges every series that had events lately.
    pub(super) fn forecast(&mut self, step: u64) {
        if step.is_multiple_of(GROUP_STEPS) {
            self.groups = Groups::fit(self.services.values().flat_map(|service| {
                let models = service.series.iter();
                models.filter_map(|series| Some((class(series.signal), series.model.as_deref()?)))
            }));
        }
        let mut forecasts = Vec::new();
        let mut memo = Memo::default();
        let mut services = std::mem::take(&mut self.services);
        for number in 0..services.len() {
            for at in 0..services[number].series.len() {
                let service = &mut services[number];
                if service.series[at].facts.idle_steps >= IDLE_STEPS_MAX {
                    continue;
                }
                let Some(mut model) = service.series[at].model.take() else {
                    continue;
                };
                let forecast = self.refresh(&mut model, service, at, step);
                service.series[at].model = Some(model);
                let place = Place { number, at, step };
                let message = self.judge_series(&mut services, place, &forecast, &mut memo);
                if let Some((id, service)) = services.get_index(number) {
                    self.attend(id, &service.series[at], &forecast, &message);
                }
                forecasts.push(message);
            }
        }
        self.services = services;
        self.breach_pool.learn();
        for alert in self.judge.end_step((step + 1) * self.config.step_ns()) {
            self.commands.push_back(Command::Alert(Box::new(alert)));
        }
        self.commands.push_back(Command::Forecasts(forecasts));
        self.refit_step = Some(step);
    }

    /// The model's forecast after `step`.
    fn refresh(
        &self,
        model: &mut SeriesModel,
        service: &Service,
        at: usize,
        step: u64,
    ) -> Forecast {
        let series = &service.series[at];
        let context = Context {
            similar: self.groups.of(class(series.signal), model),
            incident: series.facts.incident,
            distribution_score: series.distribution.score(),
        };
        with_input(service, at, step, |input| {
            model.refresh_in(&self.config.params, input, context)
        })
    }

    /// Refits the models that are due since the last step, as many as a step
    /// may. Nobody waits for it: it takes longer than all forecasts.
    pub(super) fn refit(&mut self) {
        let Some(step) = self.refit_step.take() else {
            return;
        };
        let mut refits = REFITS_MIN + self.series_count as u64 / REFIT_SPREAD_STEPS;
        for service in self.services.values_mut() {
            for at in 0..service.series.len() {
                let series = &mut service.series[at];
                let is_due = |model: &SeriesModel| model.refit_due(&self.config.params);
                if refits == 0
                    || series.facts.idle_steps >= IDLE_STEPS_MAX
                    || !series.model.as_deref().is_some_and(is_due)
                {
                    continue;
                }
                let Some(mut model) = series.model.take() else {
                    continue;
                };
                refits -= 1;
                self.counters.refits += 1;
                with_input(service, at, step, |input| {
                    model.refit(&self.config.params, input)
                });
                service.series[at].model = Some(model);
            }
        }
        self.refit_routes(step);
    }

    /// The forecasts of the last closed step once more: of restored models,
    /// which learn nothing new by it, with the reasons found then.
    pub fn last_forecasts(&mut self) -> Vec<v1::Forecast> {
        let Some(step) = self.next_step.and_then(|next| next.checked_sub(1)) else {
            return Vec::new();
        };
        let at_ns = (step + 1) * self.config.step_ns();
        let mut forecasts = Vec::new();
        let mut services = std::mem::take(&mut self.services);
        for service in services.values_mut() {
            for at in 0..service.series.len() {
                if service.series[at].facts.idle_steps >= IDLE_STEPS_MAX {
                    continue;
                }
                let Some(mut model) = service.series[at].model.take() else {
                    continue;
                };
                let facts = service.series[at].facts;
                let forecast = self.refresh(&mut model, service, at, step);
                service.series[at].model = Some(model);
                let risks = self.risks(service, at, &forecast);
                let mut message = self.message(service, at, at_ns, &forecast, &risks);
                message.reasons = self.reason_messages(service, at);
                forecasts.push(message);
                service.series[at].facts = facts;
            }
        }
        self.services = services;
        self.refresh_routes(step);
        forecasts
    }

    /// The risks of a series' objectives, before recalibration.
    fn risks(&self, service: &mut Service, at: usize, forecast: &Forecast) -> Vec<Risk> {
        let key = series_key(service, at);
        let signal = service.series[at].signal;
        let matching: Vec<ValidObjectiveConfig> = self
            .config
            .objectives
            .iter()
            .filter(|objective| objective.matches(&service.key, signal))
            .cloned()
            .collect();
        let mut risks = Vec::new();
        for objective in matching {
            let frozen = self.judge.is_firing(&objective.config.name, &key);
            let usual = service.series[at].usual(objective.config.target, frozen);
            if let Some(valid) = objective.with_usual(usual) {
                let breach = match service.series[at].facts.idle_steps {
                    AT_REST_STEPS.. => AT_REST,
                    _ => {
                        let own = &service.series[at].ring;
                        let waits = waits(&service.series, at);
                        let model = service.series[at].model.as_deref();
                        let busiest = model.and_then(|model| model.busiest(&self.config.params));
                        breach(forecast, &valid, &self.config.paths, valid.above(own))
                            .under(pressure(own, &waits, &valid, busiest))
                    }
                };
                risks.push(Risk {
                    objective,
                    valid,
                    breach,
                    usual,
                });
            }
        }
        risks
    }

    /// Learns what became of earlier risks of a series, and follows these.
    fn learn(&mut self, series: &mut Series, step: u64, risks: &[Risk]) {
        let params = &self.config.params;
        let window = series.ring.window(0);
        for risk in risks {
            let valid = &risk.valid;
            let observed = observed(&window, valid.get().target, BREACH_SAMPLES_MIN);
            let recalibration = series.recalibration(&risk.objective.config.name);
            recalibration.settle(params, valid, step, observed, &mut self.breach_pool);
            recalibration.follow(params, valid, step, &risk.breach);
        }
    }

    /// What a forecast and its risks mean, still without reasons.
    fn message(
        &self,
        service: &mut Service,
        at: usize,
        at_ns: u64,
        forecast: &Forecast,
        risks: &[Risk],
    ) -> v1::Forecast {
        let key = series_key(service, at);
        let series = &mut service.series[at];
        let mut message = message(&key, series, (at_ns, self.config.step_ns()), forecast);
        for risk in risks {
            let recalibration = series.recalibration(&risk.objective.config.name);
            let breach = recalibration.recalibrated(&self.breach_pool, risk.breach);
            let breach = breach_message(&risk.objective, &risk.valid, &breach);
            message.breaches.push(breach);
        }
        message
    }

    /// Why a series is at risk, if it is: where services that its service waits for
    /// are known, what they have to do with it, and of the rest, which signals.
    fn reasons(
        &self,
        services: &Services,
        place: Place,
        message: &v1::Forecast,
        risks: &[Risk],
        memo: &mut Memo,
    ) -> Vec<Because> {
        let probabilities = message.breaches.iter().map(|breach| breach.probability);
        let worst = probabilities.fold(0.0, f64::max);
        if worst < REASONS_FROM && message.anomaly_score < 1.0 {
            return Vec::new();
        }
        let service = &services[place.number];
        let series = &service.series[place.at];
        let target = risks
            .first()
            .map_or(Target::P99, |risk| risk.objective.config.target);
        let subject = Subject {
            role: role(series.signal),
            target,
        };
        let mut drivers = drivers(&service.series, Some(place.at));
        let causes = match series.signal {
            Signal::ServerRequest | Signal::ClientRequest => {
                self.causes(services, place.number, &series.ring, memo)
            }
            _ => None,
        };
        let (own_share, mut reasons) = match causes {
            Some(causes) => (causes.own_share.abs(), causes.others),
            None => {
                drivers.extend(service.routes.downstream());
                (1.0, Vec::new())
            }
        };
        let input = SeriesInput {
            step: place.step,
            own: &series.ring,
            drivers: &drivers,
        };
        let signals = attribute(&self.config.params, subject, input);
        reasons.extend(signals.into_iter().map(|reason| {
            Because::Signal(Reason {
                contribution: own_share * reason.contribution,
                ..reason
            })
        }));
        // Of equals, other services first.
        rank_by(&mut reasons, Because::contribution);
        reasons.retain(|reason| reason.contribution().abs() >= SHARE_MIN);
        reasons.truncate(REASONS_MAX);
        reasons
    }

    fn reason_messages(&self, service: &Service, at: usize) -> Vec<v1::Reason> {
        let own = series_key(service, at);
        let message = |because: &Because| match because {
            Because::Service(reason) => service_reason(reason),
            Because::Signal(reason) => match reason.cause {
                Cause::Driver(id) => match service.routes.peer_of(id) {
                    Some(peer) => self.downstream_reason(&own, reason, peer),
                    None => reason_message(&own, reason),
                },
                _ => reason_message(&own, reason),
            },
        };
        service.series[at].reasons.iter().map(message).collect()
    }

    /// What another service answers at `peer`.
    fn downstream_reason(&self, own: &v1::SeriesKey, reason: &Reason, peer: &str) -> v1::Reason {
        let key = match self.addresses.answerer(&own.service, peer) {
            Some(service) => v1::SeriesKey {
                service: service.to_owned(),
                signal: Signal::ServerRequest.name().to_owned(),
            },
            None => v1::SeriesKey {
                service: own.service.clone(),
                signal: Signal::ClientRequest.name().to_owned(),
            },
        };
        v1::Reason {
            key: Some(key),
            peer: peer.to_owned(),
            ..reason_message(own, reason)
        }
    }

    fn judge_series(
        &mut self,
        services: &mut Services,
        place: Place,
        forecast: &Forecast,
        memo: &mut Memo,
    ) -> v1::Forecast {
        let Place { number, at, step } = place;
        let at_ns = (step + 1) * self.config.step_ns();
        let service = &mut services[number];
        let risks = self.risks(service, at, forecast);
        self.learn(&mut service.series[at], step, &risks);
        let mut message = self.message(service, at, at_ns, forecast, &risks);
        let reasons = self.reasons(services, place, &message, &risks, memo);
        let service = &mut services[number];
        service.series[at].reasons = reasons;
        message.reasons = self.reason_messages(service, at);
        let series = &service.series[at];
        let key = series_key(service, at);
        let mut incident = false;
        for (risk, breach) in risks.into_iter().zip(&message.breaches) {
            let Risk {
                objective,
                valid,
                usual,
                ..
            } = risk;
            let target = objective.config.target;
            let now = forecast.y[target.index()].map(f64::from);
            let breached = now.is_some_and(|now| now > valid.get().threshold)
                && series.facts.last.samples >= BREACH_SAMPLES_MIN;
            let known = series.facts.observed_steps >= EXPECT_FROM_WINDOWS
                && series.facts.last.samples >= BREACH_SAMPLES_MIN;
            let summary = summary(&key, breach, Observed { now, usual }, &message.reasons);
            let evidence = Evidence {
                key: key.clone(),
                breach: breach.clone(),
                breached,
                patience: Patience {
                    fire_after: objective.config.fire_after,
                    resolve_after: objective.config.resolve_after,
                },
                fire_probability: if breached || known {
                    objective.config.fire_probability
                } else {
                    f64::INFINITY
                },
                reasons: message.reasons.clone(),
                summary,
                at_ns,
            };
            if let Some(alert) = self.judge.consider(evidence) {
                self.commands.push_back(Command::Alert(Box::new(alert)));
            }
            incident |= self.judge.is_firing(&objective.config.name, &key);
        }
        services[number].series[at].facts.incident = incident;
        message
    }
}

/// A series in a step.
#[derive(Clone, Copy)]
struct Place {
    /// Of its service.
    number: usize,
    /// Within the service.
    at: usize,
    step: u64,
}

/// An objective of a series, and what threatens it.
struct Risk {
    objective: ValidObjectiveConfig,
    valid: ValidObjective,
    /// Before recalibration.
    breach: Breach,
    /// The usual value of its target.
    usual: Option<f64>,
}

fn series_key(service: &Service, at: usize) -> v1::SeriesKey {
    v1::SeriesKey {
        service: service.key.clone(),
        signal: service.series[at].signal.name().to_owned(),
    }
}

/// What the work of a series waits for: what its service asks of others, and the way
/// there.
fn waits(series: &[Series], at: usize) -> Vec<&Ring> {
    if role(series[at].signal) != Role::Work {
        return Vec::new();
    }
    let others = series.iter().enumerate().filter(|(other, _)| *other != at);
    let waits =
        others.filter(|(_, other)| matches!(other.signal, Signal::ClientRequest | Signal::TcpRtt));
    waits.map(|(_, series)| &series.ring).collect()
}

/// Series as drivers of another one; of all but the one at `but`.
pub(super) fn drivers(series: &[Series], but: Option<usize>) -> Vec<Driver<'_, Ring>> {
    let others = series.iter().enumerate();
    let others = others.filter(|(other, _)| Some(*other) != but);
    others
        .map(|(_, series)| Driver {
            id: DriverId(u32::from(series.signal.number())),
            role: role(series.signal),
            history: &series.ring,
        })
        .collect()
}

/// Calls `read` with the series and its neighbours as the model sees them.
fn with_input<T>(
    service: &Service,
    at: usize,
    step: u64,
    read: impl FnOnce(SeriesInput<'_, Ring>) -> T,
) -> T {
    let drivers = drivers(&service.series, Some(at));
    read(SeriesInput {
        step,
        own: &service.series[at].ring,
        drivers: &drivers,
    })
}

/// How many windows of history a ring holds.
#[cfg(test)]
pub(super) fn history_len(series: &Series) -> usize {
    series.ring.len()
}
