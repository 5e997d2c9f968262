//! `honeyguide replay`: records through the same pipelines as in production,
//! with the recorded times as now.

mod difference;
pub(crate) mod pipelines;
mod range;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail, ensure};
use honeyguide_analyzer::{ValidConfig, frame::Tables, pipeline::Counters};
use honeyguide_bus::{
    Delivery, PartitionId, Topic,
    kafka::{self, RangeReader},
    range::{Bound, Range},
    recording,
};
use honeyguide_proto::v1;
use honeyguide_service::settings::SettingsArgs;
use prost::Message;

use self::{
    difference::{Episodes, differences},
    pipelines::{Finding, Pipelines, alert_time_ns},
    range::Selection,
};
use crate::{
    settings::{self, Settings},
    view,
};

/// Exit code that tells scripts that alerts differ.
const EXIT_DIFFERENT: u8 = 2;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The same records and configuration give the same output, bit for bit.
--from and --to take a time (2026-07-01T10:00:00Z), a time ago (2h), an offset
(1200) or offsets of partitions (0:1200,3:900). --from belongs to the range,
--to does not. Without FILE, records are read from kafka.brokers.

With --diff only alerts are shown, those that differ. Exit code: 0 when none
does, 2 when one does. What is compared:
  --diff                  what was alerted (honeyguide.alerts.v1), and this replay
  --diff --config OTHER   a replay with the configuration used without --config
                          (or --baseline FILE), and one with OTHER; --set is for both

Examples:
  honeyguide replay incident.hgr                     Alerts as they fire, the last forecasts
  honeyguide replay incident.hgr --all               Every forecast of every step
  honeyguide replay incident.hgr --parquet tables    Tables to explore, see notebooks/
  honeyguide replay --from 2h --to 1h --diff         Would it alert again as it did?
  honeyguide replay --from 2h --config new.toml --diff    What would new.toml change?
")]
pub struct Args {
    /// Recording made by `honeyguide record`; else records are on Kafka.
    file: Option<PathBuf>,
    /// Where to begin; may also be a recording.
    #[arg(long, value_name = "TIME|OFFSET|FILE")]
    from: Option<String>,
    /// Where to end; else after the last record.
    #[arg(long, value_name = "TIME|OFFSET")]
    to: Option<String>,
    /// How much before a time in --from is read, not shown, as history.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// Show which alerts differ.
    #[arg(long, conflicts_with = "all")]
    diff: bool,
    /// With --diff and --config: what to compare with.
    #[arg(long, value_name = "FILE", requires = "diff")]
    baseline: Option<PathBuf>,
    /// Every forecast of every step.
    #[arg(long)]
    all: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Also write windows, forecasts and alerts into this folder as Parquet tables.
    #[arg(long, value_name = "DIR", conflicts_with = "diff")]
    parquet: Option<PathBuf>,
}

pub fn run(
    args: Args,
    settings: Settings,
    settings_args: &SettingsArgs,
) -> anyhow::Result<ExitCode> {
    let selection = Selection::parse(
        args.file.as_deref(),
        args.from.as_deref(),
        args.to.as_deref(),
        args.warm_up,
        SystemTime::now(),
    )?;
    if !args.diff {
        let config = settings.analyzer.validate()?;
        return show(&args, config, &selection, settings.kafka);
    }
    if args.baseline.is_none() && settings_args.config.is_none() {
        let config = settings.analyzer.validate()?;
        return diff_with_alerted(&args, config, &selection, settings.kafka);
    }
    ensure!(
        settings_args.config.is_some(),
        "--baseline FILE is compared with --config OTHER, which is missing"
    );
    let baseline = SettingsArgs {
        config: args.baseline.clone(),
        ..settings_args.clone()
    };
    let baseline = settings::load(&baseline).context("the baseline")?;
    // Both replay the same records; those of the system, if it names any.
    let kafka = if baseline.kafka.brokers.is_empty() {
        settings.kafka
    } else {
        baseline.kafka
    };
    let configs = [baseline.analyzer, settings.analyzer];
    let [baseline, other] = configs.map(|config| config.validate());
    diff_configs(&args, [baseline?, other?], &selection, kafka)
}

