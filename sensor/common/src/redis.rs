//! The Redis protocol (RESP2 and RESP3) as far as the kernel programs read it:
//! which commands a read holds, and how the replies in a write ended.
//!
//! Values are skipped by their length, never looked at.

use crate::words::{WORD_LEN_MAX, Word, Words};

/// Bytes of one read or write that are looked at: a power of two.
pub const SCAN_LEN: usize = 4096;
/// What a buffer has behind them, so that neither looking ahead nor filling it
/// piece by piece needs a check that the verifier understands.
pub const LOOKAHEAD: usize = SCAN_LEN;
/// A buffer of what is scanned; what follows the valid bytes is anything.
pub type Bytes = [u8; SCAN_LEN + LOOKAHEAD];

/// Commands of one read at most.
pub const COMMANDS_MAX: usize = 64;
/// Steps of a scan at most: values, and eighths of lines.
pub const STEPS_MAX: u32 = 1024;

const NAMES: &[&str] = &[
    "GET",
    "SET",
    "DEL",
    "EXISTS",
    "EXPIRE",
    "PEXPIRE",
    "EXPIREAT",
    "PEXPIREAT",
    "TTL",
    "PTTL",
    "PERSIST",
    "TYPE",
    "KEYS",
    "SCAN",
    "RANDOMKEY",
    "RENAME",
    "UNLINK",
    "TOUCH",
    "DUMP",
    "RESTORE",
    "COPY",
    "OBJECT",
    "SORT",
    "APPEND",
    "DECR",
    "DECRBY",
    "INCR",
    "INCRBY",
    "INCRBYFLOAT",
    "GETDEL",
    "GETEX",
    "GETRANGE",
    "GETSET",
    "MGET",
    "MSET",
    "MSETNX",
    "PSETEX",
    "SETEX",
    "SETNX",
    "SETRANGE",
    "STRLEN",
    "SUBSTR",
    "SETBIT",
    "GETBIT",
    "BITCOUNT",
    "BITOP",
    "BITPOS",
    "BITFIELD",
    "HDEL",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HINCRBY",
    "HINCRBYFLOAT",
    "HKEYS",
    "HLEN",
    "HMGET",
    "HMSET",
    "HSCAN",
    "HSET",
    "HSETNX",
    "HSTRLEN",
    "HVALS",
    "HRANDFIELD",
    "BLMOVE",
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "LINDEX",
    "LINSERT",
    "LLEN",
    "LMOVE",
    "LMPOP",
    "LPOP",
    "LPOS",
    "LPUSH",
    "LPUSHX",
    "LRANGE",
    "LREM",
    "LSET",
    "LTRIM",
    "RPOP",
    "RPOPLPUSH",
    "RPUSH",
    "RPUSHX",
    "SADD",
    "SCARD",
    "SDIFF",
    "SDIFFSTORE",
    "SINTER",
    "SINTERSTORE",
    "SISMEMBER",
    "SMEMBERS",
    "SMISMEMBER",
    "SMOVE",
    "SPOP",
    "SRANDMEMBER",
    "SREM",
    "SSCAN",
    "SUNION",
    "SUNIONSTORE",
    "BZPOPMAX",
    "BZPOPMIN",
    "ZADD",
    "ZCARD",
    "ZCOUNT",
    "ZINCRBY",
    "ZINTERSTORE",
    "ZLEXCOUNT",
    "ZPOPMAX",
    "ZPOPMIN",
    "ZRANGE",
    "ZRANGEBYLEX",
    "ZRANGEBYSCORE",
    "ZRANK",
    "ZREM",
    "ZREMRANGEBYLEX",
    "ZREMRANGEBYRANK",
    "ZREVRANGE",
    "ZREVRANGEBYSCORE",
    "ZREVRANK",
    "ZSCAN",
    "ZSCORE",
    "ZMSCORE",
    "ZUNIONSTORE",
    "PFADD",
    "PFCOUNT",
    "PFMERGE",
    "GEOADD",
    "GEODIST",
    "GEOPOS",
    "GEORADIUS",
    "GEOSEARCH",
    "XACK",
    "XADD",
    "XAUTOCLAIM",
    "XCLAIM",
    "XDEL",
    "XGROUP",
    "XINFO",
    "XLEN",
    "XPENDING",
    "XRANGE",
    "XREAD",
    "XREADGROUP",
    "XREVRANGE",
    "XTRIM",
    "PUBLISH",
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SPUBLISH",
    "PUBSUB",
    "MULTI",
    "EXEC",
    "DISCARD",
    "WATCH",
    "UNWATCH",
    "EVAL",
    "EVALSHA",
    "SCRIPT",
    "FCALL",
    "FUNCTION",
    "AUTH",
    "CLIENT",
    "ECHO",
    "HELLO",
    "PING",
    "QUIT",
    "RESET",
    "SELECT",
    "ASKING",
    "CLUSTER",
    "READONLY",
    "READWRITE",
    "COMMAND",
    "CONFIG",
    "DBSIZE",
    "DEBUG",
    "FLUSHALL",
    "FLUSHDB",
    "INFO",
    "LATENCY",
    "MEMORY",
    "MONITOR",
    "SAVE",
    "BGSAVE",
    "BGREWRITEAOF",
    "LASTSAVE",
    "SHUTDOWN",
    "SLOWLOG",
    "ROLE",
    "REPLICAOF",
    "REPLCONF",
    "PSYNC",
    "SYNC",
    "SWAPDB",
    "TIME",
    "WAIT",
    "ACL",
    "MODULE",
];

