//! What producers, consumers and administration share.

use std::{
    collections::BTreeMap,
    error::Error,
    ffi::{CStr, CString},
    fs,
    path::PathBuf,
    ptr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rdkafka::{
    ClientContext, Statistics,
    bindings::rd_kafka_oauthbearer_set_token,
    client::{Client, OAuthToken},
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
    statistics::Partition,
    types::RDKafkaRespErr,
};
use tracing::{debug, info, warn};

use super::ValidConfig;
use crate::PartitionId;

/// How long a question to the brokers may take.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// librdkafka refuses the configuration.
    #[error("Kafka client: {0} (see the keys of [kafka])")]
    Configuration(KafkaError),
    /// The brokers do not answer.
    #[error("no answer from the Kafka brokers {brokers}: {source}")]
    Unreachable {
        /// `kafka.brokers`.
        brokers: String,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// The token cannot be used.
    #[error("kafka.oauth_token_file: {0}")]
    Token(String),
    /// A topic is missing or wrong.
    #[error(transparent)]
    Topics(#[from] super::topics::TopicsError),
}

/// Logs, tokens and statistics of one client.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    token_file: PathBuf,
    lags: Arc<Mutex<BTreeMap<PartitionId, u64>>>,
}

impl Context {
    pub(super) fn new(config: &ValidConfig) -> Self {
        Self {
            token_file: config.config.oauth_token_file.clone(),
            lags: Arc::default(),
        }
    }

    /// Records behind the end, by partition, at the last statistics.
    pub(super) fn lags(&self) -> BTreeMap<PartitionId, u64> {
        self.lags
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => warn!(facility, "kafka: {message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => info!(facility, "kafka: {message}"),
            RDKafkaLogLevel::Debug => debug!(facility, "kafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is an event, not an error.
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            return;
        }
        // The log says it too.
        debug!(%error, "kafka: {reason}");
    }

    fn stats(&self, statistics: Statistics) {
        let mut lags = BTreeMap::new();
        for topic in statistics.topics.values() {
            for (id, partition) in &topic.partitions {
                if let (Ok(id), Some(lag)) = (PartitionId::try_from(*id), lag(partition)) {
                    lags.insert(id, lag);
                }
            }
        }
        *self.lags.lock().unwrap_or_else(PoisonError::into_inner) = lags;
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let token = fs::read_to_string(&self.token_file)
            .map_err(|error| format!("{}: {error}", self.token_file.display()))?;
        oauth_token(token.trim())
            .map_err(|why| format!("{}: {why}", self.token_file.display()).into())
    }
}

/// Records of an assigned partition that the application has not got yet.
///
/// The library's own `consumer_lag` counts from what is committed, which for
/// us is minutes old, and is unknown until the first commit. What it has
/// fetched ahead was not read either.
fn lag(partition: &Partition) -> Option<u64> {
    // Partitions that are another member's are known too, and remember where
    // they were read to when they were ours.
    if partition.fetch_state != "active" {
        return None;
    }
    let offsets = [
        partition.app_offset,
        // Nothing was read yet: reading begins at one of these.
        partition.committed_offset,
        partition.lo_offset,
    ];
    // Unknown offsets are negative.
    let read_to = offsets.into_iter().find(|offset| *offset >= 0)?;
    let end = u64::try_from(partition.hi_offset).ok()?;
    Some(end.saturating_sub(read_to.cast_unsigned()))
}

/// Gives a client its first token. Clients that are asked something before
/// anybody polls them would wait for it in vain.
pub(super) fn set_token<C: ClientContext>(
    client: &Client<C>,
    config: &ValidConfig,
) -> Result<(), ClientError> {
    if !config.uses_token() {
        return Ok(());
    }
    let failed = |why: String| ClientError::Token(why);
    let token = client
        .context()
        .generate_oauth_token(None)
        .map_err(|error| failed(error.to_string()))?;
    let [text, principal] = [token.token, token.principal_name].map(CString::new);
    let (Ok(text), Ok(principal)) = (text, principal) else {
        return Err(failed("the token holds a zero byte".to_owned()));
    };
    let mut why = [0u8; 256];
    // SAFETY: the client lives, the strings end with zero, and the length is
    // that of the buffer.
    let code = unsafe {
        rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            text.as_ptr(),
            token.lifetime_ms,
            principal.as_ptr(),
            ptr::null_mut(),
            0,
            why.as_mut_ptr().cast(),
            why.len(),
        )
    };
    if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    let why = CStr::from_bytes_until_nul(&why).unwrap_or_default();
    Err(failed(why.to_string_lossy().into_owned()))
}

/// For a reader that is no member of a group.
impl ConsumerContext for Context {}

/// What Kafka needs to know of a JWT (RFC 7519): who, and how long.
fn oauth_token(token: &str) -> Result<OAuthToken, String> {
    let payload = token.split('.').nth(1).ok_or("not a JWT")?;
    let payload = URL_SAFE_NO_PAD
        .decode(payload.trim_end_matches('='))
        .map_err(|error| format!("not a JWT: {error}"))?;
    let claims: serde_json::Value =
        serde_json::from_slice(&payload).map_err(|error| format!("not a JWT: {error}"))?;
    let expires = claims["exp"].as_i64().ok_or("the JWT has no `exp`")?;
    let subject = claims["sub"].as_str().ok_or("the JWT has no `sub`")?;
    Ok(OAuthToken {
        token: token.to_owned(),
        principal_name: subject.to_owned(),
        lifetime_ms: expires.saturating_mul(1000),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_tell_who_and_how_long() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"sub":"sensor","exp":1800000000}"#);
        let token = oauth_token(&format!("e30.{payload}.")).unwrap();
        assert_eq!(token.principal_name, "sensor");
        assert_eq!(token.lifetime_ms, 1_800_000_000_000);
        for wrong in ["", "x", "e30.e30.", "e30.!!.", "e30.bm90IGpzb24."] {
            assert!(oauth_token(wrong).is_err(), "{wrong}");
        }
    }
}
