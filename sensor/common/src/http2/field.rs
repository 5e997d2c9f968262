//! Numbers and texts of fields, as they are on the wire (RFC 7541, 5).

use super::{huffman, kind};
use crate::{
    http,
    redis::{Bytes, SCAN_LEN},
};

#[inline(always)]
pub fn byte(bytes: &Bytes, at: u32) -> u8 {
    bytes[at as usize & (SCAN_LEN - 1)]
}

#[inline(always)]
pub fn eight(bytes: &Bytes, at: u32) -> u64 {
    let at = at as usize & (SCAN_LEN - 1);
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(eight)
}

/// A number that begins in the bits of `mask` (RFC 7541, 5.1), and what follows.
#[inline(always)]
pub fn integer(bytes: &Bytes, at: u32, mask: u8) -> Option<(u32, u32)> {
    let first = byte(bytes, at) & mask;
    if first < mask {
        return Some((u32::from(first), at + 1));
    }
    let (b, c) = (
        u32::from(byte(bytes, at + 1)),
        u32::from(byte(bytes, at + 2)),
    );
    let low = u32::from(mask) + (b & 0x7f);
    if b & 0x80 == 0 {
        return Some((low, at + 2));
    }
    (c & 0x80 == 0).then_some((low + (c << 7), at + 3))
}

/// A string: where it begins, its length, and whether it is coded.
#[derive(Clone, Copy)]
pub struct Text {
    pub at: u32,
    pub len: u32,
    pub is_coded: bool,
}

#[inline(always)]
pub fn text(bytes: &Bytes, at: u32) -> Option<Text> {
    let is_coded = byte(bytes, at) & 0x80 != 0;
    let (len, at) = integer(bytes, at, 0x7f)?;
    Some(Text { at, len, is_coded })
}

/// Whether a text of up to eight bytes, coded or not, is `wanted`.
macro_rules! is_text {
    ($head:expr, $text:expr, $wanted:literal) => {{
        const PLAIN: (u64, usize) = plain($wanted);
        const CODED: (u64, usize) = huffman::encoded($wanted);
        let (head, len) = if $text.is_coded { CODED } else { PLAIN };
        $text.len as usize == len && $head >> (64 - 8 * len) == head >> (64 - 8 * len)
    }};
}

/// The first eight bytes, and the length.
const fn plain(text: &[u8]) -> (u64, usize) {
    let (mut head, mut at) = (0, 0);
    while at < text.len() && at < 8 {
        head |= (text[at] as u64) << (56 - 8 * at);
        at += 1;
    }
    (head, text.len())
}

#[inline(always)]
pub fn name_kind(bytes: &Bytes, text: Text) -> u32 {
    const PLAIN: (u64, usize) = plain(b"grpc-status");
    const CODED: (u64, usize) = huffman::encoded(b"grpc-status");
    let (head, len) = if text.is_coded { CODED } else { PLAIN };
    if text.len as usize == len && eight(bytes, text.at) == head {
        kind::GRPC_STATUS
    } else {
        kind::NONE
    }
}

#[inline(always)]
pub fn static_kind(index: u32) -> u32 {
    match index {
        2 | 3 => kind::METHOD,
        4 | 5 => kind::PATH,
        8..=14 => kind::STATUS,
        31 => kind::CONTENT_TYPE,
        _ => kind::NONE,
    }
}

/// The number of a method, 0 if it is not known.
#[inline(always)]
pub fn method(bytes: &Bytes, text: Text) -> u64 {
    use http::Method;
    let head = eight(bytes, text.at);
    let method = if is_text!(head, text, b"GET") {
        Method::Get
    } else if is_text!(head, text, b"POST") {
        Method::Post
    } else if is_text!(head, text, b"PUT") {
        Method::Put
    } else if is_text!(head, text, b"DELETE") {
        Method::Delete
    } else if is_text!(head, text, b"HEAD") {
        Method::Head
    } else if is_text!(head, text, b"PATCH") {
        Method::Patch
    } else if is_text!(head, text, b"OPTIONS") {
        Method::Options
    } else if is_text!(head, text, b"CONNECT") {
        Method::Connect
    } else if is_text!(head, text, b"TRACE") {
        Method::Trace
    } else {
        return 0;
    };
    method as u64
}

/// A number of up to three digits.
#[inline(always)]
pub fn digits(bytes: &Bytes, text: Text) -> u64 {
    let mut head = eight(bytes, text.at);
    if text.len < 8 {
        // Padding, which is no digit.
        head |= u64::MAX >> (8 * text.len);
    }
    let mut number = 0;
    for _ in 0..3 {
        let digit = if text.is_coded {
            // 0, 1 and 2 have five bits, the others six.
            let (five, six) = (head >> 59, head >> 58);
            if five < 3 {
                head <<= 5;
                five
            } else if (0b01_1001..=0b01_1111).contains(&six) {
                head <<= 6;
                six - 22
            } else {
                break;
            }
        } else {
            let digit = (head >> 56).wrapping_sub(u64::from(b'0'));
            head <<= 8;
            if digit > 9 {
                break;
            }
            digit
        };
        number = number * 10 + digit;
    }
    number
}

/// Whether a content type begins as that of gRPC.
#[inline(always)]
pub fn is_grpc(bytes: &Bytes, text: Text) -> u64 {
    const TYPE: &[u8] = b"application/grpc";
    const CODED_BITS: u32 = 8 * huffman::encoded(TYPE).1 as u32 - 64;
    let (head, tail) = (eight(bytes, text.at), eight(bytes, text.at + 8));
    let is_grpc = if text.is_coded {
        let same = huffman::encoded_tail(TYPE) >> (64 - CODED_BITS);
        head == huffman::encoded(TYPE).0 && tail >> (64 - CODED_BITS) == same
    } else {
        head == plain(b"applicat").0 && tail == plain(b"ion/grpc").0
    };
    u64::from(is_grpc && text.len >= 11)
}
