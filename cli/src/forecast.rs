//! `honeyguide forecast`: asks a running analyzer.

use std::process::ExitCode;

use anyhow::Context;
use honeyguide_proto::v1::{
    Forecast, GetForecastRequest, ListSeriesRequest, SeriesFilter, SeriesKey,
    WatchForecastsRequest, forecast_service_client::ForecastServiceClient,
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::view;

/// Bytes of an answer at most: a page of series is about 200 bytes each.
const MESSAGE_LEN_MAX: usize = 16 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  honeyguide forecast                              All series, one line each
  honeyguide forecast process/nginx                All signals of one service
  honeyguide forecast process/nginx server_request One series in full
  honeyguide forecast 'systemd/*' --watch          Lines as forecasts are made
")]
pub struct Args {
    /// Service key, or a prefix ending in `*`.
    #[arg(default_value = "")]
    service: String,
    /// Signal, e.g. `runq` or `server_request`.
    #[arg(default_value = "")]
    signal: String,
    /// Keep printing as forecasts are made.
    #[arg(long)]
    watch: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub struct Server {
    /// The analyzer's gRPC address.
    #[arg(
        long,
        env = "HONEYGUIDE_SERVER",
        default_value = "http://127.0.0.1:9452"
    )]
    server: String,
}

impl Server {
    pub async fn connect(&self) -> anyhow::Result<ForecastServiceClient<Channel>> {
        let endpoint = Endpoint::from_shared(self.server.clone()).with_context(|| {
            format!(
                "--server {}: expected e.g. http://127.0.0.1:9452",
                self.server
            )
        })?;
        let channel = endpoint.connect().await.with_context(|| {
            format!(
                "no analyzer answers at {} (is `honeyguide up` running? see --server)",
                self.server
            )
        })?;
        Ok(ForecastServiceClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX))
    }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(ask(args))
}

async fn ask(args: Args) -> anyhow::Result<ExitCode> {
    let mut client = args.server.connect().await?;
    if args.watch {
        let filter = Some(args.filter());
        let mut stream = client
            .watch_forecasts(WatchForecastsRequest { filter })
            .await?
            .into_inner();
        while let Some(message) = stream.message().await? {
            if message.dropped > 0 {
                eprintln!(
                    "({} forecasts were too fast for this reader)",
                    message.dropped
                );
            }
            message
                .forecast
                .iter()
                .for_each(|forecast| args.print_line(forecast));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.service.is_empty() && !args.service.ends_with('*') && !args.signal.is_empty() {
        let key = Some(SeriesKey {
            service: args.service.clone(),
            signal: args.signal.clone(),
        });
        return match client.get_forecast(GetForecastRequest { key }).await {
            Ok(answer) => {
                answer
                    .into_inner()
                    .forecast
                    .iter()
                    .for_each(|forecast| args.print_whole(forecast));
                Ok(ExitCode::SUCCESS)
            }
            Err(status) if status.code() == Code::NotFound => anyhow::bail!("{}", status.message()),
            Err(status) => Err(status.into()),
        };
    }
    let found = all(&mut client, args.filter(), |forecast| {
        args.print_line(&forecast)
    })
    .await?;
    if found == 0 {
        eprintln!("no series match (`honeyguide forecast` lists all)");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Calls `each` with the forecast of every series that matches; returns their number.
async fn all(
    client: &mut ForecastServiceClient<Channel>,
    filter: SeriesFilter,
    mut each: impl FnMut(Forecast),
) -> anyhow::Result<usize> {
    let mut request = ListSeriesRequest {
        filter: Some(filter),
        ..Default::default()
    };
    let mut found = 0;
    loop {
        let page = client.list_series(request.clone()).await?.into_inner();
        for summary in page.series {
            let answer = client
                .get_forecast(GetForecastRequest { key: summary.key })
                .await;
            match answer {
                Ok(answer) => answer.into_inner().forecast.into_iter().for_each(&mut each),
                // The series was evicted since it was listed, or has no forecast yet.
                Err(status) if status.code() == Code::NotFound => continue,
                Err(status) => return Err(status.into()),
            }
            found += 1;
        }
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

impl Args {
    fn filter(&self) -> SeriesFilter {
        SeriesFilter {
            service: self.service.clone(),
            signal: self.signal.clone(),
        }
    }

    fn print_line(&self, forecast: &Forecast) {
        if self.json {
            println!("{}", view::json::forecast(forecast));
        } else {
            println!("{}", view::line(forecast));
        }
    }

    fn print_whole(&self, forecast: &Forecast) {
        if self.json {
            println!("{}", view::json::forecast(forecast));
        } else {
            print!("{}", view::report(forecast));
        }
    }
}
