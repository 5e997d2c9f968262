//! HTTP/2 as far as the kernel programs read it (RFC 9113, RFC 7541): the method
//! and the path of each request, its status, and that of gRPC.
//!
//! Of the dynamic tables of a connection only what is needed is remembered, by
//! the number of its entry: an encoder never names what it has thrown out, so
//! sizes need not be known. A block of fields that is not whole in one frame and
//! one window of bytes ends reading that side of the connection.

mod field;
pub mod huffman;

use self::field::{
    Text, byte, digits, eight, integer, is_grpc, method, name_kind, static_kind, text,
};
use crate::{
    http::{self, PATH_LEN_MAX},
    redis::Bytes,
};

/// Bytes that a client begins with.
pub const PREFACE_LEN: u32 = 24;
/// Steps through one window at most: frames, fields and bytes of paths.
pub const STEPS_MAX: u32 = 4096;
/// Entries of a dynamic table that are remembered, by the last bits of their number.
pub const ENTRIES: usize = 64;
/// What is cut off at the end of a window is kept up to this length.
pub const REST_MAX: usize = 256;

const FRAME_LEN: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// What a field says, as far as it is wanted.
mod kind {
    pub const NONE: u32 = 0;
    pub const METHOD: u32 = 1;
    pub const PATH: u32 = 2;
    pub const STATUS: u32 = 3;
    pub const CONTENT_TYPE: u32 = 4;
    pub const GRPC_STATUS: u32 = 5;
}

/// An entry of a dynamic table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    number: u32,
    kind: u32,
    value: u64,
}

/// What is remembered of one direction of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// Bytes that come before the next frame.
    pub skip: u32,
    /// Entries that were ever added to the dynamic table.
    inserted: u32,
    /// Bytes of `rest`.
    pub rest_len: u32,
    /// 1 if frames are not followed any more.
    pub is_lost: u32,
    entries: [Entry; ENTRIES],
    /// The begin of a frame that was cut off.
    pub rest: [u8; REST_MAX],
}

impl Side {
    /// At the begin of a connection.
    pub const NEW: Side = Side {
        skip: 0,
        inserted: 0,
        rest_len: 0,
        is_lost: 0,
        entries: [Entry {
            number: 0,
            kind: kind::NONE,
            value: 0,
        }; ENTRIES],
        rest: [0; REST_MAX],
    };

    #[inline(always)]
    fn insert(&mut self, kind: u32, value: u64) {
        let number = self.inserted;
        self.entries[number as usize % ENTRIES] = Entry {
            number,
            kind,
            value,
        };
        self.inserted = number.wrapping_add(1);
    }

    /// The entry of an index behind the static table.
    #[inline(always)]
    fn entry(&self, index: u32) -> Option<Entry> {
        let number = self.inserted.wrapping_sub(index - STATIC_LEN);
        let entry = self.entries[number as usize % ENTRIES];
        (entry.number == number && index - STATIC_LEN <= ENTRIES as u32).then_some(entry)
    }
}

/// Entries of the static table.
const STATIC_LEN: u32 = 61;

/// What to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next step.
    Step,
    /// A path is in the buffer, see [`Cursor::path_len`]; then
    /// [`Cursor::path_is_known`].
    Path,
    /// A block of fields ended, see [`Cursor::block`].
    Block,
    /// A stream was given up by who sent this.
    Reset,
    /// A stream ended with data.
    End,
    /// The window is at its end.
    Stop,
}

/// What the fields of a block said.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Number of the method, 0 if there is none that is known.
    pub method: u32,
    /// Status, 0 if there is none.
    pub status: u32,
    /// Status of gRPC plus 1, 0 if there is none.
    pub grpc_status: u32,
    /// 1 if the content is gRPC's.
    pub is_grpc: u32,
    /// 1 if the path is in the buffer, 2 if it was named by index.
    pub path: u32,
    /// 1 if the stream ends with the block.
    pub ends: u32,
    /// Of the path.
    pub shape: u64,
}

/// Where reading is. The kernel keeps it in memory between steps, so that the
/// verifier walks through one step only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Valid bytes of the window.
    pub len: u32,
    /// Place in the window.
    pub at: u32,
    /// The stream of the frame.
    pub stream: u32,
    /// End of the frame, perhaps beyond the window.
    end: u32,
    /// End of the fields, within the window.
    fields_end: u32,
    /// What comes: of [`part`].
    part: u32,
    /// Of the field that is being read.
    index: u32,
    kind: u32,
    is_kept: u32,
    is_coded: u32,
    /// Its value, which ends at `at`.
    text_at: u32,
    path_len: u32,
    value: u64,
    node: huffman::Node,
    /// Of the block that is being read.
    pub block: Block,
}

mod part {
    pub const FRAME: u32 = 0;
    pub const FIELD: u32 = 1;
    pub const INDEXED: u32 = 2;
    pub const NAME: u32 = 3;
    pub const VALUE: u32 = 4;
    pub const TEXT: u32 = 5;
    pub const NOTHING: u32 = 6;
    pub const PATH: u32 = 7;
}

