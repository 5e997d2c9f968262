//! Which files of OpenSSL are in use, and by how many processes: what the probes
//! on them are attached to.
//!
//! A process is looked at a few times when it is new, because it may load the
//! library later or execute another program, and again whenever the kernel side
//! says that it speaks TLS without a library that is known. So a machine on
//! which nothing starts costs one listing of `/proc` at a time.
//!
//! Deliberately absent: libraries that are linked into a program, and others than
//! OpenSSL's. Their connections are timed, and processes that have them counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use tracing::{info, warn};

use crate::program::{Kernel, openssl::Attached};

mod processes;

pub use processes::{FileId, libraries_of, running};
use processes::{Mapped, MapsError};

/// Files that are attached to at most.
pub const LIBRARIES_MAX: usize = 64;
/// How often a new process is looked at, at intervals of the sensor.
const LOOKS: u8 = 3;
/// Processes that are looked at in one interval at most.
const LOOKS_AT_ONCE: usize = 256;

/// How a file stands.
#[derive(Debug)]
enum State {
    /// There is something to attach to.
    Found,
    Attached(Attached),
    Refused(String),
}

#[derive(Debug)]
struct Library {
    /// As its first process names it.
    name: String,
    /// Where it can be opened, as long as that process lives.
    path: PathBuf,
    state: State,
}

#[derive(Debug, Default)]
struct Process {
    looks: u8,
    libraries: BTreeSet<FileId>,
    /// It speaks TLS, and not by a library that is known.
    is_unseen: bool,
    /// Its memory map may not be read.
    is_unreadable: bool,
}

/// The book of processes and libraries.
#[derive(Debug, Default)]
pub struct Libraries {
    processes: BTreeMap<u32, Process>,
    libraries: BTreeMap<FileId, Library>,
    /// Files beyond [`LIBRARIES_MAX`] that were found.
    beyond: u64,
}

/// What there is of TLS, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsStatus {
    /// Each file of OpenSSL in use.
    pub libraries: Vec<LibraryStatus>,
    /// Processes that use one.
    pub processes: usize,
    /// Processes that speak TLS by something else.
    pub unseen: usize,
    /// Processes whose libraries may not be known.
    pub unreadable: usize,
}

/// A file of OpenSSL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryStatus {
    /// As its first process names it.
    pub name: String,
    /// Processes that use it.
    pub processes: usize,
    /// Whether what they read and write is seen.
    pub is_attached: bool,
    /// Why not.
    pub refusal: Option<String>,
}

impl TlsStatus {
    /// Files that are attached to.
    pub fn attached(&self) -> usize {
        let libraries = self.libraries.iter();
        libraries.filter(|library| library.is_attached).count()
    }
}

impl fmt::Display for LibraryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processes = match self.processes {
            1 => "1 process".to_owned(),
            many => format!("{many} processes"),
        };
        write!(f, "{}, {processes}", self.name)?;
        match &self.refusal {
            Some(why) => write!(f, ", refused: {why}"),
            None => Ok(()),
        }
    }
}

impl Libraries {
    /// Looks at what started and ended since the last time. `is_wanted` is
    /// whether requests are told apart at all now.
    pub fn look(&mut self, kernel: &mut Kernel, is_wanted: bool) {
        // What runs at the start is there at once.
        let at_once = match self.processes.is_empty() {
            true => usize::MAX,
            false => LOOKS_AT_ONCE,
        };
        for process in kernel.take_unseen_tls() {
            self.speaks_tls(process);
        }
        self.update(&running(), libraries_of, at_once);
        for gone in self.unused() {
            if let Some(library) = self.libraries.remove(&gone) {
                info!(library = library.name, "no process uses it any more");
                give_up(kernel, library.state);
            }
        }
        for library in self.libraries.values_mut() {
            match (&library.state, is_wanted) {
                (State::Found, true) => library.attach(kernel),
                (State::Attached(_), false) => {
                    give_up(kernel, std::mem::replace(&mut library.state, State::Found));
                }
                _ => {}
            }
        }
    }

