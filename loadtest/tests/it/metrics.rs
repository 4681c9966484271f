//! Metrics as Prometheus reads them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    time::Duration,
};

use loadtest::{
    cluster::{Cluster, Member},
    documents, places,
    raw::RawRequest,
    wait::until,
};
use proto::health::Check;
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use crate::stack::{fail, succeed};

/// Longest wait for two scrapes, which are a second apart.
const SCRAPED_WITHIN: Duration = Duration::from_secs(30);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";

/// All that a process shows, in the form that `accept` names.
async fn shown(address: SocketAddr, accept: &str) -> String {
    let response = RawRequest::new("GET", "/metrics")
        .header("accept", accept)
        .send(address)
        .await
        .unwrap();
    assert_eq!(response.status, 200);
    String::from_utf8(response.body).unwrap()
}

/// The value of a sample by its name with labels, as a process shows it now.
pub(crate) async fn sample(address: SocketAddr, name: &str) -> f64 {
    let value = found(address, name).await;
    value.unwrap_or_else(|| panic!("{name} is not there"))
}

async fn found(address: SocketAddr, name: &str) -> Option<f64> {
    let text = shown(address, "text/plain").await;
    let values: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .collect();
    assert!(values.len() < 2, "{name} is there twice: {text}");
    Some(values.first()?.parse().unwrap())
}

/// Waits until a process shows this much for a sample, or more.
pub(crate) async fn reaches(address: SocketAddr, name: &str, wanted: f64) {
    let reached = until(name, SCRAPED_WITHIN, async || {
        let value = found(address, name).await;
        Ok(value.filter(|value| *value >= wanted))
    });
    reached.await.unwrap();
}

/// Names of the series that a process shows, without their values.
async fn series(address: SocketAddr) -> BTreeSet<String> {
    let text = shown(address, "text/plain").await;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
        .collect()
}

/// Debian's Prometheus, at work on this stack.
struct Prometheus {
    _process: Child,
    _directory: TempDir,
    address: String,
}

impl Prometheus {
    async fn scrape(targets: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let targets: Vec<_> = targets.iter().map(|it| format!("\"{it}\"")).collect();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/prometheus/alerts.yml");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{:?}]\n\
             scrape_configs: [{{job_name: hearth, static_configs: [{{targets: [{}]}}]}}]\n",
            rules,
            targets.join(", ")
        );
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let mut process = Command::new(places::prometheus().join("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("`make prometheus` puts it there");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("it listens");
            if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
                break address.trim().to_owned();
            }
        };
        // It must not wait for whoever reads what it logs.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            _process: process,
            _directory: directory,
            address,
        }
    }

    /// What an expression without labels in its value comes to; `None` before the first scrape.
    async fn value(&self, expression: &str) -> Option<f64> {
        let url = format!("http://{}/api/v1/query", self.address);
        let url = reqwest::Url::parse_with_params(&url, [("query", expression)]).unwrap();
        let told: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        assert_eq!(told["status"], "success", "{told}");
        let value = told["data"]["result"][0]["value"][1].as_str()?;
        value.parse().ok()
    }

    async fn comes_to(&self, expression: &str, wanted: f64) {
        let last = std::cell::Cell::new(None);
        let came = until(expression, SCRAPED_WITHIN, async || {
            last.set(self.value(expression).await);
            Ok((last.get() == Some(wanted)).then_some(()))
        });
        let came = came.await;
        assert!(
            came.is_ok(),
            "{expression} is {:?}, not {wanted}",
            last.get()
        );
    }
}

