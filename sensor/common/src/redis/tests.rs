use std::{format, string::String, vec, vec::Vec};

use proptest::prelude::*;

use super::*;

fn bytes(text: &[u8]) -> Bytes {
    let mut bytes = [0xff; SCAN_LEN + LOOKAHEAD];
    bytes[..text.len()].copy_from_slice(text);
    bytes
}

type Step = fn(&Bytes, &mut Cursor, &mut [u16; COMMANDS_MAX]) -> bool;

fn scan(step: Step, text: &[u8], max: usize) -> (Vec<u16>, bool) {
    let (bytes, mut found) = (bytes(text), [0; COMMANDS_MAX]);
    let mut cursor = Cursor::new(text.len(), max);
    let mut steps = 0;
    while steps < STEPS_MAX && step(&bytes, &mut cursor, &mut found) {
        steps += 1;
    }
    (found[..cursor.count as usize].to_vec(), cursor.is_whole())
}

fn names(text: &[u8]) -> (Vec<&'static str>, bool) {
    let (found, is_whole) = scan(step_commands, text, 0);
    let names = found
        .into_iter()
        .map(|number| name(number).unwrap_or("other"));
    (names.collect(), is_whole)
}

fn classes(text: &[u8], max: usize) -> (Vec<u16>, bool) {
    scan(step_replies, text, max)
}

fn array(words: &[&str]) -> String {
    let values = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), values.collect::<String>())
}

#[test]
fn commands_are_found_in_order() {
    let text = [
        array(&["SET", "key", "a\r\nb $5 *3"]),
        array(&["get", "key"]),
        array(&["JSON.GET", "key"]),
        array(&["ZREVRANGEBYSCORE", "key", "1", "2"]),
        array(&["SET", "empty", ""]),
    ]
    .concat();
    let expected = vec!["SET", "GET", "other", "ZREVRANGEBYSCORE", "SET"];
    assert_eq!(names(text.as_bytes()), (expected, true));
}

#[test]
fn commands_of_one_line_are_found() {
    assert_eq!(
        names(b"PING\r\nset a b\r\nget a\n"),
        (vec!["PING", "SET", "GET"], true)
    );
    assert_eq!(names(b"GET /index.html HTTP/1.1\r\n").0, ["GET"]);
    assert_eq!(names(b"\x16\x03\x01"), (vec![], false));
}

#[test]
fn what_is_cut_off_is_said() {
    let text = array(&["SET", "key", "value"]);
    for len in 0..text.len() {
        let (names, is_whole) = names(&text.as_bytes()[..len]);
        assert!(names.is_empty() || names == ["SET"], "{len}");
        assert_eq!(is_whole, len == 0, "{len}");
    }
    let many = array(&["PING"]).repeat(COMMANDS_MAX + 1);
    assert_eq!(names(many.as_bytes()), (vec!["PING"; COMMANDS_MAX], false));
}

#[test]
fn replies_are_told_apart() {
    let text = b"+OK\r\n$5\r\nhello\r\n$-1\r\n:42\r\n-ERR no\r\n*2\r\n$1\r\na\r\n*1\r\n:7\r\n\
        -MOVED 3999 a:1\r\n-LOADING x\r\n*0\r\n%1\r\n+a\r\n:1\r\n*-1\r\n_\r\n$0\r\n\r\n";
    let expected = vec![2, 2, 2, 2, 4, 2, 3, 5, 2, 2, 2, 2, 2];
    assert_eq!(classes(text, 64), (expected, true));
    assert_eq!(classes(text, 2).0, [2, 2]);
    assert_eq!(classes(b"+OK\r\n$100\r\nabc", 64), (vec![2, 2], false));
    assert_eq!(classes(b"HTTP/1.1 200", 64), (vec![], false));
}

proptest! {
    #[test]
    fn whatever_the_bytes_scans_end_within_their_bounds(
        text in prop::collection::vec(any::<u8>(), 0..SCAN_LEN),
        max in 0..=COMMANDS_MAX,
    ) {
        prop_assert!(names(&text).0.len() <= COMMANDS_MAX);
        prop_assert!(classes(&text, max).0.len() <= max);
    }

    #[test]
    fn whatever_looks_like_it_does_not_panic(
        text in "([*$+:%-][0-9]{0,9}\r\n|[a-zA-Z]{0,20}\r?\n?){0,100}",
        max in 0..=COMMANDS_MAX,
    ) {
        let text = &text.as_bytes()[..text.len().min(SCAN_LEN)];
        prop_assert!(names(text).0.len() <= COMMANDS_MAX);
        prop_assert!(classes(text, max).0.len() <= max);
    }

    #[test]
    fn commands_written_by_clients_are_counted(
        commands in prop::collection::vec(prop::collection::vec("[ -~]{0,20}", 1..5), 1..12),
    ) {
        let text: String = commands
            .iter()
            .map(|words| array(&words.iter().map(String::as_str).collect::<Vec<_>>()))
            .collect();
        prop_assume!(text.len() <= SCAN_LEN);
        let (found, is_whole) = names(text.as_bytes());
        prop_assert_eq!((found.len(), is_whole), (commands.len(), true));
    }
}
