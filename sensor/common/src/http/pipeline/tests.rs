use std::{format, string::String, vec, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::redis::LOOKAHEAD;

fn bytes(text: &[u8]) -> Bytes {
    // What follows the valid bytes is anything.
    let mut bytes = [b'\n'; SCAN_LEN + LOOKAHEAD];
    bytes[..text.len()].copy_from_slice(text);
    bytes
}

/// Methods and begins of paths, and the scan at its end.
fn requests(text: &[u8], in_head: bool) -> (Vec<(u32, String)>, Cursor) {
    let (bytes, mut found) = (bytes(text), vec![]);
    let mut cursor = Cursor::new(text.len(), in_head);
    for _ in 0..STEPS_MAX {
        match step_requests(&bytes, &mut cursor) {
            Step::End => break,
            Step::More => {}
            Step::Request => {
                let path = &bytes[cursor.path as usize..][..cursor.path_len()];
                let path = String::from_utf8_lossy(path).into_owned();
                let path = path.split(' ').next().unwrap_or_default();
                found.push((cursor.method, path.into()));
            }
        }
    }
    (found, cursor)
}

fn statuses(text: &[u8], max: usize) -> Vec<u16> {
    let (bytes, mut found) = (bytes(text), [0; REQUESTS_MAX]);
    let mut cursor = Cursor::new(text.len(), false);
    let mut steps = 0;
    while steps < STEPS_MAX && step_responses(&bytes, &mut cursor, max as u32, &mut found) {
        steps += 1;
    }
    found[..cursor.count as usize].to_vec()
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
const DELETE: &str = "DELETE /b/1?q HTTP/1.1\r\nContent-Length: 0\r\n\r\n";

#[test]
fn requests_are_found_in_order() {
    let text = [GET, DELETE, GET].concat();
    let (found, cursor) = requests(text.as_bytes(), false);
    let expected = [(1, "/a"), (5, "/b/1?q"), (1, "/a")].map(|(m, path)| (m, path.into()));
    assert_eq!(found, expected);
    assert!(!cursor.is_cut());
    // The first of which is known already.
    let (found, _) = requests(&text.as_bytes()[4..], true);
    assert_eq!(found[1..], expected[1..]);
}

#[test]
fn a_body_ends_the_scan() {
    let text = format!("POST /a HTTP/1.1\r\nContent-Length: 12\r\n\r\nno request {GET}");
    let (found, cursor) = requests(text.as_bytes(), false);
    assert_eq!((found.len(), cursor.is_cut()), (1, false));
}

#[test]
fn more_requests_than_are_looked_for_are_said() {
    let (found, cursor) = requests(GET.repeat(REQUESTS_MAX + 1).as_bytes(), false);
    assert_eq!((found.len(), cursor.is_full()), (REQUESTS_MAX, true));
    let (found, cursor) = requests(GET.repeat(REQUESTS_MAX).as_bytes(), false);
    assert_eq!((found.len(), cursor.is_full()), (REQUESTS_MAX, false));
}

#[test]
fn responses_are_found_by_their_status() {
    let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nHHTTP/1.0 404 No\r\n\r\n\
        HTTP/2 200\r\nHTTP/1.1 503 No";
    assert_eq!(statuses(text, 64), [200, 404, 503]);
    assert_eq!(statuses(text, 2), [200, 404]);
    assert_eq!(statuses(b"HTTP/1.1 20", 64), []);
}

proptest! {
    #[test]
    fn whatever_the_bytes_scans_end_within_their_bounds(
        text in prop::collection::vec(any::<u8>(), 0..SCAN_LEN),
        in_head: bool,
        max in 0..=REQUESTS_MAX,
    ) {
        let (found, cursor) = requests(&text, in_head);
        prop_assert!(found.len() <= REQUESTS_MAX);
        prop_assert!(cursor.at as usize <= text.len() + METHOD_LEN_MAX);
        prop_assert!(statuses(&text, max).len() <= max);
    }

    #[test]
    fn whatever_looks_like_it_does_not_panic(
        text in "((GET|PUT|POST|HTTP/1.1 [0-9]{3}) ?/?[a-z]{0,9}(\r\n){0,3}\n?){0,120}",
        in_head: bool,
        max in 0..=REQUESTS_MAX,
    ) {
        let text = &text.as_bytes()[..text.len().min(SCAN_LEN)];
        prop_assert!(requests(text, in_head).0.len() <= REQUESTS_MAX);
        prop_assert!(statuses(text, max).len() <= max);
    }

    /// However requests are cut into reads, each is found once, where a part is
    /// put before the next read.
    #[test]
    fn requests_that_are_cut_are_found_once(
        written in prop::collection::vec(("(GET|HEAD|OPTIONS|PATCH)", "/[a-z/]{0,40}", "[ -~]{0,60}"), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let text: String = written
            .iter()
            .map(|(method, path, field)| format!("{method} {path} HTTP/1.1\r\nA: {field}\r\n\r\n"))
            .collect();
        prop_assume!(text.len() <= SCAN_LEN);
        let text = text.as_bytes();
        let cut = cut.index(text.len() + 1);
        let (mut found, cursor) = requests(&text[..cut], false);
        prop_assert_eq!(cursor.is_cut(), (cursor.begin as usize) < cut);
        let (rest, last) = requests(&text[cursor.begin as usize..], false);
        found.extend(rest);
        prop_assert!(!last.is_cut());
        let paths: Vec<_> = found.into_iter().map(|(_, path)| path).collect();
        let expected: Vec<_> = written.into_iter().map(|(_, path, _)| path).collect();
        prop_assert_eq!(paths, expected);
    }

    #[test]
    fn responses_written_together_are_counted(
        written in prop::collection::vec((200u16..600, "[ -GI-~]{0,60}"), 0..20),
    ) {
        let text: String = written
            .iter()
            .map(|(status, body)| format!("HTTP/1.1 {status} X\r\n\r\n{body}"))
            .collect();
        prop_assume!(text.len() <= SCAN_LEN);
        let expected: Vec<_> = written.into_iter().map(|(status, _)| status).collect();
        prop_assert_eq!(statuses(text.as_bytes(), 64), expected);
    }
}
