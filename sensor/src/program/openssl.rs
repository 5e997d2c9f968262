//! Probes on the functions of OpenSSL, which see what is inside of TLS.
//!
//! A probe on a file is one on every process that maps it, now or later, so each
//! file is attached to once. They belong to the `tcp` probe: what they find is
//! counted by its programs, and only at its best level.

use std::{fs::File, io::Read, path::Path};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
    programs::{
        Program, ProgramError,
        uprobe::{UProbeLinkId, UProbeScope},
    },
};

use self::places::{Place, places};
use super::{KernelError, typed};

pub mod places;

/// Every program.
const PROGRAMS: [&str; 7] = [
    "tls_handshake",
    "tls_read",
    "tls_read_ex",
    "tls_read_done",
    "tls_write",
    "tls_write_ex",
    "tls_write_done",
];

/// Whether `program` is one of those on OpenSSL.
pub fn is_program(program: &str) -> bool {
    PROGRAMS.contains(&program)
}

/// Bytes of a library that are read at most: they are below one megabyte.
const FILE_LEN_MAX: u64 = 64 << 20;

/// A file that is attached to.
#[derive(Debug)]
pub struct Attached(Vec<(&'static str, UProbeLinkId)>);

/// What the kernel side knows of processes that speak TLS.
pub(super) struct Unseen(HashMap<MapData, u32, u32>);

impl Unseen {
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let convert = |map: Map| HashMap::try_from(map);
        typed(ebpf, "TLS_UNSEEN", convert).map(Self)
    }

    /// Processes that accepted TLS connections, since the last call, in threads
    /// that were not known to use a library that is attached to.
    pub(super) fn take(&mut self) -> Vec<u32> {
        let processes: Vec<u32> = self.0.keys().flatten().collect();
        for process in &processes {
            // Not there is what is wanted.
            let _ = self.0.remove(process);
        }
        processes
    }
}

/// Attaches to the library at `path`, to all that is needed or nothing.
///
/// # Errors
/// What the kernel said, or that the file has no such functions, on one line.
pub(super) fn attach(ebpf: &mut Ebpf, path: &Path) -> Result<Attached, String> {
    let places = places(&read(path)?).map_err(|error| error.to_string())?;
    let mut attached = Attached(Vec::new());
    for place in places {
        match attach_one(ebpf, path, place) {
            Ok(link) => attached.0.push((place.program, link)),
            Err(why) => {
                detach(ebpf, attached);
                return Err(why);
            }
        }
    }
    Ok(attached)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut data = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_LEN_MAX).read_to_end(&mut data));
    match read {
        Ok(_) => Ok(data),
        Err(error) => Err(format!("failed to read it: {error}")),
    }
}

fn attach_one(ebpf: &mut Ebpf, path: &Path, place: Place) -> Result<UProbeLinkId, String> {
    let name = place.program;
    let Some(Program::UProbe(program)) = ebpf.program_mut(name) else {
        return Err(format!("the object has no program {name}"));
    };
    if program.fd().is_err() {
        program.load().map_err(|error| one_line(name, &error))?;
    }
    program
        .attach(place.offset, path, UProbeScope::AllProcesses)
        .map_err(|error| one_line(name, &error))
}

/// Detaches from a library.
pub(super) fn detach(ebpf: &mut Ebpf, attached: Attached) {
    for (name, link) in attached.0 {
        if let Some(Program::UProbe(program)) = ebpf.program_mut(name) {
            // Not attached is what is wanted.
            let _ = program.detach(link);
        }
    }
}

fn one_line(program: &str, error: &ProgramError) -> String {
    use std::error::Error;
    let mut line = format!("{program}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line.lines().next_back().unwrap_or_default().to_owned()
}
