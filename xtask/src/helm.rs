//! `cargo xtask helm`: checks the chart with the real helm, against the real
//! schemas of Kubernetes and of the Prometheus operator, and its alerting
//! rules with promtool.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    cargo,
    setup::{self, ChartTools, Purpose},
    step::{quiet, show, step},
};

/// The oldest version the chart claims, and the newest whose schemas we have.
const KUBERNETES_VERSIONS: [&str; 2] = ["1.25.0", "1.37.0"];
/// Reads manifests, values and rules: YAML, which Rust's standard library has
/// not.
const CHECKER: &str = "xtask/src/helm/check.py";

/// Values that must be refused, and what the message must say.
const REFUSED: [(&[&str], &str); 16] = [
    (&["kafka.brokers=[]"], "brokers"),
    (&[r#"kafka.brokers=["kafka"]"#], "brokers"),
    (&["sensor.privileged=true"], "privileged"),
    (
        &[r#"sensor.config.flush_intervall="5s""#],
        "flush_intervall",
    ),
    (&["sensor.config.flush_interval=5"], "flush_interval"),
    (&[r#"sensor.config.probes=["runq","gpu"]"#], "probes"),
    (&[r#"sensor.config.sensor_id="x""#], "sensor_id"),
    (
        &[r#"sensor.extraCapabilities=["ALL"]"#],
        "extraCapabilities",
    ),
    (
        &[r#"sensor.extraCapabilities=["CAP_SYS_RESOURCE"]"#],
        "extraCapabilities",
    ),
    (&[r#"sensor.spool.hostPath="spool""#], "hostPath"),
    (&["analyzer.replicas=0"], "replicas"),
    (
        &["analyzer.replicas=17"],
        "an analyzer without a partition would have nothing to do",
    ),
    (&[r#"kafka.sasl.mechanism="PLAIN""#], "mechanism"),
    (&[r#"kafka.sasl.mechanism="SCRAM-SHA-512""#], "username"),
    (&[r#"image.pullPolicy="Sometimes""#], "pullPolicy"),
    (
        &[
            r#"analyzer.config.objectives=[{"name":"a","service":"*","signal":"runq","target":"p99","horizon":"5m","threshold":"5ms","times_usual":3}]"#,
        ],
        "objectives",
    ),
];

/// Arguments of `cargo xtask helm`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args) -> Result<()> {
    setup::prepare(Purpose::Test, &[])?;
    step("building Honeyguide", || show(&mut cargo::build()))?;
    check()
}

/// All checks, even after one has failed. The `honeyguide` binary must be
/// built: it reads the configuration that the chart writes.
pub fn check() -> Result<()> {
    let chart = Chart {
        tools: ChartTools::find()?,
        folder: cargo::root().join("helm/honeyguide"),
        output: cargo::target_dir()?.join("helm"),
    };
    let _ = fs::remove_dir_all(&chart.output);
    fs::create_dir_all(&chart.output)?;
    let checks: [(&str, &dyn Fn() -> Result<()>); 4] = [
        ("chart: lint, and a package that renders the same", &|| {
            chart.lint()
        }),
        ("chart: manifests, values, configuration", &|| {
            chart.manifests()
        }),
        ("chart: wrong values are refused", &|| chart.refusals()),
        ("chart: alerting rules", &|| chart.rules()),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(error) = step(name, check) {
            eprintln!("· {error:#}");
            failed.push(name);
        }
    }
    ensure!(
        failed.is_empty(),
        "these checks failed: {}",
        failed.join(", ")
    );
    Ok(())
}

struct Chart {
    tools: ChartTools,
    folder: PathBuf,
    output: PathBuf,
}

impl Chart {
    /// Values files: the least, and one for each way of being installed.
    fn values(&self) -> Result<Vec<PathBuf>> {
        files(&self.folder.join("ci"), "yaml")
    }

    fn helm(&self, subcommand: &str) -> Command {
        let mut helm = Command::new(&self.tools.helm);
        // What the user has configured for helm is none of our business.
        for name in ["CONFIG", "CACHE", "DATA"] {
            helm.env(format!("HELM_{name}_HOME"), self.output.join("home"));
        }
        helm.env_remove("KUBECONFIG").arg(subcommand);
        helm
    }

    /// The manifests of `chart`, a folder or a package.
    fn render(&self, chart: &Path, values: &Path, version: &str) -> Result<Vec<u8>> {
        let mut template = self.helm("template");
        template.arg("test-release").arg(chart);
        template.args(["--namespace", "monitoring", "--kube-version", version]);
        let output = template.arg("--values").arg(values).output()?;
        ensure!(
            output.status.success(),
            "helm template with {}: {}",
            values.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }

    fn lint(&self) -> Result<()> {
        let mut package = self.helm("package");
        package
            .arg(&self.folder)
            .arg("--destination")
            .arg(&self.output);
        quiet("helm-package", &mut package)?;
        let packages = files(&self.output, "tgz")?;
        let package = packages.first().context("helm package made no package")?;
        for values in self.values()? {
            for version in KUBERNETES_VERSIONS {
                let mut lint = self.helm("lint");
                lint.args(["--strict", "--quiet", "--kube-version", version]);
                lint.arg(&self.folder).arg("--values").arg(&values);
                quiet("helm-lint", &mut lint)?;
            }
            let version = KUBERNETES_VERSIONS[0];
            ensure!(
                self.render(package, &values, version)?
                    == self.render(&self.folder, &values, version)?,
                "the package lacks files that the chart needs (see .helmignore)"
            );
        }
        Ok(())
    }

    fn manifests(&self) -> Result<()> {
        let mut check = self.checker("manifests");
        check.arg(&self.tools.crds);
        check.arg(cargo::binary("honeyguide")?);
        for values in self.values()? {
            let name = values.file_stem().unwrap_or_default().to_string_lossy();
            for version in KUBERNETES_VERSIONS {
                let rendered = self.render(&self.folder, &values, version)?;
                let path = self.output.join(format!("{name}-{version}.yaml"));
                fs::write(&path, rendered)?;
                check.arg(format!("{version}={}", path.display()));
            }
        }
        show(&mut check)
    }

    fn refusals(&self) -> Result<()> {
        for (settings, expected) in REFUSED {
            let mut template = self.helm("template");
            template.arg("test-release").arg(&self.folder);
            template.args(["--kube-version", KUBERNETES_VERSIONS[1]]);
            template.args(["--set-json", r#"kafka.brokers=["kafka:9092"]"#]);
            for setting in settings {
                template.args(["--set-json", setting]);
            }
            let output = template.output()?;
            let message = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                bail!("{settings:?} is accepted");
            }
            ensure!(
                message.contains(expected),
                "{settings:?} is refused without naming {expected:?}: {message}"
            );
        }
        Ok(())
    }

    fn rules(&self) -> Result<()> {
        let rules = self.folder.join("rules");
        let mut check = Command::new("promtool");
        check.args(["check", "rules"]).args(files(&rules, "yaml")?);
        quiet("promtool-check", &mut check)?;
        let tests = files(&rules.join("tests"), "yaml")?;
        let mut test = Command::new("promtool");
        quiet("promtool-test", test.args(["test", "rules"]).args(tests))?;
        show(&mut self.checker("rules"))
    }

    fn checker(&self, what: &str) -> Command {
        let mut check = Command::new(&self.tools.python);
        check.arg(cargo::root().join(CHECKER)).arg(what);
        check.arg(&self.folder);
        check
    }
}

/// Files of a folder by extension, in order; at least one.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("failed to read {folder:?}"))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    found.sort();
    ensure!(
        !found.is_empty(),
        "no .{extension} files in {}",
        folder.display()
    );
    Ok(found)
}
