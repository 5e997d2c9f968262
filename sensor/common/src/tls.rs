//! Which records of a TLS connection are requests and responses, from what is
//! not encrypted of them: their headers (RFC 8446, 5.1; RFC 5246, 6.2.1).
//!
//! The handshake is followed in the records that one side sends until that
//! side's Finished, of TLS 1.2 by its content type and of TLS 1.3, where it looks
//! like any other encrypted record, by its length. After that, whatever is
//! application data is, but for the encrypted alerts of TLS 1.3.
//!
//! Deliberately absent: anything that needs a key.

/// Bytes of the header of a record.
pub const HEADER_LEN: usize = 5;

/// `ContentType` of a record.
mod content {
    pub const CHANGE_CIPHER_SPEC: u8 = 20;
    pub const ALERT: u8 = 21;
    pub const HANDSHAKE: u8 = 22;
    pub const APPLICATION_DATA: u8 = 23;
}

/// Bytes of a record after its header at most (2^14 and what TLS 1.2 may add).
const RECORD_LEN_MAX: u32 = (1 << 14) + 2048;
/// What follows the header of a Finished of TLS 1.3: type, length, a hash of 256
/// or 384 bits, content type, tag.
const FINISHED_LENS: [u32; 2] = [4 + 32 + 1 + 16, 4 + 48 + 1 + 16];
/// The same of an alert of TLS 1.3.
const ALERT_LEN: u32 = 2 + 1 + 16;
/// A Finished of TLS 1.2 is shorter with every cipher, a ClientHello longer: the
/// second one of TLS 1.3 follows a change of the cipher as well.
const FINISHED_LEN_BELOW: u32 = 128;

/// A record, of which the header is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    content: u8,
    /// Bytes after the header.
    pub len: u32,
}

impl Record {
    /// `None` if the bytes are no header of a record.
    #[inline(always)]
    pub fn parse(header: [u8; HEADER_LEN]) -> Option<Record> {
        let [content, major, _, high, low] = header;
        let len = u32::from(high) << 8 | u32::from(low);
        let is_record = matches!(
            content,
            content::CHANGE_CIPHER_SPEC
                | content::ALERT
                | content::HANDSHAKE
                | content::APPLICATION_DATA
        ) && major == 3
            && len <= RECORD_LEN_MAX;
        is_record.then_some(Record { content, len })
    }

    /// Whether it has, of an open connection, a part of a request or response in
    /// it, as far as can be told.
    #[inline(always)]
    pub fn is_application_data(self) -> bool {
        self.content == content::APPLICATION_DATA && self.len != ALERT_LEN
    }
}

/// How far one side of a connection is, by the records it sent. Numbers, because
/// the kernel keeps them.
pub mod stage {
    /// Nothing was sent that tells.
    pub const UNKNOWN: u8 = 0;
    /// It is no TLS connection.
    pub const PLAIN: u8 = 1;
    /// The side said hello.
    pub const HELLO: u8 = 2;
    /// It changed to a cipher.
    pub const CHANGED: u8 = 3;
    /// It sent something encrypted that is no Finished: certificates, or data
    /// before the handshake is over.
    pub const ENCRYPTED: u8 = 4;
    /// What it sends now is application data.
    pub const OPEN: u8 = 5;
}

/// The stage after a record that begins where the last one ended, and whether
/// the record has application data in it.
#[inline(always)]
pub fn after(stage: u8, record: Record) -> (u8, bool) {
    let is_encrypted = record.content == content::APPLICATION_DATA;
    match stage {
        // What is older than the sensor.
        stage::UNKNOWN if is_encrypted => (stage::OPEN, record.is_application_data()),
        stage::UNKNOWN if record.content == content::HANDSHAKE => (stage::HELLO, false),
        stage::UNKNOWN | stage::PLAIN => (stage::PLAIN, true),
        stage::OPEN => (stage::OPEN, record.is_application_data()),
        _ if is_encrypted => {
            if record.len == FINISHED_LENS[0] || record.len == FINISHED_LENS[1] {
                (stage::OPEN, false)
            } else {
                (stage::ENCRYPTED, false)
            }
        }
        stage::CHANGED if record.content == content::HANDSHAKE => {
            if record.len < FINISHED_LEN_BELOW {
                (stage::OPEN, false)
            } else {
                (stage::HELLO, false)
            }
        }
        _ if record.content == content::CHANGE_CIPHER_SPEC => (stage::CHANGED, false),
        _ => (stage, false),
    }
}

