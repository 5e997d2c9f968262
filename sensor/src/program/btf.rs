//! Offsets of kernel structure members from BTF.
//!
//! The kernel describes its own types in the BPF Type Format
//! (Documentation/bpf/btf.rst); aya reads it too but does not tell member
//! offsets. Every read is checked: the file is foreign bytes.

use std::{collections::HashMap, path::Path};

/// The running kernel's types.
pub struct TypeFormat {
    data: Vec<u8>,
    strings: usize,
    /// Place of each type in `data`, by type id.
    types: Vec<usize>,
    /// First structure, union or enumeration of each name.
    by_name: HashMap<String, u32>,
}

/// Why an offset is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// The kernel was built without CONFIG_DEBUG_INFO_BTF.
    #[error("the kernel has no type information at {0} (CONFIG_DEBUG_INFO_BTF)")]
    Missing(String),
    /// Not BTF, or cut off.
    #[error("the kernel's type information is malformed at byte {0}")]
    Malformed(usize),
    /// No such member in this kernel.
    #[error("this kernel has no {0}")]
    NoMember(String),
}

const MAGIC: u16 = 0xeb9f;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const QUALIFIERS: [u32; 5] = [8, 9, 10, 11, 18]; // typedef, volatile, const, restrict, type tag
/// Longest chain of qualifiers or nesting of anonymous members followed.
const DEPTH_MAX: usize = 32;

impl TypeFormat {
    /// Reads the type information of the running kernel.
    pub fn of_running_kernel() -> Result<Self, TypeError> {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        let data =
            std::fs::read(path).map_err(|_| TypeError::Missing(path.display().to_string()))?;
        Self::parse(data)
    }

    /// Parses BTF of this machine's byte order.
    pub fn parse(data: Vec<u8>) -> Result<Self, TypeError> {
        let magic = data.get(..2).ok_or(TypeError::Malformed(0))?;
        if magic != MAGIC.to_ne_bytes() {
            return Err(TypeError::Malformed(0));
        }
        let header = word(&data, 4)? as usize;
        let begin = header.saturating_add(word(&data, 8)? as usize);
        let end = begin.saturating_add(word(&data, 12)? as usize);
        let strings = header.saturating_add(word(&data, 16)? as usize);
        let mut types = vec![0];
        let mut at = begin;
        while at < end {
            types.push(at);
            at = at.saturating_add(12 + trailing(word(&data, at + 4)?));
        }
        let mut parsed = Self {
            data,
            strings,
            types,
            by_name: HashMap::new(),
        };
        for id in 1..parsed.types.len() as u32 {
            if matches!(parsed.kind(id)?, KIND_STRUCT | KIND_UNION | KIND_ENUM) {
                let name = parsed.string(word(&parsed.data, parsed.place(id)?)?)?;
                if !name.is_empty() {
                    parsed.by_name.entry(name).or_insert(id);
                }
            }
        }
        Ok(parsed)
    }

    /// Byte offset of a member given as `structure.member.member…`; members of
    /// anonymous structures and unions count as the outer one's. A number
    /// after an array member (`css_set.subsys.4`) selects an element of
    /// pointer size.
    pub fn offset(&self, path: &str) -> Result<u32, TypeError> {
        let none = || TypeError::NoMember(path.to_owned());
        let mut names = path.split('.');
        let mut id = *names
            .next()
            .and_then(|name| self.by_name.get(name))
            .ok_or_else(none)?;
        let mut offset = 0;
        for name in names {
            if let (KIND_ARRAY, Ok(element)) = (self.kind(id)?, name.parse::<u32>()) {
                offset += element * size_of::<usize>() as u32;
                continue;
            }
            let (member_offset, member_type) = self.member(id, name, 0)?.ok_or_else(none)?;
            offset += member_offset;
            id = member_type;
        }
        Ok(offset)
    }

    /// Value of a constant of an enumeration, by the names of both.
    pub fn enumerator(&self, enumeration: &str, name: &str) -> Result<u32, TypeError> {
        let none = || TypeError::NoMember(format!("{enumeration}::{name}"));
        let id = *self.by_name.get(enumeration).ok_or_else(none)?;
        let at = self.place(id)?;
        let constants = word(&self.data, at + 4)? & 0xffff;
        for entry in (0..constants as usize).map(|constant| at + 12 + 8 * constant) {
            if self.string(word(&self.data, entry)?)? == name {
                return word(&self.data, entry + 4);
            }
        }
        Err(none())
    }

