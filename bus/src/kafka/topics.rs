//! Making topics, and checking those that exist.

use std::collections::{BTreeMap, HashMap};

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

/// Settings that matter, of a topic that is made. Those of
/// [`REQUIRED`] are also demanded of one that exists.
fn settings(topic: Topic) -> Vec<(&'static str, &'static str)> {
    const DAY_MS: &str = "86400000";
    const MONTH_MS: &str = "2592000000";
    match topic {
        Topic::Histograms | Topic::Forecasts => vec![
            ("cleanup.policy", "delete"),
            ("retention.ms", DAY_MS),
            ("compression.type", "producer"),
        ],
        Topic::Alerts => vec![
            ("cleanup.policy", "delete"),
            ("retention.ms", MONTH_MS),
            ("compression.type", "producer"),
        ],
        Topic::Hints | Topic::State => vec![
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.2"),
            ("segment.ms", "600000"),
            ("compression.type", "producer"),
        ],
    }
}

/// What would lose data if it were different.
const REQUIRED: [&str; 1] = ["cleanup.policy"];

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
    let mut new = Vec::new();
    for topic in Topic::ALL {
        if !present.contains_key(topic.name()) {
            let count = i32::try_from(partitions).unwrap_or(i32::MAX);
            let mut topic_to_make =
                NewTopic::new(topic.name(), count, TopicReplication::Fixed(replicas));
            for (key, value) in settings(topic) {
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
    let checked = check(config).await?;
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
    let admin = admin(config)?;
    let mut partitions = BTreeMap::new();
    let mut missing = Vec::new();
    // A topic just made takes a moment to be known everywhere.
    for attempt in 0..20 {
        let present = present(&admin, config)?;
        missing.clear();
        for topic in Topic::ALL {
            match present.get(topic.name()) {
                Some(count) => drop(partitions.insert(topic, *count)),
                None => missing.push(topic.name().to_owned()),
            }
        }
        if missing.is_empty() || attempt > 0 && missing.len() == Topic::ALL.len() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    if !missing.is_empty() {
        return Err(TopicsError::Missing(missing).into());
    }
    let mut wrong = Vec::new();
    let expected = config.config.partitions;
    for (topic, count) in &partitions {
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
        for (key, value) in settings(*topic) {
            let is = resource.get(key).and_then(|entry| entry.value.as_deref());
            if REQUIRED.contains(&key) && is != Some(value) {
                wrong.push(format!(
                    "  {}: {key} is {}, must be {value}",
                    topic.name(),
                    is.unwrap_or("not set")
                ));
            }
        }
    }
    if !wrong.is_empty() {
        return Err(TopicsError::Wrong(wrong).into());
    }
    Ok(partitions)
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
