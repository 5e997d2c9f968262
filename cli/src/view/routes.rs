//! Requests by route as lines of text.
//!
//! Pure: protobuf values in, strings out.

use honeyguide_proto::v1::{Protocol, RouteClass, RouteSummary, Side, Target};

use super::{latency, point_of, rate};

/// One line for one route.
pub fn line(route: &RouteSummary) -> String {
    let mut text = format!(
        "{} {} {} {}",
        route.service,
        side(route.side()),
        protocol(route.protocol()),
        route.route
    );
    if !route.peer.is_empty() {
        text += &format!(" at {}", route.peer);
    }
    text += &format!("  {}", rate(route.rate_per_sec));
    if let Some(quantiles) = &route.latency {
        text += &format!(
            "  p50 {}  p90 {}  p99 {}  p99.9 {}",
            latency(quantiles.p50),
            latency(quantiles.p90),
            latency(quantiles.p99),
            latency(quantiles.p999)
        );
        if let Some(p99) = point_of(&route.points, Target::P99) {
            text += &format!(
                "  p99 in 15 min {} [{}, {}]",
                latency(p99.yhat),
                latency(p99.yhat_lower_80),
                latency(p99.yhat_upper_80)
            );
        }
        text += &format!("  errors {}", share(route.error_ratio));
    }
    let classes: Vec<String> = route
        .classes
        .iter()
        .map(|class| format!("{} {}", class_name(route, class), class.requests))
        .collect();
    text + &format!("  in all {}", classes.join(", "))
}

/// One line for what a service asks of an address.
pub fn edge(edge: &RouteSummary) -> String {
    let answerer = match edge.peer_service.as_str() {
        "" => "?",
        service => service,
    };
    let address = match edge.peer.as_str() {
        "" => "further addresses",
        peer => peer,
    };
    let mut text = format!(
        "{} -> {answerer} at {address}  {}",
        edge.service,
        rate(edge.rate_per_sec)
    );
    if let Some(quantiles) = &edge.latency {
        text += &format!(
            "  p50 {}  p99 {}",
            latency(quantiles.p50),
            latency(quantiles.p99)
        );
    }
    text
}

/// A share of requests: `0 %`, `0.03 %`, `12 %`.
pub fn share(ratio: f64) -> String {
    match ratio * 100.0 {
        0.0 => "0 %".to_owned(),
        percent if percent < 10.0 => format!("{percent:.2} %"),
        percent => format!("{percent:.0} %"),
    }
}

/// How requests of a class ended: `5xx` of HTTP, `ok` or whose error it was of
/// other protocols.
fn class_name(route: &RouteSummary, class: &RouteClass) -> String {
    let is_http = route.protocol() == Protocol::Http;
    match class.status_class {
        0 => "unknown".to_owned(),
        2 if !is_http => "ok".to_owned(),
        4 if !is_http => "client error".to_owned(),
        5 if !is_http => "server error".to_owned(),
        class => format!("{class}xx"),
    }
}

/// The side of a request as users know it.
pub fn side(side: Side) -> &'static str {
    match side {
        Side::Server => "server",
        Side::Client => "client",
        Side::Unspecified => "?",
    }
}

/// The name of a protocol.
pub fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Grpc => "grpc",
        Protocol::Redis => "redis",
        Protocol::Postgresql => "postgresql",
        Protocol::Kafka => "kafka",
        Protocol::Dns => "dns",
        Protocol::Tcp => "tcp",
        Protocol::Unspecified => "?",
    }
}

/// Those that need attention first: most errors per second, then the slowest.
pub fn worst<'a>(
    routes: impl Iterator<Item = &'a RouteSummary>,
    most: usize,
) -> Vec<&'a RouteSummary> {
    let mut all: Vec<_> = routes.filter(|route| route.latency.is_some()).collect();
    let p99 = |route: &RouteSummary| route.latency.as_ref().map_or(0.0, |latency| latency.p99);
    all.sort_by(|a, b| {
        b.errors_per_sec
            .total_cmp(&a.errors_per_sec)
            .then(p99(b).total_cmp(&p99(a)))
            .then_with(|| (&a.service, &a.route).cmp(&(&b.service, &b.route)))
    });
    all.truncate(most);
    all
}

