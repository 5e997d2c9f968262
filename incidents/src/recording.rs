//! What of a recording belongs to a run: its own services, by the names that are
//! the same for every run, with their histograms and whom they ask.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use honeyguide_bus::{
    Record,
    recording::{RecordingReader, RecordingWriter},
};
use honeyguide_proto::{
    ServiceId,
    batch::{Batch, Contents, Endpoint, Header, RouteSeriesRef, SeriesRef},
};
use sensor_common::Signal;

use crate::run::SHOP;

/// Copies a recording without what is of other services, and with one partition,
/// as `honeyguide up` has. `names`: the services to keep by the key that they
/// were recorded under.
///
/// # Errors
/// When a file cannot be read or written, or a record is damaged.
pub fn keep(from: &Path, to: &Path, names: &BTreeMap<String, ServiceId>) -> Result<()> {
    let _ = fs::remove_file(to);
    let mut writer = RecordingWriter::create(to)
        .with_context(|| format!("failed to create {}", to.display()))?;
    let mut flushes = BTreeMap::<u64, (Record, Vec<Batch>)>::new();
    for record in RecordingReader::open(from)? {
        let record = record?;
        let batch = Batch::decode(&record.payload)?;
        let flush = flushes.entry(batch.header.window_start_ns);
        flush.or_insert((record, Vec::new())).1.push(batch);
    }
    for (seq, (mut record, batches)) in (1..).zip(flushes.into_values()) {
        let header = Header {
            seq,
            partition: 0,
            more: false,
            ..batches[0].header.clone()
        };
        record.partition = 0;
        record.payload = kept(&batches, names, &header);
        writer.write(&record)?;
    }
    Ok(())
}

/// Signals that are kept of the shop's services alone, so that recordings stay small.
const OF_SUBJECT: [Signal; 3] = [Signal::TcpRtt, Signal::TcpConnect, Signal::ServerResponse];

fn is_subject(service: &ServiceId) -> bool {
    let [_, name, _] = service.parts();
    SHOP.contains(&name)
}

/// One batch of the services to keep, out of those of one flush.
fn kept(batches: &[Batch], names: &BTreeMap<String, ServiceId>, header: &Header) -> Vec<u8> {
    let services: Vec<ServiceId> = names.values().cloned().collect();
    let number = |service: &ServiceId| {
        let position = names.keys().position(|key| *key == service.key())?;
        Some(position as u32)
    };
    let mut histograms = Vec::new();
    let mut route_series = Vec::new();
    let mut endpoints = Vec::new();
    let mut losses = BTreeMap::<u32, u64>::new();
    for batch in batches {
        let number_of = |index: u32| number(&batch.services[index as usize]);
        for series in &batch.series {
            if let Some(service) = number_of(series.service)
                && (is_subject(&services[service as usize]) || !OF_SUBJECT.contains(&series.signal))
            {
                histograms.push((service, series.signal, batch.histogram(series)));
            }
        }
        for series in &batch.route_series {
            let route = batch.route(series);
            // Routes of others tell paths; whom a service asks explains its latency.
            if let Some(service) = number_of(series.series.service)
                && route.peer().is_some()
            {
                route_series.push(RouteSeriesRef {
                    service,
                    route,
                    signal: series.series.signal,
                    status_class: series.status_class,
                    buckets: batch.buckets(&series.series),
                    totals: series.series.totals,
                });
            }
        }
        for endpoint in &batch.endpoints {
            let asked_by = endpoint.asked_by.map(number_of);
            if let Some(service) = names.get(&endpoint.service.key())
                && asked_by != Some(None)
            {
                endpoints.push(Endpoint {
                    address: endpoint.address.clone(),
                    service: service.clone(),
                    asked_by: asked_by.flatten(),
                });
            }
        }
        for (reason, count) in &batch.losses {
            *losses.entry(*reason).or_default() += count;
        }
    }
    endpoints.sort();
    endpoints.dedup();
    let losses: Vec<(u32, u64)> = losses.into_iter().collect();
    let series = histograms
        .iter()
        .map(|(service, signal, histogram)| SeriesRef {
            service: *service,
            signal: *signal,
            histogram,
        });
    let contents = Contents {
        services: &services,
        series: series.collect(),
        route_series,
        endpoints: &endpoints,
        losses: &losses,
        cost: batches.iter().find_map(|batch| batch.cost.clone()),
    };
    contents.encode(header)
}