/// The stage after the other side answered with something that begins with
/// `record`: who does so with encrypted data has read all of the handshake, be it
/// that its end was not recognised, or that the hello comes only now and what
/// was sent before it was early data.
#[inline(always)]
pub fn answered(stage: u8, record: Option<Record>) -> u8 {
    let is_encrypted = record.is_none_or(|record| record.content == content::APPLICATION_DATA);
    match stage {
        stage::ENCRYPTED if is_encrypted => stage::OPEN,
        stage::ENCRYPTED => stage::HELLO,
        _ => stage,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    fn record(content: u8, len: u32) -> Record {
        let header = [content, 3, 3, (len >> 8) as u8, len as u8];
        Record::parse(header).unwrap()
    }

    /// Whether each of the records is application data.
    fn walk(records: &[(u8, u32)]) -> Vec<bool> {
        let mut stage = stage::UNKNOWN;
        records
            .iter()
            .map(|(content, len)| {
                let is_application_data;
                (stage, is_application_data) = after(stage, record(*content, *len));
                is_application_data
            })
            .collect()
    }

    /// The only application data is what follows the first so many records.
    fn check_handshake(records: &[(u8, u32)]) {
        let mut all = records.to_vec();
        all.extend([(23, 100), (23, 53), (23, 19), (21, 26)]);
        let mut expected = std::vec![false; records.len()];
        expected.extend([true, true, false, false]);
        assert_eq!(walk(&all), expected, "{records:?}");
    }

    #[test]
    fn handshakes_are_no_application_data() {
        // TLS 1.3, with each of the hashes.
        check_handshake(&[(22, 512), (20, 1), (23, 53)]);
        check_handshake(&[(22, 512), (20, 1), (23, 69)]);
        // Without the change of cipher, which is only there for old boxes.
        check_handshake(&[(22, 512), (23, 69)]);
        // A second hello, and certificates of the client.
        check_handshake(&[(22, 512), (20, 1), (22, 512), (23, 69)]);
        check_handshake(&[(22, 512), (20, 1), (23, 1200), (23, 281), (23, 69)]);
        // TLS 1.2: full with AES-GCM, with CBC and SHA-384, resumed.
        check_handshake(&[(22, 250), (22, 70), (20, 1), (22, 40)]);
        check_handshake(&[(22, 250), (22, 262), (20, 1), (22, 96)]);
        check_handshake(&[(22, 512), (20, 1), (22, 40)]);
        // Renegotiation comes later.
        assert_eq!(
            walk(&[(23, 100), (22, 300), (22, 100), (20, 1), (22, 40), (23, 9)]),
            [true, false, false, false, false, true]
        );
    }

    #[test]
    fn an_answer_ends_a_handshake_whose_end_was_not_recognised() {
        let encrypted = Some(record(23, 250));
        assert_eq!(answered(stage::ENCRYPTED, encrypted), stage::OPEN);
        assert_eq!(answered(stage::ENCRYPTED, None), stage::OPEN);
        assert_eq!(
            answered(stage::ENCRYPTED, Some(record(22, 122))),
            stage::HELLO
        );
        assert_eq!(answered(stage::HELLO, encrypted), stage::HELLO);
    }

    #[test]
    fn other_protocols_are_no_records() {
        for begin in [*b"GET /", *b"*3\r\n$", [0, 0, 0, 8, 4], [22, 2, 0, 0, 9]] {
            assert_eq!(Record::parse(begin), None, "{begin:?}");
        }
        assert_eq!(Record::parse([22, 3, 1, 0xff, 0xff]), None);
    }

    proptest! {
        #[test]
        fn no_record_leads_out_of_the_stages(
            stage in stage::UNKNOWN..=stage::OPEN,
            header: [u8; HEADER_LEN],
        ) {
            if let Some(record) = Record::parse(header) {
                let (after, is_application_data) = after(stage, record);
                prop_assert!(after <= stage::OPEN);
                prop_assert!(after >= stage || after == stage::HELLO || after == stage::CHANGED);
                let tells = after == stage::OPEN || after == stage::PLAIN;
                prop_assert!(!is_application_data || tells);
            }
        }
    }
}
