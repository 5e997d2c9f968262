//! Probes on the functions of OpenSSL, which see what is inside of TLS.
//!
//! A probe on a file is one on every process that maps it, now or later, so each
//! file is attached to once. They belong to the `tcp` probe: what they find is
//! counted by its programs, and only at its best level.

use std::path::Path;

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
    programs::{
        Program, ProgramError,
        uprobe::{UProbeLinkId, UProbeScope},
    },
};

use super::{KernelError, typed};

/// Function → program, and whether the library is of no use without it.
const PROBES: [(&str, &str, bool); 7] = [
    ("SSL_do_handshake", "tls_handshake", true),
    ("SSL_read", "tls_read", true),
    ("SSL_read", "tls_read_done", true),
    ("SSL_write", "tls_write", true),
    // Since OpenSSL 1.1.1.
    ("SSL_read_ex", "tls_read_ex", false),
    ("SSL_read_ex", "tls_read_done", false),
    ("SSL_write_ex", "tls_write", false),
];

/// Whether `program` is one of those on OpenSSL.
pub fn is_program(program: &str) -> bool {
    PROBES.iter().any(|(_, of, _)| *of == program)
}

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

/// Attaches to the library at `path`, all that is needed or nothing.
///
/// # Errors
/// What the kernel said, or that the file has no such functions, on one line.
pub(super) fn attach(ebpf: &mut Ebpf, path: &Path) -> Result<Attached, String> {
    let mut attached = Attached(Vec::new());
    for (function, name, is_needed) in PROBES {
        match attach_one(ebpf, path, function, name) {
            Ok(link) => attached.0.push((name, link)),
            Err(_) if !is_needed => {}
            Err(why) => {
                detach(ebpf, attached);
                return Err(why);
            }
        }
    }
    Ok(attached)
}

fn attach_one(
    ebpf: &mut Ebpf,
    path: &Path,
    function: &'static str,
    name: &'static str,
) -> Result<UProbeLinkId, String> {
    let Some(Program::UProbe(program)) = ebpf.program_mut(name) else {
        return Err(format!("the object has no program {name}"));
    };
    if program.fd().is_err() {
        program.load().map_err(|error| one_line(function, &error))?;
    }
    program
        .attach(function, path, UProbeScope::AllProcesses)
        .map_err(|error| one_line(function, &error))
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

fn one_line(function: &str, error: &ProgramError) -> String {
    use std::error::Error;
    let mut line = format!("{function}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line.lines().next_back().unwrap_or_default().to_owned()
}
