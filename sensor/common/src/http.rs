//! HTTP/1.1 as far as the kernel programs read it: the request line up to the
//! query string, and the status.
//!
//! The same functions run in the kernel and in tests on the host. In the kernel
//! a loop must be bounded and every index visibly so; that is why they take
//! arrays of fixed length next to how much of them is valid.
//!
//! A path is reduced to its [`Shape`]: segments that look generated (numbers,
//! UUIDs, hashes) are replaced by a placeholder, the rest is hashed. What they
//! look like is not all: [`Learned`] says where anything may stand, and what is
//! to be spelled out. Paths of the same shape have the same [`Template`].
//!
//! Deliberately absent: headers, bodies, and everything after `?`.

use core::fmt;

pub mod pipeline;

/// Bytes of a method with the space behind it, at most (`OPTIONS `).
pub const METHOD_LEN_MAX: usize = 8;
/// Bytes of a path that are looked at; what is longer is cut.
pub const PATH_LEN_MAX: usize = 104;
/// Bytes of a status line up to and with the status (`HTTP/1.1 200`).
pub const STATUS_LEN: usize = 12;
/// Segments longer than this are taken for generated.
const SEGMENT_LEN_MAX: u32 = 32;

/// A request method (RFC 9110, 9.1, and PATCH of RFC 5789). Numbers are in
/// kernel tables and on the wire; they are never reused, and 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Method {
    /// GET
    Get = 1,
    /// HEAD
    Head = 2,
    /// POST
    Post = 3,
    /// PUT
    Put = 4,
    /// DELETE
    Delete = 5,
    /// CONNECT
    Connect = 6,
    /// OPTIONS
    Options = 7,
    /// TRACE
    Trace = 8,
    /// PATCH
    Patch = 9,
}

impl Method {
    /// Every method, ordered by number.
    pub const ALL: [Method; 9] = [
        Method::Get,
        Method::Head,
        Method::Post,
        Method::Put,
        Method::Delete,
        Method::Connect,
        Method::Options,
        Method::Trace,
        Method::Patch,
    ];

    /// The method of a number, if there is one.
    pub fn from_number(number: u8) -> Option<Method> {
        Self::ALL.into_iter().find(|method| *method as u8 == number)
    }

    /// As it stands in a request line.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Connect => "CONNECT",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Patch => "PATCH",
        }
    }
}

/// Number of the method that a request begins with, and its length with the
/// space behind it; `None` if the bytes begin no request.
#[inline(always)]
pub fn method(head: [u8; METHOD_LEN_MAX]) -> Option<(u8, u32)> {
    let head = u64::from_be_bytes(head);
    let begins_with = |text: &[u8; 8], len: u32| {
        let unused = 64 - 8 * len;
        head >> unused == u64::from_be_bytes(*text) >> unused
    };
    if begins_with(b"GET .   ", 4) {
        return Some((Method::Get as u8, 4));
    }
    if begins_with(b"POST .  ", 5) {
        return Some((Method::Post as u8, 5));
    }
    if begins_with(b"PUT .   ", 4) {
        return Some((Method::Put as u8, 4));
    }
    if begins_with(b"HEAD .  ", 5) {
        return Some((Method::Head as u8, 5));
    }
    if begins_with(b"DELETE .", 7) {
        return Some((Method::Delete as u8, 7));
    }
    if begins_with(b"PATCH . ", 6) {
        return Some((Method::Patch as u8, 6));
    }
    if begins_with(b"OPTIONS ", 8) {
        return Some((Method::Options as u8, 8));
    }
    if begins_with(b"CONNECT ", 8) {
        return Some((Method::Connect as u8, 8));
    }
    if begins_with(b"TRACE . ", 6) {
        return Some((Method::Trace as u8, 6));
    }
    None
}

/// The status of a response; `None` if the bytes begin no response.
#[inline(always)]
pub fn status(line: [u8; STATUS_LEN]) -> Option<u32> {
    let [h, t1, t2, p, slash, one, dot, minor, space, a, b, c] = line;
    let version = u64::from_be_bytes([h, t1, t2, p, slash, one, dot, 0]);
    if version != u64::from_be_bytes(*b"HTTP/1.\0") {
        return None;
    }
    let digit = |byte: u8| u32::from(byte.wrapping_sub(b'0'));
    let (minor, a, b, c) = (digit(minor), digit(a), digit(b), digit(c));
    // RFC 9110, 15: others are invalid.
    if minor > 9 || space != b' ' || !(1..=5).contains(&a) || b > 9 || c > 9 {
        return None;
    }
    Some(a * 100 + b * 10 + c)
}

