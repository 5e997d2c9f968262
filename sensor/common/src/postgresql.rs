//! The PostgreSQL protocol (version 3) as far as the kernel programs read it:
//! the verb of a statement, and the first error of a response.
//!
//! How a connection begins (start-up, TLS, authentication) is no request.

use crate::words::{WORD_LEN_MAX, Word, Words};

/// Bytes of a request that are looked at, of a response at most so many.
pub const HEAD_LEN: usize = 108;
/// Longest message (`MaxAllocSize`).
const MESSAGE_LEN_MAX: u32 = 1 << 30;

/// Verbs of SQL, and in small letters what stands for one that is not known.
const NAMES: &[&str] = &[
    "execute",
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "MERGE",
    "BEGIN",
    "START",
    "COMMIT",
    "END",
    "ROLLBACK",
    "ABORT",
    "SAVEPOINT",
    "RELEASE",
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "DECLARE",
    "FETCH",
    "MOVE",
    "CLOSE",
    "COPY",
    "CALL",
    "DO",
    "WITH",
    "VALUES",
    "TABLE",
    "EXPLAIN",
    "ANALYZE",
    "VACUUM",
    "CREATE",
    "ALTER",
    "DROP",
    "TRUNCATE",
    "GRANT",
    "REVOKE",
    "COMMENT",
    "SET",
    "RESET",
    "SHOW",
    "DISCARD",
    "LOCK",
    "LISTEN",
    "NOTIFY",
    "UNLISTEN",
    "REFRESH",
    "REINDEX",
    "CLUSTER",
    "CHECKPOINT",
    "LOAD",
    "SECURITY",
    "REASSIGN",
    "IMPORT",
];

/// A statement that was named before: which one is not remembered.
pub const EXECUTE: u16 = 1;

static WORDS: Words = Words::new({
    // `execute` is no word; the place of `EXECUTE` comes later in the list.
    let (_, verbs) = NAMES.split_at(1);
    verbs
});

/// The name of a verb by its number.
pub fn name(number: u16) -> Option<&'static str> {
    NAMES.get(usize::from(number).checked_sub(1)?).copied()
}

/// Versions that stand where a connection begins: the protocol's, and what asks
/// to cancel, for TLS and for GSSAPI encryption.
const VERSIONS: [u32; 5] = [196_608, 196_610, 80_877_102, 80_877_103, 80_877_104];
/// Longest message of that kind (`MAX_STARTUP_PACKET_LENGTH`).
const START_LEN_MAX: u32 = 10_000;

/// Whether `head` begins a connection.
#[inline(always)]
pub fn is_start(head: u64) -> bool {
    let (len, version) = ((head >> 32) as u32, head as u32);
    (8..=START_LEN_MAX).contains(&len) && is_version(version)
}

#[inline(always)]
fn is_version(version: u32) -> bool {
    version == VERSIONS[0]
        || version == VERSIONS[1]
        || version == VERSIONS[2]
        || version == VERSIONS[3]
        || version == VERSIONS[4]
}

/// Whether `head` begins what a client says, in a read of `len` bytes in all.
#[inline(always)]
pub fn begins(head: u64, len: u32) -> bool {
    if is_start(head) {
        return true;
    }
    let message_len = (head >> 24) as u32;
    // Alone a statement of the simple protocol is all of a read.
    match (head >> 56) as u8 {
        b'Q' => message_len.wrapping_add(1) == len && message_len > 4,
        b'P' => message_len > 7 && message_len < len,
        _ => false,
    }
}

/// Where reading is: in what follows the type and length of a message. The
/// kernel keeps it in memory between steps, so that the verifier walks through
/// one step only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Place in the bytes.
    at: u32,
    /// Valid bytes.
    len: u32,
    /// What comes: of [`part`].
    part: u32,
    /// Letters of the verb.
    count: u32,
    letters: [u8; WORD_LEN_MAX],
    /// Status class, 0 as long as it is not known.
    class: u32,
}

mod part {
    /// The name of a statement.
    pub const NAME: u32 = 0;
    /// What may stand before a verb.
    pub const SPACE: u32 = 1;
    pub const VERB: u32 = 2;
    /// A message of a response.
    pub const MESSAGE: u32 = 3;
    /// The fields of an error.
    pub const ERROR: u32 = 4;
}

