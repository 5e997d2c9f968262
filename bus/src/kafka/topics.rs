//! Making topics, and checking those that exist.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    ClientError, ValidConfig,
    client::{Context, REQUEST_TIMEOUT, set_token},
};
use crate::Topic;

/// What is wrong with the topics.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// Some do not exist.
    #[error("missing Kafka topics: {}; `honeyguide topics apply` makes them", .0.join(", "))]
    Missing(Vec<String>),
    /// Some are not as they must be.
    #[error("Kafka topics are not as configured:\n{}", .0.join("\n"))]
    Wrong(Vec<String>),
    /// A topic could not be made.
    #[error("Kafka topic {topic} could not be made: {why}")]
    NotMade {
        /// Its name.
        topic: String,
        /// The broker's answer.
        why: String,
    },
}

/// What was done for a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its name.
    pub topic: &'static str,
    /// Whether it was made now; else it was there.
    pub made: bool,
    /// Its partitions.
    pub partitions: u32,
}

/// Pause before it is asked again whether topics are there.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long others may take that make the rest of the topics.
const REST_TIMEOUT: Duration = Duration::from_secs(2);

/// How long records are kept: what a group of analyzers may be down for.
const DAY_MS: u64 = 86_400_000;
const MONTH_MS: u64 = 30 * DAY_MS;
/// Shorter retention than this loses what analyzers read again after a restart.
const RETENTION_MIN_MS: u64 = DAY_MS / 4;

/// Settings of a topic that is made.
fn settings(topic: Topic, replication: u16) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("cleanup.policy", policy(topic).to_owned()),
        ("compression.type", "producer".to_owned()),
    ];
    if replication >= 3 {
        // One node may be away, and what was acknowledged still has two copies.
        settings.push(("min.insync.replicas", "2".to_owned()));
    }
    match topic {
        Topic::Histograms | Topic::Forecasts | Topic::History => {
            settings.push(("retention.ms", DAY_MS.to_string()));
        }
        Topic::Alerts => settings.push(("retention.ms", MONTH_MS.to_string())),
        Topic::Hints | Topic::State => settings.extend([
            ("min.cleanable.dirty.ratio", "0.2".to_owned()),
            ("segment.ms", "600000".to_owned()),
            ("segment.bytes", "67108864".to_owned()),
        ]),
    }
    settings
}

const fn policy(topic: Topic) -> &'static str {
    match topic {
        Topic::Hints | Topic::State => "compact",
        Topic::Histograms | Topic::Forecasts | Topic::Alerts | Topic::History => "delete",
    }
}

/// What would lose data in an existing topic, where it is different.
fn wrong_settings(topic: Topic, value: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let expected = policy(topic);
    let is = value("cleanup.policy");
    if is.as_deref() != Some(expected) {
        let is = is.unwrap_or_else(|| "not set".to_owned());
        wrong.push(format!("cleanup.policy is {is}, must be {expected}"));
    }
    let retention = value("retention.ms").and_then(|value| value.parse::<i64>().ok());
    // Negative is without end.
    let short = retention.is_some_and(|ms| u64::try_from(ms).is_ok_and(|ms| ms < RETENTION_MIN_MS));
    if expected == "delete" && short {
        wrong.push(format!(
            "retention.ms is {}, must be at least {RETENTION_MIN_MS}",
            retention.unwrap_or_default()
        ));
    }
    wrong
}

/// Makes the topics that are missing and checks all.
///
/// # Errors
/// [`ClientError`]; an existing topic is never changed.
pub async fn apply(config: &ValidConfig) -> Result<Vec<Applied>, ClientError> {
    let admin = admin(config)?;
    let present = present(&admin, config)?;
    let partitions = config.config.partitions;
    // -1 is the broker's default.
    let replicas = match config.config.replication {
        0 => -1,
        replicas => i32::from(replicas),
    };
    let settings =
        BTreeMap::from(Topic::ALL.map(|topic| (topic, settings(topic, config.config.replication))));
    let mut new = Vec::new();
    for topic in Topic::ALL {
        if !present.contains_key(topic.name()) {
            let count = i32::try_from(partitions).unwrap_or(i32::MAX);
            let mut topic_to_make =
                NewTopic::new(topic.name(), count, TopicReplication::Fixed(replicas));
            let settings = &settings[&topic];
            for (key, value) in settings {
                topic_to_make = topic_to_make.set(key, value);
            }
            new.push(topic_to_make);
        }
    }
    let options = AdminOptions::new()
        .request_timeout(Some(REQUEST_TIMEOUT))
        .operation_timeout(Some(REQUEST_TIMEOUT));
    let results = if new.is_empty() {
        Vec::new()
    } else {
        let made = admin.create_topics(&new, &options).await;
        made.map_err(unreachable(config))?
    };
    let mut made = Vec::new();
    for result in results {
        match result {
            // Another process was faster.
            Ok(topic) | Err((topic, RDKafkaErrorCode::TopicAlreadyExists)) => made.push(topic),
            Err((topic, code)) => {
                let why = code.to_string();
                return Err(TopicsError::NotMade { topic, why }.into());
            }
        }
    }
    let checked = known(config, Awaited::All).await?;
    check_known(config, &checked).await?;
    Ok(checked
        .into_iter()
        .map(|(topic, partitions)| Applied {
            topic: topic.name(),
            made: made.iter().any(|name| name == topic.name()),
            partitions,
        })
        .collect())
}

