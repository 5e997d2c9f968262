//! A broker for a test that neither ends nor reconfigures it.

use std::{
    env,
    fs::File,
    process,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use tempfile::TempDir;

use crate::{Cluster, Jars, Options};

/// Names the broker to use, as `host:port`.
const NAMED: &str = "HONEYGUIDE_TEST_KAFKA";
/// Topics of Honeyguide begin so.
const PREFIX: &str = "honeyguide.";
/// A topic that says that tests may delete those.
const MARK: &str = "honeyguide-tests";
const TIMEOUT: Duration = Duration::from_secs(20);

/// A broker without topics of Honeyguide, for one test: the one that the
/// environment variable `HONEYGUIDE_TEST_KAFKA` names, else a node of its own.
///
/// Topics have fixed names, so those of the named broker are deleted, and tests
/// take turns. A broker that has such topics before any test came is refused:
/// it is somebody's.
#[derive(Debug)]
pub struct Lent {
    bootstrap: String,
    group: String,
    /// The node and its data, gone with this.
    _own: Option<(Cluster, TempDir)>,
    /// The named broker is this test's as long as the file is locked.
    _turn: Option<File>,
}

impl Lent {
    /// Starts a node, or waits for the named broker and empties it.
    ///
    /// # Errors
    /// As [`Cluster::start`]; or when the named broker does not answer or holds
    /// topics that no test made.
    pub async fn take() -> Result<Lent> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        // Members that another test left without a word are not waited for.
        let group = format!("{MARK}-{}-{number}", process::id());
        if let Ok(bootstrap) = env::var(NAMED) {
            let turn = File::create(env::temp_dir().join(format!("{MARK}.lock")))?;
            turn.lock()?;
            empty(&bootstrap)
                .await
                .with_context(|| format!("{NAMED}={bootstrap}"))?;
            return Ok(Lent {
                bootstrap,
                group,
                _own: None,
                _turn: Some(turn),
            });
        }
        let directory = tempfile::tempdir()?;
        let cluster = Cluster::start(&Jars::find()?, directory.path(), Options::default())?;
        Ok(Lent {
            bootstrap: cluster.bootstrap(),
            group,
            _own: Some((cluster, directory)),
            _turn: None,
        })
    }

    /// `host:port`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A consumer group that nobody was in yet.
    pub fn group(&self) -> &str {
        &self.group
    }
}

/// Deletes topics that tests made.
async fn empty(bootstrap: &str) -> Result<()> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", bootstrap);
    let admin: AdminClient<DefaultClientContext> = client.create()?;
    let reader: BaseConsumer = client.create()?;
    let topics = topics(&reader)?;
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    if !topics.iter().any(|name| name == MARK) {
        if let Some(topic) = topics.iter().find(|name| name.starts_with(PREFIX)) {
            bail!("holds {topic}, which no test made; tests want a broker of their own");
        }
        let mark = NewTopic::new(MARK, 1, TopicReplication::Fixed(-1));
        for made in admin.create_topics([&mark], &options).await? {
            made.map_err(|(name, code)| anyhow::anyhow!("{name} was not made: {code}"))?;
        }
    }
    let old: Vec<&str> = topics
        .iter()
        .filter(|name| name.starts_with(PREFIX))
        .map(String::as_str)
        .collect();
    if old.is_empty() {
        return Ok(());
    }
    for deleted in admin.delete_topics(&old, &options).await? {
        deleted.map_err(|(name, code)| anyhow::anyhow!("{name} was not deleted: {code}"))?;
    }
    let begun = Instant::now();
    while self::topics(&reader)?
        .iter()
        .any(|name| name.starts_with(PREFIX))
    {
        ensure!(begun.elapsed() < TIMEOUT, "deleted topics do not go away");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn topics(reader: &BaseConsumer) -> Result<Vec<String>> {
    let metadata = reader.fetch_metadata(None, TIMEOUT)?;
    let topics = metadata.topics().iter();
    Ok(topics.map(|topic| topic.name().to_owned()).collect())
}