/// What the status says of how a request ended; the first digit.
pub const STATUS_CLASSES: usize = 6;

/// Class 0: the status could not be read.
pub const STATUS_UNKNOWN: u8 = 0;

/// What a byte means in a path: what it adds to the tally of its segment, or
/// that it ends the segment or the path.
type Meaning = u32;

const DIGIT: Meaning = 1;
const NOT_HEX: Meaning = 1 << 8;
const ENCODED: Meaning = 1 << 16;
const BYTE: Meaning = 1 << 24;
/// Larger than any tally.
const ENDS: Meaning = 0xff00_0000;
const SLASH: Meaning = ENDS;
const END_OF_PATH: Meaning = ENDS + 1;
const INVALID: Meaning = ENDS + 2;
const _: () = assert!((PATH_LEN_MAX as u64) < 0xff);

const fn meaning(byte: u8) -> Meaning {
    match byte {
        b'/' => SLASH,
        b'?' | b' ' => END_OF_PATH,
        0..0x20 | 0x7f => INVALID,
        b'0'..=b'9' => BYTE + DIGIT,
        b'a'..=b'f' | b'A'..=b'F' => BYTE,
        b'%' | b'@' | b';' | b'=' | 0x80.. => BYTE + NOT_HEX + ENCODED,
        // A hyphen is part of a UUID.
        b'-' => BYTE,
        _ => BYTE + NOT_HEX,
    }
}

static MEANINGS: [Meaning; 256] = {
    let mut meanings = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        meanings[byte] = meaning(byte as u8);
        byte += 1;
    }
    meanings
};

/// What a byte of a segment means that comes from a configuration: what would end
/// a path is only there if it is encoded.
const fn in_segment(byte: u8) -> Meaning {
    match meaning(byte) {
        ENDS.. => BYTE + NOT_HEX + ENCODED,
        meaning => meaning,
    }
}

/// Whether a segment of that tally looks generated: a number, a UUID, a hash,
/// something encoded. Versions and names with a number (`v1`, `oauth2`) do not.
#[inline(always)]
const fn is_generated(tally: Meaning) -> bool {
    let bytes = tally >> 24;
    let digits = tally & 0xff;
    let is_hex = tally >> 8 & 0xff == 0;
    let is_encoded = tally >> 16 & 0xff != 0;
    is_encoded
        || bytes > SEGMENT_LEN_MAX
        || digits == bytes
        || digits >= 3
        || (is_hex && digits > 0 && bytes >= 8)
}

/// Offset basis and prime of 64-bit FNV-1a.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;
/// In place of the hash of a generated segment, and of what was cut off.
const GENERATED: u64 = 0x9e37_79b9_7f4a_7c15;
const CUT: u64 = 0xc2b2_ae3d_27d4_eb4f;

/// The hash of a path with another segment.
#[inline(always)]
const fn with_segment(prefix: u64, segment: u64) -> u64 {
    // Multiplication carries upwards only: the rotation takes it back down.
    (prefix.rotate_left(23) ^ segment).wrapping_mul(0xff51_afd7_ed55_8ccd)
}

/// What is known of paths beyond what their segments look like. Paths are named
/// by their hash, of [`Step`].
pub trait Learned {
    /// Whether anything may follow a path, so that a placeholder does.
    fn takes_any(&self, path: u64) -> bool;
    /// Whether the last segment of a path is spelled out, whatever it looks like.
    fn is_literal(&self, path: u64) -> bool;
}

/// Nothing is known.
impl Learned for () {
    #[inline(always)]
    fn takes_any(&self, _path: u64) -> bool {
        false
    }

    #[inline(always)]
    fn is_literal(&self, _path: u64) -> bool {
        false
    }
}

/// What a path is told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Equal for paths of the same [`Template`]; never 0.
    pub hash: u64,
    /// Bytes of the path, as far as they were looked at.
    pub len: u32,
    /// Whether the end of the path was found.
    pub is_whole: bool,
}

/// The shape of the path that `bytes`, of which `len` are valid, begin with.
/// `None` if it is no path: it does not begin with `/`, or holds a control
/// character.
#[inline(always)]
pub fn shape(bytes: &[u8; PATH_LEN_MAX], len: usize, learned: &impl Learned) -> Option<Shape> {
    if len == 0 || bytes[0] != b'/' {
        return None;
    }
    let (mut path, mut segment, mut tally) = (BASIS, BASIS, 0);
    let (mut end, mut is_whole) = (1, false);
    // The bound is a constant, for the verifier.
    for (at, byte) in bytes.iter().enumerate().skip(1) {
        if at >= len {
            break;
        }
        let meaning = MEANINGS[usize::from(*byte)];
        if meaning < ENDS {
            segment = (segment ^ u64::from(*byte)).wrapping_mul(PRIME);
            tally += meaning;
            end = at + 1;
            continue;
        }
        if meaning == INVALID {
            return None;
        }
        if tally != 0 {
            path = with(path, segment, tally, learned);
            (segment, tally) = (BASIS, 0);
        }
        if meaning == END_OF_PATH {
            is_whole = true;
            break;
        }
        end = at + 1;
    }
    if !is_whole {
        path = with_segment(path, CUT);
    }
    Some(Shape {
        hash: path | 1,
        len: end as u32,
        is_whole,
    })
}

