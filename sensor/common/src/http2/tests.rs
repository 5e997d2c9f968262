use std::{format, string::String, vec, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::redis::{LOOKAHEAD, SCAN_LEN};

fn new_side() -> Side {
    Side::NEW
}

/// Paths by block, and what else the blocks said.
fn read(side: &mut Side, input: &[u8]) -> Vec<(String, Block)> {
    let mut bytes = [0xff; SCAN_LEN + LOOKAHEAD];
    let len = input.len().min(SCAN_LEN);
    bytes[..len].copy_from_slice(&input[..len]);
    let (mut path, mut text) = ([0; PATH_LEN_MAX], String::new());
    let mut cursor = Cursor::new(len as u32, 0);
    let mut blocks = Vec::new();
    for _ in 0..STEPS_MAX {
        match cursor.step(&bytes, side, &mut path) {
            Next::Stop => break,
            Next::Path => {
                let len = cursor.path_len() as usize;
                text = String::from_utf8_lossy(&path[..len]).into_owned();
                cursor.path_is_known(side, 1000 + len as u64);
            }
            Next::Block => blocks.push((core::mem::take(&mut text), cursor.block)),
            Next::Step | Next::Reset | Next::End => {}
        }
    }
    blocks
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// RFC 7541, C.4: three requests of one connection, coded.
#[test]
fn requests_of_the_rfc_are_read() {
    let first = [
        0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90,
        0xf4, 0xff,
    ];
    let second = [
        0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf,
    ];
    let third = [
        0x82, 0x87, 0x85, 0xbf, 0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f, 0x89,
        0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf,
    ];
    let mut side = Side::NEW;
    let input = [
        frame(4, 0, 0, &[0; 12]),
        frame(1, 5, 1, &first),
        frame(1, 4, 3, &second),
        frame(0, 1, 3, b"body"),
        frame(1, 5, 5, &third),
    ]
    .concat();
    let blocks = read(&mut side, &input);
    let paths: Vec<_> = blocks.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["/", "/", "/index.html"]);
    assert!(blocks.iter().all(|(_, block)| block.method == 1));
    assert_eq!(
        blocks
            .iter()
            .map(|(_, block)| block.ends)
            .collect::<Vec<_>>(),
        [1, 0, 1]
    );
    assert_eq!(side.is_lost, 0);
}

/// RFC 7541, C.6: three responses, coded.
#[test]
fn responses_of_the_rfc_are_read() {
    let first = [
        0x48, 0x82, 0x64, 0x02, 0x58, 0x85, 0xae, 0xc3, 0x77, 0x1a, 0x4b,
    ];
    let second = [0x48, 0x83, 0x64, 0x0e, 0xff];
    let third = [0xc0];
    let mut side = Side::NEW;
    let input = [
        frame(1, 4, 1, &first),
        frame(1, 4, 3, &second),
        frame(1, 4, 5, &third),
    ];
    let statuses: Vec<_> = read(&mut side, &input.concat())
        .iter()
        .map(|(_, block)| block.status)
        .collect();
    // The last names an entry again that said 302.
    assert_eq!(statuses, [302, 307, 302]);
}

#[test]
fn calls_of_grpc_are_read_and_named_again_by_index() {
    let literal = |name: u8, text: &str| {
        let mut field = vec![0x40 | name, text.len() as u8];
        field.extend(text.as_bytes());
        field
    };
    let call = [
        vec![0x83, 0x86],
        literal(4, "/shop.Cart/Add"),
        literal(31, "application/grpc+proto"),
    ]
    .concat();
    // The content type was added last.
    let again = [0x83, 0x86, 0xbf, 0xbe];
    let mut side = Side::NEW;
    let blocks = read(
        &mut side,
        &[frame(1, 4, 1, &call), frame(1, 4, 3, &again)].concat(),
    );
    let (path, block) = &blocks[0];
    assert_eq!(
        (path.as_str(), block.method, block.is_grpc, block.path),
        ("/shop.Cart/Add", 3, 1, 1)
    );
    let (_, block) = &blocks[1];
    assert_eq!((block.shape, block.is_grpc, block.path), (1014, 1, 2));

    let (coded, len) = huffman::encoded(b"grpc-status");
    let trailers = [
        vec![0x40, 0x80 | len as u8],
        coded.to_be_bytes()[..len].to_vec(),
        vec![2, b'1', b'4'],
        vec![0x40, 11],
        b"grpc-status".to_vec(),
        vec![1, b'0'],
    ];
    for (fields, expected) in [(&trailers[..3], 15), (&trailers[3..], 1)] {
        let input = frame(1, 5, 1, &fields.concat());
        assert_eq!(read(&mut new_side(), &input)[0].1.grpc_status, expected);
    }
    assert_eq!([0, 1, 5, 13, 14].map(grpc_class), [2, 4, 4, 5, 5]);
}

#[test]
fn methods_are_read_coded_or_not() {
    for method in http::Method::ALL {
        let text = method.name();
        let (coded, len) = huffman::encoded(text.as_bytes());
        let coded = [&[0x02, 0x80 | len as u8], &coded.to_be_bytes()[..len]].concat();
        let plain = [&[0x02, text.len() as u8], text.as_bytes()].concat();
        for fields in [coded, plain] {
            let blocks = read(&mut new_side(), &frame(1, 4, 1, &fields));
            assert_eq!(blocks[0].1.method, method as u32, "{text}");
        }
    }
    let blocks = read(
        &mut new_side(),
        &frame(1, 4, 1, &[0x02, 3, b'G', b'O', b'T']),
    );
    assert_eq!(blocks[0].1.method, 0);
}

#[test]
fn what_is_cut_off_is_not_guessed() {
    let mut side = Side::NEW;
    let whole = frame(1, 4, 1, &[0x82, 0x84]);
    for len in 0..whole.len() {
        assert_eq!(read(&mut side, &whole[..len]), []);
        assert_eq!((side.is_lost, side.skip), (0, 0), "{len}");
    }
    let data = frame(0, 0, 1, &[0; 500]);
    assert_eq!(read(&mut side, &data[..100]), []);
    assert_eq!((side.is_lost, side.skip), (0, 409));
    let in_pieces = frame(1, 0, 1, &[0x82]);
    assert_eq!(read(&mut side, &in_pieces), []);
    assert_eq!(side.is_lost, 1);
    assert!(format!("{side:?}").contains("is_lost: 1"));
}

proptest! {
    #[test]
    fn whatever_the_bytes_nothing_panics(
        input in prop::collection::vec(any::<u8>(), 0..SCAN_LEN + 10),
    ) {
        read(&mut new_side(), &input);
    }

    #[test]
    fn whatever_the_fields_nothing_panics(
        blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..10),
        flags in any::<u8>(),
    ) {
        let mut side = Side::NEW;
        let input: Vec<u8> = blocks.iter().flat_map(|block| frame(1, flags | 4, 1, block)).collect();
        for (path, _) in read(&mut side, &input) {
            prop_assert!(path.len() <= 3 * PATH_LEN_MAX);
        }
    }
}
