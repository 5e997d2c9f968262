//! Which programs are loaded, and which of them run.

use std::path::Path;

use aya::{Btf, programs::Program};

use super::{
    Kernel, openssl,
    probe::{Probe, ProbeState, ProbeStatus, ProgramSpec, Refusal},
};

impl Kernel {
    /// Loads and attaches `probe` at the best level that works, but not
    /// better than level number `best` (0 is the best there is).
    pub fn attach(&mut self, probe: Probe, best: usize) -> ProbeStatus {
        self.detach(probe);
        let mut refusals = Vec::new();
        for (number, level) in probe.levels().iter().enumerate().skip(best) {
            let has_files = self.places.check(probe, number);
            match has_files.and_then(|()| self.attach_programs(level.programs)) {
                Ok(()) => {
                    if probe == Probe::Tcp {
                        self.forget_begun();
                    }
                    let state = ProbeState::Running {
                        level: number,
                        refusals,
                    };
                    self.states.insert(probe, state);
                    return self.status(probe);
                }
                Err(why) => refusals.push(Refusal { level: number, why }),
            }
        }
        self.states.insert(probe, ProbeState::Refused(refusals));
        self.status(probe)
    }

    /// Attaches programs by name, all or none. For measuring single programs;
    /// [`attach`](Self::attach) is for probes.
    ///
    /// # Errors
    /// What the kernel said, on one line.
    pub fn attach_programs(&mut self, programs: &[ProgramSpec]) -> Result<(), String> {
        for spec in programs {
            if let Err(why) = self.attach_program(spec) {
                self.unload(programs);
                return Err(why);
            }
        }
        Ok(())
    }

    fn attach_program(&mut self, spec: &ProgramSpec) -> Result<(), String> {
        if let Some((_, error)) = spec
            .offsets
            .iter()
            .find_map(|name| self.missing.get_key_value(name))
        {
            return Err(error.to_string());
        }
        let btf = match self.btf.take() {
            Some(btf) => btf,
            None => Btf::from_sys_fs().map_err(|error| error.to_string())?,
        };
        let btf = self.btf.insert(btf);
        let program = self.ebpf.program_mut(spec.program);
        let Some(Program::BtfTracePoint(program)) = program else {
            return Err(format!("the object has no program {}", spec.program));
        };
        let link = program
            .load(spec.tracepoint, btf)
            .and_then(|()| program.attach())
            .map_err(|error| one_line(spec, &error))?;
        self.links.insert(spec.program, link);
        Ok(())
    }

    /// Gives back the memory that attaching needs; attaching again later
    /// reads the kernel's type information again.
    pub fn end_attaching(&mut self) {
        self.btf = None;
        // Parsing leaves tens of megabytes of free memory that glibc keeps.
        #[cfg(target_env = "gnu")]
        // SAFETY: no preconditions.
        unsafe {
            libc::malloc_trim(0);
        }
    }

    /// Detaches and unloads the programs of `probe`.
    pub fn detach(&mut self, probe: Probe) {
        if let Some(ProbeState::Running { level, .. } | ProbeState::Paused { level, .. }) =
            self.states.insert(probe, ProbeState::Off)
        {
            self.unload(probe.levels()[level].programs);
        }
    }

    /// Detaches the programs of `probe`, which stay loaded: until
    /// [`resume`](Self::resume) they cost nothing. Only a running probe can be
    /// paused.
    pub fn pause(&mut self, probe: Probe) {
        let Some(ProbeState::Running { level, refusals }) = self.states.remove(&probe) else {
            return;
        };
        for spec in probe.levels()[level].programs {
            if let Some(link) = self.links.remove(spec.program)
                && let Some(Program::BtfTracePoint(program)) = self.ebpf.program_mut(spec.program)
            {
                // Not attached is what is wanted.
                let _ = program.detach(link);
            }
        }
        self.states
            .insert(probe, ProbeState::Paused { level, refusals });
    }

