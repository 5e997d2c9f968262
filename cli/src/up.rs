//! `honeyguide up`: sensor and analyzer in one process.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use honeyguide_analyzer::{Analyzer, Outlet, Snapshot, config::HintsMode};
use honeyguide_bus::{
    Topic,
    memory::{self, MemoryBus},
    tail::MemoryTail,
};
use honeyguide_sensor::{AttachedSensor, Metrics, Status};
use honeyguide_service::{ended, logging};
use prometheus_client::registry::Registry;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyModifiers},
};
use tokio::sync::watch;

use crate::{
    collector::ProcessCollector,
    settings::Settings,
    view::{
        self,
        table::{ROUTES_MAX, Screen, SensorView, draw},
    },
};

/// How often the live table looks for keys; it draws when something changed.
const KEY_POLL: Duration = Duration::from_millis(200);
/// Log lines beneath the table.
const LOG_LINES: usize = 3;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Needs root, or CAP_BPF and CAP_PERFMON. While it runs:
  honeyguide forecast                     asks it for forecasts
  honeyguide routes                       asks it for requests by route
  curl http://127.0.0.1:9453/metrics      is what Prometheus scrapes

Examples:
  sudo honeyguide up
  sudo honeyguide up --duration 5m --plain
  sudo honeyguide up --set sensor.flush_interval=1s --set analyzer.step=1s
")]
pub struct Args {
    /// Stop after this time.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Lines instead of the live table (also when the output is no terminal).
    #[arg(long)]
    plain: bool,
    /// Decide how closely to look, and do not follow it; as
    /// `--set analyzer.hints.mode=dry-run`.
    #[arg(long)]
    dry_run: bool,
}

pub fn run(
    args: Args,
    mut settings: Settings,
    logging: &logging::LoggingArgs,
) -> anyhow::Result<ExitCode> {
    if args.dry_run {
        settings.analyzer.hints.mode = HintsMode::DryRun;
    }
    let sensor_config = settings.sensor.validate()?;
    let analyzer_config = settings.analyzer.validate()?;
    let live = !args.plain && io::stdout().is_terminal();
    let lines = if live {
        Some(logging.to_lines()?)
    } else {
        logging.to_stderr()?;
        None
    };
    // Before any other thread exists, so that none keeps more privileges.
    let attached = AttachedSensor::attach(sensor_config).context(
        "nothing can be measured on this machine (`honeyguide doctor` tells why; \
         `honeyguide replay FILE` needs no privileges)",
    )?;
    honeyguide_sensor::privileges::drop_privileges().context("failed to drop privileges")?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // One pipeline, so that bounds are those of the machine.
        let bus = MemoryBus::new(memory::Config {
            partitions: 1,
            ..memory::Config::default()
        });
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        registry.register_collector(Box::new(ProcessCollector::new(bus.clone())));
        let consumer = bus.consumer("analyzer", Topic::Histograms);
        // Before anything is published there.
        let hints = MemoryTail::new(&bus, "sensor", Topic::Hints);
        let outlet = Outlet::Hints(bus.clone());
        let registry = Arc::new(registry);
        let analyzer = Analyzer::start(analyzer_config, consumer, outlet, registry).await?;
        let mut sensor = attached.start(Arc::new(bus.clone()), metrics)?;
        sensor.follow_hints(hints);
        let sources = Sources {
            snapshot: analyzer.snapshot(),
            status: sensor.status(),
        };
        let shown = match lines {
            Some(lines) => show_table(sources, lines, args.duration).await,
            None => show_lines(sources, args.duration).await,
        };
        sensor.stop().await;
        analyzer.stop().await;
        bus.close();
        shown
    })?;
    Ok(ExitCode::SUCCESS)
}

struct Sources {
    snapshot: watch::Receiver<Snapshot>,
    status: watch::Receiver<Status>,
}

impl Sources {
    fn screen(&mut self) -> Screen {
        let snapshot = self.snapshot.borrow_and_update().clone();
        let status = self.status.borrow_and_update().clone();
        let mut screen = Screen {
            forecasts: snapshot.forecasts().into_iter().cloned().collect(),
            routes: view::routes::worst(snapshot.routes(), ROUTES_MAX)
                .into_iter()
                .cloned()
                .collect(),
            alerts: snapshot.alerts(),
            sensor: sensor_view(&status),
            log: Vec::new(),
        };
        screen.sort();
        screen
    }