static WORDS: Words = Words::new(NAMES);

/// The name of a command by its number.
pub fn name(number: u16) -> Option<&'static str> {
    NAMES.get(usize::from(number).checked_sub(1)?).copied()
}

/// Whether `head` begins a command as clients write it: an array.
#[inline(always)]
pub fn is_array(head: u64) -> bool {
    let digit = (head >> 48 & 0xff) as u8;
    let next = (head >> 40 & 0xff) as u8;
    head >> 56 == u64::from(b'*')
        && digit.is_ascii_digit()
        && (next == b'\r' || next.is_ascii_digit())
}

/// Whether `head` begins a command as people type it that clients write, too.
#[inline(always)]
pub fn is_inline(head: u64) -> bool {
    let folded = head >> 32 & 0xdfdf_dfdf;
    let end = (head >> 24 & 0xff) as u8;
    folded == u64::from(u32::from_be_bytes(*b"PING")) && (end == b'\r' || end == b'\n')
}

#[inline(always)]
fn byte(bytes: &Bytes, at: usize) -> u8 {
    bytes[at & (SCAN_LEN - 1)]
}

/// Digits up to the end of a line at `at`: the number, and where the next line
/// begins. A minus sign gives 0, because what has a negative length has nothing.
#[inline(always)]
fn number(bytes: &Bytes, at: usize) -> Option<(u32, usize)> {
    let at = at & (SCAN_LEN - 1);
    if bytes[at] == b'-' {
        return (bytes[at + 2] == b'\r').then_some((0, at + 4));
    }
    let mut number = 0;
    for place in 0..9 {
        let digit = bytes[at + place].wrapping_sub(b'0');
        if digit > 9 {
            let ends = place > 0 && bytes[at + place] == b'\r';
            return ends.then_some((number, at + place + 2));
        }
        number = number * 10 + u32::from(digit);
    }
    None
}

#[inline(always)]
fn word(bytes: &Bytes, at: usize, len: usize) -> u16 {
    let at = at & (SCAN_LEN - 1);
    let mut letters = [0; WORD_LEN_MAX];
    letters.copy_from_slice(&bytes[at..at + WORD_LEN_MAX]);
    Word::new(letters, len).map_or(0, |word| WORDS.number(word))
}

/// Place of the first byte in a word of eight that is `wanted`, 8 if none is.
#[inline(always)]
pub(crate) fn place_of(bytes: &Bytes, at: usize, wanted: u8) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let at = at & (SCAN_LEN - 1);
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    let word = u64::from_le_bytes(eight) ^ (ONES * wanted as u64);
    // The lowest byte that is zero has its highest bit set, those below have not.
    let found = word.wrapping_sub(ONES) & !word & (ONES << 7);
    if found == 0 {
        return 8;
    }
    // The lowest bit that is set, by a de Bruijn sequence: branches would show the
    // verifier eight places, and it would walk on from each.
    let lowest = found & found.wrapping_neg();
    usize::from(PLACES[(lowest.wrapping_mul(DE_BRUIJN) >> 58) as usize])
}