impl Cursor {
    /// At the begin of a window with `len` valid bytes, of which the first
    /// frame begins at `at`.
    pub const fn new(len: u32, at: u32) -> Cursor {
        Cursor {
            len,
            at,
            stream: 0,
            end: 0,
            fields_end: 0,
            part: part::FRAME,
            index: 0,
            kind: kind::NONE,
            is_kept: 0,
            is_coded: 0,
            text_at: 0,
            path_len: 0,
            value: 0,
            node: huffman::Node::NEW,
            block: Block {
                method: 0,
                status: 0,
                grpc_status: 0,
                is_grpc: 0,
                path: 0,
                ends: 0,
                shape: 0,
            },
        }
    }

    /// Whether neither fields nor a path are being read.
    #[inline(always)]
    pub fn is_between_frames(&self) -> bool {
        self.part == part::FRAME
    }

    /// Bytes of the path in the buffer.
    #[inline(always)]
    pub fn path_len(&self) -> u32 {
        self.path_len
    }

    /// The path in the buffer has a shape; 0 if it is none.
    #[inline(always)]
    pub fn path_is_known(&mut self, side: &mut Side, shape: u64) {
        self.block.path = 1;
        self.block.shape = shape;
        if self.is_kept != 0 {
            side.insert(kind::PATH, shape);
        }
    }

    #[inline(always)]
    fn lose(side: &mut Side) -> Next {
        side.is_lost = 1;
        Next::Stop
    }

    /// Reads on.
    #[inline(always)]
    pub fn step(&mut self, bytes: &Bytes, side: &mut Side, path: &mut [u8; PATH_LEN_MAX]) -> Next {
        match self.part {
            part::FRAME => self.step_frame(bytes, side),
            part::FIELD => self.step_field(bytes, side),
            part::INDEXED => self.step_indexed(side, path),
            part::NAME => self.step_name(bytes, side),
            part::VALUE => self.step_value(bytes, side),
            part::TEXT => self.step_text(bytes, side),
            part::NOTHING => {
                self.part = part::FIELD;
                if self.is_kept != 0 {
                    side.insert(kind::NONE, 0);
                }
                Next::Step
            }
            _ => self.step_path(bytes, path),
        }
    }

    #[inline(always)]
    fn step_frame(&mut self, bytes: &Bytes, side: &mut Side) -> Next {
        let (at, len) = (self.at, self.len);
        if at + FRAME_LEN as u32 > len {
            // The rest is kept.
            return Next::Stop;
        }
        let head = eight(bytes, at);
        let (size, frame, flags) = ((head >> 40) as u32, (head >> 32) as u8, (head >> 24) as u8);
        let stream = (head as u32 & 0x7f_ffff) << 8 | u32::from(byte(bytes, at + 8));
        let begin = at + FRAME_LEN as u32;
        let end = begin + size;
        self.stream = stream;
        if frame == HEADERS || frame == CONTINUATION {
            if flags & END_HEADERS == 0 || frame == CONTINUATION {
                return Self::lose(side);
            }
            if end > len {
                return if end - at > REST_MAX as u32 {
                    Self::lose(side)
                } else {
                    Next::Stop
                };
            }
            let is_padded = flags & PADDED != 0;
            let padding = if is_padded {
                u32::from(byte(bytes, begin))
            } else {
                0
            };
            let before = u32::from(is_padded) + if flags & PRIORITY != 0 { 5 } else { 0 };
            if before + padding > size {
                return Self::lose(side);
            }
            (self.at, self.fields_end, self.end) = (begin + before, end - padding, end);
            self.part = part::FIELD;
            self.block = Block {
                ends: u32::from(flags & END_STREAM != 0),
                ..Block::default()
            };
            return Next::Step;
        }
        if end > len {
            (side.skip, self.at) = (end - len, len);
        } else {
            self.at = end;
        }
        match frame {
            RST_STREAM => Next::Reset,
            DATA if flags & END_STREAM != 0 => Next::End,
            _ => Next::Step,
        }
    }

    #[inline(always)]
    fn step_field(&mut self, bytes: &Bytes, side: &mut Side) -> Next {
        let at = self.at;
        if at >= self.fields_end {
            (self.at, self.part) = (self.end, part::FRAME);
            return Next::Block;
        }
        let first = byte(bytes, at);
        // Named by index, a new size of the table, kept in the table, not kept.
        let (mask, part, is_kept) = if first & 0x80 != 0 {
            (0x7f, part::INDEXED, 0)
        } else if first & 0x40 != 0 {
            (0x3f, part::NAME, 1)
        } else if first & 0x20 != 0 {
            (0x1f, part::FIELD, 0)
        } else {
            (0x0f, part::NAME, 0)
        };
        (self.part, self.is_kept) = (part, is_kept);
        match integer(bytes, at, mask) {
            Some((index, next)) => {
                (self.index, self.at) = (index, next);
                Next::Step
            }
            None => Self::lose(side),
        }
    }

