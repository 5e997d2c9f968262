//! Which requests of a service belong together.

use std::fmt;

use sensor_common::http::{Method, TEMPLATE_LEN_MAX};

/// Bytes of an operation at most.
pub const OPERATION_LEN_MAX: usize = 64;
/// Bytes of a peer at most: a host name (RFC 1035), a colon, a port.
pub const PEER_LEN_MAX: usize = 253 + 1 + 5;

/// What requests are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2.
    Http = 1,
    /// gRPC.
    Grpc = 2,
    /// Redis.
    Redis = 3,
    /// PostgreSQL.
    Postgresql = 4,
    /// Kafka.
    Kafka = 5,
    /// DNS.
    Dns = 6,
    /// TCP, whatever is spoken on it.
    Tcp = 7,
}

impl Protocol {
    /// Every protocol, ordered by number.
    pub const ALL: [Protocol; 7] = [
        Protocol::Http,
        Protocol::Grpc,
        Protocol::Redis,
        Protocol::Postgresql,
        Protocol::Kafka,
        Protocol::Dns,
        Protocol::Tcp,
    ];

    /// The number that stands for it on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The protocol of a number, if there is one.
    pub fn from_number(number: u8) -> Option<Protocol> {
        Self::ALL.into_iter().find(|one| one.number() == number)
    }

    /// The name that OpenTelemetry has for it, where it has one.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Grpc => "grpc",
            Protocol::Redis => "redis",
            Protocol::Postgresql => "postgresql",
            Protocol::Kafka => "kafka",
            Protocol::Dns => "dns",
            Protocol::Tcp => "tcp",
        }
    }

    /// Whether nothing is told apart but who answers.
    const fn has_only_peers(self) -> bool {
        matches!(self, Protocol::Tcp)
    }

    /// Whether its templates are paths.
    const fn has_paths(self) -> bool {
        matches!(self, Protocol::Http | Protocol::Grpc)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A route of a service, in the order in which batches have them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    protocol: Protocol,
    operation: Operation,
    /// Empty where operations have nothing else in common.
    template: String,
    /// Empty where it is not known.
    peer: String,
}

/// What is asked for, in the order in which batches have them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Operation {
    Any,
    Http(Method),
    Named(String),
}

/// Why parts make no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Of HTTP there are methods, of gRPC paths.
    #[error("{0} has no operations of this kind")]
    NoOperations(Protocol),
    /// Too long, or not printable.
    #[error("the operation is not of 1 to {OPERATION_LEN_MAX} printable bytes")]
    Operation,
    /// Too long, not printable, or no path where one is needed.
    #[error("the template is not of up to {TEMPLATE_LEN_MAX} printable bytes, or no path")]
    Template,
    /// A path without the method that it needs.
    #[error("it has a template without a method")]
    NoMethod,
    /// Not `address:port`.
    #[error("the peer is not address:port of up to {PEER_LEN_MAX} bytes")]
    Peer,
}

impl Route {
    /// All requests of a protocol that have no route of their own.
    pub const fn other(protocol: Protocol) -> Self {
        Self {
            protocol,
            operation: Operation::Any,
            template: String::new(),
            peer: String::new(),
        }
    }

    /// HTTP requests of one method whose paths fit one template.
    pub fn http(method: Method, template: Template) -> Self {
        Self {
            operation: Operation::Http(method),
            template: template.0,
            ..Self::other(Protocol::Http)
        }
    }

    /// Calls of one gRPC method, by its path: `/service/method`.
    pub fn grpc(path: Template) -> Self {
        Self {
            template: path.0,
            ..Self::other(Protocol::Grpc)
        }
    }

    /// Requests of another protocol: a Redis command, SQL verb, name of a Kafka
    /// API, type of a DNS question, and what such requests have in common
    /// beside that, or nothing.
    ///
    /// # Errors
    /// [`RouteError`].
    pub fn operation(
        protocol: Protocol,
        operation: &str,
        template: &str,
    ) -> Result<Self, RouteError> {
        if protocol.has_paths() || protocol.has_only_peers() {
            return Err(RouteError::NoOperations(protocol));
        }
        if !is_printable(operation, OPERATION_LEN_MAX) {
            return Err(RouteError::Operation);
        }
        if !template.is_empty() && !is_printable(template, TEMPLATE_LEN_MAX) {
            return Err(RouteError::Template);
        }
        Ok(Self {
            operation: Operation::Named(operation.to_owned()),
            template: template.to_owned(),
            ..Self::other(protocol)
        })
    }

    /// The same, of requests that one peer answers: `address:port`.
    ///
    /// # Errors
    /// [`RouteError::Peer`].
    pub fn with_peer(self, peer: &str) -> Result<Self, RouteError> {
        if !is_peer(peer) {
            return Err(RouteError::Peer);
        }
        let peer = peer.to_owned();
        Ok(Self { peer, ..self })
    }

    /// The same, whoever answers.
    pub fn without_peer(self) -> Self {
        let peer = String::new();
        Self { peer, ..self }
    }

    /// What its requests are written in.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The HTTP method, Redis command, SQL verb, name of a Kafka API, or type
    /// of a DNS question; empty for gRPC, and for [`other`](Self::other) requests.
    pub fn method(&self) -> &str {
        match &self.operation {
            Operation::Any => "",
            Operation::Http(method) => method.name(),
            Operation::Named(name) => name,
        }
    }

