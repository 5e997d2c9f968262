//! What is known of paths beyond what their segments look like: templates of
//! the configuration, and what services taught. Pure.
//!
//! A service whose routes are all taken, most of them by what follows one path
//! (`/users/alice`, `/users/bob`, …), teaches that anything may follow it. What
//! gets a good share of the requests there (`/users/me`) is spelled out all the
//! same.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv6Addr, SocketAddr},
};

use honeyguide_proto::{
    Route,
    route::{Protocol, Template, TemplateError},
};
use sensor_common::{
    dns,
    http::{self, Learned, Method, ROOT, Steps, child},
    kafka,
    peer::Endpoint,
    postgresql, protocol, redis,
    route::{IS_LITERAL, Path, TAKES_ANY, is_others, parts},
};

/// Templates of the configuration at most.
pub const TEMPLATES_MAX: usize = 256;
/// Lessons of one service at most.
const LESSONS_MAX: usize = 64;
/// What gets one in so many of the requests that go on from a path is spelled out.
const SHARE_OF_LITERALS: u64 = 32;

/// Lessons about paths, which are known by their hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lessons {
    take_any: BTreeSet<u64>,
    literals: BTreeSet<u64>,
}

impl Lessons {
    /// Path and kind of each.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u32)> {
        let take_any = self.take_any.iter().map(|path| (*path, TAKES_ANY));
        let literals = self.literals.iter().map(|path| (*path, IS_LITERAL));
        take_any.chain(literals)
    }

    /// Adds those of `other`.
    pub fn extend(&mut self, other: Lessons) {
        self.take_any.extend(other.take_any);
        self.literals.extend(other.literals);
    }

    fn len(&self) -> usize {
        self.take_any.len() + self.literals.len()
    }
}

impl Learned for Lessons {
    fn takes_any(&self, path: u64) -> bool {
        self.take_any.contains(&path)
    }

    fn is_literal(&self, path: u64) -> bool {
        self.literals.contains(&path)
    }
}

/// Those of the configuration and those of a service.
#[derive(Clone, Copy, Debug)]
struct Both<'a>(&'a Lessons, &'a Lessons);

impl Learned for Both<'_> {
    fn takes_any(&self, path: u64) -> bool {
        self.0.takes_any(path) || self.1.takes_any(path)
    }

    fn is_literal(&self, path: u64) -> bool {
        self.0.is_literal(path) || self.1.is_literal(path)
    }
}

/// Templates of the configuration, such as `/shop/{product}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    templates: Vec<Template>,
    lessons: Lessons,
}

/// Segments of a template or a path.
fn segments(text: &str) -> impl Iterator<Item = &str> {
    text.split('/').filter(|segment| !segment.is_empty())
}

/// Requests of a protocol without paths; those of no name are its others.
fn named(protocol: Protocol, name: Option<&str>) -> Option<Route> {
    let route = name.map(|name| Route::operation(protocol, name, ""));
    // All names are valid operations, as a test checks.
    Some(route.and_then(Result::ok).unwrap_or(Route::other(protocol)))
}

fn is_placeholder(segment: &str) -> bool {
    segment.starts_with('{') && segment.ends_with('}')
}

impl Rules {
    /// Checks templates; of those that fit a path the first counts.
    ///
    /// # Errors
    /// [`TemplateError`] of the first that is none.
    pub fn new(templates: &[String]) -> Result<Self, TemplateError> {
        let templates = templates
            .iter()
            .map(|text| Template::new(text))
            .collect::<Result<Vec<_>, _>>()?;
        let mut lessons = Lessons::default();
        for template in &templates {
            let mut path = ROOT;
            for segment in segments(template.as_str()) {
                let literal = (!is_placeholder(segment)).then_some(segment.as_bytes());
                if literal.is_none() {
                    lessons.take_any.insert(path);
                }
                path = child(path, literal);
            }
        }
        // Only what would be taken for a placeholder otherwise.
        for template in &templates {
            let mut path = ROOT;
            for segment in segments(template.as_str()) {
                let literal = (!is_placeholder(segment)).then_some(segment.as_bytes());
                let before = path;
                path = child(path, literal);
                if literal.is_some() && (looks_generated(segment) || lessons.takes_any(before)) {
                    lessons.literals.insert(path);
                }
            }
        }
        Ok(Self { templates, lessons })
    }

