//! Configuration: defaults, then a file, then the environment, then flags.

use std::{env, path::PathBuf};

use anyhow::Context;
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Serialize, de::DeserializeOwned};

/// Names a file to read when `--config` is not given.
const FILE_VARIABLE: &str = "HONEYGUIDE_CONFIG";
/// Read when neither is given and the file exists.
const SYSTEM_FILE: &str = "/etc/honeyguide/honeyguide.toml";

/// Flags for the configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct SettingsArgs {
    /// Configuration file (TOML), else $HONEYGUIDE_CONFIG, else
    /// /etc/honeyguide/honeyguide.toml; unknown keys are errors.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one key, e.g. `--set sensor.flush_interval=5s`.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl SettingsArgs {
    /// Merges all sources into `S`, which has a field for each table. Does
    /// nothing else: no file is created, no port bound.
    ///
    /// # Errors
    /// When a source cannot be read, or has what `S` has not.
    pub fn load<S>(&self) -> anyhow::Result<S>
    where
        S: Serialize + DeserializeOwned + Default,
    {
        let mut figment = Figment::from(Serialized::defaults(S::default()));
        if let Some(file) = self.file()? {
            figment = figment.merge(Toml::file_exact(file));
        }
        // A name without `__` (HONEYGUIDE_CONFIG, HONEYGUIDE_LOG) is no key.
        figment = figment.merge(
            Env::prefixed("HONEYGUIDE_")
                .filter(|name| name.as_str().contains("__"))
                .split("__"),
        );
        for assignment in &self.set {
            figment = figment.merge(Toml::string(&one_key(assignment)?));
        }
        figment
            .extract()
            .context("the configuration is not valid (see `honeyguide default-config`)")
    }

    fn file(&self) -> anyhow::Result<Option<PathBuf>> {
        let of_variable = || env::var_os(FILE_VARIABLE).filter(|file| !file.is_empty());
        let given = self
            .config
            .clone()
            .or_else(|| of_variable().map(Into::into));
        match given {
            Some(file) => {
                anyhow::ensure!(
                    file.is_file(),
                    "no configuration file at {}",
                    file.display()
                );
                Ok(Some(file))
            }
            None => Ok(Some(PathBuf::from(SYSTEM_FILE)).filter(|file| file.is_file())),
        }
    }
}

/// `a.b=value` as TOML; a value that is no TOML literal is taken as a string.
fn one_key(assignment: &str) -> anyhow::Result<String> {
    let (key, value) = assignment
        .split_once('=')
        .with_context(|| format!("--set {assignment}: expected KEY=VALUE"))?;
    let literal = format!("{key} = {value}");
    if toml::from_str::<toml::Table>(&literal).is_ok() {
        return Ok(literal);
    }
    Ok(format!("{key} = {}", toml::Value::from(value)))
}

/// A table that another program reads; any keys are accepted.
pub type OfAnother = toml::Table;
