//! Attaches and detaches the kernel programs on command, for
//! `cargo xtask bench overhead` and `request-cost`.
//!
//! Reads `off`, `empty`, `full`, `requests` or `requests-sampled` from standard
//! input, a line each, and answers `ok` or the reason why not. `empty` attaches
//! programs that do nothing to the hooks that `full` uses; `requests` is what
//! sees requests and their routes, `requests-sampled` that at 1/16.

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
use sensor_common::Signal;

const ROUTES_PER_SERVICE: u32 = 64;
/// Sampling shift of 1/16.
const SAMPLED: u8 = 4;

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
    kernel.tables().set_routes_per_service(ROUTES_PER_SERVICE);
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
    let (probes, shift) = match state {
        "off" => return Ok(()),
        "empty" => return kernel.attach_programs(&EMPTY).map_err(anyhow::Error::msg),
        "full" => (&PROBES[..], 0),
        "requests" => (&[Probe::Tcp][..], 0),
        "requests-sampled" => (&[Probe::Tcp][..], SAMPLED),
        other => bail!("unknown state {other:?}"),
    };
    for signal in Signal::ALL {
        let tables = kernel.tables();
        tables.set_signal_config(signal.number(), shift, shift);
    }
    for probe in probes {
        if let ProbeState::Refused(refusals) = kernel.attach(*probe, 0).state {
            bail!("{probe}: {refusals:?}");
        }
    }
    Ok(())
}
