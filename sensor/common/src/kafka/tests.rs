use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn begin(key: u64, version: u64) -> u64 {
    0x20 << 32 | key << 16 | version
}

#[test]
fn apis_have_the_names_of_their_keys() {
    for (key, expected) in [
        (0, "Produce"),
        (1, "Fetch"),
        (18, "ApiVersions"),
        (36, "SaslAuthenticate"),
        (60, "DescribeCluster"),
        (68, "ConsumerGroupHeartbeat"),
        (75, "DescribeTopicPartitions"),
        (92, "DeleteShareGroupOffsets"),
    ] {
        assert_eq!(name(api(begin(key, 3))), Some(expected));
        assert!(begins(begin(key, 3), 0x24));
    }
    assert_eq!(api(begin(93, 0)), 0);
    assert_eq!(name(0), None);
    assert!(!begins(begin(1, 3), 0x25));
    assert!(!begins(begin(1, 77), 0x24));
}

/// What [`error_code`] finds in a response of these parts.
fn code_of(api: &str, version: u32, parts: &[&[u8]]) -> Option<i16> {
    let key = NAMES.iter().position(|name| *name == api).unwrap() as u32;
    let response = parts.concat();
    error_code(key << 16 | version, |at| part(&response, at))
}

fn part(response: &[u8], at: u32) -> Option<Part> {
    let there = response
        .get(at as usize..)
        .filter(|rest| !rest.is_empty())?;
    let len = there.len().min(PART_LEN);
    let mut bytes = [0; PART_LEN];
    bytes[..len].copy_from_slice(&there[..len]);
    Some(Part::new(bytes, len))
}

const NO_TAGS: &[u8] = &[0];
const NO_THROTTLING: &[u8] = &[0, 0, 0, 0];
const NOT_COORDINATOR: &[u8] = &[0, 16];
const TOPIC_ID: &[u8] = &[7; 16];

/// As the protocol's message definitions have them (KIP-482 for flexible ones).
#[test]
fn error_codes_are_found_where_each_version_has_them() {
    let code = Some(16);
    let parts = [NOT_COORDINATOR, &[1]];
    assert_eq!(code_of("Heartbeat", 0, &parts), code);
    assert_eq!(code_of("ApiVersions", 4, &parts), code);
    let parts = [NO_THROTTLING, NOT_COORDINATOR];
    assert_eq!(code_of("Heartbeat", 3, &parts), code);
    assert_eq!(code_of("Fetch", 11, &parts), code);
    let parts = [NO_TAGS, NO_THROTTLING, NOT_COORDINATOR];
    assert_eq!(code_of("Heartbeat", 4, &parts), code);
    assert_eq!(code_of("FindCoordinator", 3, &parts), code);
    assert_eq!(code_of("FindCoordinator", 4, &parts), None);
    assert_eq!(code_of("Metadata", 12, &parts), None);
    // Of Produce the first partition, by the name of its topic or its id.
    let (one, named, index) = ([0, 0, 0, 1], b"\0\x06orders", [0, 0, 0, 5]);
    let parts: [&[u8]; 5] = [&one, named, &one, &index, NOT_COORDINATOR];
    assert_eq!(code_of("Produce", 8, &parts), code);
    let parts = [NO_TAGS, &[2], b"\x07orders", &[3], &index, NOT_COORDINATOR];
    assert_eq!(code_of("Produce", 9, &parts), code);
    let parts = [NO_TAGS, &[2], TOPIC_ID, &[2], &index, NOT_COORDINATOR];
    assert_eq!(code_of("Produce", 13, &parts), code);
    // A name of 200 bytes has a length of two.
    let name = [b'x'; 200];
    let parts: [&[u8]; 7] = [
        NO_TAGS,
        &[2],
        &[0xc9, 1],
        &name,
        &[2],
        &index,
        NOT_COORDINATOR,
    ];
    assert_eq!(code_of("Produce", 9, &parts), code);
    let parts = [
        NO_TAGS,
        NO_THROTTLING,
        &[2],
        b"\x07orders",
        TOPIC_ID,
        NOT_COORDINATOR,
    ];
    assert_eq!(code_of("CreateTopics", 7, &parts), code);
    // Nothing that could have failed.
    assert_eq!(code_of("Produce", 9, &[NO_TAGS, &[1], &[0; 9]]), Some(0));
    // What is cut, or has tagged fields in its header.
    assert_eq!(code_of("Heartbeat", 0, &[&[0]]), None);
    assert_eq!(code_of("Heartbeat", 4, &[&[1; 20]]), None);
}

#[test]
fn codes_have_classes() {
    for (code, expected) in [(0, 2), (6, 3), (79, 3), (3, 4), (29, 4), (-1, 5), (19, 5)] {
        assert_eq!(class(code), expected, "{code}");
    }
}

proptest! {
    /// Nor is anything read behind the end.
    #[test]
    fn whatever_the_bytes_nothing_panics(
        response in prop::collection::vec(any::<u8>(), 0..400),
        request: u32,
        key in 0..100u32,
        version in 0..32u32,
    ) {
        for request in [request, key << 16 | version] {
            let code = error_code(request, |at| part(&response, at));
            prop_assert!(code.is_none() || has_error_code(request));
            prop_assert!((2..=5).contains(&class(code.unwrap_or_default())));
            let head = u64::from(request) | u64::from(key) << 32;
            prop_assert!(!begins(head, response.len() as u32) || name(api(head)).is_some());
        }
    }

    /// A code that is there is found, whatever name is before it.
    #[test]
    fn the_code_of_a_produced_batch_is_found(
        topic in "[a-z.]{1,249}",
        code: i16,
        partition: u32,
        is_flexible: bool,
    ) {
        let mut response = Vec::new();
        let length = topic.len() as u16;
        if is_flexible {
            response.extend([0, 2]);
            let plus_one = length + 1;
            if plus_one < 0x80 {
                response.push(plus_one as u8);
            } else {
                response.extend([plus_one as u8 | 0x80, (plus_one >> 7) as u8]);
            }
        } else {
            response.extend([0, 0, 0, 1]);
            response.extend(length.to_be_bytes());
        }
        response.extend(topic.as_bytes());
        response.extend(if is_flexible { &[2][..] } else { &[0, 0, 0, 1] });
        response.extend(partition.to_be_bytes());
        response.extend(code.to_be_bytes());
        let version = if is_flexible { 9 } else { 3 };
        prop_assert_eq!(code_of("Produce", version, &[&response]), Some(code));
        response.pop();
        prop_assert_eq!(code_of("Produce", version, &[&response]), None);
    }
}
