//! Which packages are needed for what. Pure.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

/// What the machine is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Purpose {
    /// Building and running.
    Run,
    /// The tests: also what they run beside us.
    Test,
    /// The benches: also what they compare with or drive.
    Bench,
}

/// A compiler for the BPF target that has the sources of `core`: the newest
/// Rust of a Debian release, which the distribution keeps for browsers.
pub const RUST_WITH_SOURCES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// For crates with C inside (zstd, librdkafka) and for linking bpf-linker with LLVM.
pub const C_COMPILER: [&str; 5] = ["gcc", "g++", "make", "pkg-config", "libc6-dev"];

/// What librdkafka is linked with.
pub const TLS_LIBRARY: &str = "libssl-dev";

/// Majors of LLVM that bpf-linker 0.13 can be built with.
const LINKER_LLVM: [u32; 3] = [21, 22, 23];

/// What the tests run beside us.
const TEST_TOOLS: [&str; 4] = [
    "prometheus",
    "prometheus-alertmanager",
    "python3-venv",
    "systemd",
];

/// HTTP servers, or what runs them, that tests of the kernel programs ask, and
/// the packages that have them.
pub const HTTP_SERVERS: [(&str, &str); 4] = [
    ("python3", "python3"),
    ("node", "nodejs"),
    ("go", "golang-go"),
    ("nginx", "nginx-light"),
];

/// Servers of other protocols that tests of the kernel programs ask, and clients
/// that they ask with.
const OTHER_SERVERS: [&str; 9] = [
    "curl",
    "openssl",
    "redis-server",
    "redis-tools",
    "postgresql",
    "nghttp2-client",
    "dnsmasq-base",
    "bind9-dnsutils",
    "nftables",
];

/// Programs that get and run Apache Kafka, and the packages that have them.
pub const KAFKA_TOOLS: [(&str, &str); 2] = [("java", "default-jre-headless"), ("mvn", "maven")];

/// Name of what `cargo xtask incidents` runs, among benches.
pub const INCIDENTS: &str = "incidents";

/// Servers of recorded incidents, and what makes their bottlenecks.
const INCIDENT_TOOLS: [&str; 8] = [
    "gunicorn",
    "iproute2",
    "nftables",
    "nginx-light",
    "postgresql",
    "python3-psycopg2",
    "python3-redis",
    "redis-server",
];

/// What each bench compares with or drives. bcc compiles its programs on the
/// spot, for which any recent kernel headers do.
const BENCH_TOOLS: [(&str, &[&str]); 5] = [
    (INCIDENTS, &INCIDENT_TOOLS),
    ("probe-cost", &["bpftrace", "bpfcc-tools", "fio", HEADERS]),
    ("overhead", &["linux-perf", "fio", "nginx-light", "wrk"]),
    ("request-cost", &["nginx-light", "wrk"]),
    (
        "request-accuracy",
        &["nginx-light", "redis-server", "postgresql"],
    ),
];

#[cfg(target_arch = "aarch64")]
const HEADERS: &str = "linux-headers-arm64";
#[cfg(not(target_arch = "aarch64"))]
const HEADERS: &str = "linux-headers-amd64";

/// Tools for `purpose` beyond building; for [`Purpose::Bench`] those of
/// `benches`, or of all when it is empty.
pub fn tools(purpose: Purpose, benches: &[&str]) -> Vec<&'static str> {
    match purpose {
        Purpose::Run => Vec::new(),
        Purpose::Test => [&TEST_TOOLS[..], &OTHER_SERVERS, &INCIDENT_TOOLS].concat(),
        Purpose::Bench => {
            let needed: BTreeSet<_> = BENCH_TOOLS
                .iter()
                .filter(|(bench, _)| benches.is_empty() || benches.contains(bench))
                .flat_map(|(_, tools)| tools.iter().copied())
                .collect();
            needed.into_iter().collect()
        }
    }
}

/// Those of `wanted` that are not installed, each once, in order.
pub fn missing(wanted: &[&str], installed: &BTreeSet<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    wanted
        .iter()
        .filter(|name| !installed.contains(**name) && seen.insert(**name))
        .map(|name| (*name).to_owned())
        .collect()
}

