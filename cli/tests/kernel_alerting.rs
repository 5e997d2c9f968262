//! From a real bottleneck to Alertmanager and to Grafana's panels: real kernel
//! events, a real Kafka, sensor and analyzer as processes of their own, and a
//! real Prometheus with the chart's rules. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(all(feature = "broker-tests", feature = "kernel-tests"))]

mod running;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use kafka_node::Lent;
use running::{
    Running, free_port, get,
    loads::{Process, SHOP, Shop, VICTIM, leave_cpu_0, pinned_bash, victim},
    wait_for,
};
use serde_json::Value;
use tokio::runtime::Runtime;

/// Windows of one second, and an objective that the hogs break and what
/// else a test machine does breaks not for long.
const CONFIG: &str = r#"
[sensor]
flush_interval = "1s"
cost_measurement = "100ms"
[analyzer]
step = "1s"
lateness = "500ms"
[[analyzer.objectives]]
name = "run-queue"
service = "process/hg-victim"
signal = "runq"
target = "p99"
threshold = "12ms"
horizon = "1m"
fire_after = 2
resolve_after = 3
"#;

fn encoded(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// Waits until nothing has disturbed the victim much for ten seconds: the
/// start of the brokers and of the probes is over.
fn wait_for_calm(honeyguide: &Running) {
    let mut last = Vec::new();
    wait_for("calm", 180, || {
        thread::sleep(Duration::from_millis(750));
        last.extend(honeyguide.victim_p99());
        let begin = last.len().saturating_sub(10);
        let mut newest = last[begin..].to_vec();
        newest.sort_by(f64::total_cmp);
        last.len() >= 20 && newest[5] < 0.006
    });
}

/// Types of all metrics that both processes serve.
fn types(honeyguide: &Running) -> BTreeSet<String> {
    let pages = [honeyguide.sensor_http, honeyguide.analyzer_http];
    let pages = pages.map(|port| get(port, "/metrics").unwrap()).concat();
    let types = pages
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .filter_map(|line| line.split_once(' '))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Alertmanager, and a Prometheus that evaluates the chart's rules for it.
struct Monitoring {
    prometheus: u16,
    alertmanager: u16,
    _processes: [Process; 2],
}

impl Monitoring {
    fn start(directory: &Path, honeyguide: &Running) -> Self {
        let [prometheus, alertmanager] = [(); 2].map(|()| free_port());
        let config = directory.join("alertmanager.yml");
        let text = "route:\n  receiver: nobody\n  group_by: ['...']\n  group_wait: 0s\n\
                    receivers:\n  - name: nobody\n";
        fs::write(&config, text).unwrap();
        let mut manager = Command::new("prometheus-alertmanager");
        manager.arg(format!("--config.file={}", config.display()));
        let storage = directory.join("alertmanager");
        manager.arg(format!("--storage.path={}", storage.display()));
        manager.arg(format!("--web.listen-address=127.0.0.1:{alertmanager}"));
        manager.arg("--cluster.listen-address=");

        let config = directory.join("prometheus.yml");
        fs::write(&config, configuration(directory, honeyguide, alertmanager)).unwrap();
        let mut server = Command::new("prometheus");
        server.arg(format!("--config.file={}", config.display()));
        let storage = directory.join("prometheus");
        server.arg(format!("--storage.tsdb.path={}", storage.display()));
        server.arg(format!("--web.listen-address=127.0.0.1:{prometheus}"));
        server.arg("--rules.alert.resend-delay=1s");
        server.arg("--enable-feature=native-histograms");
        let processes = [manager, server].map(|mut command| {
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            let tools = "Prometheus is installed (`cargo xtask setup --for test` does it)";
            Process(command.spawn().expect(tools))
        });
        for port in [alertmanager, prometheus] {
            wait_for("Prometheus", 30, || get(port, "/-/ready").is_some());
        }
        Self {
            prometheus,
            alertmanager,
            _processes: processes,
        }
    }

    /// What Prometheus's API answers.
    fn ask(&self, path: &str) -> Value {
        let answer = get(self.prometheus, &format!("/api/v1/{path}"));
        let answer = answer.unwrap_or_else(|| panic!("{path} is refused"));
        serde_json::from_str::<Value>(&answer).unwrap()["data"].clone()
    }

    /// Whether an instant query has an answer with a number in it.
    fn has(&self, expression: &str) -> bool {
        let data = self.ask(&format!("query?query={}", encoded(expression)));
        data["result"].as_array().unwrap().iter().any(|result| {
            let value = &result["value"][1];
            result["histogram"].is_array() || value.is_string() && value != "NaN"
        })
    }

    /// Alerts of the victim that Alertmanager has, by name.
    fn alerts(&self, name: &str) -> Vec<Value> {
        let answer = get(self.alertmanager, "/api/v2/alerts").unwrap();
        let alerts: Vec<Value> = serde_json::from_str(&answer).unwrap();
        alerts
            .into_iter()
            .filter(|alert| {
                let labels = &alert["labels"];
                labels["alertname"] == name && labels["service"] == VICTIM
            })
            .collect()
    }
}

/// Prometheus's configuration, with the chart's rules at a pace for tests.
fn configuration(directory: &Path, honeyguide: &Running, alertmanager: u16) -> String {
    let mut files = Vec::new();
    for (name, rules) in chart_files("rules", "yaml") {
        let path = directory.join(name);
        fs::write(&path, hurried(&rules)).unwrap();
        files.push(path.display().to_string());
    }
    let (sensor, analyzer) = (honeyguide.sensor_http, honeyguide.analyzer_http);
    format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: {files:?}\n\
         alerting:\n  alertmanagers:\n  - static_configs: [{{targets: ['127.0.0.1:{alertmanager}']}}]\n\
         scrape_configs:\n\
         - job_name: sensor\n  static_configs: [{{targets: ['127.0.0.1:{sensor}']}}]\n\
         - job_name: analyzer\n  honor_labels: true\n  \
         static_configs: [{{targets: ['127.0.0.1:{analyzer}']}}]\n"
    )
}

/// Files of the chart with their text.
fn chart_files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../helm/honeyguide")
        .join(folder);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Rules that wait seconds where they wait minutes; nothing else is changed.
fn hurried(rules: &str) -> String {
    let hurry = |line: &str| {
        let (key, _) = line.split_once(':')?;
        let waits = matches!(key.trim(), "for" | "keep_firing_for");
        waits.then(|| format!("{key}: 2s"))
    };
    let lines = rules
        .lines()
        .map(|line| hurry(line).unwrap_or_else(|| line.to_owned()));
    lines.collect::<Vec<_>>().join("\n")
}

/// A dashboard's expression with what a user has chosen.
fn chosen(expression: &str, service: &str) -> String {
    let choices = [
        ("$__rate_interval", "15s"),
        ("$service", service),
        ("$signal", "runq"),
        ("$objective", "run-queue"),
        ("$quantile", "0.99"),
        ("$horizon", "1m"),
    ];
    let replaced = choices
        .iter()
        .fold(expression.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        });
    assert!(!replaced.contains('$'), "{replaced}: an unknown variable");
    replaced
}

