use std::{format, string::String, vec::Vec};

use proptest::prelude::*;

use super::*;

fn padded<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut bytes = [b'#'; N];
    let len = text.len().min(N);
    bytes[..len].copy_from_slice(&text[..len]);
    bytes
}

/// Paths by hash.
#[derive(Default)]
struct Lessons {
    take_any: Vec<u64>,
    literal: Vec<u64>,
}

impl Learned for Lessons {
    fn takes_any(&self, path: u64) -> bool {
        self.take_any.contains(&path)
    }

    fn is_literal(&self, path: u64) -> bool {
        self.literal.contains(&path)
    }
}

/// The shape and the template of a request target.
fn learned(target: &[u8]) -> Option<(u64, String)> {
    learned_with(target, &Lessons::default())
}

fn learned_with(target: &[u8], lessons: &Lessons) -> Option<(u64, String)> {
    let bytes = padded(target);
    let shape = shape(&bytes, target.len().min(PATH_LEN_MAX), lessons)?;
    let template = Template {
        path: &bytes[..shape.len as usize],
        is_whole: shape.is_whole,
        learned: lessons,
    };
    Some((shape.hash, format!("{template}")))
}

/// Hashes of the path up to each segment, spelled out or not as it looks.
fn hashes(path: &str) -> Vec<u64> {
    let steps = Steps::new(path.as_bytes(), true, &());
    steps.map(|step| step.after).collect()
}

#[test]
fn what_was_learned_comes_before_what_segments_look_like() {
    let users = hashes("/users")[0];
    let me = hashes("/users/me")[1];
    let steps: Vec<_> = Steps::new(b"/archive/2024", true, &()).collect();
    let lessons = Lessons {
        take_any: [users].into(),
        literal: [me, steps[1].literal].into(),
    };
    for (path, template) in [
        ("/users/alice ", "/users/{id}"),
        ("/users/alice/photos ", "/users/{id}/photos"),
        ("/users/me ", "/users/me"),
        ("/users ", "/users"),
        ("/archive/2024 ", "/archive/2024"),
        ("/archive/2023 ", "/archive/{id}"),
        ("/others/alice ", "/others/alice"),
    ] {
        let (_, found) = learned_with(path.as_bytes(), &lessons).unwrap();
        assert_eq!(found, template, "{path}");
    }
}

fn check(path: &str, template: &str) {
    let target = format!("{path} HTTP/1.1\r\n");
    let (_, found) = learned(target.as_bytes()).unwrap();
    assert_eq!(found, template, "{path}");
}

#[test]
fn generated_segments_become_a_placeholder() {
    for (path, template) in [
        ("/", "/"),
        ("/users/42", "/users/{id}"),
        ("/users/42/orders/7?page=3", "/users/{id}/orders/{id}"),
        ("/users/?q=a/b/1234", "/users"),
        ("//users//42/", "/users/{id}"),
        ("/api/v1/users", "/api/v1/users"),
        ("/oauth2/token", "/oauth2/token"),
        ("/o/123e4567-e89b-12d3-a456-426614174000", "/o/{id}"),
        ("/o/abcdefab-cdef-4bcd-afab-cdefabcdefab", "/o/{id}"),
        (
            "/blob/da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "/blob/{id}",
        ),
        ("/feedback/added", "/feedback/added"),
        ("/search/caf%C3%A9", "/search/{id}"),
        ("/by-mail/a@example.org", "/by-mail/{id}"),
        ("/a;jsessionid=x", "/{id}"),
        ("/static/main.3f2a9c1.js", "/static/{id}"),
        ("/projects:search", "/projects:search"),
    ] {
        check(path, template);
    }
}

#[test]
fn a_long_path_is_cut_where_the_last_whole_segment_ends() {
    let begin = "/abc".repeat(PATH_LEN_MAX / 4 - 1);
    let path = format!("{begin}/{}", "x".repeat(200));
    check(&path, &format!("{begin}/{{rest}}"));
    let other = format!("{begin}/{}", "y".repeat(100));
    let [one, two] = [path, other].map(|path| learned(path.as_bytes()).unwrap().0);
    assert_eq!(one, two);
}

#[test]
fn what_is_no_path_has_no_shape() {
    for target in [
        "",
        "*",
        "http://example.org/",
        "/a\r\n",
        "/a\0b ",
        "users/1 ",
    ] {
        assert_eq!(learned(target.as_bytes()), None, "{target:?}");
    }
}

#[test]
fn a_path_that_ends_with_the_bytes_is_not_whole() {
    let shape = shape(&padded(b"/users"), 6, &()).unwrap();
    assert!(!shape.is_whole);
    assert_eq!(shape.len, 6);
}