const DE_BRUIJN: u64 = 0x03f7_9d71_b4cb_0a89;
/// Byte that a bit is in, by the sixth of [`DE_BRUIJN`] that it brings to the top.
static PLACES: [u8; 64] = {
    let (mut places, mut bit) = ([0; 64], 0);
    while bit < 64 {
        places[(DE_BRUIJN << bit >> 58) as usize] = bit / 8;
        bit += 1;
    }
    places
};

/// Places beyond a buffer are all the same.
const BEYOND: usize = 2 * SCAN_LEN;

/// Where a scan is: it begins with zeros, but for `len` and `max`. The kernel
/// keeps it in memory between steps, so that the verifier walks through one
/// step only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Valid bytes.
    pub len: u32,
    /// Replies that are looked for.
    pub max: u32,
    /// Place in the bytes.
    pub at: u32,
    /// What was found so far.
    pub count: u32,
    /// Values left of what is being walked over.
    values: u32,
    /// Status class of the reply.
    class: u32,
    /// 1 within what is one line.
    in_line: u32,
    /// 1 if the next value is the name of a command.
    is_name: u32,
    /// 1 if there is something that was not understood, or not looked at.
    is_lost: u32,
}

impl Cursor {
    /// Before the first step over `len` valid bytes with `max` replies.
    pub const fn new(len: usize, max: usize) -> Cursor {
        Cursor {
            len: len as u32,
            max: max as u32,
            at: 0,
            count: 0,
            values: 0,
            class: 0,
            in_line: 0,
            is_name: 0,
            is_lost: 0,
        }
    }

    /// Whether what was found last ends where the bytes end: nothing was cut
    /// off, and nothing was left out.
    pub const fn is_whole(&self) -> bool {
        self.at == self.len && self.values == 0 && self.in_line == 0 && self.is_lost == 0
    }

    /// Nothing that follows is understood.
    #[inline(always)]
    fn lose(&mut self) -> bool {
        self.is_lost = 1;
        false
    }

    #[inline(always)]
    fn go_to(&mut self, at: usize) {
        self.at = if at < BEYOND {
            at as u32
        } else {
            BEYOND as u32
        };
    }

    #[inline(always)]
    fn step_in_line(&mut self, bytes: &Bytes) {
        let step = place_of(bytes, self.at as usize, b'\n');
        self.in_line = u32::from(step == 8);
        self.at += if step == 8 { 8 } else { step as u32 + 1 };
    }
}

/// Walks over the next value of the commands in `bytes`, and writes the numbers
/// of those it finds to `found`, 0 for one that is not known. Whether to go on.
#[inline(always)]
pub fn step_commands(bytes: &Bytes, cursor: &mut Cursor, found: &mut [u16; COMMANDS_MAX]) -> bool {
    if cursor.at >= cursor.len {
        return false;
    }
    if cursor.in_line != 0 {
        cursor.step_in_line(bytes);
        return true;
    }
    let at = cursor.at as usize;
    let place = cursor.count as usize;
    if cursor.values == 0 {
        if place >= COMMANDS_MAX {
            return cursor.lose();
        }
        if byte(bytes, at) == b'*' {
            let Some((elements, next)) = number(bytes, at + 1) else {
                return cursor.lose();
            };
            (cursor.values, cursor.is_name) = (elements, 1);
            cursor.go_to(next);
            return true;
        }
        let Some(length) = inline_len(bytes, at) else {
            return cursor.lose();
        };
        found[place & (COMMANDS_MAX - 1)] = word(bytes, at, length);
        cursor.count += 1;
        cursor.in_line = 1;
        return true;
    }
    if byte(bytes, at) != b'$' {
        return cursor.lose();
    }
    let Some((length, next)) = number(bytes, at + 1) else {
        return cursor.lose();
    };
    let end = next + length as usize;
    if cursor.is_name != 0 {
        if end > cursor.len as usize {
            return cursor.lose();
        }
        found[place & (COMMANDS_MAX - 1)] = word(bytes, next, length as usize);
        cursor.count += 1;
        cursor.is_name = 0;
    }
    cursor.values -= 1;
    cursor.go_to(end + 2);
    true
}

