//! How a request of Kafka ended: the error code of its response.
//!
//! Where it is depends on the API and its version. Facts are those of the message
//! definitions of Apache Kafka 4.1 (`clients/src/main/resources/common/message`);
//! what a version lacks that is older than those is left out.

/// A version that no API has.
const NEVER: u8 = u8::MAX;

/// What the list at the begin of a response holds before its first error code.
mod list {
    /// There is none, or something else is before it.
    pub const NONE: u8 = 0;
    /// Nothing.
    pub const FIRST: u8 = 1;
    /// A name, and the id of a topic if the version has one.
    pub const NAMED: u8 = 2;
    /// The name of a topic, or its id; the list of its partitions; the number of
    /// the first one.
    pub const PARTITIONS: u8 = 3;
}

/// Where the error code of an API's response is, by versions.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Layout {
    /// The first version in which the time to throttle is in front.
    throttled: u8,
    /// The first that is encoded compactly, with tagged fields (KIP-482).
    flexible: u8,
    /// The first and the last with an error code of the whole response.
    top: u8,
    top_until: u8,
    /// Of [`list`], before [`Self::top`].
    list: u8,
    /// The first with ids of topics.
    ids: u8,
}

impl Layout {
    pub(super) const NONE: Layout = Layout {
        throttled: NEVER,
        flexible: NEVER,
        top: NEVER,
        top_until: NEVER,
        list: list::NONE,
        ids: NEVER,
    };
    pub(super) const TOP: Layout = Layout {
        top: 0,
        ..Layout::NONE
    };
    pub(super) const FIRST: Layout = Layout {
        list: list::FIRST,
        ..Layout::NONE
    };
    pub(super) const NAMED: Layout = Layout {
        list: list::NAMED,
        ..Layout::NONE
    };
    pub(super) const PARTITIONS: Layout = Layout {
        list: list::PARTITIONS,
        ..Layout::NONE
    };

    pub(super) const fn throttled(self, throttled: u8) -> Layout {
        Layout { throttled, ..self }
    }

    pub(super) const fn flexible(self, flexible: u8) -> Layout {
        Layout { flexible, ..self }
    }

    pub(super) const fn top(self, top: u8) -> Layout {
        Layout { top, ..self }
    }

    pub(super) const fn top_until(self, top_until: u8) -> Layout {
        Layout { top_until, ..self }
    }

    pub(super) const fn ids(self, ids: u8) -> Layout {
        Layout { ids, ..self }
    }
}

/// Bytes that are looked at in one place.
pub const PART_LEN: usize = 16;

/// Bytes of the id of a topic.
const ID_LEN: u32 = 16;

/// Bytes of a response.
pub struct Part {
    /// In two numbers instead of an array, of which the kernel's verifier does not
    /// accept every way to a place that is known at run time only.
    first: u64,
    last: u64,
    len: u32,
}

impl Part {
    /// The first `len` of `bytes`.
    #[inline(always)]
    pub fn new(bytes: [u8; PART_LEN], len: usize) -> Part {
        let [a, b, c, d, e, f, g, h, last @ ..] = bytes;
        Part {
            first: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            last: u64::from_be_bytes(last),
            len: len as u32,
        }
    }

    /// A number of `N` bytes at `at`.
    #[inline(always)]
    fn number<const N: u32>(&self, at: u32) -> Option<u32> {
        if at + N > self.len || at + N > PART_LEN as u32 {
            return None;
        }
        let bits = 8 * (at & 7);
        let eight = if at >= 8 {
            self.last << bits
        } else {
            // Two shifts, because one by 64 is none.
            self.first << bits | self.last >> 1 >> (63 - bits)
        };
        Some((eight >> (64 - 8 * N)) as u32)
    }

    /// The length of a list, or of a text if `IS_TEXT`, and how many bytes say it;
    /// up to 16382 where they are compact. That of what is null is 0.
    #[inline(always)]
    fn length<const IS_TEXT: bool>(&self, at: u32, is_compact: bool) -> Option<(u32, u32)> {
        if is_compact {
            let first = self.number::<1>(at)?;
            let (plus_one, bytes) = if first & 0x80 == 0 {
                (first, 1)
            } else {
                let second = self.number::<1>(at + 1)?;
                if second & 0x80 != 0 {
                    return None;
                }
                (first & 0x7f | second << 7, 2)
            };
            return Some((plus_one.saturating_sub(1), bytes));
        }
        if IS_TEXT {
            let length = self.number::<2>(at)?;
            return Some((if length > 0x7fff { 0 } else { length }, 2));
        }
        let length = self.number::<4>(at)?;
        Some((if length > 0x7fff_ffff { 0 } else { length }, 4))
    }
}

