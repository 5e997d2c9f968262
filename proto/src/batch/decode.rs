//! Bytes to series, with every check.

mod columns;
mod error;
mod requests;

use prost::Message;
use sensor_common::signal::SIGNALS_MAX;

pub use self::error::DecodeError;
use self::{
    columns::Cursor,
    requests::{decode_route_series, decode_routes, endpoints},
};
use super::{Batch, Header, PAYLOAD_LEN_MAX, SERVICES_MAX, WINDOW_DURATION_NS};
use crate::{
    ServiceId, ServiceKind,
    service::{PART_LEN_MAX, ServiceIdError},
    v1,
};

pub(super) fn decode(payload: &[u8]) -> Result<Batch, DecodeError> {
    if payload.len() > PAYLOAD_LEN_MAX {
        return Err(DecodeError::TooLong { len: payload.len() });
    }
    let message = v1::HistogramBatch::decode(payload)?;
    let header = header(&message)?;
    if message.services.len() > SERVICES_MAX {
        return Err(DecodeError::field(
            "services",
            message.services.len() as u64,
            "at most 16384 entries",
        ));
    }
    let services = (0..).zip(&message.services).map(|(index, service)| {
        decode_service(service, &message.strings)
            .map_err(|source| DecodeError::Service { index, source })
    });
    let services = services.collect::<Result<Vec<_>, _>>()?;
    let mut batch = Batch {
        header,
        services,
        series: Vec::new(),
        buckets: Vec::new(),
        losses: message
            .losses
            .iter()
            .map(|loss| (loss.reason, loss.count))
            .collect(),
        cost: message.cost.map(cost).transpose()?,
        route_series: Vec::new(),
        routes: Vec::new(),
        endpoints: Vec::new(),
        unknown_signals: 0,
        unknown_routes: 0,
    };
    decode_series(&mut batch, &message.series.unwrap_or_default())?;
    decode_routes(&mut batch, &message.routes, &message.strings)?;
    if let Some(columns) = &message.route_series {
        decode_route_series(&mut batch, columns)?;
    }
    batch.endpoints = endpoints(&message.endpoints, &message.strings, batch.services.len())?;
    Ok(batch)
}

fn header(message: &v1::HistogramBatch) -> Result<Header, DecodeError> {
    let id_len = message.sensor_id.len();
    if id_len == 0 || id_len > PART_LEN_MAX || message.sensor_id.contains(char::is_control) {
        return Err(DecodeError::field(
            "length of sensor_id",
            id_len as u64,
            "1 to 253 printable bytes",
        ));
    }
    let boot_id = <[u8; 16]>::try_from(message.boot_id.as_slice())
        .map_err(|_| DecodeError::field("length of boot_id", message.boot_id.len() as u64, "16"))?;
    if message.seq == 0 {
        return Err(DecodeError::field("seq", 0, "1 or more"));
    }
    if !WINDOW_DURATION_NS.contains(&message.window_duration_ns) {
        return Err(DecodeError::field(
            "window_duration_ns",
            message.window_duration_ns,
            "1 ms to 24 h",
        ));
    }
    if message
        .window_start_ns
        .checked_add(message.window_duration_ns)
        .is_none()
    {
        return Err(DecodeError::field(
            "window_start_ns",
            message.window_start_ns,
            "a time before the year 2554",
        ));
    }
    Ok(Header {
        sensor_id: message.sensor_id.clone(),
        boot_id,
        seq: message.seq,
        partition: message.partition,
        window_start_ns: message.window_start_ns,
        window_duration_ns: message.window_duration_ns,
        more: message.more,
    })
}

/// Bounds what there is by signal: each at most once, in the order of numbers.
fn cost(cost: v1::SensorCost) -> Result<v1::SensorCost, DecodeError> {
    let signals = &cost.signals;
    if signals.len() > SIGNALS_MAX {
        let expected = "at most 32 entries";
        return Err(DecodeError::field(
            "cost.signals",
            signals.len() as u64,
            expected,
        ));
    }
    if let Some(pair) = signals
        .windows(2)
        .find(|pair| pair[0].signal >= pair[1].signal)
    {
        let expected = "more than the one before";
        let signal = u64::from(pair[1].signal);
        return Err(DecodeError::field("cost.signals.signal", signal, expected));
    }
    Ok(cost)
}

/// Also of endpoints.
fn decode_service(service: &v1::Service, strings: &[String]) -> Result<ServiceId, ServiceIdError> {
    let part = |index: u32, part: &'static str| match index {
        0 => Ok(""),
        index => strings
            .get(index as usize - 1)
            .map(String::as_str)
            .ok_or(ServiceIdError::Part { part }),
    };
    let kind = match service.kind() {
        v1::ServiceKind::Kubernetes => ServiceKind::Kubernetes,
        v1::ServiceKind::Container => ServiceKind::Container,
        v1::ServiceKind::Systemd => ServiceKind::Systemd,
        v1::ServiceKind::Process => ServiceKind::Process,
        v1::ServiceKind::Host => ServiceKind::Host,
        v1::ServiceKind::Unspecified => return Err(ServiceIdError::Part { part: "kind" }),
    };
    let parts = [
        part(service.namespace, "namespace")?,
        part(service.name, "name")?,
        part(service.container, "container")?,
    ];
    ServiceId::from_parts(kind, parts)
}

fn decode_series(batch: &mut Batch, columns: &v1::SeriesColumns) -> Result<(), DecodeError> {
    let mut cursor = Cursor::new(columns, None, &mut batch.buckets)?;
    batch.series.reserve(columns.signal.len());
    for index in 0..columns.signal.len() {
        let decoded = cursor
            .next(index, batch.services.len(), &mut batch.buckets)
            .map_err(|what| DecodeError::Series { index, what })?;
        match decoded.series(decoded.owner) {
            Some(series) => batch.series.push(series),
            None => {
                batch.buckets.truncate(decoded.buckets.start as usize);
                batch.unknown_signals += 1;
            }
        }
    }
    Ok(())
}
