//! Messages of DNS as far as the kernel programs read them: which are queries,
//! what type they ask for, which response is whose and what it says (RFC 1035, 4).

/// Bytes of a header.
pub const HEADER_LEN: usize = 12;
/// Bytes of a name at most (RFC 1035, 2.3.4).
const NAME_LEN_MAX: usize = 255;
/// Labels of a name at most, the root not counted.
const LABELS_MAX: usize = 127;
/// Bytes of a label at most; a greater length is a pointer, or reserved.
const LABEL_LEN_MAX: u8 = 63;
/// Type and class of a question.
const QUESTION_TAIL_LEN: usize = 4;
/// Bytes of the smallest message with a question: one for the root.
pub const MESSAGE_LEN_MIN: usize = HEADER_LEN + 1 + QUESTION_TAIL_LEN;
/// So many of the first bytes have all of the question.
pub const QUESTION_LEN_MAX: usize = HEADER_LEN + NAME_LEN_MAX + QUESTION_TAIL_LEN;
/// So many of the first bytes tell messages apart; of what is not there they are 0.
pub const BEGIN_LEN: usize = HEADER_LEN + 16;

/// Types with a name, as IANA's list has them.
const TYPES: [(u16, &str); 28] = [
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (12, "PTR"),
    (13, "HINFO"),
    (15, "MX"),
    (16, "TXT"),
    (28, "AAAA"),
    (29, "LOC"),
    (33, "SRV"),
    (35, "NAPTR"),
    (39, "DNAME"),
    (43, "DS"),
    (44, "SSHFP"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (50, "NSEC3"),
    (52, "TLSA"),
    (61, "OPENPGPKEY"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (251, "IXFR"),
    (252, "AXFR"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
];

/// Bits of the second word of a header.
mod flags {
    pub const RESPONSE: u16 = 1 << 15;
    pub const OPCODE_SHIFT: u16 = 11;
    pub const OPCODE: u16 = 0xf;
    /// Authoritative, recursion available, reserved (RFC 1035, 4.1.1), and the
    /// code of a response: a query has none of them.
    pub const OF_RESPONSES: u16 = 1 << 10 | 1 << 7 | 1 << 6 | CODE;
    pub const RESERVED: u16 = 1 << 6;
    pub const CODE: u16 = 0xf;
}

/// Operations of a message.
mod opcode {
    pub const QUERY: u16 = 0;
    /// RFC 1996.
    pub const NOTIFY: u16 = 4;
    /// RFC 2136.
    pub const UPDATE: u16 = 5;
}

/// What a message is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// It asks; the [`question`] is to be looked at yet.
    Query {
        /// Of [`Begin::name`].
        name: u64,
        /// Whether the type asked for says what it is about.
        is_typed: bool,
    },
    /// It answers what had the same name.
    Response {
        /// Of [`Begin::name`].
        name: u64,
        /// As that of HTTP: 2 it was answered, 4 there is no such name or the
        /// client did wrong, 5 the server failed or refused.
        class: u32,
    },
}

/// The first bytes of a message.
#[derive(Clone, Copy, Debug)]
pub struct Begin<'a>(pub &'a [u8; BEGIN_LEN]);

impl Begin<'_> {
    #[inline(always)]
    fn word(self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    /// The eight bytes at `at`, the first one most significant.
    #[inline(always)]
    fn long(self, at: usize) -> u64 {
        // Without closures, which the compiler does not always inline.
        u64::from(self.word(at)) << 48
            | u64::from(self.word(at + 2)) << 32
            | u64::from(self.word(at + 4)) << 16
            | u64::from(self.word(at + 6))
    }

    /// What tells a message from others on a socket and is the same in its
    /// response: a hash of the id and of how the name begins that is asked for.
    #[inline(always)]
    pub fn name(self) -> u64 {
        let head = until_zero(self.long(HEADER_LEN));
        let tail = if head as u8 == 0 {
            0
        } else {
            until_zero(self.long(HEADER_LEN + 8))
        };
        let mixed = (head ^ u64::from(self.word(0))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 32 ^ tail).wrapping_mul(0xff51_afd7_ed55_8ccd)
    }

    /// What a message of `len` bytes in all is; `None` if it is none of DNS, or
    /// one with no question.
    #[inline(always)]
    pub fn message(self, len: u32) -> Option<Message> {
        let (flags, questions) = (self.word(2), self.word(4));
        if len < MESSAGE_LEN_MIN as u32 || questions != 1 {
            return None;
        }
        let name = self.name();
        if flags & flags::RESPONSE != 0 {
            if flags & flags::RESERVED != 0 {
                return None;
            }
            let class = class(flags & flags::CODE);
            return Some(Message::Response { name, class });
        }
        let (answers, authorities, additional) = (self.word(6), self.word(8), self.word(10));
        let opcode = flags >> flags::OPCODE_SHIFT & flags::OPCODE;
        // Bytes of no meaning have great numbers there.
        let is_sane = match opcode {
            // A transfer of changes (RFC 1995) has what the client knows.
            opcode::QUERY => answers == 0 && authorities <= 1 && flags & flags::OF_RESPONSES == 0,
            opcode::NOTIFY => answers <= 1 && authorities == 0,
            opcode::UPDATE => flags & flags::OF_RESPONSES == 0,
            _ => false,
        };
        (is_sane && additional <= 4).then_some(Message::Query {
            name,
            is_typed: opcode == opcode::QUERY,
        })
    }
}

/// The bytes before the first that is zero, zeros behind; the first byte is the
/// most significant one. In a name a zero is its end, or else it is the same in
/// both messages.
#[inline(always)]
fn until_zero(bytes: u64) -> u64 {
    const SEVEN: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // The highest bit of each byte that is zero, and no other.
    let zeros = !((bytes & SEVEN).wrapping_add(SEVEN) | bytes | SEVEN);
    // Of these the first, and everything behind.
    let mut behind = zeros;
    behind |= behind >> 1;
    behind |= behind >> 2;
    behind |= behind >> 4;
    behind |= behind >> 8;
    behind |= behind >> 16;
    behind |= behind >> 32;
    bytes & !behind
}

/// The class of a response by its code (IANA's list of RCODEs).
#[inline(always)]
fn class(code: u16) -> u32 {
    match code {
        0 => 2,
        // FORMERR, NXDOMAIN; what an update wanted is not so; NOTZONE.
        1 | 3 | 6 | 7 | 8 | 10 => 4,
        // SERVFAIL, NOTIMP, REFUSED, NOTAUTH and what is not assigned.
        _ => 5,
    }
}

/// The type asked for by the message of which `bytes` has the first `len`; `None` if
/// what follows the header is no question.
#[inline(always)]
pub fn question(bytes: &[u8; QUESTION_LEN_MAX], len: usize) -> Option<u16> {
    let mut at = HEADER_LEN;
    for _ in 0..=LABELS_MAX {
        let label = *bytes.get(at)?;
        at += 1;
        if label == 0 {
            return type_of_question(bytes, at, len);
        }
        if label > LABEL_LEN_MAX {
            return None;
        }
        at += usize::from(label);
    }
    None
}

#[inline(always)]
fn type_of_question(bytes: &[u8; QUESTION_LEN_MAX], at: usize, len: usize) -> Option<u16> {
    // By subtraction, so that the verifier knows the bound of `at` itself.
    if at > QUESTION_LEN_MAX - QUESTION_TAIL_LEN || at + QUESTION_TAIL_LEN > len {
        return None;
    }
    let class = u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]);
    // Internet, Chaos, Hesiod, none, any; of multicast the first bit is a wish
    // (RFC 6762, 5.4).
    if !matches!(class & 0x7fff, 1 | 3 | 4 | 254 | 255) {
        return None;
    }
    Some(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// The number of a type for [`method`](crate::route::method): itself, or 0 if it has
/// no name here.
#[inline(always)]
pub fn number(of_type: u16) -> u16 {
    let is_known = matches!(
        of_type,
        1 | 2
            | 5
            | 6
            | 12
            | 13
            | 15
            | 16
            | 28
            | 29
            | 33
            | 35
            | 39
            | 43
            | 44
            | 46
            | 47
            | 48
            | 50
            | 52
            | 61
            | 64
            | 65
            | 251
            | 252
            | 255
            | 256
            | 257
    );
    if is_known { of_type } else { 0 }
}

/// The name of a type by [`number`].
pub fn name(number: u16) -> Option<&'static str> {
    let known = TYPES.iter().find(|(of_type, _)| *of_type == number);
    known.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    /// A message about `name`, its labels separated by dots.
    fn message(id: u16, flags: u16, name: &str, of_type: u16, additional: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [id, flags, 1, 0, 0, additional] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        for label in name.split('.').filter(|label| !label.is_empty()) {
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend_from_slice(&of_type.to_be_bytes());
        bytes.extend_from_slice(&1u16.to_be_bytes());
        bytes
    }

    fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
        let mut of = [0; N];
        let len = bytes.len().min(N);
        of[..len].copy_from_slice(&bytes[..len]);
        of
    }

    fn read(bytes: &[u8]) -> Option<Message> {
        Begin(&first(bytes)).message(bytes.len() as u32)
    }

    fn type_of(bytes: &[u8]) -> Option<u16> {
        question(&first(bytes), bytes.len().min(QUESTION_LEN_MAX))
    }

    fn name_of(bytes: &[u8]) -> u64 {
        Begin(&first(bytes)).name()
    }

    #[test]
    fn queries_are_told_by_their_header_and_question() {
        let query = message(7, 0x0120, "www.example.com", 28, 1);
        let name = name_of(&query);
        let is_typed = true;
        assert_eq!(read(&query), Some(Message::Query { name, is_typed }));
        assert_eq!(type_of(&query), Some(28));
        let update = read(&message(7, 5 << 11, "example.com", 6, 0));
        assert!(matches!(
            update,
            Some(Message::Query {
                is_typed: false,
                ..
            })
        ));
        for flags in [0x0040, 0x0080, 0x0400, 0x0003, 1 << 11, 15 << 11] {
            assert_eq!(read(&message(7, flags, "a.b", 1, 0)), None, "{flags:#x}");
        }
        assert_eq!(read(&query[..16]), None);
        let mut two = query.clone();
        two[5] = 2;
        assert_eq!(read(&two), None);
        for (place, wrong) in [(12, 64), (12, 0xc0), (query.len() - 1, 9)] {
            let mut bytes = query.clone();
            bytes[place] = wrong;
            assert_eq!(type_of(&bytes), None, "{place}");
        }
        assert_eq!(type_of(&query[..query.len() - 1]), None);
        assert_eq!(type_of(&message(7, 0, "", 2, 0)), Some(2));
    }

    #[test]
    fn the_longest_name_is_read_and_no_longer_one() {
        let label = "x".repeat(63);
        let longest = [&label, &label, &label, &label[..61]].join(".");
        assert_eq!(type_of(&message(1, 0, &longest, 1, 0)), Some(1));
        let longer = std::format!("{longest}x");
        assert_eq!(type_of(&message(1, 0, &longer, 1, 0)), None);
        let many = ["x"; 127].join(".");
        assert_eq!(type_of(&message(1, 0, &many, 1, 0)), Some(1));
    }

    #[test]
    fn responses_are_classed_by_their_code() {
        for (code, class) in [
            (0, 2),
            (1, 4),
            (2, 5),
            (3, 4),
            (4, 5),
            (5, 5),
            (9, 5),
            (15, 5),
        ] {
            let response = message(7, 0x8580 | code, "a.b", 1, 0);
            let name = name_of(&response);
            assert_eq!(read(&response), Some(Message::Response { name, class }));
        }
    }

    #[test]
    fn every_type_with_a_name_has_a_number() {
        for (of_type, text) in TYPES {
            assert_eq!(name(number(of_type)), Some(text));
        }
        let known = (0..=u16::MAX).filter(|of_type| number(*of_type) != 0);
        assert_eq!(known.count(), TYPES.len());
        assert_eq!(name(0), None);
    }

    proptest! {
        #[test]
        fn bytes_at_random_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            read(&bytes);
            type_of(&bytes);
        }

        #[test]
        fn headers_before_bytes_at_random_do_no_harm(
            tail in prop::collection::vec(any::<u8>(), 0..600),
            len in 0usize..1000,
        ) {
            let mut bytes = message(1, 0, "", 1, 0);
            bytes.truncate(HEADER_LEN);
            bytes.extend(tail);
            read(&bytes);
            question(&first(&bytes), len);
        }

        #[test]
        fn a_response_has_the_name_of_its_query(
            id: u16,
            labels in prop::collection::vec("[a-z0-9-]{1,20}", 0..5),
            of_type in 1u16..300,
            behind in prop::collection::vec(any::<u8>(), 0..40),
            more in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let name = labels.join(".");
            let mut query = message(id, 0x0100, &name, of_type, 1);
            prop_assert_eq!(type_of(&query), Some(of_type));
            query.extend(behind);
            let mut response = message(id, 0x8180, &name, of_type, 0);
            response.extend(more);
            prop_assert_eq!(name_of(&query), name_of(&response));
            let other = message(id.wrapping_add(1), 0x8180, &name, of_type, 0);
            prop_assert_ne!(name_of(&query), name_of(&other));
        }

        #[test]
        fn until_the_first_zero(bytes: [u8; 8]) {
            let mut expected = bytes;
            if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
                expected[end..].fill(0);
            }
            prop_assert_eq!(until_zero(u64::from_be_bytes(bytes)), u64::from_be_bytes(expected));
        }
    }
}
