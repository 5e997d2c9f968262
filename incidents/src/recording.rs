//! What of a recording belongs to a run: its own services, by the names that are
//! the same for every run, with their histograms and whom they ask.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use honeyguide_bus::recording::{RecordingReader, RecordingWriter};
use honeyguide_proto::{
    ServiceId,
    batch::{Batch, Contents, Endpoint, RouteSeriesRef, SeriesRef},
};

/// Copies a recording without what is of other services. `names`: the services
/// to keep by the key that they were recorded under.
///
/// # Errors
/// When a file cannot be read or written, or a record is damaged.
pub fn keep(from: &Path, to: &Path, names: &BTreeMap<String, ServiceId>) -> Result<()> {
    let _ = fs::remove_file(to);
    let mut writer = RecordingWriter::create(to)
        .with_context(|| format!("failed to create {}", to.display()))?;
    for record in RecordingReader::open(from)? {
        let mut record = record?;
        record.payload = kept(&Batch::decode(&record.payload)?, names);
        writer.write(&record)?;
    }
    Ok(())
}

/// The batch of the services to keep.
fn kept(batch: &Batch, names: &BTreeMap<String, ServiceId>) -> Vec<u8> {
    let mut services = Vec::new();
    let numbers: Vec<Option<u32>> = batch
        .services
        .iter()
        .map(|service| {
            services.push(names.get(&service.key())?.clone());
            Some(services.len() as u32 - 1)
        })
        .collect();
    let number = |service: u32| numbers[service as usize];
    let histograms: Vec<_> = batch
        .series
        .iter()
        .filter_map(|series| Some((number(series.service)?, series, batch.histogram(series))))
        .collect();
    let series = histograms
        .iter()
        .map(|(service, series, histogram)| SeriesRef {
            service: *service,
            signal: series.signal,
            histogram,
        });
    // Routes of others tell paths; whom a service asks explains its latency.
    let route_series = batch.route_series.iter().filter_map(|series| {
        let route = batch.route(series);
        route.peer()?;
        Some(RouteSeriesRef {
            service: number(series.series.service)?,
            route,
            signal: series.series.signal,
            status_class: series.status_class,
            buckets: batch.buckets(&series.series),
            totals: series.series.totals,
        })
    });
    let endpoints: Vec<Endpoint> = batch
        .endpoints
        .iter()
        .filter_map(|endpoint| {
            let asked_by = match endpoint.asked_by {
                Some(service) => Some(number(service)?),
                None => None,
            };
            Some(Endpoint {
                address: endpoint.address.clone(),
                service: names.get(&endpoint.service.key())?.clone(),
                asked_by,
            })
        })
        .collect();
    let contents = Contents {
        services: &services,
        series: series.collect(),
        route_series: route_series.collect(),
        endpoints: &endpoints,
        losses: &batch.losses,
        cost: batch.cost.clone(),
    };
    contents.encode(&batch.header)
}