    fn member(&self, id: u32, name: &str, depth: usize) -> Result<Option<(u32, u32)>, TypeError> {
        if depth > DEPTH_MAX || !matches!(self.kind(id)?, KIND_STRUCT | KIND_UNION) {
            return Ok(None);
        }
        let at = self.place(id)?;
        let info = word(&self.data, at + 4)?;
        for member in 0..(info & 0xffff) as usize {
            let entry = at + 12 + 12 * member;
            let member_type = self.unqualified(word(&self.data, entry + 4)?)?;
            let mut bits = word(&self.data, entry + 8)?;
            if info >> 31 == 1 {
                bits &= 0x00ff_ffff; // the upper byte is the size of a bit field
            }
            let member_name = self.string(word(&self.data, entry)?)?;
            if member_name == name {
                return Ok(Some((bits / 8, member_type)));
            }
            if member_name.is_empty()
                && let Some((offset, found)) = self.member(member_type, name, depth + 1)?
            {
                return Ok(Some((bits / 8 + offset, found)));
            }
        }
        Ok(None)
    }

    fn unqualified(&self, mut id: u32) -> Result<u32, TypeError> {
        for _ in 0..DEPTH_MAX {
            if id == 0 || !QUALIFIERS.contains(&self.kind(id)?) {
                return Ok(id);
            }
            id = word(&self.data, self.place(id)? + 8)?;
        }
        Err(TypeError::Malformed(self.place(id)?))
    }

    fn place(&self, id: u32) -> Result<usize, TypeError> {
        self.types
            .get(id as usize)
            .copied()
            .ok_or(TypeError::Malformed(id as usize))
    }

    fn kind(&self, id: u32) -> Result<u32, TypeError> {
        if id == 0 {
            return Ok(0); // void
        }
        Ok(word(&self.data, self.place(id)? + 4)? >> 24 & 0x1f)
    }

    fn string(&self, offset: u32) -> Result<String, TypeError> {
        let begin = self.strings.saturating_add(offset as usize);
        let bytes = self.data.get(begin..).ok_or(TypeError::Malformed(begin))?;
        let end = bytes
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(TypeError::Malformed(begin))?;
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

fn word(data: &[u8], at: usize) -> Result<u32, TypeError> {
    let bytes = data
        .get(at..at.saturating_add(4))
        .and_then(|bytes| bytes.try_into().ok());
    bytes
        .map(u32::from_ne_bytes)
        .ok_or(TypeError::Malformed(at))
}

/// Bytes that follow the 12 common ones of a type, by its info word.
fn trailing(info: u32) -> usize {
    let members = (info & 0xffff) as usize;
    match info >> 24 & 0x1f {
        1 | 14 | 17 => 4, // integer, variable, declaration tag
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * members, // 15: data section, 19: 64-bit enum
        KIND_ENUM | 13 => 8 * members,                      // 13: function prototype
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `struct outer { int a; union { struct { char pad[8]; long b; }; }; }`.
    fn small() -> Vec<u8> {
        let strings = b"\0outer\0a\0b\0";
        let (outer, a, b) = (1u32, 7u32, 9u32);
        let kind = |kind: u32, members: u32| kind << 24 | members;
        let mut words = Vec::new();
        words.extend([0, kind(1, 0), 4, 32]); // 1: int
        words.extend([0, kind(4, 1), 16, b, 1, 64]); // 2: struct { b at 8 }
        words.extend([0, kind(5, 1), 16, 0, 2, 0]); // 3: union { 2 }
        words.extend([outer, kind(4, 2), 24, a, 1, 0, 0, 3, 64]); // 4: outer
        let types: Vec<u8> = words
            .iter()
            .flat_map(|word: &u32| word.to_ne_bytes())
            .collect();
        let mut data = MAGIC.to_ne_bytes().to_vec();
        data.extend([1, 0]);
        for field in [
            24,
            0,
            types.len() as u32,
            types.len() as u32,
            strings.len() as u32,
        ] {
            data.extend(field.to_ne_bytes());
        }
        data.extend(types);
        data.extend(strings);
        data
    }

    #[test]
    fn member_of_anonymous_members_is_found() {
        let format = TypeFormat::parse(small()).unwrap();
        assert_eq!(format.offset("outer.a"), Ok(0));
        assert_eq!(format.offset("outer.b"), Ok(16));
        assert_eq!(
            format.offset("outer.c"),
            Err(TypeError::NoMember("outer.c".to_owned()))
        );
    }

    proptest! {
        #[test]
        fn changed_bytes_never_panic(at in 0usize..200, byte: u8, cut in 0usize..250) {
            let mut data = small();
            let at = at % data.len();
            data[at] = byte;
            data.truncate(cut);
            if let Ok(format) = TypeFormat::parse(data) {
                let _ = format.offset("outer.b");
            }
        }
    }
}
