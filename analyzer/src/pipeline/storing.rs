//! What is known is handed over to be stored, and then committed.

use honeyguide_bus::{Position, Topic};

use super::{Command, HistoryRow, Pipeline};
use crate::config::ValidConfig;

/// Rows kept while they cannot be stored: some 30 MB.
pub(super) const ROWS_KEPT_MAX: usize = 250_000;
/// Steps after which a failed store is tried again.
const STORE_RETRY_STEPS: u64 = 3;

impl Pipeline {
    /// Hands over the rows of closed steps; open steps stay open.
    pub fn store(&mut self) {
        let Some(last) = self.next_step.and_then(|next| next.checked_sub(1)) else {
            return;
        };
        if self.storing {
            return;
        }
        self.steps_until_store = store_every(&self.config);
        self.storing = true;
        self.commands.push_back(Command::Store {
            step: last,
            rows: std::mem::take(&mut self.rows),
        });
    }

    /// Keeps the rows and does not commit, so that a full disk loses nothing
    /// for a while. Then the oldest rows are given up and committed: otherwise
    /// the bus would fill and forecasts would stop with the disk.
    pub(super) fn not_stored(&mut self, mut rows: Vec<HistoryRow>) {
        self.storing = false;
        self.counters.store_failures += 1;
        self.steps_until_store = STORE_RETRY_STEPS;
        rows.append(&mut self.rows);
        self.rows = rows;
        let excess = self.rows.len().saturating_sub(ROWS_KEPT_MAX);
        if excess == 0 {
            return;
        }
        let last = self.rows[excess - 1].step;
        let end = self.rows.partition_point(|row| row.step <= last);
        self.rows.drain(..end);
        self.counters.rows_given_up += end as u64;
        self.commit_until(last);
    }

    pub(super) fn stored(&mut self, step: u64) {
        self.storing = false;
        self.commit_until(step);
    }

    fn commit_until(&mut self, step: u64) {
        self.stored_step = Some(step);
        let mut positions = Vec::new();
        for (partition, uncommitted) in &mut self.uncommitted {
            let mut offset = None;
            while let Some((done, _)) = uncommitted.pop_front_if(|(_, touched)| *touched <= step) {
                offset = Some(done + 1);
            }
            positions.extend(offset.map(|offset| Position {
                topic: Topic::Histograms,
                partition: *partition,
                offset,
            }));
        }
        if !positions.is_empty() {
            self.commands.push_back(Command::Commit(positions));
        }
    }
}

/// Steps between two stores.
pub(crate) fn store_every(config: &ValidConfig) -> u64 {
    let config = &config.config;
    (config.store_interval.as_secs() / config.step.as_secs()).max(1)
}
