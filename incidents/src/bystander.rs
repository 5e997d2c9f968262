//! Small services beside the subject, with loads and objectives of their own:
//! whoever expects a breach of one of them is wrong.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::Result;
use rand::RngExt;

use crate::{
    group::Group,
    load::{Plan, Protocol},
    process::{Process, Surroundings},
    profile::{Demand, Growth, random},
    run::Place,
    servers::{Application, Folder},
};

/// What a bystander is.
#[derive(Clone, Copy, Debug)]
enum Server {
    Redis,
    Nginx,
    /// Pages cost so many hashes; within a share of a CPU.
    Application(u32, f64),
}

/// Names, servers, requests per second, the share by which those swing, and
/// objectives of the 99th percentile in milliseconds.
const BYSTANDERS: [(&str, Server, f64, f64, f64); 8] = [
    ("sessions", Server::Redis, 70.0, 0.1, 50.0),
    ("queue", Server::Redis, 60.0, 0.5, 50.0),
    ("flags", Server::Redis, 90.0, 0.3, 50.0),
    ("static", Server::Nginx, 80.0, 0.2, 50.0),
    ("docs", Server::Nginx, 70.0, 0.5, 50.0),
    ("images", Server::Nginx, 60.0, 0.0, 50.0),
    ("search", Server::Application(300, 0.15), 45.0, 0.2, 100.0),
    ("mail", Server::Application(600, 0.15), 45.0, 0.3, 100.0),
];

/// A server that nothing is done to.
#[derive(Debug)]
pub struct Bystander {
    /// Its name without the slot.
    pub name: &'static str,
    /// Of its 99th percentile.
    pub objective_ms: f64,
    /// What it is asked.
    pub plan: Plan,
    // Ends before its group.
    _server: Process,
    _group: Option<Group>,
}

/// Starts all of them.
pub fn start(folder: &Folder, place: &Place, seed: u64) -> Result<Vec<Bystander>> {
    let start = |(name, server, per_sec, swing, objective_ms)| {
        let known_as = format!("{name}{}", place.slot);
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut group = None;
        let (process, address) = match server {
            Server::Redis => folder.redis(&known_as, local, Surroundings::default())?,
            Server::Nginx => folder.nginx(&known_as)?,
            Server::Application(_, cpu) => {
                let quota = Group::make("cpu", &format!("hg-{known_as}"), None)?;
                quota.set_cpu(cpu)?;
                let application = Application {
                    threads: 4,
                    ..Application::default()
                };
                let surroundings = Surroundings {
                    groups: &[&quota],
                    ..Surroundings::default()
                };
                let started = folder.application(&known_as, &application, surroundings)?;
                group = Some(quota);
                started
            }
        };
        let mut random = random(seed, name);
        let demand = Demand {
            per_sec: per_sec * random.random_range(0.85..1.15),
            swing,
            period_secs: random.random_range(30.0..200.0),
            phase: random.random(),
            growth: 0.0,
        };
        let never = Growth {
            onset_secs: f64::INFINITY,
            ramp_secs: 0.0,
        };
        let arrivals = demand.arrivals(&never, -5.0..place.windows as f64, &mut random);
        let requests = arrivals.into_iter().map(|at| {
            let what = match server {
                Server::Redis => "PING".to_owned(),
                Server::Nginx => "/".to_owned(),
                Server::Application(hashes, _) => {
                    format!("/digests/{}", random.random_range(1..2 * hashes))
                }
            };
            (at, what)
        });
        Ok(Bystander {
            name,
            objective_ms,
            plan: Plan {
                address,
                protocol: match server {
                    Server::Redis => Protocol::Redis,
                    _ => Protocol::Http,
                },
                requests: requests.collect(),
                connections_max: 32,
                timeout: Duration::from_secs(10),
                retries: 0,
            },
            _server: process,
            _group: group,
        })
    };
    BYSTANDERS.into_iter().map(start).collect()
}