    /// Attaches the programs of a paused probe again. What began before has
    /// ends that nobody saw, so it counts no more, whichever probe it is of.
    ///
    /// # Errors
    /// What the kernel said, on one line; the probe stays paused then.
    pub fn resume(&mut self, probe: Probe) -> Result<(), String> {
        let Some(ProbeState::Paused { level, refusals }) = self.states.get(&probe).cloned() else {
            return Ok(());
        };
        self.forget_begun();
        self.states
            .insert(probe, ProbeState::Running { level, refusals });
        for spec in probe.levels()[level].programs {
            let Some(Program::BtfTracePoint(program)) = self.ebpf.program_mut(spec.program) else {
                continue;
            };
            match program.attach() {
                Ok(link) => drop(self.links.insert(spec.program, link)),
                Err(error) => {
                    self.pause(probe);
                    return Err(one_line(spec, &error));
                }
            }
        }
        self.forget_begun();
        Ok(())
    }

    /// What began until now counts no more. Programs are attached one after the
    /// other: one may have seen a begin whose end came before the next was there,
    /// and would take a later end for it.
    fn forget_begun(&self) {
        let now = crate::clock::clock_now().monotonic;
        self.tables.set_resumed(now.as_nanos() as u64);
    }

    /// Detaches and unloads programs by name.
    pub fn unload(&mut self, programs: &[ProgramSpec]) {
        self.take_missed_runs();
        for spec in programs {
            if let Some(Program::BtfTracePoint(program)) = self.ebpf.program_mut(spec.program) {
                // Not loaded is what is wanted.
                let _ = program.unload();
                self.links.remove(spec.program);
            }
        }
    }

    /// Whether the programs that tell requests apart are attached.
    pub fn tells_routes(&self) -> bool {
        let state = self.states.get(&Probe::Tcp);
        matches!(state, Some(ProbeState::Running { level: 0, .. }))
    }

    /// Attaches to the file of OpenSSL at `path`, in every process that maps it.
    ///
    /// # Errors
    /// What the kernel said, on one line.
    pub fn attach_openssl(&mut self, path: &Path) -> Result<openssl::Attached, String> {
        openssl::attach(&mut self.ebpf, path)
    }

    /// Detaches from such a file.
    pub fn detach_openssl(&mut self, attached: openssl::Attached) {
        openssl::detach(&mut self.ebpf, attached);
    }

    /// Processes that speak TLS and are not known to use OpenSSL, since the last
    /// call.
    pub fn take_unseen_tls(&mut self) -> Vec<u32> {
        self.unseen_tls.take()
    }

    /// How `probe` stands.
    pub fn status(&self, probe: Probe) -> ProbeStatus {
        let state = self.states.get(&probe).cloned().unwrap_or(ProbeState::Off);
        ProbeStatus { probe, state }
    }

    /// How every probe stands.
    pub fn statuses(&self) -> Vec<ProbeStatus> {
        Probe::ALL
            .into_iter()
            .map(|probe| self.status(probe))
            .collect()
    }
}

/// The last and most telling line of a verifier log, or the error itself.
fn one_line(spec: &ProgramSpec, error: &aya::programs::ProgramError) -> String {
    use std::error::Error;
    let cause = match error {
        aya::programs::ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let told = log.lines().rev().find(|line| {
                !line.is_empty()
                    && !VERIFIER_STATISTICS
                        .iter()
                        .any(|begin| line.starts_with(begin))
            });
            format!(
                "{io_error}{}",
                told.map(|line| format!(": {line}")).unwrap_or_default()
            )
        }
        other => match other.source() {
            Some(source) => format!("{other}: {source}"),
            None => other.to_string(),
        },
    };
    format!("{} on {}: {cause}", spec.program, spec.tracepoint)
}

/// How the lines begin that the verifier ends its log with.
const VERIFIER_STATISTICS: [&str; 4] = [
    "processed ",
    "verification time",
    "stack depth",
    "mark_precise",
];
