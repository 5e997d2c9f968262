//! Requests by route, under the names of OpenTelemetry's semantic conventions
//! (1.45) as Prometheus spells them, where these have a name for it.
//!
//! They have none for the server's side of databases, messaging and DNS, and
//! for DNS on the client's side they ask for the name looked up, which is no
//! label here. Those are `honeyguide_server_operation_duration_seconds` and
//! `honeyguide_client_operation_duration_seconds`. Of statuses only the class is
//! known, so that `http.response.status_code` is `http_response_status_class`.

use honeyguide_proto::route::Protocol;
use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType, registry::Unit};
use sensor_common::{Histogram, Signal};

use super::{Encoded, Exposition, encode_histogram};
use crate::{pipeline::RouteTotal, routes::is_error};

/// A metric of requests by route.
struct Family {
    name: &'static str,
    help: &'static str,
    signal: Signal,
    protocols: &'static [Protocol],
}

const FAMILIES: [Family; 9] = [
    Family {
        name: "http_server_request_duration",
        help: "Duration of HTTP server requests, to the first byte of the response",
        signal: Signal::ServerRequest,
        protocols: &[Protocol::Http],
    },
    Family {
        name: "http_client_request_duration",
        help: "Duration of HTTP client requests, to the first byte of the response",
        signal: Signal::ClientRequest,
        protocols: &[Protocol::Http],
    },
    Family {
        name: "rpc_server_call_duration",
        help: "Duration of incoming calls, to the first byte of the response",
        signal: Signal::ServerRequest,
        protocols: &[Protocol::Grpc],
    },
    Family {
        name: "rpc_client_call_duration",
        help: "Duration of outgoing calls, to the first byte of the response",
        signal: Signal::ClientRequest,
        protocols: &[Protocol::Grpc],
    },
    Family {
        name: "db_client_operation_duration",
        help: "Duration of database client operations, to the first byte of the response",
        signal: Signal::ClientRequest,
        protocols: &[Protocol::Redis, Protocol::Postgresql],
    },
    Family {
        name: "messaging_client_operation_duration",
        help: "Duration of messaging client operations, to the first byte of the response",
        signal: Signal::ClientRequest,
        protocols: &[Protocol::Kafka],
    },
    Family {
        name: "honeyguide_server_operation_duration",
        help: "Duration of operations that a database, broker or name server serves, to the first byte of the response",
        signal: Signal::ServerRequest,
        protocols: &[
            Protocol::Redis,
            Protocol::Postgresql,
            Protocol::Kafka,
            Protocol::Dns,
            Protocol::Tcp,
        ],
    },
    Family {
        name: "honeyguide_peer_request_duration",
        help: "Duration of requests over TCP by who answers, to the first byte of the response",
        signal: Signal::ClientRequest,
        protocols: &[Protocol::Tcp],
    },
    Family {
        name: "honeyguide_client_operation_duration",
        help: "Duration of DNS lookups, to the first byte of the response",
        signal: Signal::ClientRequest,
        protocols: &[Protocol::Dns],
    },
];

impl Family {
    fn has(&self, of: &RouteTotal) -> bool {
        of.signal == self.signal && self.protocols.contains(&of.route.protocol())
    }
}

impl Exposition {
    pub(super) fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        for family in FAMILIES {
            let mut routes = self.routes.iter().filter(|of| family.has(of)).peekable();
            if routes.peek().is_none() {
                continue;
            }
            let mut metric = encoder.encode_descriptor(
                family.name,
                family.help,
                Some(&Unit::Seconds),
                MetricType::Histogram,
            )?;
            for of in routes {
                for (status_class, requests) in of.total.iter() {
                    let mut histogram = Histogram::new();
                    requests.add_to(&mut histogram);
                    let labels = labels(of, status_class);
                    let metric = metric.encode_family(&labels)?;
                    encode_histogram(metric, &histogram)?;
                }
            }
        }
        Ok(())
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Labels whose value would be empty are left out, which is the same to
/// Prometheus.
fn labels(of: &RouteTotal, status_class: u8) -> Labels<'_> {
    let (method, template) = (of.route.method(), of.route.template());
    let is_server = of.signal == Signal::ServerRequest;
    let protocol = of.route.protocol();
    let mut labels = vec![("service", of.service.as_str())];
    match protocol {
        Protocol::Http => {
            labels.push(("http_request_method", method));
            // On the client's side a route is the template of a URL.
            let route = if is_server {
                "http_route"
            } else {
                "url_template"
            };
            labels.push((route, template));
        }
        Protocol::Grpc => {
            labels.push(("rpc_system_name", protocol.name()));
            // Fully qualified, without the slash in front.
            labels.push(("rpc_method", template.trim_start_matches('/')));
        }
        Protocol::Redis | Protocol::Postgresql if !is_server => {
            labels.push(("db_system_name", protocol.name()));
            labels.push(("db_operation_name", method));
            labels.push(("db_query_summary", template));
        }
        Protocol::Kafka if !is_server => {
            labels.push(("messaging_system", protocol.name()));
            labels.push(("messaging_operation_name", method));
            labels.push(("messaging_destination_template", template));
        }
        Protocol::Redis
        | Protocol::Postgresql
        | Protocol::Kafka
        | Protocol::Dns
        | Protocol::Tcp => {
            labels.push(("network_protocol_name", protocol.name()));
            labels.push(("operation_name", method));
            labels.push(("operation_template", template));
        }
    }
    if let Some((address, port)) = of.route.peer().and_then(|peer| peer.rsplit_once(':')) {
        labels.push(("server_address", address));
        labels.push(("server_port", port));
    }
    let is_error = is_error(of.signal, status_class);
    labels.extend(match protocol {
        Protocol::Http => [
            ("http_response_status_class", class_name(status_class)),
            (
                "error_type",
                if is_error {
                    class_name(status_class)
                } else {
                    ""
                },
            ),
        ],
        _ => [
            ("outcome", outcome(status_class)),
            (
                "error_type",
                if is_error { outcome(status_class) } else { "" },
            ),
        ],
    });
    labels.retain(|(_, value)| !value.is_empty());
    labels
}

