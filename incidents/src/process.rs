//! Programs that run as services of a name of their own, and end with us.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpStream},
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::group::Group;

/// How long a server may take to listen.
const START_MAX: Duration = Duration::from_secs(30);
/// How long a program may take to end before it is killed.
const END_MAX: Duration = Duration::from_secs(10);
/// Longest name the kernel keeps.
const NAME_LEN_MAX: usize = 14;

/// A program that runs until dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

/// How a program is to be started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// Groups it belongs to.
    pub groups: &'a [&'a Group],
    /// Network namespace.
    pub namespace: Option<&'a str>,
    /// Who runs it; root if not set.
    pub user: Option<u32>,
}

/// Makes `program` known as `name`, by which the kernel and so the sensor know
/// what runs it.
pub fn named(folder: &Path, name: &str, program: &Path) -> Result<PathBuf> {
    ensure!(name.len() <= NAME_LEN_MAX, "{name} is cut by the kernel");
    let path = folder.join(name);
    if !path.exists() {
        symlink(program, &path)?;
    }
    Ok(path)
}

impl Process {
    /// Starts `program`; nothing of what it says is kept but errors.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        surroundings: Surroundings<'_>,
    ) -> Result<Process> {
        // A shell that moves itself, so that no child is left behind.
        let script = r#"for group in $GROUPS_OF; do echo $$ > "$group/cgroup.procs" || exit 1; done
unset GROUPS_OF; exec "$@""#;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]);
        if let Some(namespace) = surroundings.namespace {
            command.args(["ip", "netns", "exec", namespace]);
        }
        if let Some(user) = surroundings.user {
            let user = user.to_string();
            command.args([
                "setpriv",
                "--reuid",
                &user,
                "--regid",
                &user,
                "--clear-groups",
            ]);
        }
        let groups: Vec<String> = surroundings
            .groups
            .iter()
            .map(|group| group.path().display().to_string())
            .collect();
        command
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .env("GROUPS_OF", groups.join(" "))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        end_with_us(&mut command);
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let child = command
            .spawn()
            .with_context(|| format!("failed to start {name}"))?;
        Ok(Process {
            child,
            name: name.into_owned(),
        })
    }

    /// Waits until somebody listens at an address.
    pub fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let until = Instant::now() + START_MAX;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at once: {status}", self.name);
            }
            ensure!(Instant::now() < until, "{} does not listen", self.name);
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Writes a line into its standard input.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("its input is closed")?;
        writeln!(stdin, "{line}").with_context(|| format!("failed to tell {}", self.name))?;
        Ok(stdin.flush()?)
    }

    /// Waits for it to end by itself.
    pub fn finish(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

/// So that nothing goes on when we are killed.
fn end_with_us(command: &mut Command) {
    // SAFETY: prctl with these arguments is async-signal-safe and touches no
    // memory of ours.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Ok(None) = self.child.try_wait() else {
            return;
        };
        let pid = self.child.id() as libc::pid_t;
        // SAFETY: plain system call on a child that was not waited for yet. All
        // of our servers end at once on SIGINT, without waiting for clients.
        unsafe { libc::kill(pid, libc::SIGINT) };
        let until = Instant::now() + END_MAX;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} is killed", self.name);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {} ended with {}: {}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// What a program prints.
pub fn answer(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(
        output.status.success(),
        "{program} ended with {}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}

/// Lets everybody look into a folder.
pub fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(
        folder,
        fs::Permissions::from_mode(0o755),
    )?)
}
