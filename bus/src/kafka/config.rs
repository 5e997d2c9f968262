//! How the brokers are reached.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

/// A value that is never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "(none)"
        } else {
            "(hidden)"
        })
    }
}

impl Serialize for Secret {
    /// Always empty: a printed configuration holds no secrets.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("")
    }
}

/// How connections are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Not at all.
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL without TLS: for tests only, as a password could be read on the way.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

/// How a client says who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    /// User name and password, salted and hashed (RFC 5802).
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// As the above, with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// A token (RFC 7628), read from a file whenever a new one is needed.
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer,
}

impl SaslMechanism {
    const fn name(self) -> &'static str {
        match self {
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::OauthBearer => "OAUTHBEARER",
        }
    }
}

/// See the comments in the default configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `host:port`, separated by commas; empty: no Kafka.
    pub brokers: String,
    /// Partitions of topics that are created, and expected of those that exist.
    pub partitions: u32,
    /// Replicas of topics that are created; 0: the broker's default.
    pub replication: u16,
    /// Consumer group of the analyzers.
    pub group: String,
    /// How connections are protected.
    pub security_protocol: SecurityProtocol,
    /// Certificates (PEM) that brokers' certificates are checked with; empty:
    /// the system's.
    pub ca_file: PathBuf,
    /// Own certificate (PEM), for mutual TLS.
    pub certificate_file: PathBuf,
    /// Its key (PEM).
    pub key_file: PathBuf,
    /// Password of the key.
    pub key_password: Secret,
    /// How a client says who it is.
    pub sasl_mechanism: SaslMechanism,
    /// User name.
    pub sasl_username: String,
    /// Password; better in `sasl_password_file` or the environment.
    pub sasl_password: Secret,
    /// File that holds the password.
    pub sasl_password_file: PathBuf,
    /// File that holds the token (a JWT), renewed by others.
    pub oauth_token_file: PathBuf,
    /// Further properties of librdkafka.
    pub properties: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            partitions: 16,
            replication: 0,
            group: "honeyguide-analyzer".to_owned(),
            security_protocol: SecurityProtocol::Plaintext,
            ca_file: PathBuf::new(),
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
            key_password: Secret::default(),
            sasl_mechanism: SaslMechanism::ScramSha512,
            sasl_username: String::new(),
            sasl_password: Secret::default(),
            sasl_password_file: PathBuf::new(),
            oauth_token_file: PathBuf::new(),
            properties: BTreeMap::new(),
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value is out of its range, or missing.
    #[error("kafka.{key} is {value}, expected {expected}")]
    Range {
        /// The key.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A file cannot be read.
    #[error("kafka.{key}: failed to read {}: {source}", path.display())]
    File {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A configuration that was checked; secrets are read.
#[derive(Clone, Debug)]
pub struct ValidConfig {
    /// As given.
    pub config: Config,
    password: Secret,
}

impl Config {
    /// Checks values and reads the password file.
    ///
    /// # Errors
    /// [`ConfigError`] names the key.
    pub fn validate(self) -> Result<ValidConfig, ConfigError> {
        let range = |key, value: &str, expected| ConfigError::Range {
            key,
            value: format!("{value:?}"),
            expected,
        };
        if self.brokers.trim().is_empty() {
            return Err(range("brokers", &self.brokers, "host:port[,host:port…]"));
        }
        if !(1..=4096).contains(&self.partitions) {
            let value = self.partitions.to_string();
            return Err(range("partitions", &value, "1 to 4096"));
        }
        if self.group.is_empty() {
            return Err(range("group", &self.group, "a name"));
        }
        let is_set = |path: &PathBuf| !path.as_os_str().is_empty();
        if is_set(&self.certificate_file) != is_set(&self.key_file) {
            let value = self.certificate_file.display().to_string();
            let expected = "given together with kafka.key_file";
            return Err(range("certificate_file", &value, expected));
        }
        for (key, path) in [
            ("ca_file", &self.ca_file),
            ("certificate_file", &self.certificate_file),
            ("key_file", &self.key_file),
        ] {
            if is_set(path) {
                fs::read(path).map_err(file_error(key, path))?;
            }
        }
        let password = if self.sasl_password_file.as_os_str().is_empty() {
            self.sasl_password.clone()
        } else {
            let path = &self.sasl_password_file;
            let text = fs::read_to_string(path).map_err(file_error("sasl_password_file", path))?;
            Secret::new(text.trim_end_matches(['\r', '\n']))
        };
        if self.uses_sasl() {
            match self.sasl_mechanism {
                SaslMechanism::OauthBearer if !is_set(&self.oauth_token_file) => {
                    return Err(range("oauth_token_file", "", "a file with a token"));
                }
                SaslMechanism::OauthBearer => {}
                _ if self.sasl_username.is_empty() => {
                    return Err(range("sasl_username", "", "a user name"));
                }
                _ if password.is_empty() => {
                    let expected = "a password, here, in sasl_password_file or in \
                                    HONEYGUIDE_KAFKA__SASL_PASSWORD";
                    return Err(range("sasl_password", "", expected));
                }
                _ => {}
            }
        }
        Ok(ValidConfig {
            config: self,
            password,
        })
    }

    fn uses_sasl(&self) -> bool {
        use SecurityProtocol::{SaslPlaintext, SaslSsl};
        matches!(self.security_protocol, SaslPlaintext | SaslSsl)
    }
}

fn file_error(key: &'static str, path: &Path) -> impl Fn(io::Error) -> ConfigError {
    let path = path.to_owned();
    move |source| ConfigError::File {
        key,
        path: path.clone(),
        source,
    }
}

impl ValidConfig {
    /// Whether clients need a token.
    pub(super) fn uses_token(&self) -> bool {
        self.config.uses_sasl() && self.config.sasl_mechanism == SaslMechanism::OauthBearer
    }

    /// What every client needs to reach the brokers.
    pub(super) fn client(&self) -> ClientConfig {
        let config = &self.config;
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", config.brokers.trim())
            .set("client.id", "honeyguide")
            .set("reconnect.backoff.max.ms", "2000")
            .set("socket.keepalive.enable", "true")
            .set("security.protocol", protocol(config.security_protocol));
        let files = [
            ("ssl.ca.location", &config.ca_file),
            ("ssl.certificate.location", &config.certificate_file),
            ("ssl.key.location", &config.key_file),
        ];
        for (property, path) in files {
            if !path.as_os_str().is_empty() {
                client.set(property, path.display().to_string());
            }
        }
        if !config.key_password.is_empty() {
            client.set("ssl.key.password", &config.key_password.0);
        }
        if config.uses_sasl() {
            client.set("sasl.mechanism", config.sasl_mechanism.name());
            if config.sasl_mechanism != SaslMechanism::OauthBearer {
                client
                    .set("sasl.username", &config.sasl_username)
                    .set("sasl.password", &self.password.0);
            }
        }
        for (property, value) in &config.properties {
            client.set(property, value);
        }
        client
    }
}

fn protocol(protocol: SecurityProtocol) -> &'static str {
    match protocol {
        SecurityProtocol::Plaintext => "plaintext",
        SecurityProtocol::Ssl => "ssl",
        SecurityProtocol::SaslPlaintext => "sasl_plaintext",
        SecurityProtocol::SaslSsl => "sasl_ssl",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_errors_that_name_the_key() {
        let good = || Config {
            brokers: "127.0.0.1:9092".to_owned(),
            ..Config::default()
        };
        assert!(good().validate().is_ok());
        let sasl = || Config {
            security_protocol: SecurityProtocol::SaslSsl,
            sasl_username: "sensor".to_owned(),
            sasl_password: Secret::new("s"),
            ..good()
        };
        assert!(sasl().validate().is_ok());
        let cases = [
            ("kafka.brokers", Config::default()),
            (
                "kafka.partitions",
                Config {
                    partitions: 0,
                    ..good()
                },
            ),
            (
                "kafka.ca_file",
                Config {
                    ca_file: "/none".into(),
                    ..good()
                },
            ),
            (
                "kafka.certificate_file",
                Config {
                    certificate_file: "/none".into(),
                    ..good()
                },
            ),
            (
                "kafka.sasl_username",
                Config {
                    sasl_username: String::new(),
                    ..sasl()
                },
            ),
            (
                "kafka.sasl_password",
                Config {
                    sasl_password: Secret::default(),
                    ..sasl()
                },
            ),
            (
                "kafka.sasl_password_file",
                Config {
                    sasl_password_file: "/none".into(),
                    ..sasl()
                },
            ),
            (
                "kafka.oauth_token_file",
                Config {
                    sasl_mechanism: SaslMechanism::OauthBearer,
                    ..sasl()
                },
            ),
        ];
        for (key, config) in cases {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let config = Config {
            brokers: "127.0.0.1:9092".to_owned(),
            sasl_password: Secret::new("hunter2"),
            key_password: Secret::new("hunter2"),
            ..Config::default()
        };
        let valid = config.clone().validate().unwrap();
        let shown = format!("{config:?} {valid:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