/// Whether anything is known of where a response to `request` has its error code;
/// `request` is the API's key and its version, 16 bits each.
#[inline(always)]
pub fn has_error_code(request: u32) -> bool {
    let Some(layout) = layout(request) else {
        return false;
    };
    let version = version(request);
    layout.is_top(version) || version < layout.top && layout.list != list::NONE
}

#[inline(always)]
fn version(request: u32) -> u8 {
    (request & 0xff) as u8
}

#[inline(always)]
fn layout(request: u32) -> Option<&'static Layout> {
    super::LAYOUTS.get((request >> 16) as usize)
}

impl Layout {
    #[inline(always)]
    fn is_top(&self, version: u8) -> bool {
        version >= self.top && version <= self.top_until
    }
}

/// The error code of a response to `request`, as in [`has_error_code`]: of the
/// response, or of the first of what it is about, 0 if that is nothing. `None` if
/// it is not known.
///
/// `part` gives what there is at a distance from the end of the correlation id.
#[inline(always)]
pub fn error_code(request: u32, part: impl Fn(u32) -> Option<Part>) -> Option<i16> {
    let layout = layout(request)?;
    let version = version(request);
    let head = part(0)?;
    let mut at = 0;
    let is_compact = version >= layout.flexible;
    if is_compact {
        // A tagged field of the header would have an unknown length.
        if head.number::<1>(at)? != 0 {
            return None;
        }
        at += 1;
    }
    if version >= layout.throttled {
        at += 4;
    }
    if layout.is_top(version) {
        return head.number::<2>(at).map(|code| code as i16);
    }
    if layout.list == list::NONE || version >= layout.top {
        return None;
    }
    let first = part(at)?;
    let (count, bytes) = first.length::<false>(0, is_compact)?;
    if count == 0 {
        return Some(0);
    }
    if layout.list == list::FIRST {
        return first.number::<2>(bytes).map(|code| code as i16);
    }
    let has_id = version >= layout.ids;
    let mut behind = if has_id && layout.list == list::PARTITIONS {
        bytes + ID_LEN
    } else {
        let (length, its_bytes) = first.length::<true>(bytes, is_compact)?;
        bytes + its_bytes + (length & 0x7fff)
    };
    if has_id && layout.list == list::NAMED {
        behind += ID_LEN;
    }
    let element = part(at + behind)?;
    if layout.list == list::NAMED {
        return element.number::<2>(0).map(|code| code as i16);
    }
    let (count, bytes) = element.length::<false>(0, is_compact)?;
    if count == 0 {
        return Some(0);
    }
    element.number::<2>(bytes + 4).map(|code| code as i16)
}

/// Of an error code, a status class: 2 none, 3 go elsewhere or on
/// (`NOT_LEADER_OR_FOLLOWER`, `NOT_COORDINATOR`, `NOT_CONTROLLER`,
/// `REBALANCE_IN_PROGRESS`, `MEMBER_ID_REQUIRED`), 5 what the broker could not do,
/// 4 what the client should not have asked.
#[inline(always)]
pub fn class(code: i16) -> u32 {
    match code {
        0 => 2,
        6 | 16 | 27 | 41 | 79 => 3,
        // UNKNOWN_SERVER_ERROR, LEADER_NOT_AVAILABLE, REQUEST_TIMED_OUT,
        // BROKER_NOT_AVAILABLE, REPLICA_NOT_AVAILABLE, NETWORK_EXCEPTION,
        // COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE,
        // NOT_ENOUGH_REPLICAS and that after the append, KAFKA_STORAGE_ERROR,
        // LOG_DIR_NOT_FOUND, OFFSET_NOT_AVAILABLE, PREFERRED_LEADER_NOT_AVAILABLE,
        // ELIGIBLE_LEADERS_NOT_AVAILABLE.
        -1 | 5 | 7 | 8 | 9 | 13 | 14 | 15 | 19 | 20 | 56 | 57 | 78 | 80 | 83 => 5,
        _ => 4,
    }
}
