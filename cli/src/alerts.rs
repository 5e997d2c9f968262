//! `honeyguide alerts`: asks a running analyzer.

use std::process::ExitCode;

use honeyguide_proto::v1::ListAlertsRequest;

use crate::{forecast::Server, view};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code: 0 when no alert fires, 2 when one does.

Examples:
  honeyguide alerts          Alerts that fire now
  honeyguide alerts --all    Also those that resolved lately
")]
pub struct Args {
    /// Also alerts that resolved lately.
    #[arg(long)]
    all: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Exit code that tells scripts of firing alerts.
const EXIT_FIRING: u8 = 2;

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let alerts = runtime.block_on(async {
        let mut client = args.server.connect().await?;
        let request = ListAlertsRequest {
            include_resolved: args.all,
        };
        anyhow::Ok(client.list_alerts(request).await?.into_inner().alerts)
    })?;
    for alert in &alerts {
        if args.json {
            println!("{}", view::json::alert(alert));
        } else {
            println!("{}", view::alert_line(alert));
        }
    }
    if alerts.is_empty() && !args.json {
        println!("no alerts");
    }
    let firing = alerts.iter().any(view::is_firing);
    Ok(ExitCode::from(if firing { EXIT_FIRING } else { 0 }))
}
