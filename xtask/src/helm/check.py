"""Checks of the chart that need YAML: `check.py manifests|rules CHART …`.

manifests CHART CRDS HONEYGUIDE VERSION=FILE…   rendered manifests, values, schema
rules CHART                                     alerting rules, their tests and runbooks

Prints what is wrong, a line each, and fails if there is any.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

import jsonschema
import kubernetes_validate
import yaml

OPERATOR = "monitoring.coreos.com"
# Keys the chart writes itself; everything else of a table is a value of `config`.
CHART_OWN = {
    "sensor": {
        "sensor_id", "cgroup_root", "http_listen", "cost_measurement",
        "spool_dir", "spool_mb_max", "spool_age_max",
    },
    "analyzer": {"grpc_listen", "http_listen", "data_dir"},
}
# Where the sensor may read the node, and the one place where it may write.
HOST_PATHS = {"/sys/fs/cgroup": True, "/sys/kernel/btf": True, "/var/lib/honeyguide/spool": False}

problems = []


def check(condition, message):
    if not condition:
        problems.append(message)


# Schemas.

def strict(schema):
    """A CRD's schema as Kubernetes applies it, with unknown fields refused."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    if "properties" in schema and "x-kubernetes-preserve-unknown-fields" not in schema:
        result.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
    return result


