//! Requests of HTTP/1.1 that were read together, and responses that were written
//! together.
//!
//! A request ends with its head: what follows is the next one if it begins with
//! a method, and a body that nothing is found behind if it does not. Responses
//! are found by their status lines.

use super::{METHOD_LEN_MAX, PATH_LEN_MAX, STATUS_LEN, method, status};
use crate::redis::{Bytes, COMMANDS_MAX, SCAN_LEN, place_of};

/// Requests of one read at most.
pub const REQUESTS_MAX: usize = COMMANDS_MAX;
/// Steps of a scan at most: eighths of lines, and requests.
pub const STEPS_MAX: u32 = 1024;
/// Bytes of a request that is cut by the end of a read, at most.
pub const PART_LEN_MAX: usize = 1024;
/// Bytes behind a status line's begin that belong to no other.
const _: () = assert!(STATUS_LEN > 8);

/// Where a scan of requests is: it begins with zeros, but for `len`, and
/// `in_head` if it begins within a request.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Valid bytes, [`SCAN_LEN`] at most.
    pub len: u32,
    /// Place in the bytes.
    pub at: u32,
    /// Requests or responses that were found.
    pub count: u32,
    /// Where the request begins that the scan is in, and its path.
    pub begin: u32,
    /// Where its path begins.
    pub path: u32,
    /// Number of its method, 0 if it began before the bytes.
    pub method: u32,
    /// 1 within a request.
    in_head: u32,
    /// 1 if what follows is no request, or was not looked at.
    is_lost: u32,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing more is found.
    End,
    /// It goes on.
    More,
    /// A request ends, the last of [`Cursor::count`].
    Request,
}

impl Cursor {
    /// Before the first step over `len` valid bytes; `in_head` if they begin
    /// within a request.
    pub const fn new(len: usize, in_head: bool) -> Cursor {
        Cursor {
            len: len as u32,
            at: 0,
            count: 0,
            begin: 0,
            path: 0,
            method: 0,
            in_head: in_head as u32,
            is_lost: 0,
        }
    }

    /// Whether the bytes end within a request, which begins at `begin`.
    pub const fn is_cut(&self) -> bool {
        self.is_lost == 0 && self.begin < self.len
    }

    /// Whether there are more requests than are looked for.
    pub const fn is_full(&self) -> bool {
        self.count >= REQUESTS_MAX as u32 && self.begin < self.len
    }

    #[inline(always)]
    fn lose(&mut self) -> Step {
        self.is_lost = 1;
        Step::End
    }

    /// Bytes of the path of the request that ended last, and of what follows it.
    #[inline(always)]
    pub const fn path_len(&self) -> usize {
        let len = self.at.saturating_sub(self.path) as usize;
        if len < PATH_LEN_MAX {
            len
        } else {
            PATH_LEN_MAX
        }
    }
}

#[inline(always)]
fn array<const N: usize>(bytes: &Bytes, at: usize) -> [u8; N] {
    let at = at & (SCAN_LEN - 1);
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// Walks over some of the requests in `bytes`.
#[inline(always)]
pub fn step_requests(bytes: &Bytes, cursor: &mut Cursor) -> Step {
    let left = cursor.len.saturating_sub(cursor.at);
    if left == 0 {
        return Step::End;
    }
    let at = cursor.at as usize;
    if cursor.in_head == 0 {
        if cursor.count >= REQUESTS_MAX as u32 {
            return cursor.lose();
        }
        if left < METHOD_LEN_MAX as u32 {
            return Step::End;
        }
        let Some((number, len)) = method(array(bytes, at)) else {
            return cursor.lose();
        };
        (cursor.method, cursor.in_head) = (u32::from(number), 1);
        cursor.at += len;
        cursor.path = cursor.at;
        return Step::More;
    }
    let step = place_of(bytes, at, b'\n');
    if step >= left as usize {
        cursor.at = cursor.len;
        return Step::End;
    }
    if step == 8 {
        cursor.at += 8;
        return Step::More;
    }
    cursor.at += step as u32 + 1;
    let next: [u8; 2] = array(bytes, cursor.at as usize);
    if next != *b"\r\n" || cursor.at + 2 > cursor.len {
        return Step::More;
    }
    cursor.at += 2;
    (cursor.begin, cursor.in_head) = (cursor.at, 0);
    cursor.count += 1;
    Step::Request
}

/// Walks on to the next status line in `bytes`, and writes the status to `found`,
/// `max` of them at most; interim responses are left out. Whether to go on.
#[inline(always)]
pub fn step_responses(
    bytes: &Bytes,
    cursor: &mut Cursor,
    max: u32,
    found: &mut [u16; REQUESTS_MAX],
) -> bool {
    if cursor.at + STATUS_LEN as u32 > cursor.len || cursor.count >= max {
        return false;
    }
    let step = place_of(bytes, cursor.at as usize, b'H');
    cursor.at += step as u32;
    if step == 8 {
        return true;
    }
    if cursor.at + STATUS_LEN as u32 > cursor.len {
        return false;
    }
    match status(array(bytes, cursor.at as usize)) {
        Some(status) => {
            if status >= 200 {
                found[cursor.count as usize & (REQUESTS_MAX - 1)] = status as u16;
                cursor.count += 1;
            }
            cursor.at += STATUS_LEN as u32;
        }
        None => cursor.at += 1,
    }
    true
}

#[cfg(test)]
mod tests;