/// Prints what a replay finds out.
fn show(
    args: &Args,
    config: ValidConfig,
    selection: &Selection,
    kafka: kafka::Config,
) -> anyhow::Result<ExitCode> {
    let records = open(selection, kafka)?;
    let (config, mut tables) = args.tables(config)?;
    let mut written = Ok(());
    let mut pipelines = Pipelines::new(config, selection.shown_from_ns);
    let mut last = BTreeMap::<PartitionId, Vec<v1::Forecast>>::new();
    let mut alerts = 0usize;
    let mut tell = |finding| match finding {
        Finding::Windows(rows) => {
            if let (Ok(()), Some(tables)) = (&written, &mut tables) {
                written = tables.windows(rows, selection.shown_from_ns);
            }
        }
        Finding::Forecasts(partition, forecasts) => {
            if let (Ok(()), Some(tables)) = (&written, &mut tables) {
                written = tables.forecasts(&forecasts);
            }
            if args.all {
                forecasts.iter().for_each(|forecast| args.print(forecast));
            } else if forecasts.iter().any(has_latency) {
                last.insert(partition, forecasts);
            }
        }
        Finding::Alert(alert) => {
            alerts += 1;
            if args.json {
                println!("{}", view::json::alert(&alert));
            } else {
                println!("{}", view::alert_line(&alert));
            }
            if let Some(tables) = &mut tables {
                tables.alert(*alert);
            }
        }
    };
    let read = replay(
        records,
        &mut [&mut pipelines],
        selection,
        &mut |_, finding| {
            tell(finding);
        },
    );
    let mut last: Vec<_> = last.into_values().flatten().collect();
    last.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
    last.iter().for_each(|forecast| args.print(forecast));
    eprintln!(
        "{}; {alerts} alerts fired or resolved",
        counted(&pipelines.counters())
    );
    // What is whole of a damaged recording is in the tables too.
    if let (Ok(()), Some(tables)) = (&written, tables) {
        written = tables.finish();
    }
    read?;
    written.context("failed to write the tables")?;
    Ok(ExitCode::SUCCESS)
}

/// Compares what two configurations make of the same records.
fn diff_configs(
    args: &Args,
    configs: [ValidConfig; 2],
    selection: &Selection,
    kafka: kafka::Config,
) -> anyhow::Result<ExitCode> {
    let records = open(selection, kafka)?;
    let [mut baseline, mut other] =
        configs.map(|config| Pipelines::new(config, selection.shown_from_ns));
    let mut episodes = [Episodes::default(), Episodes::default()];
    let runs = &mut [&mut baseline, &mut other];
    replay(records, runs, selection, &mut |run, finding| {
        if let Finding::Alert(alert) = finding {
            episodes[run].add(&alert);
        }
    })?;
    eprintln!("{}", counted(&other.counters()));
    Ok(args.print_differences(episodes, ["baseline", "other"], selection.shown_from_ns))
}

/// Compares what was alerted with what is alerted now.
fn diff_with_alerted(
    args: &Args,
    config: ValidConfig,
    selection: &Selection,
    kafka: kafka::Config,
) -> anyhow::Result<ExitCode> {
    ensure!(
        !kafka.brokers.is_empty(),
        "nothing to compare with: give --config OTHER, or kafka.brokers for what was alerted"
    );
    let records = open(selection, kafka.clone())?;
    let step_ns = config.step_ns();
    let wait_ns = step_ns / 2 + u64::try_from(config.config.lateness.as_nanos())?;
    let mut pipelines = Pipelines::new(config, selection.shown_from_ns);
    let mut replayed = Vec::new();
    let runs = &mut [&mut pipelines];
    let times = replay(records, runs, selection, &mut |_, finding| {
        if let Finding::Alert(alert) = finding {
            replayed.push(*alert);
        }
    })?;
    // The last steps may lack records that come after the range.
    let begin_ns = selection.shown_from_ns.max(times.first_ns);
    let end_ns = selection.to_ns.unwrap_or(times.last_ns);
    let end_ns = end_ns.saturating_sub(wait_ns) / step_ns * step_ns;
    let partitions: Vec<PartitionId> = pipelines.partitions().collect();
    let alerted = alerted(kafka, begin_ns, end_ns, &partitions)?;
    let episodes = [alerted, replayed].map(|alerts| {
        let mut episodes = Episodes::default();
        let in_range = |alert: &&v1::Alert| (begin_ns..=end_ns).contains(&alert_time_ns(alert));
        for alert in alerts.iter().filter(in_range) {
            episodes.add(alert);
        }
        episodes
    });
    eprintln!("{}", counted(&pipelines.counters()));
    Ok(args.print_differences(episodes, ["alerted", "replayed"], begin_ns))
}

/// The published alerts of these partitions.
fn alerted(
    kafka: kafka::Config,
    begin_ns: u64,
    end_ns: u64,
    partitions: &[PartitionId],
) -> anyhow::Result<Vec<v1::Alert>> {
    let range = Range {
        from: Some(Bound::Time(begin_ns)),
        // Late ones may follow: an analyzer that was away catches up.
        to: None,
    };
    let mut alerts = Vec::new();
    let mut undecodable = 0;
    for delivery in RangeReader::open(&kafka.validate()?, Topic::Alerts, &range)? {
        let Delivery { record, .. } = delivery?;
        if !partitions.contains(&record.partition) || record.timestamp_ns > end_ns {
            continue;
        }
        match v1::Alert::decode(record.payload.as_slice()) {
            Ok(alert) => alerts.push(alert),
            Err(_) => undecodable += 1,
        }
    }
    if undecodable > 0 {
        eprintln!("{undecodable} published alerts cannot be decoded and are left out");
    }
    Ok(alerts)
}

