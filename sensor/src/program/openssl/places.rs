//! Where in a file of OpenSSL the probes go.
//!
//! A probe replaces an instruction, which the kernel then has to run elsewhere,
//! in a single step: two traps, of which the second takes most of ten
//! microseconds in a virtual machine. A few instructions it does itself
//! (arch/x86/kernel/uprobes.c), `push` among them. `SSL_read` and `SSL_read_ex`
//! seldom begin with one, but both do nothing but call one function inside of the
//! library, with the arguments of `SSL_read_ex`, which saves registers first;
//! `SSL_write` and `SSL_write_ex` likewise. So that function is probed where both
//! are seen to call the same, and where it begins well; else the functions
//! themselves.

use std::collections::BTreeMap;

use object::{Object, ObjectSegment, ObjectSymbol, read::elf::ElfFile64};

/// A place and the program that runs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Name of the program.
    pub program: &'static str,
    /// In the file.
    pub offset: u64,
}

/// Why there are no places.
#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    /// The bytes are no library of this machine.
    #[error("no ELF file of this machine: {0}")]
    Elf(#[from] object::Error),
    /// It is another library.
    #[error("the file has no function {0}")]
    NoFunction(&'static str),
}

/// Bytes of a function that are looked at.
const CODE_LEN: u64 = 96;

/// The functions, with what they are used for, and whether the library is of no
/// use without them.
const FUNCTIONS: [(&str, &[&str], bool); 5] = [
    ("SSL_do_handshake", &["tls_handshake"], true),
    ("SSL_read", &["tls_read", "tls_read_done"], true),
    ("SSL_write", &["tls_write", "tls_write_done"], true),
    // Since OpenSSL 1.1.1.
    ("SSL_read_ex", &["tls_read_ex", "tls_read_done"], false),
    ("SSL_write_ex", &["tls_write_ex", "tls_write_done"], false),
];

/// Pairs of functions that may call one and the same, and the programs for that.
const INNER: [([&str; 2], &[&str]); 2] = [
    (
        ["SSL_read", "SSL_read_ex"],
        &["tls_read_ex", "tls_read_done"],
    ),
    (
        ["SSL_write", "SSL_write_ex"],
        &["tls_write_ex", "tls_write_done"],
    ),
];

/// The places in the library whose file is `data`.
///
/// # Errors
/// If it is none, or none of OpenSSL.
pub fn places(data: &[u8]) -> Result<Vec<Place>, PlacesError> {
    let library = Library::parse(data)?;
    let mut places = Vec::new();
    let mut done = Vec::new();
    for (functions, programs) in INNER {
        let [plain, extended] = functions.map(|name| library.inner_function(name));
        if let Some(offset) = plain.filter(|_| plain == extended) {
            places.extend(programs.iter().map(|program| Place { program, offset }));
            done.extend(functions);
        }
    }
    for (name, programs, is_needed) in FUNCTIONS {
        if done.contains(&name) {
            continue;
        }
        match library.functions.get(name) {
            Some(offset) => {
                let offset = offset + library.landing(*offset);
                places.extend(programs.iter().map(|program| Place { program, offset }));
            }
            None if is_needed => return Err(PlacesError::NoFunction(name)),
            None => {}
        }
    }
    places.sort_unstable();
    Ok(places)
}

struct Library<'a> {
    data: &'a [u8],
    /// Offset in the file by name.
    functions: BTreeMap<&'a str, u64>,
    /// Address and offset in the file of each segment, and its length there.
    segments: Vec<(u64, u64, u64)>,
}

impl<'a> Library<'a> {
    fn parse(data: &'a [u8]) -> Result<Self, object::Error> {
        let file: ElfFile64<'a> = ElfFile64::parse(data)?;
        let segments = file.segments().map(|segment| {
            let (offset, len) = segment.file_range();
            (segment.address(), offset, len)
        });
        let mut library = Library {
            data,
            functions: BTreeMap::new(),
            segments: segments.collect(),
        };
        for symbol in file
            .dynamic_symbols()
            .filter(|symbol| symbol.is_definition())
        {
            let name = symbol.name()?;
            if FUNCTIONS.iter().any(|(known, ..)| *known == name)
                && let Some(offset) = library.offset_of(symbol.address())
            {
                library.functions.insert(name, offset);
            }
        }
        Ok(library)
    }

    fn offset_of(&self, address: u64) -> Option<u64> {
        let mut segments = self.segments.iter();
        segments.find_map(|(begin, offset, len)| {
            let into = address.checked_sub(*begin)?;
            (into < *len).then(|| offset.checked_add(into)).flatten()
        })
    }

    /// The code from `offset` on, as much as is looked at.
    fn code(&self, offset: u64) -> &'a [u8] {
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = usize::try_from(offset.saturating_add(CODE_LEN)).unwrap_or(usize::MAX);
        let end = end.min(self.data.len());
        self.data.get(begin..end).unwrap_or_default()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use iced_x86::{Code, Decoder, DecoderOptions};

    use super::Library;

    /// Instructions that are looked at before the call.
    const INSTRUCTIONS_MAX: usize = 24;

    impl Library<'_> {
        /// Offset of the first function that the one called `name` calls, if a
        /// probe costs little there.
        pub(super) fn inner_function(&self, name: &str) -> Option<u64> {
            let offset = *self.functions.get(name)?;
            let code = self.code(offset);
            // Distances are the same in the file: all code is in one segment.
            let mut decoder = Decoder::with_ip(64, code, offset, DecoderOptions::NONE);
            for instruction in decoder.iter().take(INSTRUCTIONS_MAX) {
                match instruction.code() {
                    Code::Call_rel32_64 | Code::Jmp_rel32_64 => {
                        let inner = instruction.near_branch_target();
                        let begin = inner.checked_add(self.landing(inner))?;
                        return self.begins_well(begin).then_some(begin);
                    }
                    Code::INVALID | Code::Retnq | Code::Jmp_rel8_64 => return None,
                    _ => {}
                }
            }
            None
        }

        /// Bytes of what a function begins with only to be called from anywhere.
        pub(super) fn landing(&self, offset: u64) -> u64 {
            let code = self.code(offset);
            let mut decoder = Decoder::with_ip(64, code, offset, DecoderOptions::NONE);
            let first = decoder.decode();
            match first.code() {
                Code::Endbr64 if self.begins_well(first.next_ip()) => first.len() as u64,
                _ => 0,
            }
        }

        /// Whether the kernel does the instruction there itself.
        fn begins_well(&self, offset: u64) -> bool {
            let code = self.code(offset);
            let mut decoder = Decoder::with_ip(64, code, offset, DecoderOptions::NONE);
            decoder.decode().code() == Code::Push_r64
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Library<'_> {
    fn inner_function(&self, _name: &str) -> Option<u64> {
        None
    }

    fn landing(&self, _offset: u64) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests;
