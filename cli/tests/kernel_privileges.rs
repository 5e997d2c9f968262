//! The privileges that the systemd unit and the chart give the sensor are
//! enough for every probe. Needs root, to give the rest away.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A child that is ended with the test, by its pid.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn repository(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    fs::read_to_string(path).unwrap()
}

/// Capabilities of the unit, as `setpriv` names them: `bpf`, `perfmon`.
fn of_the_unit() -> Vec<String> {
    let unit = repository("packaging/systemd/honeyguide-sensor.service");
    let line = |key: &str| {
        let mut lines = unit.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)).unwrap();
        let names = value.split_whitespace();
        names
            .map(|name| name.strip_prefix("CAP_").unwrap().to_lowercase())
            .collect::<Vec<_>>()
    };
    let ambient = line("AmbientCapabilities=");
    assert_eq!(ambient, line("CapabilityBoundingSet="));
    ambient
}

/// Capabilities of the chart's DaemonSet without any switch.
fn of_the_chart() -> Vec<String> {
    let template = repository("helm/honeyguide/templates/sensor.yaml");
    let list = "{{- $capabilities := list ";
    let mut lines = template.lines();
    let names = lines.find_map(|line| line.strip_prefix(list)).unwrap();
    let names = names.trim_end_matches(" }}").split(' ');
    names
        .map(|name| name.trim_matches('"').to_lowercase())
        .collect()
}

fn page(port: u16) -> Option<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Runs the sensor by `setpriv` until it has counted events, and checks that
/// every probe is at its best level.
fn check(user: &[&str], capabilities: &[String]) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Another user may not be allowed into the folder of the build.
    let program = directory.path().join("honeyguide");
    fs::copy(env!("CARGO_BIN_EXE_honeyguide"), &program).unwrap();
    let set = |sign: &str| {
        let names = capabilities.iter().map(|name| format!("{sign}{name}"));
        names.collect::<Vec<_>>().join(",")
    };
    let only = format!("-all,{}", set("+"));
    let ports = [(); 2].map(|()| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    });
    let mut command = Command::new("setpriv");
    command.args(user).arg("--no-new-privs");
    command.arg(format!("--inh-caps={only}"));
    if !user.is_empty() {
        command.arg(format!("--ambient-caps={only}"));
    }
    command.arg(format!("--bounding-set={only}"));
    command.arg(&program).args(["up", "--plain"]);
    command.args(["--set", "sensor.flush_interval=1s"]);
    command.args(["--set", "sensor.cost_measurement=0s"]);
    command.args(["--set", "analyzer.step=1s"]);
    command.args([
        "--set",
        &format!("analyzer.grpc_listen=127.0.0.1:{}", ports[0]),
    ]);
    command.args([
        "--set",
        &format!("analyzer.http_listen=127.0.0.1:{}", ports[1]),
    ]);
    let _process = Process(command.stdout(Stdio::null()).spawn().unwrap());

    let deadline = Instant::now() + Duration::from_secs(60);
    let metrics = loop {
        if let Some(metrics) = page(ports[1])
            && events(&metrics) > 1000.0
        {
            break metrics;
        }
        assert!(Instant::now() < deadline, "no events were counted");
        thread::sleep(Duration::from_millis(250));
    };
    let levels: Vec<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("sensor_probe_level{probe="))
        .collect();
    let wanted = ["runq", "blkio", "tcp", "tcp_retransmit", "reclaim"];
    for probe in wanted {
        let best = format!("\"{probe}\"}} 2");
        assert!(levels.contains(&best.as_str()), "{probe}: {levels:?}");
    }
    // How well depends on how this machine mounts cgroups.
    for probe in ["pressure", "throttling"] {
        let refused = format!("\"{probe}\"}} 0");
        assert!(!levels.contains(&refused.as_str()), "{probe}: {levels:?}");
    }
}

fn events(metrics: &str) -> f64 {
    let mut lines = metrics.lines();
    let count = lines.find_map(|line| line.strip_prefix("sensor_events_total "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0.0)
}

#[test]
fn the_capabilities_of_the_unit_are_enough_for_a_user() {
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    check(&user, &of_the_unit());
}

#[test]
fn the_capabilities_of_the_chart_are_enough_for_its_root() {
    check(&[], &of_the_chart());
}
