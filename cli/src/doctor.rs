//! `honeyguide doctor`: what can be measured here, and what to do about the rest.

use std::{fs, path::Path, process::ExitCode};

use honeyguide_sensor::{
    identity::Hierarchy,
    program::{
        Kernel,
        probe::{Probe, ProbeState},
    },
    tls::Libraries,
};

use crate::settings::Settings;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code: 0 when everything the configuration wants can be measured, 1 when
something cannot.

Example:
  sudo honeyguide doctor
")]
pub struct Args {}

/// One line of the report.
struct Finding {
    ok: bool,
    what: String,
    fix: Option<String>,
}

impl Finding {
    fn ok(what: String) -> Self {
        Self {
            ok: true,
            what,
            fix: None,
        }
    }

    fn problem(what: String, fix: &str) -> Self {
        Self {
            ok: false,
            what,
            fix: Some(fix.to_owned()),
        }
    }
}

pub fn run(_args: Args, settings: Settings) -> anyhow::Result<ExitCode> {
    let config = settings.sensor.clone().validate()?;
    let mut findings = vec![kernel(), types(), capabilities(), hierarchy(&settings)];
    findings.extend(probes(&settings, &config));
    let mut code = ExitCode::SUCCESS;
    for finding in findings {
        println!(
            "{}  {}",
            if finding.ok { "ok  " } else { "FAIL" },
            finding.what
        );
        if let Some(fix) = finding.fix {
            println!("      fix: {fix}");
        }
        if !finding.ok {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let what = format!("kernel {release}");
    match version {
        // Task storage in tracing programs and BTF tracepoints.
        (0..5, _) | (5, 0..11) => Finding::problem(what, "kernel 5.11 or newer is needed"),
        _ => Finding::ok(what),
    }
}

fn types() -> Finding {
    let path = Path::new("/sys/kernel/btf/vmlinux");
    let what = format!("type information at {}", path.display());
    match fs::metadata(path) {
        Ok(_) => Finding::ok(what),
        Err(_) => Finding::problem(
            what,
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, and mount sysfs",
        ),
    }
}

fn capabilities() -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(0);
    // Bit numbers of include/uapi/linux/capability.h.
    let wanted = [("CAP_BPF", 39), ("CAP_PERFMON", 38), ("CAP_SYS_ADMIN", 21)];
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(_, bit)| effective >> bit & 1 == 0)
        .map(|(name, _)| *name)
        .collect();
    match missing.as_slice() {
        [] => Finding::ok("capabilities CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN".to_owned()),
        ["CAP_SYS_ADMIN"] => Finding {
            ok: true,
            what: "capabilities CAP_BPF, CAP_PERFMON (without CAP_SYS_ADMIN the cost of programs is not measured)".to_owned(),
            fix: None,
        },
        missing => Finding::problem(
            format!("missing capabilities: {}", missing.join(", ")),
            "run as root: sudo honeyguide doctor",
        ),
    }
}

fn hierarchy(settings: &Settings) -> Finding {
    let root = &settings.sensor.cgroup_root;
    let found = Hierarchy::find(root);
    if !found.root.is_dir() {
        return Finding::problem(
            format!("no cgroup tree at {}", root.display()),
            "mount cgroup2, or set sensor.cgroup_root to where the host's tree is",
        );
    }
    let version = match found.v1_controller {
        Some(controller) => format!("version 1, controller {controller}"),
        None => "version 2".to_owned(),
    };
    Finding::ok(format!("cgroups at {} ({version})", found.root.display()))
}

fn probes(settings: &Settings, config: &honeyguide_sensor::ValidConfig) -> Vec<Finding> {
    let hierarchy = Hierarchy::find(&settings.sensor.cgroup_root);
    let mut kernel = match Kernel::open(config.sizes(), &hierarchy) {
        Ok(kernel) => kernel,
        Err(error) => {
            let fix = "run as root; if it is root already, the message says what the kernel lacks";
            return vec![Finding::problem(format!("kernel programs: {error}"), fix)];
        }
    };
    let all = Probe::ALL.into_iter().map(|probe| {
        let status = kernel.attach(probe, 0);
        let wanted = settings.sensor.probes.contains(&probe);
        let off = if wanted {
            ""
        } else {
            " (off by default; sensor.probes turns it on)"
        };
        let finding = match &status.state {
            ProbeState::Running { level, refusals } => Finding {
                ok: true,
                what: format!("probe {probe}: level {level}, {}{off}", status.describe()),
                fix: refusals
                    .first()
                    .map(|refusal| format!("for a better level: {}", refusal.why)),
            },
            _ => Finding {
                // Kernels without these files miss two indicators, and nothing else.
                ok: !wanted || !probe.is_sampled(),
                what: format!("probe {probe}: {}{off}", status.describe()),
                fix: Some(match probe {
                    Probe::Pressure => {
                        format!("boot with psi=1, or remove {probe} from sensor.probes")
                    }
                    Probe::Throttling => format!(
                        "enable the cpu controller of cgroups, or remove {probe} from sensor.probes"
                    ),
                    _ => format!("remove {probe} from sensor.probes, or use a newer kernel"),
                }),
            },
        };
        kernel.detach(probe);
        finding
    });
    let mut findings: Vec<Finding> = all.collect();
    if config.wants_tls() {
        findings.extend(inside_tls(&mut kernel));
    }
    findings
}

/// What is seen inside TLS of what runs now.
fn inside_tls(kernel: &mut Kernel) -> Vec<Finding> {
    let mut libraries = Libraries::default();
    libraries.look(kernel, true);
    let status = libraries.status();
    libraries.detach(kernel);
    let mut findings: Vec<Finding> = status
        .libraries
        .iter()
        .map(|library| Finding {
            ok: library.is_attached,
            what: format!("requests inside TLS: {library}"),
            fix: library
                .refusal
                .as_ref()
                .map(|_| "set sensor.tls = false, or use a newer kernel".to_owned()),
        })
        .collect();
    if findings.is_empty() {
        let what = "requests inside TLS: no process uses OpenSSL as a library now";
        findings.push(Finding::ok(what.to_owned()));
    }
    if status.unreadable > 0 {
        findings.push(Finding {
            ok: true,
            what: format!(
                "requests inside TLS: not where the libraries of a process may not be read, {} now",
                status.unreadable
            ),
            fix: Some("give it CAP_SYS_PTRACE, or set sensor.tls = false".to_owned()),
        });
    }
    findings
}
