//! The package manager of Debian and its children.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::{
    machine::Privilege,
    step::{answer, quiet},
};

/// Installs its arguments. Packages with daemons (prometheus, nginx) must not
/// start them: tests and benches run these programs as plain processes. So
/// starting is refused while we install, by the means Debian has for it, and
/// what was enabled for the next boot is disabled.
const INSTALL: &str = r#"
set -e
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
fi
apt-get install --yes --no-install-recommends -o Dpkg::Options::=--force-confold "$@"
if [ -d /run/systemd/system ]; then
    for package in "$@"; do
        case "$package" in
            prometheus) systemctl disable --quiet prometheus.service ;;
            prometheus-alertmanager) systemctl disable --quiet prometheus-alertmanager.service ;;
            nginx-light) systemctl disable --quiet nginx.service ;;
            redis-server) systemctl disable --quiet redis-server.service ;;
            postgresql) systemctl disable --quiet postgresql.service ;;
        esac
    done
fi
"#;

/// Those of `packages` that are installed.
pub fn installed(packages: &[&str]) -> BTreeSet<String> {
    let mut command = std::process::Command::new("dpkg-query");
    command
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(packages)
        .stderr(std::process::Stdio::null());
    // dpkg-query fails when it does not know one of the names, and still
    // prints the others.
    let listed = command
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    String::from_utf8_lossy(&listed)
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .map(str::to_owned)
        .collect()
}

/// Fetches the package lists.
pub fn update(privilege: Privilege) -> Result<()> {
    quiet("apt-update", privilege.command("apt-get").arg("update"))
}

/// Installs packages without starting their daemons.
pub fn install(privilege: Privilege, packages: &[String]) -> Result<()> {
    quiet(
        "apt-install",
        privilege
            .command("sh")
            .args(["-c", INSTALL, "install"])
            .args(packages),
    )
}

/// Majors of the LLVM development packages that are offered.
pub fn offered_llvm() -> Vec<u32> {
    let listed = answer("apt-cache", &["pkgnames", "llvm-"]).unwrap_or_default();
    majors(&listed)
}

fn majors(listed: &str) -> Vec<u32> {
    listed
        .lines()
        .filter_map(|name| {
            name.strip_prefix("llvm-")?
                .strip_suffix("-dev")?
                .parse()
                .ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majors_are_read_from_package_names() {
        let listed = "llvm-14-dev\nllvm-dev\nllvm-22-dev\nllvm-22-tools\nllvm-spirv-15\n";
        assert_eq!(majors(listed), [14, 22]);
    }
}