/// Steps at most.
pub const STEPS_MAX: u32 = HEAD_LEN as u32;

/// Begins to read a request of which `len` bytes are valid: its verb if that is
/// told by its type already, or where to look. `None` if it is no request.
#[inline(always)]
pub fn begin_request(first: u8, len: usize) -> Option<Result<u16, Cursor>> {
    let part = match first {
        b'Q' => part::SPACE,
        b'P' => part::NAME,
        b'B' | b'E' => return Some(Ok(EXECUTE)),
        _ => return None,
    };
    Some(Err(Cursor {
        at: 5,
        len: len as u32,
        part,
        ..Cursor::NEW
    }))
}

/// Begins to read a response of which `len` bytes are valid.
#[inline(always)]
pub fn begin_response(len: usize) -> Cursor {
    Cursor {
        len: len as u32,
        part: part::MESSAGE,
        ..Cursor::NEW
    }
}

impl Cursor {
    const NEW: Cursor = Cursor {
        at: 0,
        len: 0,
        part: part::NAME,
        count: 0,
        letters: [0; WORD_LEN_MAX],
        class: 0,
    };

    /// Number of the verb of a request, 0 for one that is not known.
    #[inline(always)]
    pub fn verb(&self) -> u16 {
        let number =
            Word::new(self.letters, self.count as usize).map_or(0, |word| WORDS.number(word));
        if number == 0 { 0 } else { number + 1 }
    }

    /// How a request ended, as a status class: 2 ok, 4 an error of the client, 5
    /// of the server; 0 if the bytes are none of a response.
    #[inline(always)]
    pub fn class(&self) -> u32 {
        self.class
    }