type Records = Box<dyn Iterator<Item = anyhow::Result<Delivery>>>;

/// Opens what is to be replayed.
fn open(selection: &Selection, kafka: kafka::Config) -> anyhow::Result<Records> {
    if let Some(file) = &selection.file {
        let records = recording::read_range(file, Topic::Histograms, &selection.range);
        let records = records.with_context(|| format!("failed to open {}", file.display()))?;
        let file = file.clone();
        return Ok(Box::new(records.map(move |record| {
            record.with_context(|| file.display().to_string())
        })));
    }
    ensure!(
        !kafka.brokers.is_empty(),
        "no recording is given, and kafka.brokers is not set"
    );
    let reader = RangeReader::open(&kafka.validate()?, Topic::Histograms, &selection.range)?;
    let spans: Vec<String> = reader
        .spans()
        .iter()
        .filter(|span| span.first < span.end)
        .map(|span| format!("{}:{}–{}", span.partition, span.first, span.end - 1))
        .collect();
    eprintln!("offsets {}", spans.join(" "));
    Ok(Box::new(reader.map(|record| Ok(record?))))
}

/// Times of records.
struct Times {
    first_ns: u64,
    last_ns: u64,
}

/// Runs records through each of `runs`; `tell` is told which of them found what.
fn replay(
    records: Records,
    runs: &mut [&mut Pipelines],
    selection: &Selection,
    tell: &mut dyn FnMut(usize, Finding),
) -> anyhow::Result<Times> {
    let mut times: Option<Times> = None;
    let mut broken = None;
    for record in records {
        let delivery = match record {
            Ok(delivery) => delivery,
            Err(error) => {
                broken = Some(error);
                continue;
            }
        };
        let at_ns = delivery.record.timestamp_ns;
        let times = times.get_or_insert(Times {
            first_ns: at_ns,
            last_ns: at_ns,
        });
        times.last_ns = times.last_ns.max(at_ns);
        for (run, pipelines) in runs.iter_mut().enumerate() {
            pipelines.take(&delivery, &mut |finding| tell(run, finding));
        }
    }
    for (run, pipelines) in runs.iter_mut().enumerate() {
        pipelines.end(selection.to_ns, &mut |finding| tell(run, finding));
    }
    match (broken, times) {
        (Some(error), _) => Err(error),
        (None, Some(times)) => Ok(times),
        (None, None) => bail!("there are no records between --from and --to"),
    }
}

impl Args {
    /// The tables to write, and the configuration with which the pipelines
    /// tell what belongs into them: only an analyzer with a place for windows
    /// hands them over.
    fn tables(&self, mut config: ValidConfig) -> anyhow::Result<(ValidConfig, Option<Tables>)> {
        let tables = match &self.parquet {
            Some(folder) => {
                config.config.data_dir.clone_from(folder);
                Some(Tables::create(folder, config.step_ns())?)
            }
            None => None,
        };
        Ok((config, tables))
    }

    fn print(&self, forecast: &v1::Forecast) {
        if self.json {
            println!("{}", view::json::forecast(forecast));
        } else {
            println!("{}", view::line(forecast));
        }
    }

    fn print_differences(
        &self,
        mut episodes: [Episodes; 2],
        names: [&str; 2],
        begin_ns: u64,
    ) -> ExitCode {
        for episodes in &mut episodes {
            episodes.forget_before(begin_ns);
        }
        let [first, second] = &episodes;
        let differences = differences(first, second);
        for difference in &differences {
            if self.json {
                println!("{}", difference.json(names));
            } else {
                println!("{}", difference.line(names));
            }
        }
        eprintln!(
            "alerts: {} {}, {} {}; {} differences",
            first.len(),
            names[0],
            second.len(),
            names[1],
            differences.len()
        );
        if differences.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_DIFFERENT)
        }
    }
}

fn has_latency(forecast: &v1::Forecast) -> bool {
    let now = forecast.now.as_ref();
    now.is_some_and(|now| now.latency.is_some())
}

fn sort_key(forecast: &v1::Forecast) -> Option<(&str, &str)> {
    let key = forecast.key.as_ref()?;
    Some((&key.service, &key.signal))
}

fn counted(counters: &Counters) -> String {
    format!(
        "{} batches, {} series-windows, {} steps; {} batches missing, {} undecodable",
        counters.batches,
        counters.series_windows,
        counters.steps,
        counters.batches_missing,
        counters.undecodable.values().sum::<u64>()
    )
}
