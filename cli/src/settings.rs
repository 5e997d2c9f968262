//! The configuration of all parts in one file.

use honeyguide_service::settings::SettingsArgs;
use serde::{Deserialize, Serialize};

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

/// The whole configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub sensor: honeyguide_sensor::Config,
    pub analyzer: honeyguide_analyzer::Config,
    pub kafka: honeyguide_bus::kafka::Config,
}

/// Reads it; see [`SettingsArgs::load`].
pub fn load(args: &SettingsArgs) -> anyhow::Result<Settings> {
    args.load()
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
        let wrapper = <Wrapper as clap::Parser>::try_parse_from([&["test"], args].concat())?;
        super::load(&wrapper.args)
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