/// What building bpf-linker with an LLVM needs.
pub fn llvm(major: u32) -> [String; 4] {
    [
        format!("llvm-{major}-dev"),
        format!("libpolly-{major}-dev"),
        "zlib1g-dev".to_owned(),
        "libzstd-dev".to_owned(),
    ]
}

/// The LLVM to build bpf-linker with: it must read what the compiler writes,
/// so it must not be older than the compiler's, and need not be newer. Where
/// the compiler is not known yet, the newest offered.
///
/// # Errors
/// When no usable version is offered.
pub fn choose_llvm(compiler_major: Option<u32>, offered: &[u32]) -> Result<u32> {
    let mut usable: Vec<u32> = offered
        .iter()
        .copied()
        .filter(|major| LINKER_LLVM.contains(major))
        .filter(|major| compiler_major.is_none_or(|compiler| *major >= compiler))
        .collect();
    usable.sort_unstable();
    let chosen = match compiler_major {
        Some(_) => usable.first(),
        None => usable.last(),
    };
    chosen.copied().with_context(|| {
        format!(
            "no package llvm-NN-dev that bpf-linker can use (it needs one of {LINKER_LLVM:?}, not \
             older than the compiler's{}; offered: {offered:?}): install bpf-linker 0.13 into PATH, \
             see https://github.com/aya-rs/bpf-linker",
            compiler_major.map_or(String::new(), |major| format!(" {major}")),
        )
    })
}

/// What to install on a system whose package manager we do not drive.
pub fn by_hand(rust: bool, linker: bool, tools: &[&str]) -> String {
    let mut text = String::from("this system has no apt; please install, then run this again:\n");
    if rust {
        text.push_str(
            "  rustup toolchain install nightly --profile minimal --component rust-src\n",
        );
    }
    if linker {
        text.push_str(
            "  a C++ compiler, pkg-config and the development files of the nightly's LLVM (`rustc \
             +nightly -vV` names the version), then\n  cargo install bpf-linker --version ^0.13 \
             --no-default-features --features llvm-<version>\n  (or the released binary: \
             https://github.com/aya-rs/bpf-linker/releases)\n",
        );
    }
    text.push_str("  the development files of OpenSSL\n");
    for tool in tools {
        text.push_str(&format!("  what Debian calls {tool}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_needs_no_tools_of_tests_and_benches() {
        assert!(tools(Purpose::Run, &[]).is_empty());
        let for_tests = [&TEST_TOOLS[..], &OTHER_SERVERS, &INCIDENT_TOOLS].concat();
        assert_eq!(tools(Purpose::Test, &[]), for_tests);
    }

    #[test]
    fn a_bench_gets_its_own_tools_only() {
        assert!(tools(Purpose::Bench, &["histogram"]).is_empty());
        assert!(tools(Purpose::Bench, &["overhead"]).contains(&"wrk"));
        assert!(!tools(Purpose::Bench, &["overhead"]).contains(&"bpftrace"));
        let all = tools(Purpose::Bench, &[]);
        assert_eq!(all.iter().filter(|tool| **tool == "fio").count(), 1);
    }

    #[test]
    fn only_missing_packages_are_planned_each_once() {
        let installed = BTreeSet::from(["gcc".to_owned()]);
        assert_eq!(missing(&["gcc", "make", "make"], &installed), ["make"]);
        assert!(missing(&["gcc"], &installed).is_empty());
    }

    #[test]
    fn llvm_is_not_older_than_the_compiler() {
        for (compiler, offered, expected) in [
            (None, &[14, 19, 22][..], Some(22)),
            (Some(22), &[21, 22, 23][..], Some(22)),
            (Some(20), &[19, 21, 22][..], Some(21)),
            (Some(23), &[21, 22][..], None),
            (None, &[14, 19][..], None),
            (None, &[][..], None),
        ] {
            assert_eq!(
                choose_llvm(compiler, offered).ok(),
                expected,
                "{compiler:?} {offered:?}"
            );
        }
    }
}