    /// The name of a field.
    #[inline(always)]
    fn step_name(&mut self, bytes: &Bytes, side: &mut Side) -> Next {
        self.part = part::VALUE;
        if self.index != 0 {
            self.kind = if self.index <= STATIC_LEN {
                static_kind(self.index)
            } else {
                side.entry(self.index)
                    .map_or(kind::NONE, |entry| entry.kind)
            };
            return Next::Step;
        }
        let Some(name) = text(bytes, self.at) else {
            return Self::lose(side);
        };
        self.at = name.at + name.len;
        self.kind = name_kind(bytes, name);
        Next::Step
    }

    /// Where the value of a field is.
    #[inline(always)]
    fn step_value(&mut self, bytes: &Bytes, side: &mut Side) -> Next {
        let Some(value) = text(bytes, self.at) else {
            return Self::lose(side);
        };
        self.at = value.at + value.len;
        if self.at > self.fields_end {
            return Self::lose(side);
        }
        (self.text_at, self.is_coded) = (value.at, u32::from(value.is_coded));
        self.path_len = 0;
        self.node = huffman::Node::NEW;
        self.part = match self.kind {
            kind::PATH => part::PATH,
            kind::NONE => part::NOTHING,
            _ => part::TEXT,
        };
        Next::Step
    }

    /// What the value of a field says.
    #[inline(always)]
    fn step_text(&mut self, bytes: &Bytes, side: &mut Side) -> Next {
        let value = Text {
            at: self.text_at,
            len: self.at.wrapping_sub(self.text_at),
            is_coded: self.is_coded != 0,
        };
        self.value = match self.kind {
            kind::METHOD => method(bytes, value),
            kind::STATUS | kind::GRPC_STATUS => digits(bytes, value),
            _ => is_grpc(bytes, value),
        };
        self.part = part::FIELD;
        if self.is_kept != 0 {
            side.insert(self.kind, self.value);
        }
        self.apply(self.kind, self.value);
        Next::Step
    }

    /// A field of the tables.
    #[inline(always)]
    fn step_indexed(&mut self, side: &mut Side, path: &mut [u8; PATH_LEN_MAX]) -> Next {
        self.part = part::FIELD;
        if self.index > STATIC_LEN {
            let entry = side.entry(self.index).unwrap_or_default();
            self.apply(entry.kind, entry.value);
            return Next::Step;
        }
        match self.index {
            2 => self.block.method = http::Method::Get as u32,
            3 => self.block.method = http::Method::Post as u32,
            4 | 5 => {
                let text = b"/index.html";
                path[..text.len()].copy_from_slice(text);
                self.path_len = if self.index == 4 {
                    1
                } else {
                    text.len() as u32
                };
                return Next::Path;
            }
            8 => self.block.status = 200,
            9 => self.block.status = 204,
            10 => self.block.status = 206,
            11 => self.block.status = 304,
            12 => self.block.status = 400,
            13 => self.block.status = 404,
            14 => self.block.status = 500,
            _ => {}
        }
        Next::Step
    }

    #[inline(always)]
    fn apply(&mut self, kind: u32, value: u64) {
        match kind {
            kind::METHOD => self.block.method = value as u32,
            kind::PATH => (self.block.path, self.block.shape) = (2, value),
            kind::STATUS => self.block.status = value as u32,
            kind::CONTENT_TYPE => self.block.is_grpc = value as u32,
            kind::GRPC_STATUS => self.block.grpc_status = value as u32 + 1,
            _ => {}
        }
    }

    /// One byte of a path.
    #[inline(always)]
    fn step_path(&mut self, bytes: &Bytes, path: &mut [u8; PATH_LEN_MAX]) -> Next {
        let at = self.text_at;
        if at >= self.at || self.path_len as usize >= PATH_LEN_MAX {
            self.part = part::FIELD;
            return Next::Path;
        }
        let from = byte(bytes, at);
        self.text_at = at + 1;
        if self.is_coded == 0 {
            self.push(path, from);
            return Next::Step;
        }
        for four in [from >> 4, from & 15] {
            match self.node.step(four) {
                Ok(Some(byte)) => self.push(path, byte),
                Ok(None) => {}
                Err(huffman::Invalid) => self.text_at = self.at,
            }
        }
        Next::Step
    }

    #[inline(always)]
    fn push(&mut self, path: &mut [u8; PATH_LEN_MAX], byte: u8) {
        let at = self.path_len as usize;
        if at < PATH_LEN_MAX {
            path[at] = byte;
            self.path_len += 1;
        }
    }
}

/// The status class of a gRPC status: 2 ok, 5 what OpenTelemetry takes for errors
/// of the server, 4 the others.
pub const fn grpc_class(status: u32) -> u32 {
    match status {
        0 => 2,
        // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
        2 | 4 | 12 | 13 | 14 | 15 => 5,
        _ => 4,
    }
}

#[cfg(test)]
mod tests;
