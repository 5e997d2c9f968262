//! The kernel programs with real kernel events. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod cgroups;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use honeyguide_sensor::{
    identity::Hierarchy,
    program::{
        Kernel, Sizes,
        probe::{Probe, ProbeState, ProgramSpec},
    },
};
use sensor_common::record::Loss;

fn kernel() -> Kernel {
    let hierarchy = Hierarchy::find(Path::new("/sys/fs/cgroup"));
    Kernel::open(Sizes::default(), &hierarchy).expect("the kernel object loads")
}

#[test]
fn every_probe_attaches_at_its_best_level() {
    let mut kernel = kernel();
    for probe in Probe::ALL {
        let status = kernel.attach(probe, 0);
        println!("{probe}: {} ({:?})", status.describe(), status.state);
        assert!(status.is_running(), "{probe}: {}", status.describe());
    }
}

/// What older kernels get works here too, and says what it is.
#[test]
fn every_level_attaches_when_better_ones_are_refused() {
    // Services are named by version 2 while it holds groups.
    let _group = cgroups::Group::new("levels", "service");
    let mut kernel = kernel();
    for probe in Probe::ALL {
        for (number, level) in probe.levels().iter().enumerate() {
            let status = kernel.attach(probe, number);
            let ProbeState::Running {
                level: attached, ..
            } = status.state
            else {
                panic!("{probe} at level {number}: {}", status.describe());
            };
            assert_eq!(attached, number, "{:?}", status.state);
            assert_eq!(status.describe(), level.what);
        }
    }
}

#[test]
fn kernel_index_equals_user_space_index() {
    let mut kernel = kernel();
    let bounds =
        (0..=192).map(|position| sensor_common::histogram::lower_bound_ns(position) as u64);
    let around = bounds.flat_map(|bound| bound - 3..=bound + 3);
    let powers = (0..64).flat_map(|bit| [1u64 << bit, (1u64 << bit) - 1, u64::MAX >> bit]);
    for value_ns in around.chain(powers) {
        let expected = sensor_common::histogram::position(value_ns) as u32;
        assert_eq!(kernel.bucket_position(value_ns), Ok(expected), "{value_ns}");
    }
}

/// A process that allocates all the time, which a timer interrupts some ten thousand
/// times a second with a signal: the kernel allocates for that, too. Interrupts that
/// find the CPU in the program are not counted by it, and are not lost silently.
#[test]
fn runs_that_the_kernel_leaves_out_are_counted_also_when_the_program_is_gone() {
    const PROGRAM: ProgramSpec = ProgramSpec {
        program: "empty_sched_switch",
        tracepoint: "kmem_cache_alloc",
        offsets: &[],
    };
    const LOAD: &str = "
import os, signal
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 5e-5, 5e-5)
while True:
    os.close(os.open('/dev/null', os.O_RDONLY))
";
    let mut kernel = kernel();
    kernel.attach_programs(&[PROGRAM]).unwrap();
    let missed = |kernel: &mut Kernel| kernel.losses().unwrap()[Loss::RunMissed as usize];
    let mut load = Command::new("python3").args(["-c", LOAD]).spawn().unwrap();
    let give_up = Instant::now() + Duration::from_secs(60);
    while missed(&mut kernel) == 0 && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(10));
    }
    load.kill().unwrap();
    load.wait().unwrap();
    let before = missed(&mut kernel);
    assert!(before > 0, "no interrupt found the program");
    kernel.unload(&[PROGRAM]);
    let after = missed(&mut kernel);
    assert!(after >= before, "{after} of {before}");
    kernel.attach_programs(&[PROGRAM]).unwrap();
    assert!(missed(&mut kernel) >= after);
}