/// Walks over the next value of the replies in `bytes`, and writes the classes
/// of those that end to `found`. Whether to go on.
#[inline(always)]
pub fn step_replies(bytes: &Bytes, cursor: &mut Cursor, found: &mut [u16; COMMANDS_MAX]) -> bool {
    if cursor.at >= cursor.len {
        return false;
    }
    if cursor.in_line != 0 {
        cursor.step_in_line(bytes);
    } else {
        let at = cursor.at as usize;
        if cursor.values == 0 {
            if cursor.count >= cursor.max {
                return cursor.lose();
            }
            let mut head = [0; 8];
            let from = at & (SCAN_LEN - 1);
            head.copy_from_slice(&bytes[from..from + 8]);
            let Some(outcome) = outcome(u64::from_be_bytes(head)) else {
                return cursor.lose();
            };
            (cursor.values, cursor.class) = (1, outcome);
        }
        let first = byte(bytes, at);
        match first {
            b'$' | b'=' | b'!' | b'*' | b'~' | b'>' | b'%' | b'|' => {
                let Some((length, next)) = number(bytes, at + 1) else {
                    return cursor.lose();
                };
                if matches!(first, b'$' | b'=' | b'!') {
                    // A null has no value, and so no line end behind it.
                    let is_null = byte(bytes, at + 1) == b'-';
                    cursor.go_to(next + if is_null { 0 } else { length as usize + 2 });
                } else {
                    let pairs = u32::from(first == b'%' || first == b'|');
                    let elements = (length & 0xff_ffff) << pairs;
                    // What an attribute describes follows it.
                    let values = elements + u32::from(first == b'|');
                    cursor.values = cursor.values.saturating_add(values);
                    cursor.go_to(next);
                }
            }
            _ => {
                cursor.in_line = 1;
                cursor.at += 1;
            }
        }
        cursor.values = cursor.values.wrapping_sub(1);
    }
    if cursor.values == 0 && cursor.in_line == 0 {
        found[cursor.count as usize & (COMMANDS_MAX - 1)] = cursor.class as u16;
        cursor.count += 1;
    }
    true
}

/// Letters of the name of a command that is one line; `None` if it is none.
#[inline(always)]
fn inline_len(bytes: &Bytes, at: usize) -> Option<usize> {
    let at = at & (SCAN_LEN - 1);
    for place in 0..=WORD_LEN_MAX {
        let byte = bytes[at + place];
        if byte.is_ascii_alphabetic() {
            continue;
        }
        let ends = place > 0 && matches!(byte, b' ' | b'\r' | b'\n');
        return ends.then_some(place);
    }
    None
}

/// How a request ended, as a status class: 2 ok, 3 elsewhere (`MOVED`, `ASK`),
/// 4 an error of the client, 5 of the server; `None` if `head` begins no reply.
#[inline(always)]
pub fn outcome(head: u64) -> Option<u32> {
    match (head >> 56) as u8 {
        b'-' => Some(error_class(head)),
        b'!' => Some(4),
        b'+' | b':' | b'$' | b'*' | b'_' | b'#' | b',' | b'(' | b'=' | b'%' | b'~' | b'>'
        | b'|' => Some(2),
        _ => None,
    }
}

/// By the first letters behind the minus sign.
#[inline(always)]
fn error_class(head: u64) -> u32 {
    const fn four(text: &[u8; 4]) -> u64 {
        u32::from_be_bytes(*text) as u64
    }
    let code = head >> 24 & 0xffff_ffff;
    let is = |text: &[u8; 4]| code == four(text);
    if is(b"MOVE") || is(b"ASK ") {
        return 3;
    }
    let is_servers = is(b"LOAD")
        || is(b"OOM ")
        || is(b"BUSY")
        || is(b"MAST")
        || is(b"CLUS")
        || is(b"TRYA")
        || is(b"MISC")
        || is(b"NORE")
        || is(b"READ");
    if is_servers { 5 } else { 4 }
}

#[cfg(test)]
mod tests;
