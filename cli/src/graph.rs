//! `honeyguide graph`: asks a running analyzer which services ask which.

use std::process::ExitCode;

use honeyguide_proto::v1::{ListRoutesRequest, Protocol, RouteOrder, Side};

use crate::{forecast::Server, routes, view};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A line is a service, the address it asks, and the service that answers there, if
a sensor knows it. Rate and latency are those of the last minute (six steps), as
the asking side sees them.

Examples:
  honeyguide graph                         Who asks whom, most requests first
  honeyguide graph process/shop            Whom one service asks
  honeyguide graph --json                  One JSON object a line
")]
pub struct Args {
    /// Key of the service that asks, or a prefix ending in `*`.
    #[arg(default_value = "")]
    service: String,
    /// Show so many at most.
    #[arg(short = 'n', long, default_value_t = 100)]
    limit: usize,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let request = ListRoutesRequest {
        service: args.service,
        side: Side::Client.into(),
        order: RouteOrder::Rate.into(),
        page_size: 0,
        page_token: String::new(),
        protocol: Protocol::Tcp.into(),
    };
    let edges = routes::list(&args.server, request, args.limit)?;
    for edge in &edges {
        if args.json {
            println!("{}", view::json::route(edge));
        } else {
            println!("{}", view::routes::edge(edge));
        }
    }
    if edges.is_empty() && !args.json {
        eprintln!("no service asked another over TCP so far");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
