//! What runs, and which files of OpenSSL it maps, from `/proc`.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Bytes of a memory map that are looked at: some 40,000 mappings.
const MAPS_LEN_MAX: u64 = 4 << 20;

/// A file, whatever it is called: device and inode of a memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    major: u32,
    minor: u32,
    inode: u64,
}

#[cfg(test)]
impl FileId {
    pub(super) fn of_inode(inode: u64) -> Self {
        Self {
            major: 8,
            minor: 1,
            inode,
        }
    }
}

/// A file of OpenSSL that a process maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Which.
    pub file: FileId,
    /// As the process names it.
    pub name: String,
    /// Where this process can open it.
    pub path: PathBuf,
}

/// Why the libraries of a process are not known.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// It ended.
    #[error("the process ended")]
    Gone,
    /// CAP_SYS_PTRACE is needed.
    #[error("its memory map may not be read (CAP_SYS_PTRACE)")]
    Refused,
}

impl From<io::Error> for MapsError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Refused,
            _ => Self::Gone,
        }
    }
}

/// Ids of the processes that run; none where they cannot be listed.
pub fn running() -> BTreeSet<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeSet::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect()
}

/// The files of OpenSSL that `process` maps.
///
/// # Errors
/// If its memory map cannot be read.
pub fn libraries_of(process: u32) -> Result<Vec<Mapped>, MapsError> {
    let directory = PathBuf::from(format!("/proc/{process}"));
    let maps = fs::File::open(directory.join("maps"))?.take(MAPS_LEN_MAX);
    let mut found: Vec<Mapped> = Vec::new();
    for line in BufReader::new(maps).split(b'\n') {
        let line = line?;
        let Some(mapping) = std::str::from_utf8(&line).ok().and_then(parse) else {
            continue;
        };
        if found.iter().all(|known| known.file != mapping.file) {
            found.push(Mapped {
                file: mapping.file,
                name: mapping.path.to_owned(),
                path: place(&directory, &mapping),
            });
        }
    }
    Ok(found)
}

#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    range: &'a str,
    file: FileId,
    path: &'a str,
}

/// A line of a memory map (proc_pid_maps(5)) if the file is one of OpenSSL.
fn parse(line: &str) -> Option<Mapping<'_>> {
    let mut rest = line;
    let mut next = || {
        let (field, after) = rest.split_once(' ')?;
        rest = after.trim_start();
        Some(field)
    };
    let (range, _, _) = (next()?, next()?, next()?);
    let (major, minor) = next()?.split_once(':')?;
    let inode = next()?.parse().ok()?;
    let path = rest.strip_suffix(" (deleted)").unwrap_or(rest);
    let name = path.rsplit_once('/')?.1;
    if !is_openssl(name) {
        return None;
    }
    let file = FileId {
        major: u32::from_str_radix(major, 16).ok()?,
        minor: u32::from_str_radix(minor, 16).ok()?,
        inode,
    };
    Some(Mapping { range, file, path })
}

/// `libssl.so.3`, and `libssl-1a2b3c4d.so.1.1` as Python packages bring it; not
/// `libssl3.so`, which is of another library.
fn is_openssl(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("libssl") else {
        return false;
    };
    rest.starts_with(".so") || (rest.starts_with('-') && rest.contains(".so"))
}

/// Where to open the file: at its path in the process's own tree, if it is still
/// there, or where the kernel offers what was mapped.
fn place(process: &Path, mapping: &Mapping<'_>) -> PathBuf {
    let path = process
        .join("root")
        .join(mapping.path.trim_start_matches('/'));
    match fs::metadata(&path) {
        Ok(found) if found.ino() == mapping.file.inode => path,
        _ => process.join("map_files").join(mapping.range),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = "7fe3566e7000-7fe356706000 r--p 00000000 fd:01 1234                       /usr/lib/x86_64-linux-gnu/libssl.so.3";

    #[test]
    fn a_line_of_a_memory_map_names_a_file() {
        let mapping = parse(LINE).unwrap();
        let file = FileId {
            major: 0xfd,
            minor: 1,
            inode: 1234,
        };
        assert_eq!(mapping.file, file);
        assert_eq!(mapping.path, "/usr/lib/x86_64-linux-gnu/libssl.so.3");
        assert_eq!(mapping.range, "7fe3566e7000-7fe356706000");
        let replaced = format!("{LINE} (deleted)");
        assert_eq!(parse(&replaced).unwrap().path, mapping.path);
    }

    #[test]
    fn other_files_are_none_of_openssl() {
        for (name, is) in [
            ("libssl.so.1.1", true),
            ("libssl.so", true),
            ("libssl-1a2b3c4d.so.1.1", true),
            ("libssl3.so", false),
            ("libcrypto.so.3", false),
            ("notlibssl.so.3", false),
        ] {
            assert_eq!(is_openssl(name), is, "{name}");
        }
        assert_eq!(
            parse("7ffd0000-7ffd1000 rw-p 00000000 00:00 0 [stack]"),
            None
        );
        assert_eq!(parse("7ffd0000-7ffd1000 rw-p 00000000 00:00 0 "), None);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in ".{0,200}", cut in 0usize..130) {
            let _ = parse(&line);
            let _ = parse(LINE.get(..cut).unwrap_or(LINE));
        }
    }
}
