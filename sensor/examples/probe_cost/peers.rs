//! Other tools with the same logic: starting one, and knowing its programs.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, BufRead, BufReader, Read},
    os::unix::{fs::symlink, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// How long compiling and attaching may take.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// Polls in a row with the same programs, after which it has them all.
const STABLE_POLLS: usize = 5;
/// Printed by the scripts once they are attached (bpftrace: about to be).
const READY: &str = "ready";

/// bcc belongs to the distribution's Python, which need not be the first.
const PYTHON: &str = "/usr/bin/python3";

/// A program of the same logic as one of our probes.
pub struct Peer {
    /// Of the ratio in the report.
    pub key: &'static str,
    command: &'static [&'static str],
}

/// bcc's runqlat.
pub const RUNQ_BCC: Peer = Peer {
    key: "runq_vs_bcc",
    command: &[PYTHON, "-c", include_str!("../peers/runq.py")],
};
/// bpftrace's runqlat.bt.
pub const RUNQ_BPFTRACE: Peer = Peer {
    key: "runq_vs_bpftrace",
    command: &[
        "bpftrace",
        "-B",
        "line",
        "-e",
        include_str!("../peers/runq.bt"),
    ],
};
/// bcc's biolatency.
pub const BLKIO_BCC: Peer = Peer {
    key: "blkio_vs_bcc",
    command: &[PYTHON, "-c", include_str!("../peers/bio.py")],
};
/// bcc's syscount -L.
pub const SYSCALL_BCC: Peer = Peer {
    key: "syscall_vs_bcc",
    command: &[PYTHON, "-c", include_str!("../peers/syscall.py")],
};

/// Kernel headers for bcc. Without those of the running kernel, any do: the
/// scripts use no kernel structures, and tracepoint formats come from tracefs.
pub struct Headers(Option<TempDir>);

impl Headers {
    /// Where bcc would find none, those of another kernel. bcc wants them in
    /// one tree, while distributions split them in `source` and `build`.
    pub fn find() -> Result<Headers> {
        let modules = Path::new("/lib/modules");
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        if env::var_os("BCC_KERNEL_SOURCE").is_some()
            || modules.join(release.trim()).join("build").exists()
            || Path::new("/sys/kernel/kheaders.tar.xz").exists()
        {
            return Ok(Headers(None));
        }
        let Some(other) = fs::read_dir(modules)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.join("build/include/generated").exists())
        else {
            return Ok(Headers(None));
        };
        let architecture = match env::consts::ARCH {
            "x86_64" => "x86",
            "aarch64" => "arm64",
            other => other,
        };
        let merged = tempfile::tempdir()?;
        for part in ["include".to_owned(), format!("arch/{architecture}/include")] {
            let directory = merged.path().join(&part);
            fs::create_dir_all(&directory)?;
            for tree in ["build", "source"] {
                let Ok(entries) = fs::read_dir(other.join(tree).join(&part)) else {
                    continue;
                };
                for entry in entries {
                    let entry = entry?;
                    match symlink(entry.path(), directory.join(entry.file_name())) {
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                            return Err(error.into());
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(Headers(Some(merged)))
    }
}

/// A peer whose programs are attached; dropping it ends it.
pub struct RunningPeer {
    child: Child,
    errors: Option<JoinHandle<String>>,
    programs: BTreeSet<u32>,
}

impl RunningPeer {
    /// Returns once its programs are attached.
    ///
    /// # Errors
    /// What it said when it could not.
    pub fn start(peer: &Peer, headers: &Headers) -> Result<RunningPeer> {
        let mut command = Command::new(peer.command[0]);
        command
            .args(&peer.command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Headers(Some(merged)) = headers {
            command.env("BCC_KERNEL_SOURCE", merged.path());
        }
        // SAFETY: only a system call between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT);
                Ok(())
            });
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("failed to start {}", peer.command[0]))?;
        let (send, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            // Reads on after the ready line, or the peer would block.
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let _ = send.send(line);
                }
            });
        }
        let errors = child.stderr.take().map(|mut stderr| {
            thread::spawn(move || {
                let mut text = Vec::new();
                let _ = stderr.read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        let mut peer = RunningPeer {
            child,
            errors,
            programs: BTreeSet::new(),
        };
        peer.wait_until_attached(&lines)?;
        Ok(peer)
    }

    /// Ids of its programs.
    pub fn programs(&self) -> &BTreeSet<u32> {
        &self.programs
    }

    fn wait_until_attached(&mut self, lines: &mpsc::Receiver<String>) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        let (mut ready, mut stable) = (false, 0);
        while stable < STABLE_POLLS {
            if let Some(status) = self.child.try_wait()? {
                let errors = self.errors.take().map(JoinHandle::join);
                let errors = errors.and_then(Result::ok).unwrap_or_default();
                bail!("{}", reason(&errors).unwrap_or(&status.to_string()));
            }
            if Instant::now() > deadline {
                bail!("not ready after {} s", START_TIMEOUT.as_secs());
            }
            ready |= lines.try_iter().any(|line| line == READY);
            let programs = held_programs(self.child.id())?;
            if ready && !programs.is_empty() && programs == self.programs {
                stable += 1;
            } else {
                stable = 0;
            }
            self.programs = programs;
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for RunningPeer {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // SAFETY: no preconditions; not reaped yet, so the id is the child's.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGINT) };
        let deadline = Instant::now() + STOP_TIMEOUT;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(POLL);
        }
    }
}

/// The first line of standard error that tells why: bpftrace begins with a
/// complaint about a limit that it can do without, bcc with warnings and with
/// what its shell misses.
fn reason(errors: &str) -> Option<&str> {
    let telling = |line: &&str| line.to_lowercase().contains("error");
    let mut lines = errors.lines().map(str::trim).filter(|line| {
        !line.is_empty() && !line.contains("RLIMIT_MEMLOCK") && !line.starts_with("sh: ")
    });
    lines.clone().find(telling).or_else(|| lines.next())
}

/// Ids of the programs that a process has open. Not merely those that are new
/// on the machine: others may load programs at the same time.
fn held_programs(process: u32) -> io::Result<BTreeSet<u32>> {
    let mut programs = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo"))?.flatten() {
        // Gone by now: closed.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        programs.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    Ok(programs)
}