fn class_name(status_class: u8) -> &'static str {
    match status_class {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "",
    }
}

fn outcome(status_class: u8) -> &'static str {
    match status_class {
        2 => "ok",
        4 => "client_error",
        5 => "server_error",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use honeyguide_proto::{Route, route::Template};
    use prometheus_client::{encoding::text, registry::Registry};
    use sensor_common::http::Method;

    use super::*;
    use crate::routes::Classes;

    fn total(signal: Signal, route: Route, classes: &[u8]) -> RouteTotal {
        let mut total = Classes::default();
        for class in classes {
            total.of(*class).add(100, 3);
        }
        RouteTotal {
            service: "process/x".to_owned(),
            signal,
            route,
            total,
        }
    }

    /// Lines of counts, without the rest of the page.
    fn counts(routes: Vec<RouteTotal>) -> Vec<String> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Exposition {
            routes,
            ..Exposition::default()
        }));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        let lines = page.lines().filter(|line| line.contains("_count{"));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn routes_have_the_names_of_the_conventions() {
        let path = |text| Template::new(text).unwrap();
        let get = Route::http(Method::Get, path("/users/{id}"));
        let redis = Route::operation(Protocol::Redis, "GET", "").unwrap();
        let with_peer = redis.clone().with_peer("10.0.0.7:6379").unwrap();
        let (server, client) = (Signal::ServerRequest, Signal::ClientRequest);
        let cases = [
            (
                total(server, get.clone(), &[2, 5]),
                vec![
                    "http_server_request_duration_seconds_count{service=\"process/x\",http_request_method=\"GET\",http_route=\"/users/{id}\",http_response_status_class=\"2xx\"} 3",
                    "http_server_request_duration_seconds_count{service=\"process/x\",http_request_method=\"GET\",http_route=\"/users/{id}\",http_response_status_class=\"5xx\",error_type=\"5xx\"} 3",
                ],
            ),
            (
                // What a client did wrong is no error of the server.
                total(server, Route::other(Protocol::Http), &[0, 4]),
                vec![
                    "http_server_request_duration_seconds_count{service=\"process/x\"} 3",
                    "http_server_request_duration_seconds_count{service=\"process/x\",http_response_status_class=\"4xx\"} 3",
                ],
            ),
            (
                total(client, get, &[4]),
                vec![
                    "http_client_request_duration_seconds_count{service=\"process/x\",http_request_method=\"GET\",url_template=\"/users/{id}\",http_response_status_class=\"4xx\",error_type=\"4xx\"} 3",
                ],
            ),
            (
                total(server, Route::grpc(path("/shop.Cart/Add")), &[5]),
                vec![
                    "rpc_server_call_duration_seconds_count{service=\"process/x\",rpc_system_name=\"grpc\",rpc_method=\"shop.Cart/Add\",outcome=\"server_error\",error_type=\"server_error\"} 3",
                ],
            ),
            (
                total(client, with_peer, &[2]),
                vec![
                    "db_client_operation_duration_seconds_count{service=\"process/x\",db_system_name=\"redis\",db_operation_name=\"GET\",server_address=\"10.0.0.7\",server_port=\"6379\",outcome=\"ok\"} 3",
                ],
            ),
            (
                total(server, redis, &[4]),
                vec![
                    "honeyguide_server_operation_duration_seconds_count{service=\"process/x\",network_protocol_name=\"redis\",operation_name=\"GET\",outcome=\"client_error\"} 3",
                ],
            ),
        ];
        for (of, expected) in cases {
            assert_eq!(counts(vec![of]), expected);
        }
    }

    #[test]
    fn every_side_of_every_protocol_is_in_one_family() {
        for protocol in Protocol::ALL {
            for signal in [Signal::ServerRequest, Signal::ClientRequest] {
                let of = total(signal, Route::other(protocol), &[2]);
                let families = FAMILIES.iter().filter(|family| family.has(&of));
                assert_eq!(families.count(), 1, "{protocol} {signal}");
            }
        }
    }
}