    /// What they teach of the paths of every service.
    pub fn lessons(&self) -> &Lessons {
        &self.lessons
    }

    /// What requests of a method and of such paths are called, where `own` is
    /// what their service taught.
    pub fn name(&self, method: u32, path: &Path, own: &Lessons) -> Route {
        let (protocol, number) = parts(method);
        let operation = match protocol {
            protocol::REDIS => named(Protocol::Redis, redis::name(number)),
            protocol::POSTGRESQL => named(Protocol::Postgresql, postgresql::name(number)),
            protocol::KAFKA => named(Protocol::Kafka, kafka::name(number)),
            protocol::DNS => named(Protocol::Dns, dns::name(number)),
            protocol::GRPC if is_others(method) => Some(Route::other(Protocol::Grpc)),
            protocol::TCP => Some(peer(method, path)),
            _ => None,
        };
        if let Some(operation) = operation {
            return operation;
        }
        let method = u8::try_from(number).ok().and_then(Method::from_number);
        let template = match self.fitting(path) {
            Some(template) => Ok(template.clone()),
            None => {
                let template = http::Template {
                    path: bytes(path),
                    is_whole: path.is_whole != 0,
                    learned: &Both(&self.lessons, own),
                };
                Template::new(&template.to_string())
            }
        };
        match (method, template) {
            (_, Ok(template)) if protocol == protocol::GRPC => Route::grpc(template),
            (Some(method), Ok(template)) => Route::http(method, template),
            _ => Route::other(Protocol::Http),
        }
    }

    fn fitting(&self, path: &Path) -> Option<&Template> {
        let text = str::from_utf8(bytes(path)).ok()?;
        let is_whole = path.is_whole != 0;
        self.templates.iter().filter(|_| is_whole).find(|template| {
            let wanted = segments(template.as_str());
            wanted
                .map(|segment| (!is_placeholder(segment)).then_some(segment))
                .eq_by_segments(segments(text))
        })
    }

    /// What a service teaches that has as many routes as it may: the paths of
    /// its routes with their requests. `None` if its routes have little in common.
    pub fn learn(&self, routes: &[(Path, u64)], own: &Lessons) -> Option<Lessons> {
        let known = Both(&self.lessons, own);
        let mut following: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
        for (path, requests) in routes {
            for step in Steps::new(bytes(path), path.is_whole != 0, &known) {
                if !step.is_placeholder() && !known.is_literal(step.literal) {
                    let following = following.entry(step.before).or_default();
                    *following.entry(step.literal).or_default() += requests;
                }
            }
        }
        let (path, following) = following
            .into_iter()
            .max_by_key(|(_, following)| following.len())?;
        let requests: u64 = following.values().sum();
        let literals: BTreeSet<u64> = following
            .iter()
            .filter(|(_, of)| **of * SHARE_OF_LITERALS >= requests)
            .map(|(literal, _)| *literal)
            .collect();
        // Most routes are of what follows, and it is most of what follows that
        // gets few requests each.
        let lesson = Lessons {
            take_any: [path].into(),
            literals,
        };
        let teaches = following.len() * 2 >= routes.len().max(2)
            && lesson.literals.len() * 2 <= following.len()
            && own.len() + lesson.len() <= LESSONS_MAX;
        teaches.then_some(lesson)
    }
}

/// What is asked of one address, or of all further ones.
fn peer(method: u32, path: &Path) -> Route {
    let all = Route::other(Protocol::Tcp);
    let endpoint = bytes(path)
        .first_chunk()
        .map(|bytes| Endpoint::from_bytes(*bytes));
    match endpoint {
        Some(endpoint) if !is_others(method) => {
            all.clone().with_peer(&text(&endpoint)).unwrap_or(all)
        }
        _ => all,
    }
}

