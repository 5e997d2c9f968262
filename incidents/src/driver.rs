//! Makes a fault as severe as it is to be.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, Result};
use honeyguide_evaluation::incidents::Kind;

use crate::{
    group::Group,
    network::Network,
    process::{Process, Surroundings},
    run::http_get,
    scenario::{Drawn, Fault},
    servers::sql,
    volume::Volume,
};

/// Seconds from one transaction that holds the lock to the next.
const LOCK_EVERY_SECS: f64 = 0.6;
/// Megabytes lost at a time.
const LEAK_MB: f64 = 1.0;
/// Processes that compute.
const HOGS: usize = 2;
/// Share of the time that each of them computes at full severity.
const HOG_SHARE: f64 = 0.5;

/// What a fault acts on.
pub struct Means {
    /// The group of everything that shares the disk.
    pub disk: Option<Group>,
    /// The disk.
    pub volume: Option<Volume>,
    /// The network of Redis.
    pub network: Option<Network>,
    /// Port of PostgreSQL.
    pub database: Option<u16>,
    /// The shop.
    pub shop: SocketAddr,
}

/// A fault at work.
pub struct Driver {
    fault: Fault,
    kind: Kind,
    /// Programs that are told how much to do.
    told: Vec<Process>,
    session: Option<Process>,
    /// What was done so far: rows, connections, megabytes.
    done: f64,
    next_lock_secs: f64,
    last: f64,
}

impl Driver {
    /// Prepares a fault at severity 0; `group` is where neighbours compute.
    pub fn start(drawn: &Drawn, means: &Means, group: Option<&Group>) -> Result<Driver> {
        let mut driver = Driver {
            fault: drawn.scenario.fault,
            kind: drawn.scenario.kind,
            told: Vec::new(),
            session: None,
            done: 0.0,
            next_lock_secs: 0.0,
            last: f64::NAN,
        };
        let myself = std::env::current_exe()?;
        match driver.fault {
            Fault::Hogs => {
                let groups: Vec<&Group> = group.into_iter().collect();
                for _ in 0..HOGS {
                    driver.told.push(myself_as(&myself, &["hog"], &groups)?);
                }
            }
            Fault::Writes { .. } => {
                let volume = means.volume.as_ref().context("writers without a disk")?;
                let folder = volume.path().to_string_lossy();
                let groups: Vec<&Group> = means.disk.iter().collect();
                driver
                    .told
                    .push(myself_as(&myself, &["writer", &folder], &groups)?);
            }
            Fault::Lock(_) | Fault::Rows(_) => {
                driver.session = Some(sql(means.database.context("no database")?)?);
            }
            _ => {}
        }
        driver.apply(0.0, 0.0, means)?;
        Ok(driver)
    }

    /// Makes the fault so severe; called several times a second.
    pub fn apply(&mut self, at_secs: f64, severity: f64, means: &Means) -> Result<()> {
        let changed = severity != self.last;
        self.last = severity;
        match self.fault {
            Fault::None | Fault::Demand(_) => {}
            Fault::Hogs if changed => self.tell(HOG_SHARE * severity)?,
            Fault::Writes { iops, per_sec } if changed => {
                set_iops(means, iops)?;
                self.tell(per_sec * severity)?;
            }
            Fault::Iops { from, to } if changed => {
                set_iops(means, geometric(from, to, severity))?;
            }
            Fault::Lock(secs) if severity > 0.0 && at_secs >= self.next_lock_secs => {
                self.next_lock_secs = at_secs + LOCK_EVERY_SECS;
                let held = secs * severity;
                self.session.as_mut().context("no session")?.tell(&format!(
                    "BEGIN; UPDATE item SET stock = stock WHERE id = 7; SELECT pg_sleep({held:.4}); COMMIT;"
                ))?;
            }
            Fault::Rows(rows) => {
                let missing = (rows * severity - self.done).floor();
                if missing >= 1.0 {
                    self.done += missing;
                    self.session.as_mut().context("no session")?.tell(&format!(
                        "INSERT INTO remark (words) SELECT md5(random()::text) || md5(random()::text) \
                         FROM generate_series(1, {missing});"
                    ))?;
                }
            }
            Fault::Hold(connections) if self.done + 1.0 <= connections * severity => {
                self.done += 1.0;
                http_get(means.shop, "/hold/1")?;
            }
            Fault::Leak { lost, .. } => {
                while self.done + LEAK_MB <= lost * severity {
                    self.done += LEAK_MB;
                    http_get(means.shop, &format!("/leak/{:.0}", LEAK_MB * 1024.0))?;
                }
            }
            Fault::Bandwidth { from, to } if changed => {
                let network = means.network.as_ref().context("no network")?;
                network.set_bandwidth(geometric(from, to, severity) * 1e6)?;
            }
            Fault::Loss(share) if changed => {
                let network = means.network.as_ref().context("no network")?;
                network.set_loss(share * severity)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn tell(&mut self, level: f64) -> Result<()> {
        self.told
            .iter_mut()
            .try_for_each(|process| process.tell(&level.to_string()))
    }

    /// What is done, with its sizes.
    pub fn describe(&self) -> String {
        let pace = match self.kind {
            Kind::Sudden => "at once",
            _ => "growing",
        };
        match self.fault {
            Fault::None => "nothing".to_owned(),
            Fault::Demand(growth) => format!("{:.0} % more requests, {pace}", growth * 100.0),
            Fault::Hogs => {
                format!("{HOGS} processes that compute within the same CPU quota, {pace}")
            }
            Fault::Iops { from, to } => {
                format!(
                    "the database's disk does {to:.0} instead of {from:.0} requests a second, {pace}"
                )
            }
            Fault::Writes { iops, per_sec } => format!(
                "{per_sec:.0} synchronous writes a second on the database's disk, which does {iops:.0}, {pace}"
            ),
            Fault::Lock(secs) => format!(
                "a transaction every {LOCK_EVERY_SECS} s holds a busy row for {secs:.2} s, {pace}"
            ),
            Fault::Rows(rows) => format!("{rows:.0} rows more in a table without an index, {pace}"),
            Fault::Hold(connections) => {
                format!("{connections:.0} connections to the database are lost, {pace}")
            }
            Fault::Leak { lost, limit, .. } => {
                format!("{lost:.0} of {limit:.0} MB of memory are lost, {pace}")
            }
            Fault::Bandwidth { from, to } => {
                format!("the link to Redis has {to:.1} instead of {from:.0} Mbit/s, {pace}")
            }
            Fault::Loss(share) => {
                format!(
                    "{:.1} % of packets to and from Redis are lost, {pace}",
                    share * 100.0
                )
            }
        }
    }
}

/// From one to the other in equal ratios.
fn geometric(from: f64, to: f64, severity: f64) -> f64 {
    from * (to / from).powf(severity)
}

fn set_iops(means: &Means, iops: f64) -> Result<()> {
    let volume = means.volume.as_ref().context("no disk")?;
    let group = means.disk.as_ref().context("nobody shares the disk")?;
    volume.set_iops(group, iops)
}

fn myself_as(myself: &Path, arguments: &[&str], groups: &[&Group]) -> Result<Process> {
    let surroundings = Surroundings {
        groups,
        ..Surroundings::default()
    };
    Process::start(myself, &[&["be"], arguments].concat(), &[], surroundings)
}