/// Every query of every panel has an answer, and every variable the victim's
/// value, or where requests are shown the shop's.
fn check_dashboards(monitoring: &Monitoring) {
    let mut queries = 0;
    for (name, text) in chart_files("dashboards", "json") {
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let service = if name == "requests.json" {
            SHOP
        } else {
            VICTIM
        };
        let chosen = |expression: &str| chosen(expression, service);
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = chosen(target["expr"].as_str().unwrap());
                let what = format!("{name}, {}: {expression}", panel["title"]);
                wait_for(&what, 90, || monitoring.has(&expression));
                queries += 1;
            }
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            if let Some(query) = variable["query"]["query"].as_str() {
                let arguments = query.strip_prefix("label_values(").unwrap();
                let (series, label) = arguments.trim_end_matches(')').rsplit_once(", ").unwrap();
                let series = encoded(&chosen(series));
                let values = monitoring.ask(&format!("label/{label}/values?match%5B%5D={series}"));
                let expected = chosen(&format!("${label}"));
                let values = values.as_array().unwrap();
                assert!(
                    values.contains(&Value::from(expected)),
                    "{query}: {values:?}"
                );
            }
        }
    }
    assert!(queries > 30, "only {queries} queries");
}

/// Rules name only metrics that a sensor or an analyzer on Kafka serves.
fn check_metrics_of_rules(types: &BTreeSet<String>) {
    let prefixes = ["honeyguide_", "sensor_", "analyzer_", "bus_", "spool_"];
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names = 0;
    for (file, text) in chart_files("rules", "yaml") {
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        let code: String = lines.map(|line| format!("{line}\n")).collect();
        for name in code.split(|c| !is_name(c)) {
            if !prefixes.iter().any(|prefix| name.starts_with(prefix)) || is_key(name) {
                continue;
            }
            let known = ["", "_total", "_sum", "_count", "_bucket"]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .any(|base| types.contains(base));
            assert!(known, "{file}: nobody serves {name}");
            names += 1;
        }
    }
    assert!(names > 20, "only {names} metrics");
}