/// An endpoint as `address:port`.
pub(crate) fn text(endpoint: &Endpoint) -> String {
    let address = Ipv6Addr::from(endpoint.address).to_canonical();
    SocketAddr::new(address, endpoint.port as u16).to_string()
}

fn bytes(path: &Path) -> &[u8] {
    path.bytes.get(..path.len as usize).unwrap_or_default()
}

fn looks_generated(segment: &str) -> bool {
    Steps::new(segment.as_bytes(), true, &()).any(|step| step.is_placeholder())
}

/// Compares segments, where `None` fits any.
trait EqBySegments<'a>: Iterator<Item = Option<&'a str>> + Sized {
    fn eq_by_segments<'b>(mut self, mut others: impl Iterator<Item = &'b str>) -> bool {
        loop {
            match (self.next(), others.next()) {
                (None, None) => return true,
                (Some(wanted), Some(found)) if wanted.is_none_or(|wanted| wanted == found) => {}
                _ => return false,
            }
        }
    }
}

impl<'a, I: Iterator<Item = Option<&'a str>>> EqBySegments<'a> for I {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use sensor_common::route::method;

    use super::*;

    fn http(number: u16) -> u32 {
        method(protocol::HTTP, number)
    }

    #[test]
    fn requests_without_paths_are_called_what_they_are_for() {
        let (rules, none) = (Rules::default(), Lessons::default());
        let of = |protocol, number| {
            let route = rules.name(method(protocol, number), &path("/ "), &none);
            (route.protocol(), route.to_string())
        };
        let get = (Protocol::Redis, "GET".to_owned());
        assert_eq!(of(protocol::REDIS, 1), get);
        assert_eq!(of(protocol::POSTGRESQL, 1).1, "execute");
        assert_eq!(of(protocol::KAFKA, 1).1, "Produce");
        for (protocol, expected) in [
            (protocol::REDIS, Protocol::Redis),
            (protocol::POSTGRESQL, Protocol::Postgresql),
            (protocol::KAFKA, Protocol::Kafka),
            (protocol::DNS, Protocol::Dns),
            (protocol::HTTP, Protocol::Http),
        ] {
            for number in [0, 999] {
                let route = rules.name(method(protocol, number), &path("/ "), &none);
                assert_eq!(route, Route::other(expected));
            }
        }
        let calls = rules.name(method(protocol::GRPC, 0), &path("/ "), &none);
        assert_eq!(calls, Route::other(Protocol::Grpc));
        let call = rules.name(method(protocol::GRPC, 1), &path("/a.B/C "), &none);
        assert_eq!(
            (call.protocol(), call.template()),
            (Protocol::Grpc, "/a.B/C")
        );
        for number in 1..999 {
            for (protocol, name) in [
                (protocol::REDIS, redis::name(number)),
                (protocol::POSTGRESQL, postgresql::name(number)),
                (protocol::KAFKA, kafka::name(number)),
                (protocol::DNS, dns::name(number)),
            ] {
                if let Some(name) = name {
                    assert_eq!(of(protocol, number).1, name);
                }
            }
        }
    }

    pub(crate) fn path(text: &str) -> Path {
        let mut bytes = [b'x'; http::PATH_LEN_MAX];
        let len = text.len().min(bytes.len());
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        let shape = http::shape(&bytes, len, &()).unwrap();
        Path {
            len: shape.len,
            is_whole: u32::from(shape.is_whole),
            bytes,
        }
    }

    fn rules(templates: &[&str]) -> Rules {
        let templates: Vec<_> = templates.iter().map(|text| (*text).to_owned()).collect();
        Rules::new(&templates).unwrap()
    }

    fn get(rules: &Rules, text: &str, own: &Lessons) -> String {
        rules.name(Method::Get as u32, &path(text), own).to_string()
    }

    #[test]
    fn a_route_is_called_by_method_and_template() {
        let (rules, none) = (Rules::default(), Lessons::default());
        let of = path("/users/42?token=secret ");
        assert_eq!(
            rules.name(http(1), &of, &none).to_string(),
            "GET /users/{id}"
        );
        assert_eq!(
            rules.name(http(3), &of, &none).to_string(),
            "POST /users/{id}"
        );
        assert!(rules.name(http(77), &of, &none).is_other());
        let impossible = Path {
            len: u32::MAX,
            ..of
        };
        assert_eq!(rules.name(http(1), &impossible, &none).to_string(), "GET /");
    }

    #[test]
    fn templates_of_the_configuration_come_first() {
        let rules = rules(&["/shop/{product}", "/shop/sale/{day}", "/archive/2024"]);
        let none = Lessons::default();
        for (path, expected) in [
            ("/shop/red-shoes ", "GET /shop/{product}"),
            ("/shop/sale/monday ", "GET /shop/sale/{day}"),
            ("/shop/sale ", "GET /shop/{product}"),
            ("/shop/red-shoes/reviews ", "GET /shop/{id}/reviews"),
            ("/archive/2024 ", "GET /archive/2024"),
            ("/archive/2023 ", "GET /archive/{id}"),
            ("/others/red-shoes ", "GET /others/red-shoes"),
        ] {
            assert_eq!(get(&rules, path, &none), expected, "{path}");
        }
        assert!(Rules::new(&["shop".to_owned()]).is_err());
    }

    /// So many users, and a page that everybody asks for.
    fn users(count: u64) -> Vec<(Path, u64)> {
        let letter = |number: u64| char::from(b'g' + (number % 19) as u8);
        let mut routes: Vec<_> = (0..count)
            .map(|user| {
                (
                    path(&format!("/users/{}{} ", letter(user), letter(user / 19))),
                    3,
                )
            })
            .collect();
        routes.push((path("/users/me "), count));
        routes.push((path("/health "), 1_000_000));
        routes
    }

    #[test]
    fn a_service_teaches_what_anything_may_follow() {
        let (rules, mut own) = (Rules::default(), Lessons::default());
        own.extend(rules.learn(&users(62), &own).unwrap());
        assert_eq!(get(&rules, "/users/alice ", &own), "GET /users/{id}");
        assert_eq!(
            get(&rules, "/users/alice/photos ", &own),
            "GET /users/{id}/photos"
        );
        assert_eq!(get(&rules, "/users/me ", &own), "GET /users/me");
        assert_eq!(get(&rules, "/health ", &own), "GET /health");
        // What is known is not learned again.
        assert_eq!(rules.learn(&users(62), &own), None);
    }

    #[test]
    fn routes_with_little_in_common_teach_nothing() {
        let (rules, none) = (Rules::default(), Lessons::default());
        let routes: Vec<_> = (0..64)
            .map(|number| {
                let letter = |of: u64| char::from(b'g' + (of % 16) as u8);
                (
                    path(&format!("/{}/{} ", letter(number), letter(number / 16))),
                    5,
                )
            })
            .collect();
        assert_eq!(rules.learn(&routes, &none), None);
        assert_eq!(rules.learn(&[], &none), None);
    }

    proptest! {
        #[test]
        fn whatever_is_asked_lessons_are_bounded_and_names_valid(
            paths in prop::collection::vec(("(/[ -~&&[^ ?]]{0,9}){1,5}", 1u64..100), 1..80),
            templates in prop::collection::vec("(/[a-c{}0-9]{0,4}){1,4}", 0..4),
        ) {
            let rules = Rules::new(&templates).unwrap();
            let mut own = Lessons::default();
            let routes: Vec<_> = paths
                .iter()
                .map(|(text, requests)| (path(&format!("{text} ")), *requests))
                .collect();
            while let Some(lesson) = rules.learn(&routes, &own) {
                let before = own.len();
                own.extend(lesson);
                prop_assert!(own.len() > before && own.len() <= LESSONS_MAX);
            }
            for (path, _) in &routes {
                prop_assert!(!rules.name(http(1), path, &own).is_other());
            }
        }
    }
}