def operator_schemas(folder):
    schemas = {}
    for file in folder.glob("*.yaml"):
        definition = yaml.safe_load(file.read_text())["spec"]
        for version in definition["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            schemas[f"{OPERATOR}/{version['name']}", definition["names"]["kind"]] = schema
    return schemas


def validate(manifest, version, operator, name):
    if manifest["apiVersion"].startswith(OPERATOR):
        schema = operator.get((manifest["apiVersion"], manifest["kind"]))
        check(schema, f"{name}: no CRD for it")
        if schema:
            for error in jsonschema.Draft202012Validator(schema).iter_errors(manifest):
                problems.append(f"{name}: {error.json_path}: {error.message}")
        return
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        problems.append(f"{name}: {'.'.join(map(str, error.path))}: {error.message}")
    except kubernetes_validate.SchemaNotFoundError as error:
        problems.append(f"{name}: {error.message}")


# What manifests say of each other.

class Release:
    """The manifests of one rendering."""

    def __init__(self, name, manifests):
        self.name = name
        self.manifests = manifests
        self.pods = {
            (m["kind"], m["metadata"]["labels"]["app.kubernetes.io/component"]): m["spec"]["template"]
            for m in manifests if m["kind"] in ("DaemonSet", "StatefulSet", "Job")
        }

    def of(self, kind):
        return [m for m in self.manifests if m["kind"] == kind]

    def names(self, kind):
        return {m["metadata"]["name"] for m in self.of(kind)}

    def check(self):
        for (kind, component), template in self.pods.items():
            self.pod(f"{self.name}: {kind} {component}", template["spec"], component)
        for manifest in self.manifests:
            self.selectors(manifest)

    def pod(self, name, spec, component):
        check(spec["automountServiceAccountToken"] is False, f"{name}: has a token it does not need")
        check(spec["enableServiceLinks"] is False, f"{name}: gets variables that look like settings")
        check(spec["serviceAccountName"] in self.names("ServiceAccount"), f"{name}: no service account")
        check(not spec.get("hostNetwork") and not spec.get("hostIPC"), f"{name}: shares host namespaces")
        volumes = {v["name"]: v for v in spec.get("volumes", [])}
        claims = {"history"} if component == "analyzer" else set()
        for container in spec["containers"]:
            self.container(name, container, spec, component)
            for mount in container["volumeMounts"]:
                check(mount["name"] in volumes.keys() | claims, f"{name}: no volume {mount['name']}")
                path = volumes.get(mount["name"], {}).get("hostPath", {}).get("path")
                if path:
                    check(path in HOST_PATHS and component == "sensor", f"{name}: mounts the host's {path}")
                    check(bool(mount.get("readOnly")) == HOST_PATHS.get(path), f"{name}: {path} must be read-only")
        for volume in volumes.values():
            if "configMap" in volume:
                check(volume["configMap"]["name"] in self.names("ConfigMap"), f"{name}: no ConfigMap")

    def container(self, name, container, spec, component):
        security = container["securityContext"]
        check(security["privileged"] is False, f"{name}: is privileged")
        check(security["readOnlyRootFilesystem"], f"{name}: writes to its image")
        check(security["capabilities"]["drop"] == ["ALL"], f"{name}: keeps default capabilities")
        added = set(security["capabilities"].get("add", []))
        if component == "sensor":
            everything = self.name.startswith("everything")
            expected = {"BPF", "PERFMON"}
            if everything:
                expected |= {"SYS_ADMIN", "SYS_PTRACE", "SYS_RESOURCE"}
            check(added == expected, f"{name}: has capabilities {sorted(added)}")
            check(spec["hostPID"] == everything, f"{name}: sees the host's processes")
            # Kubernetes refuses the two together.
            check(("SYS_ADMIN" in added) == ("allowPrivilegeEscalation" not in security), f"{name}: escalation")
        else:
            check(not added, f"{name}: has capabilities {sorted(added)}")
            check(spec["securityContext"]["runAsNonRoot"], f"{name}: runs as root")
            check(security["allowPrivilegeEscalation"] is False, f"{name}: may escalate")
        check("memory" in container["resources"].get("limits", {}), f"{name}: has no memory limit")
        names = {port["name"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if component != "topics":
                get = container[probe]["httpGet"]
                path = "/ready" if probe == "readinessProbe" else "/live"
                check(get["path"] == path and get["port"] in names, f"{name}: {probe}")
        variables = [variable["name"] for variable in container["env"]]
        check(len(variables) == len(set(variables)), f"{name}: a variable is set twice")

    def matching(self, labels):
        return [
            template for template in self.pods.values()
            if labels.items() <= template["metadata"]["labels"].items()
        ]

    def selectors(self, manifest):
        kind, spec = manifest["kind"], manifest.get("spec", {})
        name = f"{self.name}: {kind} {manifest['metadata']['name']}"
        if kind in ("DaemonSet", "StatefulSet", "PodDisruptionBudget", "PodMonitor"):
            check(len(self.matching(spec["selector"]["matchLabels"])) == 1, f"{name}: selects not one pod")
        if kind == "NetworkPolicy":
            check(len(self.matching(spec["podSelector"]["matchLabels"])) == 1, f"{name}: selects not one pod")
        if kind == "StatefulSet":
            check(spec["serviceName"] in self.names("Service"), f"{name}: no Service {spec['serviceName']}")
        if kind == "Service":
            pods = self.matching(spec["selector"])
            check(len(pods) == 1, f"{name}: selects not one pod")
            ports = {p["name"] for pod in pods for c in pod["spec"]["containers"] for p in c["ports"]}
            for port in spec["ports"]:
                check(port.get("targetPort") in ports, f"{name}: no port {port.get('targetPort')}")
        if kind == "PodMonitor":
            ports = {
                p["name"] for pod in self.matching(spec["selector"]["matchLabels"])
                for c in pod["spec"]["containers"] for p in c["ports"]
            }
            check({e["port"] for e in spec["podMetricsEndpoints"]} <= ports, f"{name}: no such port")
        if kind == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"]
            services = [
                s for s in self.of("Service") if wanted.items() <= s["metadata"]["labels"].items()
            ]
            check(len(services) == 1, f"{name}: selects {len(services)} Services")
            ports = {p["name"] for s in services for p in s["spec"]["ports"]}
            check({e["port"] for e in spec["endpoints"]} <= ports, f"{name}: no such port")
            check(all(e["honorLabels"] for e in spec["endpoints"]), f"{name}: hides the label `service`")


def configuration(release, honeyguide):
    """The real binary reads what the ConfigMaps hold."""
    for config in release.of("ConfigMap"):
        text = config["data"].get("honeyguide.toml")
        if text is None:
            continue
        name = f"{release.name}: {config['metadata']['name']}"
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text)
            file.flush()
            read = subprocess.run(
                [honeyguide, "default-config", "--config", file.name],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
        check(read.returncode == 0, f"{name}: {read.stderr.strip()}")
        check(tomllib.loads(text)["kafka"]["brokers"], f"{name}: names no brokers")


def programs(release, honeyguide):
    """Every container runs a program that is built, and a service its own."""
    expected = {"DaemonSet": "honeyguide-sensor", "StatefulSet": "honeyguide-analyzer", "Job": "honeyguide"}
    for kind, program in expected.items():
        for workload in release.of(kind):
            name = f"{release.name}: {kind} {workload['metadata']['name']}"
            for container in workload["spec"]["template"]["spec"]["containers"]:
                path = pathlib.PurePosixPath(container["command"][0])
                check(path == pathlib.PurePosixPath("/usr/bin") / program, f"{name}: runs {path}")
                check(pathlib.Path(honeyguide).with_name(path.name).exists(), f"{name}: {path.name} is not built")


def everything(release):
    kinds = {m["kind"] for m in release.manifests}
    expected = {
        "DaemonSet", "StatefulSet", "Job", "Service", "ConfigMap", "ServiceAccount",
        "PodDisruptionBudget", "NetworkPolicy", "PodMonitor", "ServiceMonitor", "PrometheusRule",
    }
    check(expected <= kinds, f"{release.name}: without {sorted(expected - kinds)}")


def rules_are_unchanged(release, chart):
    files = sorted((chart / "rules").glob("*.yaml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    for manifest in release.of("PrometheusRule"):
        check(manifest["spec"]["groups"] == groups, f"{release.name}: its rules are not those of rules/")


# Values and their schema.

def values_are_commented(chart):
    """Every key of values.yaml has a comment right above it."""
    lines = (chart / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        key = re.match(r"( *)(?:- )?[A-Za-z_.\/]+:", line)
        if key:
            above = lines[number - 1]
            commented = re.match(rf"{key[1]}# \S", above)
            check(commented, f"values.yaml:{number + 1}: no comment above `{line.strip()}`")


def schema_is_strict(schema, where="values"):
    if schema.get("type") == "object" and "properties" in schema:
        check(schema.get("additionalProperties") is False, f"schema: {where} lets unknown values through")
        for key, value in schema["properties"].items():
            schema_is_strict(value, f"{where}.{key}")


def schema_knows_every_key(schema, honeyguide):
    printed = subprocess.run([honeyguide, "default-config"], capture_output=True, text=True, check=True)
    defaults = tomllib.loads(printed.stdout)
    for table, own in CHART_OWN.items():
        keys = set(defaults[table]) - own
        known = set(schema["properties"][table]["properties"]["config"]["properties"])
        for key in sorted(keys - known):
            problems.append(f"schema: {table}.config lacks the key {key} of `honeyguide default-config`")
        for key in sorted(known - keys):
            problems.append(f"schema: {table}.config has {key}, which the program does not know")


def manifests(chart, crds, honeyguide, *rendered):
    operator = operator_schemas(pathlib.Path(crds))
    count = 0
    for argument in rendered:
        version, path = argument.split("=", 1)
        path = pathlib.Path(path)
        documents = [d for d in yaml.safe_load_all(path.read_text()) if d]
        release = Release(path.stem, documents)
        for manifest in documents:
            name = f"{path.stem}: {manifest['kind']} {manifest['metadata']['name']}"
            validate(manifest, version, operator, name)
        try:
            release.check()
        except KeyError as field:
            problems.append(f"{path.stem}: a manifest lacks the field {field}")
        configuration(release, honeyguide)
        programs(release, honeyguide)
        rules_are_unchanged(release, chart)
        if path.stem.startswith("everything"):
            everything(release)
        count += len(documents)
    values_are_commented(chart)
    schema = json.loads((chart / "values.schema.json").read_text())
    schema_is_strict(schema)
    for name, definition in schema["$defs"].items():
        schema_is_strict(definition, name)
    schema_knows_every_key(schema, honeyguide)
    return f"{count} manifests of {len(rendered)} renderings"


# Rules.

def rules(chart):
    alerts = {}
    for file in sorted((chart / "rules").glob("*.yaml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                check(rule["alert"] not in alerts, f"{rule['alert']}: is there twice")
                alerts[rule["alert"]] = rule
    runbooks = chart.parent.parent / "docs" / "runbooks"
    for name, rule in alerts.items():
        annotations = rule["annotations"]
        check(rule["labels"]["severity"] in ("critical", "warning", "info"), f"{name}: severity")
        check(annotations["summary"], f"{name}: no summary")
        check(re.search(r"\$value|query", annotations["description"]), f"{name}: no number in its description")
        check(annotations["runbook_url"].endswith(f"/docs/runbooks/{name}.md"), f"{name}: runbook_url")
        runbook(name, runbooks / f"{name}.md")
    known = set(alerts) | {"README"}
    for file in runbooks.glob("*.md"):
        check(file.stem in known, f"{file.name}: a runbook of no alert")
    fires, stays_quiet = tested(chart)
    for name in alerts:
        check(name in fires, f"{name}: no test in which it fires")
        check(name in stays_quiet, f"{name}: no test in which it does not fire")
    return f"{len(alerts)} alerts"


def runbook(name, file):
    if not file.exists():
        problems.append(f"{name}: no {file.name}")
        return
    headings = re.findall(r"^## (.*)$", file.read_text(), re.MULTILINE)
    check(headings == ["What it means", "What to check", "What to do"], f"{file.name}: has {headings}")


def tested(chart):
    fires, stays_quiet = set(), set()
    for file in (chart / "rules" / "tests").glob("*.yaml"):
        for test in yaml.safe_load(file.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                (fires if case["exp_alerts"] else stays_quiet).add(case["alertname"])
    return fires, stays_quiet


def main():
    what, chart, *rest = sys.argv[1:]
    done = {"manifests": manifests, "rules": rules}[what](pathlib.Path(chart), *rest)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    if problems:
        sys.exit(f"{len(problems)} problems")
    print(f"  {done} checked")


main()
