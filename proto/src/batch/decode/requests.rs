//! Routes, their series, and who answers at an address.

use sensor_common::http::{Method, STATUS_CLASSES};

use super::{DecodeError, columns::Cursor, decode_service};
use crate::{
    Route,
    batch::{Batch, ENDPOINTS_MAX, Endpoint, ROUTES_MAX, RouteSeriesWindow},
    route::{Protocol, Template, is_peer},
    v1,
};

pub(super) fn endpoints(
    endpoints: &[v1::Endpoint],
    strings: &[String],
    services: usize,
) -> Result<Vec<Endpoint>, DecodeError> {
    if endpoints.len() > ENDPOINTS_MAX {
        let expected = "at most 4096 entries";
        return Err(DecodeError::field(
            "endpoints",
            endpoints.len() as u64,
            expected,
        ));
    }
    let decode = |(index, endpoint): (usize, &v1::Endpoint)| {
        let wrong = |what| DecodeError::Endpoint { index, what };
        let address = (endpoint.address as usize).checked_sub(1);
        let address = address.and_then(|index| strings.get(index));
        let address = address.ok_or(wrong("has no address"))?;
        if !is_peer(address) {
            return Err(wrong("its address is not address:port"));
        }
        let service = endpoint.service.as_ref().ok_or(wrong("has no service"))?;
        let service =
            decode_service(service, strings).map_err(|_| wrong("its service has no valid name"))?;
        let asked_by = endpoint.asked_by.checked_sub(1);
        if asked_by.is_some_and(|index| index as usize >= services) {
            return Err(wrong("is asked by a service that is not there"));
        }
        Ok(Endpoint {
            address: address.clone(),
            service,
            asked_by,
        })
    };
    endpoints.iter().enumerate().map(decode).collect()
}

pub(super) fn decode_routes(
    batch: &mut Batch,
    routes: &[v1::Route],
    strings: &[String],
) -> Result<(), DecodeError> {
    if routes.len() > ROUTES_MAX {
        return Err(DecodeError::field(
            "routes",
            routes.len() as u64,
            "at most 65536 entries",
        ));
    }
    let mut previous = None;
    for (index, route) in routes.iter().enumerate() {
        let error = |what| DecodeError::Route { index, what };
        if route.service as usize >= batch.services.len() {
            return Err(error("refers to no service"));
        }
        let text = |index: u32| match index {
            0 => Ok(""),
            index => strings
                .get(index as usize - 1)
                .map(String::as_str)
                .ok_or_else(|| error("refers to no string")),
        };
        let texts = [
            text(route.operation)?,
            text(route.template)?,
            text(route.peer)?,
        ];
        let key = (route.service, route.protocol, route.method, texts);
        if previous.is_some_and(|previous| previous >= key) {
            return Err(error("is not after its predecessor in order"));
        }
        previous = Some(key);
        let known = known_route(route, texts).map_err(error)?;
        batch.routes.push((route.service, known));
    }
    Ok(())
}

/// `None` if this reader does not know such routes: their protocol, their
/// method, or what this protocol has not had so far.
fn known_route(
    route: &v1::Route,
    [operation, template, peer]: [&str; 3],
) -> Result<Option<Route>, &'static str> {
    let number = |number: i32| u8::try_from(number).ok();
    let Some(protocol) = number(route.protocol).and_then(Protocol::from_number) else {
        return Ok(None);
    };
    let path = || Template::new(template).map_err(|_| "has no template of paths");
    let known = match (protocol, route.method, operation) {
        (Protocol::Http, 0, "") if !template.is_empty() => {
            return Err("has a template without a method");
        }
        (_, 0, "") if template.is_empty() => Route::other(protocol),
        (Protocol::Http, method, "") => {
            let template = path()?;
            match number(method).and_then(Method::from_number) {
                Some(method) => Route::http(method, template),
                None => return Ok(None),
            }
        }
        (Protocol::Grpc, 0, "") => Route::grpc(path()?),
        (Protocol::Http | Protocol::Grpc, ..) => return Ok(None),
        (_, 0, "") => return Err("has a template without an operation"),
        (_, 0, operation) => Route::operation(protocol, operation, template)
            .map_err(|_| "has no operation, or no template")?,
        _ => return Ok(None),
    };
    if peer.is_empty() {
        return Ok(Some(known));
    }
    let known = known.with_peer(peer);
    known.map(Some).map_err(|_| "has no peer of address:port")
}

pub(super) fn decode_route_series(
    batch: &mut Batch,
    columns: &v1::RouteSeriesColumns,
) -> Result<(), DecodeError> {
    let classes = &columns.status_class;
    let none = v1::SeriesColumns::default();
    let columns = columns.series.as_ref().unwrap_or(&none);
    let mut cursor = Cursor::new(columns, Some(classes), &mut batch.buckets)?;
    for (index, status_class) in classes.iter().enumerate() {
        let decoded = cursor
            .next(index, batch.routes.len(), &mut batch.buckets)
            .map_err(|what| DecodeError::RouteSeries { index, what })?;
        let status_class = *status_class;
        let (service, route) = &batch.routes[decoded.owner as usize];
        let is_known = route.is_some() && usize::from(status_class) < STATUS_CLASSES;
        match decoded.series(*service).filter(|_| is_known) {
            Some(series) => batch.route_series.push(RouteSeriesWindow {
                route: decoded.owner,
                status_class,
                series,
            }),
            None => {
                batch.buckets.truncate(decoded.buckets.start as usize);
                batch.unknown_routes += 1;
            }
        }
    }
    Ok(())
}
