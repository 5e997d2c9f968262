//! Configuration: defaults, then a file, then the environment, then flags.

use std::{env, path::PathBuf};

use anyhow::Context;
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize};

/// Names a file to read when `--config` is not given.
const FILE_VARIABLE: &str = "HONEYGUIDE_CONFIG";
/// Read when neither is given and the file exists.
const SYSTEM_FILE: &str = "/etc/honeyguide/honeyguide.toml";
/// Commented defaults of all parts; printed by `honeyguide default-config`.
pub const DEFAULT: &str = concat!(
    "# Honeyguide configuration. Every key with its default. Environment\n",
    "# variables override the file: HONEYGUIDE_SENSOR__FLUSH_INTERVAL=5s.\n\n",
    include_str!("../../sensor/src/default.toml"),
    "\n",
    include_str!("../../analyzer/src/default.toml"),
    "\n",
    include_str!("../../bus/src/kafka/default.toml"),
);

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

/// The whole configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub sensor: honeyguide_sensor::Config,
    pub analyzer: honeyguide_analyzer::Config,
    pub kafka: honeyguide_bus::kafka::Config,
}

impl SettingsArgs {
    /// Merges all sources. Does nothing else: no file is created, no port bound.
    pub fn load(&self) -> anyhow::Result<Settings> {
        let mut figment = Figment::from(Serialized::defaults(Settings::default()));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &[&str]) -> anyhow::Result<Settings> {
        #[derive(Debug, clap::Parser)]
        struct Wrapper {
            #[command(flatten)]
            args: SettingsArgs,
        }
        <Wrapper as clap::Parser>::try_parse_from([&["test"], args].concat())?
            .args
            .load()
    }

    #[test]
    fn printed_default_is_the_default() {
        let printed: Settings = toml::from_str(DEFAULT).unwrap();
        let built_in = Settings::default();
        assert_eq!(
            toml::to_string(&printed).unwrap(),
            toml::to_string(&built_in).unwrap()
        );
    }

    #[test]
    fn unknown_key_in_a_file_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[sensor]\nflush_intervall = \"5s\"\n").unwrap();
        let error = load(&["--config", file.path().to_str().unwrap()]).unwrap_err();
        assert!(
            format!("{error:#}").contains("flush_intervall"),
            "{error:#}"
        );
    }

    #[test]
    fn missing_file_is_an_error() {
        assert!(load(&["--config", "/no/such/file"]).is_err());
    }

    #[test]
    fn flag_overrides_a_key() {
        let settings = load(&["--set", "sensor.flush_interval=7s"]).unwrap();
        assert_eq!(settings.sensor.flush_interval.as_secs(), 7);
        assert!(load(&["--set", "sensor.flush_interval"]).is_err());
    }
}
