//! What the loop costs in foresight: a recording of a sensor that saw every
//! event, and the same as it would have been with the loop. Each event is kept
//! or not as a sensor would have, by the hints of the analyzer that reads it.
//!
//! An alert that fires later than at full sampling has lost those windows; one
//! that does not fire has lost all that are left.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Result, ensure};
use honeyguide_analyzer::{
    Config,
    config::HintsMode,
    hints::Change,
    pipeline::{Command, Input, Pipeline},
};
use honeyguide_bus::{Delivery, PartitionId, Topic, range::Range, recording::read_range};
use honeyguide_proto::{
    batch::{Batch, SeriesRef, encode},
    v1,
};
use honeyguide_sensor::{
    clock::Instant,
    hints::{Book, Owner},
};
use rand::{SeedableRng, rngs::StdRng};
use rand_distr::{Binomial, Distribution};
use sensor_common::{
    Histogram,
    histogram::{Totals, lower_bound_ns},
};

const RECORDING: &str = "../bench-data/shop.hgr";
const SEEDS: u64 = 20;
/// What a window costs at full sampling in the median, as a share of all CPUs:
/// the recorded machine was calm, so its events are taken to be that many more.
const FULL_COST: f64 = 0.01;
/// What the loop may cost of it: as little as it must to be worth while.
const BUDGET: f64 = 0.35 * FULL_COST;
/// Kernel time of an event that is not sampled, and of one that is.
const UNSAMPLED_NS: u64 = 10;
const SAMPLED_NS: u64 = 250;
/// The part of a window that is over when hints that end it early are heard.
const EARLY_PART: f64 = 0.25;

#[derive(Debug)]
pub struct Lead {
    pub lost_mean: f64,
    /// Alerts of all seeds; those of them that fired later, or never.
    pub alerts: usize,
    pub late: usize,
    pub missing: usize,
    /// Events seen, of all.
    pub samples_ratio: f64,
}

pub fn lost_windows() -> Result<Lead> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORDING);
    let deliveries = read_range(&path, Topic::Histograms, &Range::default())?;
    let deliveries: Vec<Delivery> = deliveries.collect::<Result<_, _>>()?;
    let full = Run::of(&deliveries, None)?;
    let cost_factor = cost_factor(&deliveries)?;
    let (mut lost, mut missing) = (Vec::new(), 0);
    let (mut seen, mut all) = (0, 0);
    for seed in 0..SEEDS {
        let looped = Run::of(&deliveries, Some((seed, cost_factor)))?;
        seen += looped.samples;
        all += full.samples;
        for (id, fired) in &full.fired {
            let later = looped.fired.get(id).copied();
            missing += usize::from(later.is_none());
            // Earlier is no gain: chance alone makes it so.
            lost.push(later.unwrap_or(full.end).saturating_sub(*fired));
        }
    }
    let alerts = lost.len();
    ensure!(alerts > 0, "no alert fires in {RECORDING}");
    let lead = Lead {
        lost_mean: lost.iter().sum::<u64>() as f64 / alerts as f64,
        late: lost.iter().filter(|lost| **lost > 0).count(),
        alerts,
        missing,
        samples_ratio: seen as f64 / all as f64,
    };
    println!(
        "lead_lost_windows: {:.3} on average of {alerts} alerts, {} of them later, {missing} \
         never; {:.3} of all events seen",
        lead.lost_mean, lead.late, lead.samples_ratio
    );
    Ok(lead)
}

/// By how much more a window must cost than this recording's to be
/// [`FULL_COST`] in the median.
fn cost_factor(deliveries: &[Delivery]) -> Result<f64> {
    let mut windows = BTreeMap::<u64, f64>::new();
    for delivery in deliveries {
        let batch = Batch::decode(&delivery.record.payload)?;
        let cpus = batch.cost.as_ref().map_or(1, |cost| cost.cpus.max(1));
        let events: u64 = batch.series.iter().map(|series| series.count).sum();
        let cost_ns = (events * (UNSAMPLED_NS + SAMPLED_NS)) as f64;
        let cpus_ns = f64::from(cpus) * batch.header.window_duration_ns as f64;
        *windows.entry(batch.header.window_start_ns).or_default() += cost_ns / cpus_ns;
    }
    let mut costs: Vec<f64> = windows.into_values().collect();
    costs.sort_by(f64::total_cmp);
    Ok(FULL_COST / costs[costs.len() / 2])
}

