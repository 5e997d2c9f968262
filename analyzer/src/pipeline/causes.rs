//! Which other service the trouble of one comes from, by who asks whom.
//!
//! The services that a service asks, those that they ask, and so on are the nodes of
//! a graph, and so is each *link*: what an asking service waits for at an address. A
//! link takes longer than the service behind it where the network or a queue between
//! them does. Means follow from the quantiles that histories keep. The ranking itself
//! is [`rank`].

use std::{collections::BTreeMap, rc::Rc};

use honeyguide_models::{
    History, Target,
    attribution::services::{
        Call, Incident, ServiceCause, ServiceHistory, Symptom, mean_secs, rank,
    },
};
use honeyguide_proto::ServiceId;
use sensor_common::Signal;

use super::{Pipeline, Services};
use crate::{
    ring::Ring,
    series::{Because, Part, ServiceReason},
};

/// Windows read of each history: half an hour of 10 s.
const WINDOWS: usize = 180;
/// The newest of them may be the incident.
const RECENT_WINDOWS: usize = 12;
/// A link with fewer windows before that has no usual.
const USUAL_WINDOWS_MIN: usize = 12;
/// Services and links looked at, the nearest first.
const NODES_MAX: usize = 48;
/// Smaller shares are not worth a line, …
const SHARE_MIN: f64 = 0.02;
/// … and what is fewer spreads from its usual is noise, of which there always is a
/// largest share.
const SPREADS_MIN: f64 = 3.0;

/// Mean latency and rate, oldest first.
#[derive(Debug)]
struct Means {
    latency_secs: Vec<f64>,
    rate: Vec<f64>,
}

impl Means {
    /// Of all `rings` together.
    fn of<'a>(rings: impl IntoIterator<Item = &'a Ring>) -> Means {
        let mut busy_secs = vec![f64::NAN; WINDOWS];
        let mut rate = vec![f64::NAN; WINDOWS];
        for ring in rings {
            for (at, ago) in (0..WINDOWS).rev().enumerate() {
                let window = ring.window(ago);
                let Some(log_rate) = window.value(Target::Rate) else {
                    continue;
                };
                let of_ring = Target::Rate.to_natural(log_rate);
                rate[at] = add(rate[at], of_ring);
                let quantiles = [Target::P50, Target::P90, Target::P99, Target::P999]
                    .map(|target| window.value(target).unwrap_or(f64::NAN));
                let mean = mean_secs(quantiles);
                if mean.is_finite() {
                    busy_secs[at] = add(busy_secs[at], mean * of_ring);
                }
            }
        }
        let latencies = busy_secs.iter().zip(&rate);
        Means {
            latency_secs: latencies.map(|(busy, rate)| busy / rate).collect(),
            rate,
        }
    }

    /// Whether it is known what is usual.
    fn has_usual(&self) -> bool {
        let before = &self.latency_secs[..WINDOWS - RECENT_WINDOWS];
        before.iter().filter(|secs| secs.is_finite()).count() >= USUAL_WINDOWS_MIN
    }
}

/// A sum in which nothing known is no 0.
fn add(sum: f64, value: f64) -> f64 {
    if sum.is_nan() { value } else { sum + value }
}

/// Means of one step by service and the address that it asks, empty for what it
/// serves: in an outage many ask for the same ones, and reading them takes longest.
#[derive(Debug, Default)]
pub(super) struct Memo(BTreeMap<(usize, String), Rc<Means>>);

impl Memo {
    fn means<'a>(
        &mut self,
        service: usize,
        peer: &str,
        rings: impl IntoIterator<Item = &'a Ring>,
    ) -> Rc<Means> {
        let known = self.0.entry((service, peer.to_owned()));
        Rc::clone(known.or_insert_with(|| Rc::new(Means::of(rings))))
    }
}

/// A node of the graph.
struct Node {
    part: Part,
    /// Where it is asked; empty for the one whose trouble it is.
    peer: String,
    means: Rc<Means>,
}

/// Where the trouble of a service comes from.
#[derive(Debug)]
pub(super) struct Causes {
    /// Share of it that is its own, signed.
    pub(super) own_share: f64,
    /// Others, the largest share first.
    pub(super) others: Vec<Because>,
}