/// The hash of `path` with another segment, or with a placeholder for it.
#[inline(always)]
fn with(path: u64, segment: u64, tally: Meaning, learned: &impl Learned) -> u64 {
    let literal = with_segment(path, segment);
    if learned.is_literal(literal) {
        return literal;
    }
    if is_generated(tally) || learned.takes_any(path) {
        return with_segment(path, GENERATED);
    }
    literal
}

/// Hash of the path that every other one begins with, of [`Step`].
pub const ROOT: u64 = BASIS;

/// Hash of `path` with another segment spelled out, or with a placeholder.
pub fn child(path: u64, segment: Option<&[u8]>) -> u64 {
    with_segment(path, segment.map_or(GENERATED, hash))
}

fn hash(segment: &[u8]) -> u64 {
    let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    segment.iter().fold(BASIS, add)
}

/// Walks over the segments of a path as [`shape`] does, outside of the kernel.
#[derive(Clone, Debug)]
pub struct Steps<'a, L> {
    rest: Option<&'a [u8]>,
    is_whole: bool,
    path: u64,
    learned: &'a L,
}

/// One segment of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Its bytes.
    pub segment: &'a [u8],
    /// Hash of the path before it.
    pub before: u64,
    /// Hash of the path with it, spelled out.
    pub literal: u64,
    /// Hash of the path with it as it counts.
    pub after: u64,
}

impl Step<'_> {
    /// Whether a placeholder stands for it.
    pub fn is_placeholder(&self) -> bool {
        self.after != self.literal
    }
}

impl<'a, L: Learned> Steps<'a, L> {
    /// From the begin of `path`. Of one that is not whole, the last segment is
    /// none, because it may go on.
    pub fn new(path: &'a [u8], is_whole: bool, learned: &'a L) -> Self {
        Self {
            rest: Some(path),
            is_whole,
            path: BASIS,
            learned,
        }
    }
}

impl<'a, L: Learned> Iterator for Steps<'a, L> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        loop {
            let rest = self.rest?;
            let end = rest.iter().position(|byte| *byte == b'/');
            let segment = &rest[..end.unwrap_or(rest.len())];
            self.rest = end.map(|end| &rest[end + 1..]);
            if self.rest.is_none() && !self.is_whole {
                return None;
            }
            if segment.is_empty() {
                continue;
            }
            let (hash, before) = (hash(segment), self.path);
            let counted = segment.iter().take(PATH_LEN_MAX);
            let tally = counted.fold(0, |sum, byte| sum + in_segment(*byte));
            self.path = with(before, hash, tally, self.learned);
            return Some(Step {
                segment,
                before,
                literal: with_segment(before, hash),
                after: self.path,
            });
        }
    }
}

/// The text that paths of one [`Shape`] share, such as `/users/{id}/orders`.
#[derive(Clone, Copy, Debug)]
pub struct Template<'a, L> {
    /// The path, as many bytes as [`Shape::len`] says.
    pub path: &'a [u8],
    /// As [`Shape::is_whole`].
    pub is_whole: bool,
    /// As of the shape.
    pub learned: &'a L,
}

/// Bytes of a template at most: every other byte of a path is a segment of one
/// digit at worst, and the last one may be cut.
pub const TEMPLATE_LEN_MAX: usize = PATH_LEN_MAX / 2 * (1 + PLACEHOLDER.len()) + REST.len();
/// In place of a generated segment.
pub const PLACEHOLDER: &str = "{id}";
/// In place of what was cut off.
pub const REST: &str = "{rest}";

impl<L: Learned> fmt::Display for Template<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_root = true;
        for step in Steps::new(self.path, self.is_whole, self.learned) {
            is_root = false;
            let literal = core::str::from_utf8(step.segment).ok();
            let literal = literal.filter(|_| !step.is_placeholder());
            write!(f, "/{}", literal.unwrap_or(PLACEHOLDER))?;
        }
        match (self.is_whole, is_root) {
            (false, _) => write!(f, "/{REST}"),
            (true, true) => f.write_str("/"),
            (true, false) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