/// Configuration keys in the text for people, as in `sensor.spool_mb_max`.
fn is_key(name: &str) -> bool {
    name == "spool_mb_max"
}

#[test]
fn a_bottleneck_ends_as_an_alert_that_resolves_and_panels_show_it() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    leave_cpu_0();
    let broker = Runtime::new().unwrap().block_on(Lent::take()).unwrap();
    let _victim = victim(directory);
    let shop = Shop::start(directory);
    thread::spawn(move || {
        // Until the test ends.
        loop {
            let _ = (get(shop.port, "/orders/1"), get(shop.port, "/orders/fail"));
            thread::sleep(Duration::from_millis(200));
        }
    });
    let honeyguide = Running::on_kafka(directory, CONFIG, &broker);
    let monitoring = Monitoring::start(directory, &honeyguide);
    wait_for_calm(&honeyguide);
    wait_for("no alert while it is calm", 30, || {
        monitoring.alerts("HoneyguideBreachNow").is_empty()
    });

    // Above the victim's weight, so that each of them runs for its whole slice
    // before the victim's turn comes; but not above that of the kernel's own
    // workers of that CPU, without which disks and Kafka stand still.
    let hogs: Vec<Process> = (0..24)
        .map(|_| pinned_bash(directory, "hg-hog", 0, "while :; do :; done"))
        .collect();
    wait_for("an alert in Alertmanager", 90, || {
        !monitoring.alerts("HoneyguideBreachNow").is_empty()
    });
    let alert = monitoring.alerts("HoneyguideBreachNow").remove(0);
    assert_eq!(alert["status"]["state"], "active", "{alert}");
    for (label, value) in [
        ("signal", "runq"),
        ("objective", "run-queue"),
        ("severity", "critical"),
    ] {
        assert_eq!(alert["labels"][label], value, "{alert}");
    }
    let annotations = &alert["annotations"];
    let description = annotations["description"].as_str().unwrap();
    assert!(description.contains("probability 100%"), "{description}");
    assert!(!description.contains("unknown"), "{description}");
    let runbook = annotations["runbook_url"].as_str().unwrap();
    assert!(runbook.ends_with("HoneyguideBreachNow.md"), "{runbook}");

    check_metrics_of_rules(&types(&honeyguide));
    // Of what is read, not of what is committed every few minutes.
    wait_for("no lag", 30, || monitoring.has("max(bus_lag_records) < 5"));
    check_dashboards(&monitoring);

    drop(hogs);
    wait_for("the alert to resolve", 90, || {
        monitoring.alerts("HoneyguideBreachNow").is_empty()
    });
    // Prometheus resolved it; Alertmanager did not merely hear no more of it. One
    // that is pending is another one, of a machine that is not quite calm.
    let alerts = monitoring.ask("alerts")["alerts"].clone();
    let still = alerts.as_array().unwrap().iter().any(|alert| {
        let labels = &alert["labels"];
        alert["state"] == "firing"
            && labels["alertname"] == "HoneyguideBreachNow"
            && labels["service"] == VICTIM
    });
    assert!(!still, "{alerts}");
}