impl Pipeline {
    /// Ranks what the service behind `number` waits for while `subject`, its requests,
    /// are in trouble. `None` where it asks nobody that is known, or no mean
    /// moved clearly.
    pub(super) fn causes(
        &self,
        services: &Services,
        number: usize,
        subject: &Ring,
        memo: &mut Memo,
    ) -> Option<Causes> {
        let (nodes, calls) = self.graph(services, number, subject, memo);
        if nodes.len() < 2 {
            return None;
        }
        let unknown = vec![f64::NAN; WINDOWS];
        let histories: Vec<ServiceHistory<'_>> = nodes
            .iter()
            .map(|node| ServiceHistory {
                latency_secs: &node.means.latency_secs,
                error_share: &unknown,
                rate: &node.means.rate,
            })
            .collect();
        let incident = Incident {
            subject: 0,
            symptom: Symptom::Latency,
            recent: RECENT_WINDOWS,
            step_secs: self.config.step_ns() as f64 / 1e9,
        };
        let causes = rank(&histories, &calls, incident);
        let own = causes.iter().find(|cause| cause.service == 0);
        let is_clear = |cause: &&ServiceCause| cause.spreads.abs() >= SPREADS_MIN;
        if !causes.iter().any(|cause| is_clear(&cause)) {
            return None;
        }
        let others = causes.iter().filter(|cause| cause.service != 0);
        let others = others.filter(|cause| cause.contribution.abs() >= SHARE_MIN);
        let others = others.filter(is_clear);
        let reason = |cause: &ServiceCause| {
            let node = &nodes[cause.service];
            Because::Service(ServiceReason {
                part: node.part.clone(),
                peer: node.peer.clone(),
                contribution: cause.contribution,
                lead_secs: cause.lead_secs.max(0.0),
                ratio_to_usual: cause.ratio_to_usual,
            })
        };
        Some(Causes {
            own_share: own.map_or(0.0, |cause| cause.contribution),
            others: others.map(reason).collect(),
        })
    }

    /// What the service waits for, breadth first; itself is node 0.
    fn graph(
        &self,
        services: &Services,
        number: usize,
        subject: &Ring,
        memo: &mut Memo,
    ) -> (Vec<Node>, Vec<Call>) {
        let mut nodes = vec![Node {
            part: Part::Service(services[number].key.clone()),
            peer: String::new(),
            means: Rc::new(Means::of([subject])),
        }];
        let mut calls = Vec::new();
        // By service; those that are nodes.
        let mut known = BTreeMap::from([(number, 0)]);
        let mut to_visit = vec![(number, 0)];
        let mut visited = 0;
        while let Some((caller, caller_node)) = to_visit.get(visited).copied() {
            visited += 1;
            let asking = &services[caller];
            for (peer, rings) in asking.routes.peers() {
                if nodes.len() + 2 > NODES_MAX {
                    return (nodes, calls);
                }
                let answerer = self.addresses.answerer(&asking.key, peer);
                let behind = answerer.and_then(|key| requests_of(services, key));
                let link = memo.means(caller, peer, rings);
                let has_link = link.has_usual();
                let mut from = caller_node;
                if has_link {
                    let part = match (answerer, &behind) {
                        // Nobody measures the service itself.
                        (Some(key), None) => Part::Service(key.to_owned()),
                        _ => Part::Link(asking.key.clone()),
                    };
                    calls.push(Call {
                        caller: from,
                        callee: nodes.len(),
                    });
                    from = nodes.len();
                    nodes.push(Node {
                        part,
                        peer: peer.to_owned(),
                        means: link,
                    });
                }
                let Some((callee, ring)) = behind else {
                    continue;
                };
                let callee_node = *known.entry(callee).or_insert_with(|| {
                    to_visit.push((callee, nodes.len()));
                    nodes.push(Node {
                        part: Part::Service(services[callee].key.clone()),
                        peer: peer.to_owned(),
                        means: memo.means(callee, "", [ring]),
                    });
                    nodes.len() - 1
                });
                calls.push(Call {
                    caller: from,
                    callee: callee_node,
                });
            }
        }
        (nodes, calls)
    }
}

/// The place and the served requests of a service that has some.
fn requests_of<'a>(services: &'a Services, key: &str) -> Option<(usize, &'a Ring)> {
    let id = ServiceId::parse(key).ok()?;
    let (number, _, service) = services.get_full(&id)?;
    let mut series = service.series.iter();
    let requests = series.find(|series| series.signal == Signal::ServerRequest)?;
    Some((number, &requests.ring))
}

#[cfg(test)]
mod tests;