/// Checks that all topics exist as they must; their partitions.
///
/// # Errors
/// [`ClientError`] says everything that is wrong at once.
pub async fn check(config: &ValidConfig) -> Result<BTreeMap<Topic, u32>, ClientError> {
    let partitions = known(config, Awaited::Rest).await?;
    check_known(config, &partitions).await?;
    Ok(partitions)
}

/// Topics that are worth waiting for. One just made takes a moment to be known
/// everywhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// All were made, and come for sure.
    All,
    /// If some are there, somebody makes the others; if none are, nobody does.
    Rest,
}

/// The partitions of all topics.
async fn known(
    config: &ValidConfig,
    awaited: Awaited,
) -> Result<BTreeMap<Topic, u32>, ClientError> {
    let admin = admin(config)?;
    let begun = Instant::now();
    loop {
        let present = present(&admin, config)?;
        let mut partitions = BTreeMap::new();
        let mut missing = Vec::new();
        for topic in Topic::ALL {
            match present.get(topic.name()) {
                Some(count) => drop(partitions.insert(topic, *count)),
                None => missing.push(topic.name().to_owned()),
            }
        }
        let patience = match awaited {
            Awaited::All => REQUEST_TIMEOUT,
            Awaited::Rest if partitions.is_empty() => LOOK_AGAIN,
            Awaited::Rest => REST_TIMEOUT,
        };
        if missing.is_empty() {
            return Ok(partitions);
        }
        if begun.elapsed() >= patience {
            return Err(TopicsError::Missing(missing).into());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Compares topics with what they must be.
async fn check_known(
    config: &ValidConfig,
    partitions: &BTreeMap<Topic, u32>,
) -> Result<(), ClientError> {
    let admin = admin(config)?;
    let mut wrong = Vec::new();
    let expected = config.config.partitions;
    for (topic, count) in partitions {
        if *count != expected {
            wrong.push(format!(
                "  {}: {count} partitions, kafka.partitions is {expected}",
                topic.name()
            ));
        }
    }
    let resources: Vec<_> = Topic::ALL
        .iter()
        .map(|topic| ResourceSpecifier::Topic(topic.name()))
        .collect();
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let described = admin.describe_configs(&resources, &options).await;
    for (topic, resource) in Topic::ALL
        .iter()
        .zip(described.map_err(unreachable(config))?)
    {
        let Ok(resource) = resource else {
            // Without the right to read configurations they cannot be checked.
            continue;
        };
        let value = |key: &str| resource.get(key)?.value.clone();
        let of_topic = wrong_settings(*topic, value);
        wrong.extend(
            of_topic
                .iter()
                .map(|why| format!("  {}: {why}", topic.name())),
        );
    }
    if !wrong.is_empty() {
        return Err(TopicsError::Wrong(wrong).into());
    }
    Ok(())
}

fn admin(config: &ValidConfig) -> Result<AdminClient<Context>, ClientError> {
    let admin: AdminClient<Context> = config
        .client()
        .create_with_context(Context::new(config))
        .map_err(ClientError::Configuration)?;
    set_token(admin.inner(), config)?;
    Ok(admin)
}

/// Partitions of each existing topic.
fn present(
    admin: &AdminClient<Context>,
    config: &ValidConfig,
) -> Result<HashMap<String, u32>, ClientError> {
    let metadata = admin
        .inner()
        .fetch_metadata(None, REQUEST_TIMEOUT)
        .map_err(unreachable(config))?;
    let topics = metadata
        .topics()
        .iter()
        .filter(|topic| topic.error().is_none());
    Ok(topics
        .map(|topic| (topic.name().to_owned(), topic.partitions().len() as u32))
        .collect())
}

fn unreachable(config: &ValidConfig) -> impl Fn(KafkaError) -> ClientError {
    let brokers = config.config.brokers.clone();
    move |source| ClientError::Unreachable {
        brokers: brokers.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(topic: Topic, policy: &str, retention_ms: Option<&str>, wrong: usize) {
        let found = wrong_settings(topic, |key| match key {
            "cleanup.policy" => Some(policy.to_owned()),
            "retention.ms" => retention_ms.map(str::to_owned),
            _ => None,
        });
        assert_eq!(found.len(), wrong, "{topic:?}: {found:?}");
    }

    #[test]
    fn existing_topics_that_would_lose_data_are_wrong() {
        check(Topic::Histograms, "delete", Some("86400000"), 0);
        check(Topic::Histograms, "delete", Some("-1"), 0);
        check(Topic::Histograms, "delete", None, 0);
        check(Topic::Histograms, "delete", Some("60000"), 1);
        check(Topic::Histograms, "compact", Some("60000"), 2);
        check(Topic::State, "compact", Some("60000"), 0);
        check(Topic::State, "delete", Some("86400000"), 1);
    }

    #[test]
    fn three_copies_leave_two_when_a_node_is_away() {
        let has = |replication| {
            let settings = settings(Topic::State, replication);
            settings
                .iter()
                .any(|(key, _)| *key == "min.insync.replicas")
        };
        assert!(has(3) && !has(1) && !has(0));
    }
}
