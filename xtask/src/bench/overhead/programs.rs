//! Switches the kernel programs on and off through the sensor's example
//! `attach_states`.

use std::{
    fmt,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{cargo, step::show};

const EXAMPLE: &str = "attach_states";

/// What is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Off,
    /// Programs that do nothing, on the same hooks.
    Empty,
    /// Every probe that is on by default.
    Full,
    /// What sees requests and their routes.
    Requests,
    /// That, of one request in 16.
    RequestsSampled,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Empty => "empty",
            Self::Full => "full",
            Self::Requests => "requests",
            Self::RequestsSampled => "requests-sampled",
        })
    }
}

/// The process that holds the programs; they go with it.
pub struct Programs {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Programs {
    /// Builds and starts it, with nothing attached.
    pub fn start() -> Result<Self> {
        let mut build = cargo::cargo("build");
        show(build.args(["--workspace", "--example", EXAMPLE]))?;
        let program = cargo::target_dir()?.join("debug/examples").join(EXAMPLE);
        let mut child = Command::new(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        let commands = child.stdin.take().context("its input is not piped")?;
        let answers = child.stdout.take().context("its output is not piped")?;
        Ok(Self {
            child,
            commands,
            answers: BufReader::new(answers),
        })
    }

    /// Attaches what `state` says and detaches the rest.
    pub fn set(&mut self, state: State) -> Result<()> {
        writeln!(self.commands, "{state}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(
            answer.trim() == "ok",
            "failed to switch the kernel programs to {state}: {}",
            answer.trim()
        );
        Ok(())
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        // Its end detaches the programs; a failure to end it is not ours to repair.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