    /// Detaches from everything.
    pub fn detach(&mut self, kernel: &mut Kernel) {
        for (_, library) in std::mem::take(&mut self.libraries) {
            give_up(kernel, library.state);
        }
        self.processes.clear();
    }

    /// What is known now.
    pub fn status(&self) -> TlsStatus {
        let count = |counts: fn(&Process) -> bool| {
            let processes = self.processes.values();
            processes.filter(|process| counts(process)).count()
        };
        TlsStatus {
            libraries: self.libraries.iter().map(|of| self.status_of(of)).collect(),
            processes: count(|process| !process.libraries.is_empty()),
            unseen: count(|process| process.is_unseen),
            unreadable: count(|process| process.is_unreadable),
        }
    }

    fn status_of(&self, (id, library): (&FileId, &Library)) -> LibraryStatus {
        let processes = self.processes.values();
        LibraryStatus {
            name: library.name.clone(),
            processes: processes.filter(|of| of.libraries.contains(id)).count(),
            is_attached: matches!(library.state, State::Attached(_)),
            refusal: match &library.state {
                State::Refused(why) => Some(why.clone()),
                _ => None,
            },
        }
    }

    /// The kernel side saw a connection of `process` that nothing explains.
    fn speaks_tls(&mut self, process: u32) {
        let process = self.processes.entry(process).or_default();
        // A thread that has not called the library yet is no reason.
        process.looks = process.looks.min(LOOKS - 1);
        process.is_unseen = process.libraries.is_empty();
    }

    /// Takes in which processes run, and what is `mapped` by those that are to be
    /// looked at, the newest first, and so many `at_once` at most.
    fn update(
        &mut self,
        running: &BTreeSet<u32>,
        mapped: impl Fn(u32) -> Result<Vec<Mapped>, MapsError>,
        at_once: usize,
    ) {
        self.processes
            .retain(|process, _| running.contains(process));
        for process in running {
            self.processes.entry(*process).or_default();
        }
        let due = self.processes.iter().filter(|(_, of)| of.looks < LOOKS);
        let mut due: Vec<(u8, u32)> = due.map(|(process, of)| (of.looks, *process)).collect();
        due.sort_unstable();
        for (_, number) in due.into_iter().take(at_once) {
            let found = mapped(number);
            let Some(process) = self.processes.get_mut(&number) else {
                continue;
            };
            process.looks += 1;
            process.is_unreadable = matches!(found, Err(MapsError::Refused));
            // What ended meanwhile is not there the next time.
            for library in found.unwrap_or_default() {
                if !self.libraries.contains_key(&library.file) {
                    if self.libraries.len() >= LIBRARIES_MAX {
                        self.beyond += 1;
                        warn!(
                            library = library.name,
                            "not attached to, there are too many"
                        );
                        continue;
                    }
                    let found = Library {
                        name: library.name,
                        path: library.path,
                        state: State::Found,
                    };
                    self.libraries.insert(library.file, found);
                }
                process.libraries.insert(library.file);
                process.is_unseen = false;
            }
        }
    }

    fn unused(&self) -> Vec<FileId> {
        let used = |file| {
            self.processes
                .values()
                .any(|of| of.libraries.contains(file))
        };
        let files = self.libraries.keys();
        files.filter(|file| !used(file)).copied().collect()
    }
}

impl Library {
    fn attach(&mut self, kernel: &mut Kernel) {
        self.state = match kernel.attach_openssl(&self.path) {
            Ok(attached) => {
                info!(library = self.name, "attached: requests inside TLS");
                State::Attached(attached)
            }
            Err(why) => {
                warn!(library = self.name, why, "refused: no requests inside TLS");
                State::Refused(why)
            }
        };
    }
}

fn give_up(kernel: &mut Kernel, state: State) {
    if let State::Attached(attached) = state {
        kernel.detach_openssl(attached);
    }
}

#[cfg(test)]
mod tests;
