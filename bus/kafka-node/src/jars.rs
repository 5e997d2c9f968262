//! The broker's program.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// Of Apache Kafka.
const VERSION: &str = "4.1.1";
/// Written last, so that a folder without it is not complete.
const COMPLETE: &str = "complete";

/// Apache Kafka and what it depends on.
#[derive(Clone, Debug)]
pub struct Jars(PathBuf);

impl Jars {
    /// The jars in the tool cache: `$HONEYGUIDE_CACHE`, else
    /// `$XDG_CACHE_HOME/honeyguide`, else `~/.cache/honeyguide`.
    ///
    /// # Errors
    /// When they are not there; [`fetch`](Self::fetch) gets them.
    pub fn find() -> Result<Jars> {
        let directory = directory()?;
        ensure!(
            directory.join(COMPLETE).exists(),
            "Apache Kafka is not in {}: run `cargo xtask setup --for test`",
            directory.display()
        );
        Ok(Jars(directory))
    }

    /// Gets the jars from Maven Central, if they are not there yet. Needs
    /// `mvn` (Debian's `maven`).
    ///
    /// # Errors
    /// When Maven is missing or cannot reach its repository.
    pub fn fetch() -> Result<Jars> {
        if let Ok(jars) = Self::find() {
            return Ok(jars);
        }
        let directory = directory()?;
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)
            .with_context(|| format!("failed to create {}", directory.display()))?;
        fs::write(directory.join("pom.xml"), pom())?;
        let output = Command::new("mvn")
            .args(["--quiet", "--batch-mode", "dependency:copy-dependencies"])
            .args(["-DincludeScope=runtime", "-DoutputDirectory=."])
            .current_dir(&directory)
            .stdin(Stdio::null())
            .output()
            .context("failed to start `mvn`: install Maven and a JDK of version 17 or newer")?;
        ensure!(
            output.status.success(),
            "Maven could not get Apache Kafka {VERSION} (`cargo xtask test --no-broker` does \
             without):\n{}",
            String::from_utf8_lossy(&output.stdout)
        );
        fs::write(directory.join(COMPLETE), VERSION)?;
        Ok(Jars(directory))
    }

    /// `java` with this class path.
    pub(crate) fn java(&self, options: &[String]) -> Command {
        let mut command = Command::new("java");
        command.args(options).arg("-cp").arg(self.0.join("*"));
        command
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

fn directory() -> Result<PathBuf> {
    let cache = env::var_os("HONEYGUIDE_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("XDG_CACHE_HOME")?).join("honeyguide")))
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache/honeyguide")))
        .context("no folder for Kafka's jars: set HOME or HONEYGUIDE_CACHE")?;
    Ok(cache.join(format!("kafka-{VERSION}")))
}

fn pom() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>honeyguide</groupId><artifactId>kafka-node</artifactId><version>1</version>\
         <packaging>pom</packaging><dependencies>{}{}</dependencies></project>",
        dependency("org.apache.kafka", "kafka_2.13", VERSION),
        dependency("org.slf4j", "slf4j-simple", "1.7.36"),
    )
}
