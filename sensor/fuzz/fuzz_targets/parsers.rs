//! The parsers that the kernel programs share with user space, on bytes that may
//! be anything: no panic, no step too many, no number without a name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sensor_common::{
    dns,
    http::{self, PATH_LEN_MAX, pipeline},
    http2, kafka, postgresql, protocol,
    redis::{self, Bytes, COMMANDS_MAX, LOOKAHEAD, SCAN_LEN},
    tls,
};

/// The begin of the input, what is behind it anything.
fn first<const N: usize>(input: &[u8]) -> ([u8; N], usize) {
    let mut bytes = [0xff; N];
    let len = input.len().min(N);
    bytes[..len].copy_from_slice(&input[..len]);
    (bytes, len)
}

fn scanned(input: &[u8]) -> (Bytes, usize) {
    let (bytes, len) = first::<{ SCAN_LEN + LOOKAHEAD }>(input);
    (bytes, len.min(SCAN_LEN))
}

fn http1(input: &[u8], max: u32) {
    let (bytes, len) = scanned(input);
    for in_head in [false, true] {
        let mut cursor = pipeline::Cursor::new(len, in_head);
        for _ in 0..pipeline::STEPS_MAX {
            match pipeline::step_requests(&bytes, &mut cursor) {
                pipeline::Step::End => break,
                pipeline::Step::More => {}
                pipeline::Step::Request => {
                    let end = cursor.path as usize + cursor.path_len();
                    assert!(end <= len, "a path behind the end");
                }
            }
        }
    }
    let mut found = [0; pipeline::REQUESTS_MAX];
    let max = max.min(pipeline::REQUESTS_MAX as u32);
    let mut cursor = pipeline::Cursor::new(len, false);
    let mut steps = 0;
    while steps < pipeline::STEPS_MAX
        && pipeline::step_responses(&bytes, &mut cursor, max, &mut found)
    {
        steps += 1;
    }
    assert!(cursor.count <= max);
    let _ = http::method(first(input).0);
    let _ = http::status(first(input).0);
    let (path, len) = first::<PATH_LEN_MAX>(input);
    if let Some(shape) = http::shape(&path, len, &()) {
        assert!(shape.len as usize <= len);
    }
}

fn http2(input: &[u8]) {
    let mut side = http2::Side::NEW;
    let mut path = [0; PATH_LEN_MAX];
    // In several reads, each going on where the last one ended.
    for part in input.chunks(97) {
        let (bytes, len) = scanned(part);
        let mut cursor = http2::Cursor::new(len as u32, 0);
        for _ in 0..http2::STEPS_MAX {
            match cursor.step(&bytes, &mut side, &mut path) {
                http2::Next::Stop => break,
                http2::Next::Path => {
                    assert!(cursor.path_len() as usize <= PATH_LEN_MAX);
                    cursor.path_is_known(&mut side, 1);
                }
                _ => {}
            }
        }
    }
}

fn redis(input: &[u8], max: usize) {
    let (bytes, len) = scanned(input);
    let (max, mut found) = (max.min(COMMANDS_MAX), [0; COMMANDS_MAX]);
    let mut commands = redis::Cursor::new(len, 0);
    let mut steps = 0;
    while steps < redis::STEPS_MAX && redis::step_commands(&bytes, &mut commands, &mut found) {
        steps += 1;
    }
    assert!(commands.count as usize <= COMMANDS_MAX);
    let mut replies = redis::Cursor::new(len, max);
    steps = 0;
    while steps < redis::STEPS_MAX && redis::step_replies(&bytes, &mut replies, &mut found) {
        steps += 1;
    }
    assert!(replies.count as usize <= max);
}

fn postgresql(input: &[u8]) {
    let (bytes, len) = first::<{ postgresql::HEAD_LEN }>(input);
    let walk = |mut cursor: postgresql::Cursor| {
        let mut steps = 0;
        while steps < postgresql::STEPS_MAX && cursor.step(&bytes) {
            steps += 1;
        }
        cursor
    };
    if let Some(Err(cursor)) = postgresql::begin_request(bytes[0], len) {
        let _ = postgresql::name(walk(cursor).verb());
    }
    let class = walk(postgresql::begin_response(len)).class();
    assert!(class == 0 || (2..=5).contains(&class));
}

fn kafka(input: &[u8], head: u64) {
    let part = |at: u32| {
        let there = input.get(at as usize..).filter(|rest| !rest.is_empty())?;
        let (bytes, len) = first(there);
        Some(kafka::Part::new(bytes, len))
    };
    let code = kafka::error_code(head as u32, part);
    assert!(code.is_none() || kafka::has_error_code(head as u32));
    assert!((2..=5).contains(&kafka::class(code.unwrap_or_default())));
    if kafka::begins(head, input.len() as u32) {
        assert!(kafka::name(kafka::api(head)).is_some());
    }
}

fn others(input: &[u8], head: u64) {
    let _ = protocol::detect(head, input.len() as u32);
    let (begin, _) = first(input);
    let begin = dns::Begin(&begin);
    let _ = (begin.name(), begin.message(input.len() as u32));
    let (question, len) = first(input);
    if let Some(of_type) = dns::question(&question, len) {
        let _ = dns::name(dns::number(of_type));
    }
    let _ = tls::Record::parse(first(input).0);
}

fuzz_target!(|input: &[u8]| {
    // Which parser, then a number that some of them want.
    let Some(([which, number], input)) = input.split_first_chunk() else {
        return;
    };
    let head = u64::from_be_bytes(first(input).0);
    match which % 6 {
        0 => http1(input, u32::from(*number)),
        1 => http2(input),
        2 => redis(input, usize::from(*number)),
        3 => postgresql(input),
        4 => kafka(
            input,
            u64::from(*which) << 40 | u64::from(*number) << 16 | head >> 59,
        ),
        _ => others(input, head),
    }
});