    /// The HTTP method by number; `None` of other protocols.
    pub fn http_method(&self) -> Option<Method> {
        match &self.operation {
            Operation::Http(method) => Some(*method),
            _ => None,
        }
    }

    /// The path with `{id}` for what looks generated; empty if there is none.
    pub fn template(&self) -> &str {
        &self.template
    }

    /// Who answers, as `address:port`, if that is known.
    pub fn peer(&self) -> Option<&str> {
        (!self.peer.is_empty()).then_some(self.peer.as_str())
    }

    /// Whether these are the requests that have no route of their own.
    pub fn is_other(&self) -> bool {
        self.operation == Operation::Any && self.template.is_empty()
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, template) = (self.method(), self.template());
        match (method, template) {
            ("", "") if self.protocol == Protocol::Http => f.pad("other"),
            ("", "") => f.pad(&format!("{} other", self.protocol)),
            (method, "") => f.pad(method),
            ("", template) => f.pad(template),
            (method, template) => f.pad(&format!("{method} {template}")),
        }
    }
}

/// Whether a text is `address:port`.
pub(crate) fn is_peer(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    let is_valid = parts.is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok() && !text.contains(' ')
    });
    is_valid && is_printable(text, PEER_LEN_MAX)
}

/// Printable ASCII, at least one byte; spaces only inside.
fn is_printable(text: &str, len_max: usize) -> bool {
    (1..=len_max).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && text.trim().len() == text.len()
}

/// A checked template of paths, such as `/users/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Template(String);

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no template of paths: expected `/`, then up to {TEMPLATE_LEN_MAX} printable bytes in all, no `?`"
)]
pub struct TemplateError(String);

impl Template {
    /// Checks that `text` begins with `/`, is printable ASCII without spaces and
    /// without `?`, which ends a path, and not too long.
    ///
    /// # Errors
    /// [`TemplateError`] has the begin of the text.
    pub fn new(text: &str) -> Result<Self, TemplateError> {
        let valid = text.starts_with('/')
            && text.len() <= TEMPLATE_LEN_MAX
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'?');
        if !valid {
            let begin = text.chars().take(TEMPLATE_LEN_MAX).collect();
            return Err(TemplateError(begin));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_checked() {
        for valid in ["/", "/users/{id}", "/a;b"] {
            assert_eq!(Template::new(valid).unwrap().as_str(), valid);
        }
        let long = format!("/{}", "x".repeat(TEMPLATE_LEN_MAX));
        for wrong in ["", "users", "/a b", "/a?b", "/a\n", "/caf\u{e9}", &long] {
            assert!(Template::new(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_route_reads_as_method_and_template() {
        let template = |text| Template::new(text).unwrap();
        let other = Route::other(Protocol::Http);
        let http = Route::http(Method::Get, template("/users/{id}"));
        assert!(other < http);
        let cases = [
            (other, "other"),
            (http, "GET /users/{id}"),
            (Route::grpc(template("/shop.Cart/Add")), "/shop.Cart/Add"),
            (Route::other(Protocol::Redis), "redis other"),
            (
                Route::operation(Protocol::Redis, "CONFIG GET", "").unwrap(),
                "CONFIG GET",
            ),
            (
                Route::operation(Protocol::Kafka, "Produce", "orders").unwrap(),
                "Produce orders",
            ),
        ];
        for (route, expected) in cases {
            assert_eq!(route.to_string(), expected);
        }
    }

    #[test]
    fn operations_are_checked() {
        let long = "x".repeat(OPERATION_LEN_MAX + 1);
        for wrong in ["", " GET", "G\tT", "caf\u{e9}", &long] {
            let route = Route::operation(Protocol::Redis, wrong, "");
            assert_eq!(route, Err(RouteError::Operation), "{wrong:?}");
        }
        let long = "x".repeat(TEMPLATE_LEN_MAX + 1);
        let route = Route::operation(Protocol::Redis, "GET", &long);
        assert_eq!(route, Err(RouteError::Template));
        let route = Route::operation(Protocol::Http, "GET", "");
        assert_eq!(route, Err(RouteError::NoOperations(Protocol::Http)));
    }

    #[test]
    fn peers_are_checked() {
        let of = |peer: &str| Route::other(Protocol::Redis).with_peer(peer);
        for valid in ["10.0.0.7:6379", "[::1]:80", "db.internal:5432"] {
            assert_eq!(of(valid).unwrap().peer(), Some(valid));
        }
        let long = format!("{}:80", "x".repeat(PEER_LEN_MAX));
        for wrong in ["", ":80", "10.0.0.7", "10.0.0.7:99999", "a b:80", &long] {
            assert_eq!(of(wrong), Err(RouteError::Peer), "{wrong:?}");
        }
        assert!(of("a:1").unwrap().is_other());
    }

    #[test]
    fn every_protocol_is_found_by_its_number() {
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::from_number(protocol.number()), Some(protocol));
        }
        assert_eq!(Protocol::from_number(0), None);
        assert_eq!(Protocol::from_number(77), None);
    }
}
