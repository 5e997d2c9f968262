//! Where log lines go: stderr, or beneath the live table.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Lines kept for the live table; it shows fewer.
const LINES_MAX: usize = 64;

/// Flags for log lines.
#[derive(Debug, clap::Args)]
pub struct LoggingArgs {
    /// What to log: error, warn, info, debug, trace, or a filter such as
    /// `info,honeyguide_sensor=debug`.
    #[arg(long, global = true, env = "HONEYGUIDE_LOG", default_value = "info")]
    log: String,
    /// How log lines look.
    #[arg(
        long,
        global = true,
        env = "HONEYGUIDE_LOG_FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line, for programs.
    Json,
}

impl LoggingArgs {
    /// Writes log lines on standard error.
    ///
    /// # Errors
    /// When the filter is none.
    pub fn to_stderr(&self) -> anyhow::Result<()> {
        let builder = tracing_subscriber::fmt()
            .with_env_filter(self.filter()?)
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr);
        match self.log_format {
            LogFormat::Text => builder.init(),
            LogFormat::Json => builder.json().init(),
        }
        Ok(())
    }

    /// Keeps the last lines for the live table instead of writing over it.
    ///
    /// # Errors
    /// When the filter is none.
    pub fn to_lines(&self) -> anyhow::Result<LogLines> {
        let lines = LogLines::default();
        tracing_subscriber::fmt()
            .with_env_filter(self.filter()?)
            .with_ansi(false)
            .with_target(false)
            .with_writer(lines.clone())
            .init();
        Ok(lines)
    }

    fn filter(&self) -> anyhow::Result<EnvFilter> {
        EnvFilter::try_new(&self.log).with_context(|| format!("--log {}: no such filter", self.log))
    }
}

/// The last log lines, oldest first.
#[derive(Clone, Debug, Default)]
pub struct LogLines(Arc<Mutex<VecDeque<String>>>);

impl LogLines {
    /// The newest `count` lines, oldest first.
    pub fn last(&self, count: usize) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = lines.len().saturating_sub(count);
        lines.iter().skip(skip).cloned().collect()
    }
}

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in String::from_utf8_lossy(bytes).lines() {
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line.to_owned());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = LogLines;

    fn make_writer(&'a self) -> LogLines {
        self.clone()
    }
}
