//! `honeyguide routes`: asks a running analyzer what requests by route do.

use std::process::ExitCode;

use clap::ValueEnum;
use honeyguide_proto::v1::{ListRoutesRequest, Protocol, RouteOrder, RouteSummary, Side};

use crate::{forecast::Server, view};

/// Routes of a page at most.
const PAGE_SIZE: usize = 1000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A route is a method and a template of paths, or what is asked for in other
protocols. Rate, errors and latency are those of the last minute (six steps);
\"in all\" are requests since the analyzer began. Errors of a server are those of
class 5, of a client those of classes 4 and 5.

Examples:
  honeyguide routes                        Routes with most requests first
  honeyguide routes process/nginx          Those of one service
  honeyguide routes --sort errors -n 5     The five with most errors per second
  honeyguide routes --json                 One JSON object a line
")]
pub struct Args {
    /// Service key, or a prefix ending in `*`.
    #[arg(default_value = "")]
    service: String,
    /// What comes first.
    #[arg(long, value_enum, default_value_t = Order::Rate)]
    sort: Order,
    /// Only requests that services answered, or made.
    #[arg(long, value_enum)]
    side: Option<OneSide>,
    /// Show so many at most.
    #[arg(short = 'n', long, default_value_t = 100)]
    limit: usize,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    /// Most requests per second.
    Rate,
    /// Most errors per second.
    Errors,
    /// Slowest 99th percentile.
    P99,
    /// By service, side and route.
    Name,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OneSide {
    /// Requests that were answered.
    Server,
    /// Requests that were made.
    Client,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let routes = list(&args.server, args.request(), args.limit)?;
    for route in &routes {
        if args.json {
            println!("{}", view::json::route(route));
        } else {
            println!("{}", view::routes::line(route));
        }
    }
    if routes.is_empty() && !args.json {
        eprintln!(
            "no requests by route so far (`honeyguide doctor` tells whether they can be seen)"
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// At most `limit` of the routes that are asked for, page by page.
pub fn list(
    server: &Server,
    mut request: ListRoutesRequest,
    limit: usize,
) -> anyhow::Result<Vec<RouteSummary>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut client = server.connect().await?;
        let mut routes = Vec::new();
        loop {
            let wanted = limit - routes.len();
            if wanted == 0 {
                return Ok(routes);
            }
            let page = client.list_routes(request.clone()).await?.into_inner();
            routes.extend(page.routes.into_iter().take(wanted));
            if page.next_page_token.is_empty() {
                return Ok(routes);
            }
            request.page_token = page.next_page_token;
        }
    })
}

impl Args {
    fn request(&self) -> ListRoutesRequest {
        let side = match self.side {
            None => Side::Unspecified,
            Some(OneSide::Server) => Side::Server,
            Some(OneSide::Client) => Side::Client,
        };
        let order = match self.sort {
            Order::Rate => RouteOrder::Rate,
            Order::Errors => RouteOrder::Errors,
            Order::P99 => RouteOrder::P99,
            Order::Name => RouteOrder::Unspecified,
        };
        ListRoutesRequest {
            service: self.service.clone(),
            side: side.into(),
            order: order.into(),
            page_size: self.limit.clamp(1, PAGE_SIZE) as u32,
            page_token: String::new(),
            protocol: Protocol::Unspecified.into(),
        }
    }
}