#[test]
fn methods_are_recognised_with_their_length() {
    for known in Method::ALL {
        let line = format!("{} /a HTTP/1.1", known.name());
        let expected = (known as u8, known.name().len() as u32 + 1);
        assert_eq!(method(padded(line.as_bytes())), Some(expected));
        assert_eq!(Method::from_number(known as u8), Some(known));
    }
    for other in [
        "",
        "GET",
        "get / HTT",
        "GETS / H",
        "PRI * HTTP/2.0",
        "*1\r\n$4\r\n",
    ] {
        assert_eq!(method(padded(other.as_bytes())), None, "{other:?}");
    }
    assert_eq!(Method::from_number(0), None);
}

#[test]
fn the_status_is_read() {
    for (line, expected) in [
        ("HTTP/1.1 200 OK", Some(200)),
        ("HTTP/1.0 404 Not", Some(404)),
        ("HTTP/1.1 599", Some(599)),
        ("HTTP/1.1 600", None),
        ("HTTP/1.1 099", None),
        ("HTTP/1.1 20x", None),
        ("HTTP/2 200 O", None),
        ("HTTP/1.1200 ", None),
        ("", None),
    ] {
        assert_eq!(status(padded(line.as_bytes())), expected, "{line:?}");
    }
}

/// Paths of which many share a template.
fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        Just(String::from("users")),
        Just(String::from("v1")),
        Just(String::new()),
        "[a-c]{1,2}",
        "[0-9]{1,5}",
        "[0-9a-f]{7,9}",
        "[ -~&&[^/? {}]]{0,40}",
    ];
    prop::collection::vec(segment, 0..6).prop_map(|segments| {
        let mut path = String::new();
        for segment in segments {
            path.push('/');
            path.push_str(&segment);
        }
        path.push_str("/?x");
        path
    })
}

proptest! {
    /// The text and the hash tell the same paths apart, whatever was learned.
    #[test]
    fn shapes_are_equal_where_templates_are(
        (one, two) in (path(), path()),
        take_any in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        literal in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let paths = [&one, &two].map(|path| path.trim_end_matches("?x"));
        let steps: Vec<_> = paths
            .iter()
            .flat_map(|path| Steps::new(path.as_bytes(), true, &()).collect::<Vec<_>>())
            .collect();
        let mut lessons = Lessons::default();
        if !steps.is_empty() {
            let before = take_any.iter().map(|index| index.get(&steps).before);
            lessons.take_any.extend(before);
            let spelled = literal.iter().map(|index| index.get(&steps).literal);
            lessons.literal.extend(spelled);
        }
        let [one, two] = [one, two].map(|path| learned_with(path.as_bytes(), &lessons).unwrap());
        prop_assert_eq!(one.0 == two.0, one.1 == two.1, "{:?} {:?}", one, two);
    }

    #[test]
    fn the_query_is_not_looked_at(path in path(), query in "[ -~]{0,50}") {
        let with_query = format!("{path}{query}");
        prop_assert_eq!(learned(path.as_bytes()), learned(with_query.as_bytes()));
        let (_, template) = learned(with_query.as_bytes()).unwrap();
        prop_assert!(!template.contains('?'));
    }

    /// What an earlier request left in the buffer is not looked at.
    #[test]
    fn bytes_past_the_length_are_not_looked_at(
        bytes in prop::collection::vec(any::<u8>(), PATH_LEN_MAX),
        others in prop::collection::vec(any::<u8>(), PATH_LEN_MAX),
        len in 0..=PATH_LEN_MAX,
    ) {
        let mut mixed: Vec<u8> = bytes[..len].to_vec();
        mixed.extend(&others[len..]);
        prop_assert_eq!(shape(&padded(&bytes), len, &()), shape(&padded(&mixed), len, &()));
    }

    #[test]
    fn arbitrary_bytes_give_printable_templates(mut bytes in prop::collection::vec(any::<u8>(), 1..150)) {
        bytes[0] = b'/';
        if let Some((hash, template)) = learned(&bytes) {
            prop_assert_ne!(hash, 0);
            prop_assert!(template.starts_with('/'));
            prop_assert!(template.bytes().all(|byte| (0x21..0x7f).contains(&byte)), "{}", template);
            prop_assert!(template.len() <= TEMPLATE_LEN_MAX, "{}", template.len());
        }
    }

    #[test]
    fn arbitrary_bytes_have_a_status_in_range_or_none(bytes: [u8; STATUS_LEN]) {
        if let Some(status) = status(bytes) {
            prop_assert!((100..600).contains(&status));
        }
        let _ = method(padded(&bytes));
    }

    /// A configuration may have more, and other bytes, than a path.
    #[test]
    fn arbitrary_segments_are_literal_or_generated(
        bytes in prop::collection::vec(any::<u8>(), 0..1000),
    ) {
        for step in Steps::new(&bytes, true, &()) {
            prop_assert!(!step.segment.is_empty());
            let is_long = step.segment.len() > SEGMENT_LEN_MAX as usize;
            prop_assert!(!is_long || step.is_placeholder());
        }
    }
}
