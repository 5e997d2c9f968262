//! Which routes a request asks for, in which order, page by page.

use honeyguide_proto::v1::{
    ListRoutesRequest, ListRoutesResponse, Protocol, RouteOrder, RouteSummary, Side,
};
use tonic::Status;

use super::page_size;

/// A checked [`ListRoutesRequest`].
#[derive(Debug)]
pub(super) struct Query {
    service: String,
    side: Side,
    protocol: Protocol,
    order: RouteOrder,
    size: usize,
    /// Routes on the pages before.
    begin: usize,
}

impl TryFrom<ListRoutesRequest> for Query {
    type Error = Status;

    fn try_from(request: ListRoutesRequest) -> Result<Self, Status> {
        let unknown = |field: &str, number: i32| {
            Status::invalid_argument(format!(
                "{field} is {number}, which this analyzer does not know"
            ))
        };
        let begin = match request.page_token.as_str() {
            "" => 0,
            token => token
                .parse()
                .map_err(|_| Status::invalid_argument("page_token is not one of a page before"))?,
        };
        Ok(Self {
            side: Side::try_from(request.side).map_err(|_| unknown("side", request.side))?,
            protocol: Protocol::try_from(request.protocol)
                .map_err(|_| unknown("protocol", request.protocol))?,
            order: RouteOrder::try_from(request.order)
                .map_err(|_| unknown("order", request.order))?,
            size: page_size(request.page_size)?,
            service: request.service,
            begin,
        })
    }
}

impl Query {
    /// The page of `routes` that is asked for.
    pub(super) fn page<'a>(
        &self,
        routes: impl Iterator<Item = &'a RouteSummary>,
    ) -> ListRoutesResponse {
        let mut found: Vec<_> = routes.filter(|route| self.matches(route)).collect();
        found.sort_by(|a, b| {
            let by_value = match self.order {
                RouteOrder::Unspecified => std::cmp::Ordering::Equal,
                RouteOrder::Rate => b.rate_per_sec.total_cmp(&a.rate_per_sec),
                RouteOrder::Errors => b.errors_per_sec.total_cmp(&a.errors_per_sec),
                RouteOrder::P99 => p99(b).total_cmp(&p99(a)),
            };
            by_value.then_with(|| key(a).cmp(&key(b)))
        });
        let end = self.begin.saturating_add(self.size);
        let page = found.iter().skip(self.begin).take(self.size);
        ListRoutesResponse {
            routes: page.map(|route| (*route).clone()).collect(),
            next_page_token: if found.len() > end {
                end.to_string()
            } else {
                String::new()
            },
        }
    }

    fn matches(&self, route: &RouteSummary) -> bool {
        let side = self.side == Side::Unspecified || self.side == route.side();
        let protocol = match self.protocol {
            // What is asked of each address is in other routes, too.
            Protocol::Unspecified => route.protocol() != Protocol::Tcp,
            protocol => protocol == route.protocol(),
        };
        side && protocol && super::matches_service(&self.service, &route.service)
    }
}

/// Those without requests come last.
fn p99(route: &RouteSummary) -> f64 {
    route.latency.as_ref().map_or(-1.0, |latency| latency.p99)
}

fn key(route: &RouteSummary) -> (&str, i32, i32, &str, &str, &str) {
    (
        &route.service,
        route.side,
        route.protocol,
        &route.template,
        &route.method,
        &route.peer,
    )
}

#[cfg(test)]
mod tests {
    use honeyguide_proto::v1::LatencyQuantiles;

    use super::*;

    fn route(service: &str, template: &str, values: [f64; 3]) -> RouteSummary {
        RouteSummary {
            service: service.to_owned(),
            side: Side::Server.into(),
            template: template.to_owned(),
            rate_per_sec: values[0],
            errors_per_sec: values[1],
            latency: (values[2] > 0.0).then(|| LatencyQuantiles {
                p99: values[2],
                ..LatencyQuantiles::default()
            }),
            ..RouteSummary::default()
        }
    }

    fn example() -> Vec<RouteSummary> {
        vec![
            route("process/b", "/1", [9.0, 0.0, 0.0]),
            route("process/a", "/2", [3.0, 1.0, 0.5]),
            route("process/a", "/1", [5.0, 3.0, 0.1]),
        ]
    }

    fn names(request: ListRoutesRequest) -> (Vec<String>, String) {
        let all = example();
        let page = Query::try_from(request).unwrap().page(all.iter());
        let names = page.routes.iter();
        let names = names.map(|route| format!("{}{}", route.service, route.template));
        (names.collect(), page.next_page_token)
    }

    #[test]
    fn routes_come_in_the_order_asked_for() {
        for (order, expected) in [
            (
                RouteOrder::Unspecified,
                ["process/a/1", "process/a/2", "process/b/1"],
            ),
            (
                RouteOrder::Rate,
                ["process/b/1", "process/a/1", "process/a/2"],
            ),
            (
                RouteOrder::Errors,
                ["process/a/1", "process/a/2", "process/b/1"],
            ),
            (
                RouteOrder::P99,
                ["process/a/2", "process/a/1", "process/b/1"],
            ),
        ] {
            let request = ListRoutesRequest {
                order: order.into(),
                ..ListRoutesRequest::default()
            };
            assert_eq!(names(request).0, expected, "{order:?}");
        }
    }

    #[test]
    fn pages_and_filters_leave_nothing_out() {
        let mut request = ListRoutesRequest {
            page_size: 2,
            ..ListRoutesRequest::default()
        };
        let (first, token) = names(request.clone());
        assert_eq!(first, ["process/a/1", "process/a/2"]);
        request.page_token = token;
        assert_eq!(
            names(request),
            (vec!["process/b/1".to_owned()], String::new())
        );
        for (service, expected) in [("process/a", 2), ("process/*", 3), ("process/", 0)] {
            let request = ListRoutesRequest {
                service: service.to_owned(),
                ..ListRoutesRequest::default()
            };
            assert_eq!(names(request).0.len(), expected, "{service}");
        }
        let request = ListRoutesRequest {
            side: Side::Client.into(),
            ..ListRoutesRequest::default()
        };
        assert!(names(request).0.is_empty());
    }

    #[test]
    fn wrong_requests_are_errors_that_name_the_field() {
        type Change = fn(&mut ListRoutesRequest);
        let cases: [(&str, Change); 4] = [
            ("side", |r| r.side = 9),
            ("order", |r| r.order = 9),
            ("page_size", |r| r.page_size = 10_001),
            ("page_token", |r| r.page_token = "x".to_owned()),
        ];
        for (name, change) in cases {
            let mut request = ListRoutesRequest::default();
            change(&mut request);
            let error = Query::try_from(request).unwrap_err();
            assert_eq!(error.code(), tonic::Code::InvalidArgument);
            assert!(error.message().contains(name), "{error}");
        }
    }
}