    /// Reads on; whether to go on.
    #[inline(always)]
    pub fn step(&mut self, bytes: &[u8; HEAD_LEN]) -> bool {
        let at = self.at as usize;
        if at >= self.len as usize || at >= HEAD_LEN {
            return false;
        }
        let byte = bytes[at];
        match self.part {
            part::NAME => {
                self.part = if byte == 0 { part::SPACE } else { part::NAME };
                self.at += 1;
                true
            }
            part::SPACE => {
                if matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'(') {
                    self.at += 1;
                } else {
                    self.part = part::VERB;
                }
                true
            }
            part::VERB => {
                if !byte.is_ascii_alphabetic() {
                    return false;
                }
                self.letters[self.count as usize % WORD_LEN_MAX] = byte;
                self.count += 1;
                self.at += 1;
                true
            }
            part::MESSAGE => self.step_message(bytes),
            _ => self.step_error(bytes),
        }
    }

    #[inline(always)]
    fn step_message(&mut self, bytes: &[u8; HEAD_LEN]) -> bool {
        let at = self.at as usize;
        if at + 5 > self.len as usize || at + 5 > HEAD_LEN {
            return false;
        }
        let size = u32::from_be_bytes([bytes[at + 1], bytes[at + 2], bytes[at + 3], bytes[at + 4]]);
        if !(4..MESSAGE_LEN_MAX).contains(&size) {
            return false;
        }
        match bytes[at] {
            b'E' => {
                (self.class, self.part) = (4, part::ERROR);
                self.at += 5;
                true
            }
            // Parsed, bound, closed, no data, parameters; notices and settings.
            b'1' | b'2' | b'3' | b'n' | b't' | b'N' | b'S' => {
                self.class = 2;
                self.at += if size < HEAD_LEN as u32 {
                    1 + size
                } else {
                    HEAD_LEN as u32
                };
                true
            }
            b'T' | b'D' | b'C' | b'I' | b'Z' | b'G' | b'H' | b'W' | b's' | b'V' | b'A' => {
                self.class = 2;
                false
            }
            _ => false,
        }
    }

    /// By the class of the code (appendix A of the documentation), which follows
    /// the severity in the language of the server and in English.
    #[inline(always)]
    fn step_error(&mut self, bytes: &[u8; HEAD_LEN]) -> bool {
        let at = self.at as usize;
        if at + 4 > self.len as usize || at + 4 > HEAD_LEN {
            return false;
        }
        if bytes[at] == 0 && bytes[at + 1] == b'C' {
            let of_server = matches!(
                [bytes[at + 2], bytes[at + 3]],
                [b'0', b'8'] | [b'5', b'3' | b'4' | b'7' | b'8'] | [b'F', b'0'] | [b'X', b'X']
            );
            self.class = if of_server { 5 } else { 4 };
            return false;
        }
        self.at += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn head(parts: &[&[u8]]) -> ([u8; HEAD_LEN], usize) {
        let all: Vec<u8> = parts.concat();
        let mut bytes = [0xff; HEAD_LEN];
        let len = all.len().min(HEAD_LEN);
        bytes[..len].copy_from_slice(&all[..len]);
        (bytes, len)
    }

    fn of(parts: &[&[u8]]) -> Option<&'static str> {
        let (bytes, len) = head(parts);
        let number = match begin_request(bytes[0], len)? {
            Ok(number) => number,
            Err(cursor) => steps(cursor, &bytes).verb(),
        };
        Some(name(number).unwrap_or("other"))
    }

    fn steps(mut cursor: Cursor, bytes: &[u8; HEAD_LEN]) -> Cursor {
        let mut steps = 0;
        while steps < STEPS_MAX && cursor.step(bytes) {
            steps += 1;
        }
        cursor
    }

    #[test]
    fn verbs_are_found_in_both_protocols() {
        let size = [0, 0, 0, 40];
        assert_eq!(of(&[b"Q", &size, b"SELECT 1\0"]), Some("SELECT"));
        assert_eq!(of(&[b"Q", &size, b" \n (select 1)\0"]), Some("SELECT"));
        assert_eq!(of(&[b"Q", &size, b"begin;\0"]), Some("BEGIN"));
        assert_eq!(of(&[b"Q", &size, b"execute x\0"]), Some("EXECUTE"));
        assert_eq!(of(&[b"Q", &size, b"selects\0"]), Some("other"));
        assert_eq!(of(&[b"Q", &size, b"\0"]), Some("other"));
        assert_eq!(of(&[b"P", &size, b"\0INSERT INTO t\0\0\0"]), Some("INSERT"));
        assert_eq!(of(&[b"P", &size, b"P0_1\0UPDATE t\0\0\0"]), Some("UPDATE"));
        assert_eq!(of(&[b"B", &size, b"\0P0_1\0"]), Some("execute"));
        assert_eq!(of(&[b"p", &size, b"password\0"]), None);
    }

    #[test]
    fn errors_are_found_behind_what_went_well() {
        let error = |severity: &str, code: &str| {
            let fields = std::format!("S{severity}\0VERROR\0C{code}\0Mno\0\0");
            [b"E\0\0\0\x40", fields.as_bytes()].concat()
        };
        let class = |parts: &[&[u8]]| {
            let (bytes, len) = head(parts);
            steps(begin_response(len), &bytes).class()
        };
        assert_eq!(class(&[&error("ERROR", "42601")]), 4);
        assert_eq!(class(&[&error("FEHLER", "53300")]), 5);
        assert_eq!(
            class(&[b"1\0\0\0\x04", b"2\0\0\0\x04", &error("ERROR", "XX000")]),
            5
        );
        assert_eq!(class(&[b"1\0\0\0\x04", b"2\0\0\0\x04", b"T\0\0\0\x21"]), 2);
        assert_eq!(class(&[b"C\0\0\0\x0bBEGIN\0Z\0\0\0\x05T"]), 2);
        assert_eq!(class(&[b"HTTP/1.1 200 OK"]), 0);
        assert_eq!(class(&[b""]), 0);
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_nothing_panics(
            bytes in prop::collection::vec(any::<u8>(), HEAD_LEN),
            first in prop::sample::select(b"QPBEp1".to_vec()),
            len in 0..=HEAD_LEN,
        ) {
            let mut bytes: [u8; HEAD_LEN] = bytes.try_into().unwrap();
            bytes[0] = first;
            if let Some(Err(cursor)) = begin_request(first, len) {
                prop_assert!(name(steps(cursor, &bytes).verb()).is_none_or(|name| !name.is_empty()));
            }
            prop_assert!([0, 2, 4, 5].contains(&steps(begin_response(len), &bytes).class()));
        }
    }
}