    async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.snapshot.changed() => changed.is_ok(),
            changed = self.status.changed() => changed.is_ok(),
        }
    }
}

fn sensor_view(status: &Status) -> SensorView {
    let wanted = status.probes.iter().filter(|probe| {
        !matches!(
            probe.state,
            honeyguide_sensor::program::probe::ProbeState::Off
        )
    });
    SensorView {
        cost: status.cost,
        cost_ceiling: status.cost_ceiling,
        shedding: status.shedding.clone(),
        hints: status.hints,
        services: status.services,
        events_lost: status.events_lost,
        probes: wanted
            .map(|probe| {
                let detail = match &probe.state {
                    honeyguide_sensor::program::probe::ProbeState::Running { level: 0, .. } => {
                        String::new()
                    }
                    _ => probe.describe(),
                };
                (probe.probe.name().to_owned(), probe.is_running(), detail)
            })
            .collect(),
    }
}

/// Lines for pipes and logs: one per series and closed step, riskiest first.
async fn show_lines(mut sources: Sources, duration: Option<Duration>) -> anyhow::Result<()> {
    let end = ended(duration);
    tokio::pin!(end);
    println!("honeyguide measures; the first forecasts come with the second window");
    let mut steps = 0;
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            changed = sources.changed() => if !changed {
                anyhow::bail!("the sensor or the analyzer ended by itself; see the log above");
            },
        }
        let now = sources.snapshot.borrow().steps;
        let screen = sources.screen();
        if now == steps {
            continue;
        }
        steps = now;
        let cost = screen
            .sensor
            .cost
            .map_or("not measured yet".to_owned(), |cost| {
                format!("{:.3} % of this machine", cost * 100.0)
            });
        println!(
            "--- {} services, {} series, cost {cost}, {} events lost",
            screen.sensor.services,
            screen.forecasts.len(),
            screen.sensor.events_lost
        );
        if !screen.sensor.shedding.is_empty() {
            println!(
                "shed to stay under the cost ceiling: {}",
                screen.sensor.shedding
            );
        }
        for forecast in &screen.forecasts {
            println!("{}", view::line(forecast));
        }
        for alert in screen.alerts.iter().filter(|alert| view::is_firing(alert)) {
            println!("{}", view::alert_line(alert));
        }
    }
}

async fn show_table(
    mut sources: Sources,
    lines: logging::LogLines,
    duration: Option<Duration>,
) -> anyhow::Result<()> {
    let mut terminal =
        ratatui::try_init().context("failed to take over the terminal (try --plain)")?;
    let shown = table_loop(&mut terminal, &mut sources, &lines, duration).await;
    ratatui::restore();
    shown
}

async fn table_loop(
    terminal: &mut DefaultTerminal,
    sources: &mut Sources,
    lines: &logging::LogLines,
    duration: Option<Duration>,
) -> anyhow::Result<()> {
    let end = ended(duration);
    tokio::pin!(end);
    let mut keys = tokio::time::interval(KEY_POLL);
    loop {
        let mut screen = sources.screen();
        screen.log = lines.last(LOG_LINES);
        terminal.draw(|frame| draw(frame, &screen))?;
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                changed = sources.changed() => {
                    anyhow::ensure!(changed, "the sensor or the analyzer ended by itself");
                    break;
                }
                _ = keys.tick() => match pressed()? {
                    Key::Quit => return Ok(()),
                    Key::Redraw => break,
                    Key::Nothing => {}
                },
            }
        }
    }
}

enum Key {
    Quit,
    Redraw,
    Nothing,
}

/// Keys pressed since the last look; raw mode turns Ctrl-C into one.
fn pressed() -> io::Result<Key> {
    let mut key = Key::Nothing;
    while event::poll(Duration::ZERO)? {
        match event::read()? {
            Event::Key(pressed) => {
                let control_c = pressed.code == KeyCode::Char('c')
                    && pressed.modifiers.contains(KeyModifiers::CONTROL);
                if control_c || matches!(pressed.code, KeyCode::Char('q') | KeyCode::Esc) {
                    return Ok(Key::Quit);
                }
            }
            Event::Resize(..) => key = Key::Redraw,
            _ => {}
        }
    }
    Ok(key)
}