/// The recording through the pipelines of its partitions.
#[derive(Default)]
struct Run {
    /// Step after which each alert fired first.
    fired: BTreeMap<String, u64>,
    end: u64,
    samples: u64,
}

impl Run {
    /// With the loop, these random numbers and this factor of costs, or without.
    fn of(deliveries: &[Delivery], looped: Option<(u64, f64)>) -> Result<Self> {
        let mut config = Config::default();
        config.hints.budget = BUDGET;
        if looped.is_none() {
            config.hints.mode = HintsMode::Off;
        }
        let config = config.validate()?;
        let mut run = Self::default();
        let mut pipelines: BTreeMap<PartitionId, Pipeline> = BTreeMap::new();
        let mut sensor =
            looped.map(|(seed, cost_factor)| Sampled::new(seed, cost_factor, config.config.step));
        for delivery in deliveries {
            let mut batch = Batch::decode(&delivery.record.payload)?;
            let mut delivery = delivery.clone();
            if let Some(sensor) = &mut sensor {
                delivery.record.payload = sensor.sample(&batch);
                batch = Batch::decode(&delivery.record.payload)?;
            }
            let samples = batch.series.iter().map(|series| series.totals.samples);
            run.samples += samples.sum::<u64>();
            let pipeline = pipelines
                .entry(delivery.record.partition)
                .or_insert_with(|| Pipeline::new(config.clone()));
            pipeline.handle(Input::Delivery(&delivery), delivery.record.timestamp_ns);
            let step = delivery.record.timestamp_ns / config.step_ns();
            run.end = run.end.max(step);
            while let Some(command) = pipeline.next_command() {
                match command {
                    Command::Alert(alert) if alert.state() == v1::AlertState::Firing => {
                        run.fired.entry(alert.id).or_insert(step);
                    }
                    Command::Hints(changes) => {
                        if let Some(sensor) = &mut sensor {
                            sensor.told.extend(changes);
                        }
                    }
                    Command::Store { step, .. } => {
                        pipeline.handle(Input::Stored { step }, delivery.record.timestamp_ns);
                    }
                    _ => {}
                }
            }
        }
        Ok(run)
    }
}

/// A sensor that saw everything, as if it had followed hints.
struct Sampled {
    /// Of the recording's one sensor, once its name is known.
    book: Option<Book>,
    random: StdRng,
    cost_factor: f64,
    window: Duration,
    costs: BTreeMap<u32, v1::SignalCost>,
    costs_so_far: BTreeMap<u32, v1::SignalCost>,
    flush_interval: Duration,
    told: Vec<Change>,
}

impl Sampled {
    fn new(seed: u64, cost_factor: f64, flush_interval: Duration) -> Self {
        Self {
            book: None,
            random: StdRng::seed_from_u64(seed),
            cost_factor,
            window: Duration::ZERO,
            costs: BTreeMap::new(),
            costs_so_far: BTreeMap::new(),
            flush_interval,
            told: Vec::new(),
        }
    }