#[cfg(test)]
pub mod tests {
    use honeyguide_proto::v1::LatencyQuantiles;

    use super::*;

    /// A route with every part that is shown.
    pub fn example() -> RouteSummary {
        let class = |status_class, requests| RouteClass {
            status_class,
            rate_per_sec: requests as f64 / 60.0,
            requests,
        };
        RouteSummary {
            service: "systemd/nginx.service".to_owned(),
            side: Side::Server.into(),
            protocol: Protocol::Http.into(),
            method: "GET".to_owned(),
            template: "/users/{id}".to_owned(),
            route: "GET /users/{id}".to_owned(),
            latency: Some(LatencyQuantiles {
                p50: 0.000_47,
                p90: 0.002,
                p99: 0.012,
                p999: 0.05,
                max: 0.06,
            }),
            rate_per_sec: 12.5,
            errors_per_sec: 0.25,
            error_ratio: 0.02,
            sampling_ratio: 1.0,
            classes: vec![class(2, 735), class(5, 15)],
            points: crate::view::tests::example().points,
            ..RouteSummary::default()
        }
    }

    #[test]
    fn a_route_is_a_line() {
        assert_eq!(
            line(&example()),
            "systemd/nginx.service server http GET /users/{id}  12.5/s  p50 470 µs  p90 2.00 ms  \
             p99 12.0 ms  p99.9 50.0 ms  p99 in 15 min 300 ms [100 ms, 1.10 s]  errors 2.00 %  \
             in all 2xx 735, 5xx 15"
        );
        let at_rest = RouteSummary {
            side: Side::Client.into(),
            protocol: Protocol::Redis.into(),
            route: "GET".to_owned(),
            peer: "10.0.0.7:6379".to_owned(),
            latency: None,
            rate_per_sec: 0.0,
            ..example()
        };
        assert_eq!(
            line(&at_rest),
            "systemd/nginx.service client redis GET at 10.0.0.7:6379  0.00/s  in all ok 735, \
             server error 15"
        );
    }

    #[test]
    fn an_edge_is_a_line_also_where_nobody_knows_who_answers() {
        let known = RouteSummary {
            peer: "10.0.0.7:6379".to_owned(),
            peer_service: "systemd/redis.service".to_owned(),
            ..example()
        };
        assert_eq!(
            edge(&known),
            "systemd/nginx.service -> systemd/redis.service at 10.0.0.7:6379  12.5/s  p50 470 µs  \
             p99 12.0 ms"
        );
        let unknown = RouteSummary {
            latency: None,
            ..RouteSummary {
                peer_service: String::new(),
                ..known
            }
        };
        assert_eq!(
            edge(&unknown),
            "systemd/nginx.service -> ? at 10.0.0.7:6379  12.5/s"
        );
    }

    #[test]
    fn errors_come_before_what_is_slow() {
        let slow = RouteSummary {
            errors_per_sec: 0.0,
            route: "GET /slow".to_owned(),
            latency: Some(LatencyQuantiles {
                p99: 9.0,
                ..LatencyQuantiles::default()
            }),
            ..example()
        };
        let fast = RouteSummary {
            errors_per_sec: 0.0,
            route: "GET /fast".to_owned(),
            ..example()
        };
        let at_rest = RouteSummary {
            latency: None,
            ..example()
        };
        let all = [fast, slow, example(), at_rest];
        let names: Vec<_> = worst(all.iter(), 9).iter().map(|of| &of.route).collect();
        assert_eq!(names, ["GET /users/{id}", "GET /slow", "GET /fast"]);
        assert_eq!(worst(all.iter(), 1).len(), 1);
    }

    #[test]
    fn shares_keep_what_is_small() {
        for (ratio, expected) in [
            (0.0, "0 %"),
            (0.0003, "0.03 %"),
            (0.123, "12 %"),
            (1.0, "100 %"),
        ] {
            assert_eq!(share(ratio), expected);
        }
    }
}