#[tokio::test]
async fn what_prometheus_scrapes_equals_the_traffic_that_was_sent() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = cluster.client(0).unwrap();
    let addresses = [Member::Ingress(0), Member::Worker(0)]
        .map(|member| cluster.admin_address_of(member).unwrap());
    let prometheus = Prometheus::scrape(&addresses).await;
    let session = client.fresh();
    for _ in 0..5 {
        succeed(&session, "1").await;
    }
    for _ in 0..2 {
        fail(&session, "1 / 0").await;
    }
    succeed(&session, "open('/mnt/data/a', 'w').write('a')").await;
    let missing = session.request(Method::GET, "files/none").send().await;
    assert_eq!(missing.unwrap().status(), 404);
    let expected = [
        ("sum(hearth_executions_total{ending=\"succeeded\"})", 6.0),
        ("sum(hearth_executions_total{ending=\"raised\"})", 2.0),
        ("sum(hearth_execution_duration_seconds_count)", 8.0),
        (
            "sum(hearth_requests_total{route=\"/code/execute\",status=\"200\",code=\"\"})",
            8.0,
        ),
        (
            "sum(hearth_requests_total{status=\"404\",code=\"FileNotFound\"})",
            1.0,
        ),
        ("sum(hearth_sessions)", 1.0),
        ("sum(hearth_session_open_duration_seconds_count)", 1.0),
        ("sum(hearth_commit_duration_seconds_count)", 1.0),
        ("sum(hearth_commit_attempts_failed_total)", 0.0),
        ("count(up == 1)", 2.0),
    ];
    for (expression, wanted) in expected {
        prometheus.comes_to(expression, wanted).await;
    }
    // All is well, and the rules see it so.
    assert_eq!(prometheus.value("count(ALERTS)").await, None);

    let mut before = BTreeMap::new();
    for address in addresses {
        before.insert(address, series(address).await);
    }
    for _ in 0..12 {
        let session = client.fresh();
        succeed(&session, "1").await;
        for address in addresses {
            let text = shown(address, "text/plain").await;
            assert!(!text.contains(session.identifier()), "{text}");
        }
    }
    prometheus
        .comes_to("sum(hearth_executions_total{ending=\"succeeded\"})", 18.0)
        .await;
    // More sessions, as many series.
    for (address, before) in before {
        assert_eq!(series(address).await, before);
    }
}

/// Runs `promtool` with this on its standard input.
async fn promtool(directory: &Path, arguments: &[&str], input: &str) {
    let mut child = Command::new(places::prometheus().join("promtool"))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`make prometheus` puts it there");
    let mut standard_input = child.stdin.take().unwrap();
    standard_input.write_all(input.as_bytes()).await.unwrap();
    drop(standard_input);
    let output = child.wait_with_output().await.unwrap();
    let words = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&words)
    );
}

#[tokio::test]
async fn alert_rules_fire_for_what_they_are_about_alone() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/prometheus");
    promtool(&rules, &["check", "rules", "alerts.yml"], "").await;
    promtool(&rules, &["test", "rules", "alerts.test.yml"], "").await;
    let rules = std::fs::read_to_string(rules.join("alerts.yml")).unwrap();
    for check in Check::ALL {
        // Every start and every end fails these two.
        let expected = !matches!(check, Check::Starting | Check::Draining);
        assert_eq!(rules.contains(check.name()), expected, "{}", check.name());
    }
}

/// A metric as it is described: name, type and help.
type Described = (String, String, String);

fn described(openmetrics: &str) -> Vec<Described> {
    let mut all = BTreeMap::<String, (String, String)>::new();
    for line in openmetrics.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some("#"), Some(what), Some(name), Some(rest)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let entry = all.entry(name.to_owned()).or_default();
        match what {
            "TYPE" => rest.clone_into(&mut entry.0),
            "HELP" => rest.trim_end_matches('.').clone_into(&mut entry.1),
            _ => {}
        }
    }
    let described = all.into_iter();
    described
        .map(|(name, (kind, help))| (name, kind, help))
        .collect()
}

fn table(program: &str, metrics: &[Described]) -> String {
    let mut text = format!("\n## {program}\n\n| metric | type | what it says |\n|---|---|---|\n");
    for (name, kind, help) in metrics {
        let name = match kind.as_str() {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.clone(),
        };
        writeln!(text, "| `{name}` | {kind} | {help} |").unwrap();
    }
    text
}

#[tokio::test]
async fn the_committed_metrics_are_those_of_a_running_stack() {
    let cluster = Cluster::builder().start().await.unwrap();
    succeed(&cluster.client(0).unwrap().fresh(), "1").await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let mut text = "# Metrics\n\n`GET /metrics` at `--admin-listen` of both programs, as OpenMetrics or in the Prometheus text \
                    form, by `Accept`. No\nlabel names a session, a caller or a file. Alert rules are in \
                    [`infra/prometheus/alerts.yml`](../infra/prometheus/alerts.yml).\n\nThis page is written from a \
                    running stack: `make documents`.\n"
        .to_owned();
    for (program, member) in [
        ("ingress", Member::Ingress(0)),
        ("worker", Member::Worker(0)),
    ] {
        let address = cluster.admin_address_of(member).unwrap();
        let openmetrics = shown(address, OPENMETRICS).await;
        assert!(openmetrics.ends_with("# EOF\n"));
        promtool(
            Path::new("."),
            &["check", "metrics"],
            &shown(address, "text/plain").await,
        )
        .await;
        text += &table(program, &described(&openmetrics));
    }
    documents::keep(Path::new(path), &text);
}
