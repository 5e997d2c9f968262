//! `honeyguide hints`: asks a running analyzer what it tells sensors, and why.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use honeyguide_proto::v1::{Hint, ListHintsRequest, NodeCost};

use crate::{forecast::Server, view};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A hint says for a while how closely sensors look: the share of events that they
sample, or how often they publish. The narrowest one counts: a service before
all services, a signal before all signals, a sensor before all sensors.

Examples:
  honeyguide hints                   Hints in force, and what each node costs
  honeyguide hints process/nginx     Those that concern one service
  honeyguide hints --json            One JSON object a line
  honeyguide up --dry-run            decides hints and does not follow them
")]
pub struct Args {
    /// Service key, or a prefix ending in `*`.
    #[arg(default_value = "")]
    service: String,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(async {
        let mut client = args.server.connect().await?;
        anyhow::Ok(client.list_hints(ListHintsRequest {}).await?.into_inner())
    })?;
    let hints: Vec<&Hint> = answer
        .hints
        .iter()
        .filter(|hint| args.concerns(hint))
        .collect();
    if args.json {
        for hint in hints {
            println!("{}", view::json::hint(hint));
        }
        for node in &answer.nodes {
            println!("{}", view::json::node(node));
        }
        return Ok(ExitCode::SUCCESS);
    }
    for node in &answer.nodes {
        println!("{}", node_line(node));
    }
    for hint in &hints {
        println!("{}", hint_line(hint, SystemTime::now()));
    }
    if hints.is_empty() {
        println!("no hints: sensors look as they are configured");
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Those for all services concern every one.
    fn concerns(&self, hint: &Hint) -> bool {
        let matches = match self.service.strip_suffix('*') {
            Some(prefix) => hint.service.starts_with(prefix),
            None => self.service == hint.service,
        };
        self.service.is_empty() || hint.service.is_empty() || matches
    }
}

fn node_line(node: &NodeCost) -> String {
    let percent = |ratio: f64| format!("{:.3} %", ratio * 100.0);
    format!(
        "{}: costs {} of its CPUs, seeing every event would cost {}, the budget is {}",
        node.sensor_id,
        percent(node.cost_ratio),
        percent(node.full_cost_ratio),
        percent(node.budget_ratio)
    )
}

fn hint_line(hint: &Hint, now: SystemTime) -> String {
    let or_all = |text: &str, all: &str| match text {
        "" => all.to_owned(),
        text => text.to_owned(),
    };
    let mut line = format!(
        "{}  {}  {} ",
        or_all(&hint.sensor_id, "all sensors"),
        or_all(&hint.service, "all services"),
        or_all(&hint.signal, "all signals")
    );
    if let Some(shift) = hint.sampling_shift {
        line += &match shift {
            0 => " sample all".to_owned(),
            shift => format!(" sample 1/{}", 1u64 << shift.min(63)),
        };
    }
    if let Some(interval) = &hint.flush_interval {
        let interval = Duration::try_from(*interval).unwrap_or_default();
        line += &format!(" publish every {}", humantime::format_duration(interval));
    }
    let left = hint.issued_at.zip(hint.ttl).and_then(|(issued_at, ttl)| {
        let end = SystemTime::try_from(issued_at).ok()? + Duration::try_from(ttl).ok()?;
        end.duration_since(now).ok()
    });
    if let Some(left) = left {
        let left = Duration::from_secs(left.as_secs());
        line += &format!(", for {}", humantime::format_duration(left));
    }
    if hint.dry_run {
        line += ", dry run";
    }
    format!("{line}: {}", hint.reason)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn hint() -> Hint {
        Hint {
            sensor_id: "node-1".to_owned(),
            signal: "runq".to_owned(),
            sampling_shift: Some(3),
            reason: "1/8: seeing all would cost 1.03 %".to_owned(),
            issued_at: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            ttl: Some(prost_types::Duration {
                seconds: 300,
                nanos: 0,
            }),
            ..Hint::default()
        }
    }

    #[test]
    fn a_hint_is_a_line_with_its_reason() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_059_500);
        assert_eq!(
            hint_line(&hint(), now),
            "node-1  all services  runq  sample 1/8, for 4m: 1/8: seeing all would cost 1.03 %"
        );
        let all = Hint {
            sampling_shift: Some(0),
            dry_run: true,
            ttl: None,
            ..hint()
        };
        assert!(hint_line(&all, now).contains("sample all, dry run: "));
    }

    #[test]
    fn hints_for_all_services_concern_each() {
        let concerns = |wanted: &str, service: &str| {
            let Command { args } = Command::parse_from(["hints", wanted]);
            args.concerns(&Hint {
                service: service.to_owned(),
                ..hint()
            })
        };
        assert!(concerns("process/a", "") && concerns("process/*", "process/a"));
        assert!(concerns("", "process/a") && concerns("process/a", "process/a"));
        assert!(!concerns("process/a", "process/b") && !concerns("k8s/*", "process/a"));
    }

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }
}