    /// The payload of a batch of which only samples were seen.
    fn sample(&mut self, batch: &Batch) -> Vec<u8> {
        let start = Duration::from_nanos(batch.header.window_start_ns);
        let mut book = self.book.take().unwrap_or_else(|| {
            Book::new(Owner {
                sensor_id: batch.header.sensor_id.clone(),
                flush_interval: self.flush_interval,
            })
        });
        let shifts = |book: &Book| -> Vec<u8> {
            let of_series = batch.series.iter().map(|series| {
                let service = &batch.services[series.service as usize];
                let own = book.shift_of(service, series.signal);
                own.or(book.shift(series.signal)).unwrap_or(0)
            });
            of_series.collect()
        };
        self.follow(&mut book, start, false);
        let first = shifts(&book);
        self.follow(&mut book, start, true);
        let rest = shifts(&book);
        self.book = Some(book);
        // A window is in batches of several partitions, and its cost in the first.
        if start != self.window {
            self.window = start;
            self.costs = std::mem::take(&mut self.costs_so_far);
        }
        let mut histograms = Vec::new();
        for ((series, first), rest) in batch.series.iter().zip(first).zip(rest) {
            let histogram = self.sampled(batch.buckets(series), series.totals, (first, rest));
            let number = series.signal.number().into();
            let cost = self.costs_so_far.entry(number).or_default();
            cost.signal = number;
            cost.events += histogram.samples();
            cost.estimated_events += series.count;
            histograms.push((series.service, series.signal, histogram));
        }
        let series = histograms
            .iter()
            .map(|(service, signal, histogram)| SeriesRef {
                service: *service,
                signal: *signal,
                histogram,
            });
        let cost = batch.cost.as_ref().map(|cost| self.cost(cost));
        let series = series.collect();
        encode(&batch.header, &batch.services, series, &batch.losses, cost)
    }

    /// Of the window before, which is known whole.
    fn cost(&self, recorded: &v1::SensorCost) -> v1::SensorCost {
        let costs = self.costs.values().cloned().map(|mut cost| {
            let ns = cost.estimated_events * UNSAMPLED_NS + cost.events * SAMPLED_NS;
            cost.kernel_ns = (ns as f64 * self.cost_factor) as u64;
            cost
        });
        let signals: Vec<_> = costs.collect();
        v1::SensorCost {
            kernel_ns: signals.iter().map(|cost| cost.kernel_ns).sum(),
            signals,
            user_space_ns: 0,
            ceiling_ns: 0,
            ..recorded.clone()
        }
    }

    /// Hears what was said before the window before this one ended: what comes
    /// in a window is applied at its end. With `early` also what was said since:
    /// what asks to look closer at a service ends a window early.
    fn follow(&mut self, book: &mut Book, start: Duration, early: bool) {
        let before = start.saturating_sub(self.flush_interval);
        let now = Instant {
            monotonic: start,
            wall: start,
        };
        book.expire(now);
        let is_heard = |change: &mut Change| {
            let until = match early && change.scope.service.is_some() && change.hint.is_some() {
                true => start,
                false => before,
            };
            Duration::from_nanos(change.at_ns) <= until
        };
        for change in self.told.extract_if(.., is_heard) {
            let payload = change.hint.map_or(Vec::new(), |hint| hint.encode());
            book.take(change.scope.key().as_bytes(), &payload, now);
        }
    }

    /// What is kept with the `first` shift in the first part of a window and
    /// another in the `rest`.
    fn sampled(
        &mut self,
        buckets: &[(u8, u64)],
        totals: Totals,
        (first, rest): (u8, u8),
    ) -> Histogram {
        let all = first == 0 && rest == 0;
        let mut histogram = Histogram::new();
        let (mut samples, mut sum_ns, mut max_ns) = (0, 0, 0);
        for (position, count) in buckets {
            let early = self.binomial(*count, EARLY_PART);
            let kept = [(early, first), (count - early, rest)].map(|(count, shift)| {
                let kept = self.binomial(count, 0.5f64.powi(i32::from(shift)));
                (kept, kept << shift)
            });
            let [(early, early_estimate), (late, late_estimate)] = kept;
            let estimate = early_estimate + late_estimate;
            if estimate == 0 {
                continue;
            }
            let position = usize::from(*position);
            histogram.add(position, estimate);
            samples += early + late;
            let middle_ns = (lower_bound_ns(position) * 1.045) as u64;
            sum_ns += estimate * middle_ns;
            max_ns = middle_ns;
        }
        histogram.add_totals(Totals {
            samples,
            sum_ns: if all { totals.sum_ns } else { sum_ns },
            max_ns: if all { totals.max_ns } else { max_ns },
        });
        histogram
    }

    fn binomial(&mut self, count: u64, ratio: f64) -> u64 {
        if ratio >= 1.0 {
            return count;
        }
        // A ratio is a probability.
        Binomial::new(count, ratio).map_or(0, |binomial| binomial.sample(&mut self.random))
    }
}
