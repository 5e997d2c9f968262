//! Attaches and detaches the kernel programs on command, for
//! `cargo xtask bench overhead`.
//!
//! Reads `off`, `empty` or `full` from standard input, a line each, and answers
//! `ok` or the reason why not. `empty` attaches programs that do nothing to the
//! hooks that `full` uses.

use std::{
    io::{self, BufRead},
    path::Path,
};

use anyhow::{Result, bail};
use honeyguide_sensor::{
    identity::Hierarchy,
    program::{
        Kernel, Sizes,
        probe::{Probe, ProbeState, ProgramSpec},
    },
};

/// Probes that are on by default.
const PROBES: [Probe; 5] = [
    Probe::Runq,
    Probe::Blkio,
    Probe::Tcp,
    Probe::TcpRetransmit,
    Probe::Reclaim,
];

const EMPTY: [ProgramSpec; 7] = [
    empty("empty_sched_switch", "sched_switch"),
    empty("empty_block_start", "block_io_start"),
    empty("empty_block_complete", "block_rq_complete"),
    empty("empty_data_ready", "sk_data_ready"),
    empty("empty_receive", "sock_recv_length"),
    empty("empty_send", "sock_send_length"),
    empty("empty_state", "inet_sock_set_state"),
];

const fn empty(program: &'static str, tracepoint: &'static str) -> ProgramSpec {
    ProgramSpec {
        program,
        tracepoint,
        offsets: &[],
    }
}

fn main() -> Result<()> {
    let hierarchy = Hierarchy::find(Path::new("/sys/fs/cgroup"));
    let mut kernel = Kernel::open(Sizes::default(), &hierarchy)?;
    for line in io::stdin().lock().lines() {
        kernel.unload(&EMPTY);
        for probe in PROBES {
            kernel.detach(probe);
        }
        match attach(&mut kernel, line?.trim()) {
            Ok(()) => println!("ok"),
            Err(error) => println!("{error:#}"),
        }
    }
    Ok(())
}

fn attach(kernel: &mut Kernel, state: &str) -> Result<()> {
    match state {
        "off" => Ok(()),
        "empty" => kernel.attach_programs(&EMPTY).map_err(anyhow::Error::msg),
        "full" => {
            for probe in PROBES {
                if let ProbeState::Refused(refusals) = kernel.attach(probe, 0).state {
                    bail!("{probe}: {refusals:?}");
                }
            }
            Ok(())
        }
        other => bail!("unknown state {other:?}"),
    }
}
