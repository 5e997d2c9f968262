//! The units in `packaging/systemd`, as systemd itself reads them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// What `systemd-analyze security` may say at most, in tenths: from 0 (all is
/// closed) to 100. A plain service has 96.
const EXPOSURE_MAX: &str = "25";

fn units() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
    let entries = fs::read_dir(folder).unwrap();
    let units: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(units.len(), 2);
    units
}

fn analyze(args: &[&str], unit: &Path) -> Output {
    Command::new("systemd-analyze")
        .args(args)
        .arg(unit)
        .output()
        .expect("systemd is installed (`cargo xtask setup --for test` does it)")
}

#[test]
fn systemd_understands_every_line_of_the_units() {
    let directory = tempfile::tempdir().unwrap();
    for unit in units() {
        // Verifying looks for the program, which is installed nowhere yet.
        let text = fs::read_to_string(&unit).unwrap();
        let name = unit.file_stem().unwrap().to_str().unwrap();
        let program = &format!("ExecStart=/usr/bin/{name} ");
        assert!(text.contains(program), "{}", unit.display());
        let built = Path::new(env!("CARGO_BIN_EXE_honeyguide")).with_file_name(name);
        let built = format!("ExecStart={} ", built.display());
        let copy = directory.path().join(unit.file_name().unwrap());
        fs::write(&copy, text.replace(program, &built)).unwrap();
        let output = analyze(&["verify", "--man=no"], &copy);
        let said = String::from_utf8_lossy(&output.stderr);
        let ours: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("honeyguide"))
            .collect();
        assert!(output.status.success() && ours.is_empty(), "{said}");
    }
}

#[test]
fn units_stay_closed() {
    for unit in units() {
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        let output = analyze(
            &["security", "--offline=yes", "--no-pager", &threshold],
            &unit,
        );
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {said}", unit.display());
    }
}

#[test]
fn the_settings_of_the_units_are_keys_of_ours() {
    for unit in units() {
        let text = fs::read_to_string(&unit).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_honeyguide"));
        command.arg("default-config");
        let settings = text
            .lines()
            .filter_map(|line| line.strip_prefix("Environment="));
        command.envs(settings.filter_map(|setting| setting.split_once('=')));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", unit.display());
    }
}
