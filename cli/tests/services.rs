//! `honeyguide-sensor` and `honeyguide-analyzer` as a unit or a container
//! starts them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const SERVICES: [&str; 2] = ["honeyguide-sensor", "honeyguide-analyzer"];

/// Cargo puts all programs into one folder.
fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_honeyguide")).with_file_name(name)
}

fn run(name: &str, args: &[&str]) -> Output {
    let mut command = Command::new(program(name));
    command.args(args).env_remove("HONEYGUIDE_CONFIG");
    command.output().unwrap()
}

#[test]
fn wrong_configuration_ends_with_64_before_anything_is_opened() {
    for (service, own) in SERVICES.into_iter().zip(["sensor", "analyzer"]) {
        for wrong in [&format!("{own}.no_such_key=1"), "kafka.no_such_key=1"] {
            let output = run(service, &["--set", wrong]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{service} {wrong}: {said}");
            assert!(said.contains("no_such_key"), "{said}");
        }
        assert_eq!(run(service, &["--no-such-flag"]).status.code(), Some(64));
    }
}

#[test]
fn one_file_is_for_all_programs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("honeyguide.toml");
    fs::write(&file, run("honeyguide", &["default-config"]).stdout).unwrap();
    for service in SERVICES {
        let output = run(service, &["--config", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr);
        // All that the default lacks.
        assert_eq!(output.status.code(), Some(1), "{service}: {said}");
        assert!(said.contains("kafka.brokers is"), "{service}: {said}");
    }
}

#[test]
fn each_program_holds_only_its_part() {
    for (service, own, other) in [
        (SERVICES[0], "aya-obj-", "polars-core-"),
        (SERVICES[1], "polars-core-", "aya-obj-"),
    ] {
        // The debug information names the files that a program is made of.
        let bytes = fs::read(program(service)).unwrap();
        let holds = |name: &str| {
            let name = name.as_bytes();
            bytes.windows(name.len()).any(|window| window == name)
        };
        assert!(holds(own), "{service} has no {own}");
        assert!(!holds(other), "{service} has {other}");
    }
}
