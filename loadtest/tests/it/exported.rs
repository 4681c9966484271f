//! Spans as a real OpenTelemetry receiver gets them.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use loadtest::{
    cluster::{Cluster, Member},
    places,
    wait::until,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
};

use crate::stack::succeed;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
/// Longest way of a span to what the receiver says of it.
const EXPORTED_WITHIN: Duration = Duration::from_secs(30);

/// An address at which nobody listens.
async fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Rotel, a collector, which writes all that it gets.
struct Receiver {
    _process: Child,
    said: PathBuf,
}

impl Receiver {
    async fn listen(address: &str, directory: &Path) -> Self {
        let said = directory.join("receiver.log");
        let process = Command::new(places::span_receiver())
            .args(["start", "--otlp-http-endpoint", address])
            .args(["--otlp-grpc-endpoint", &free_address().await])
            .args(["--exporter", "blackhole"])
            .args(["--debug-log", "traces", "--debug-log-verbosity", "detailed"])
            .arg("--pid-file")
            .arg(directory.join("receiver.pid"))
            .stdout(File::create(&said).unwrap())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .expect("`make stores` puts it there");
        Self {
            _process: process,
            said,
        }
    }

    /// The spans that it has got so far.
    fn spans(&self) -> Vec<Received> {
        received(&std::fs::read_to_string(&self.said).unwrap())
    }

    /// Waits until it has got a span of this name in a trace.
    async fn gets(&self, trace: &str, name: &str) -> Received {
        let got = until(name, EXPORTED_WITHIN, async || {
            let mut spans = self.spans().into_iter();
            Ok(spans.find(|span| span.trace == trace && span.name == name))
        });
        got.await.unwrap_or_else(|error| {
            let said = std::fs::read_to_string(&self.said).unwrap();
            panic!("{error:#}: {said}")
        })
    }
}

/// A span as the receiver got it.
#[derive(Clone, Debug, Default)]
struct Received {
    service: String,
    trace: String,
    parent: String,
    id: String,
    name: String,
}

/// Reads what the receiver writes: a line for each thing, those of a span after those of its process.
fn received(said: &str) -> Vec<Received> {
    let mut spans = vec![];
    let (mut service, mut span) = (String::new(), Received::default());
    for line in said.lines() {
        let Some((what, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim().to_owned();
        match what.trim().trim_start_matches("-> ") {
            "service.name" => {
                let text = value.trim_start_matches("Str(");
                text.trim_end_matches(')').clone_into(&mut service);
            }
            "Trace ID" => span.trace = value,
            "Parent ID" => span.parent = value,
            "ID" => span.id = value,
            "Name" => {
                span.name = value;
                span.service.clone_from(&service);
                spans.push(std::mem::take(&mut span));
            }
            _ => {}
        }
    }
    spans
}

#[tokio::test]
async fn a_callers_trace_is_whole_at_a_receiver_that_may_come_late() {
    let address = free_address().await;
    let endpoint = format!("http://{address}");
    let arguments = ["--otlp-endpoint", &endpoint, "--log-format", "json"];
    let cluster = Cluster::builder()
        // Leases in use are renewed every two seconds.
        .pool(|pool| pool.cooldown(20))
        .ingress_arguments(arguments)
        .worker_arguments(arguments)
        // Each session has an interpreter joined for it.
        .worker_arguments(["--cages", "1", "--spares", "0"])
        .start()
        .await
        .unwrap();
    let client = cluster.client(0).unwrap();
    let programs = [Member::Ingress(0), Member::Worker(0)];
    // Nobody listens yet, and nothing waits for it.
    succeed(&client.fresh(), "1").await;
    for program in programs {
        logs(&cluster, program, "failed to export spans").await;
    }
    let receiver = Receiver::listen(&address, cluster.directory()).await;
    let early = client.fresh();
    for program in programs {
        let exported_again = until("spans are exported again", EXPORTED_WITHIN, async || {
            succeed(&early, "1").await;
            Ok((lines(&cluster, program, "spans are exported again") > 0).then_some(()))
        });
        exported_again.await.unwrap();
        assert_eq!(lines(&cluster, program, "failed to export spans"), 1);
    }

    let session = client.fresh();
    let request = session.request(Method::POST, "code/execute");
    let request = request.header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    let code = "open('/mnt/data/secret-name', 'w').write('secret-text')";
    let body = json!({ "properties": { "code": code } });
    let response = request.json(&body).send().await.unwrap();
    assert!(response.status().is_success(), "{response:?}");

    is_whole(&receiver).await;
    let renewed = until("lease.renew", EXPORTED_WITHIN, async || {
        let spans = receiver.spans();
        Ok(spans
            .iter()
            .any(|span| span.name == "lease.renew")
            .then_some(()))
    });
    renewed.await.unwrap();
    let said = std::fs::read_to_string(&receiver.said).unwrap();
    for secret in ["secret-name", "secret-text", session.identifier()] {
        assert!(!said.contains(secret), "{secret}: {said}");
    }
    tells_the_trace_in_json(&cluster);
}

/// The trace's spans hang together, below the step that its caller named.
async fn is_whole(receiver: &Receiver) {
    let asked = receiver.gets(TRACE, "request.answer").await;
    assert_eq!(
        (&*asked.service, &*asked.parent),
        ("hearth-ingress", PARENT)
    );
    for (name, parent) in [
        ("session.place", &asked.id),
        ("session.open", &asked.id),
        ("job.serve", &asked.id),
        ("execution.run", &asked.id),
        (
            "sandbox.join",
            &receiver.gets(TRACE, "session.place").await.id,
        ),
        (
            "files.commit",
            &receiver.gets(TRACE, "execution.run").await.id,
        ),
    ] {
        let span = receiver.gets(TRACE, name).await;
        assert_eq!(
            (&*span.service, &span.parent),
            ("hearth-worker", parent),
            "{name}"
        );
    }
}

/// How many lines of a program's log say this.
fn lines(cluster: &Cluster, program: Member, text: &str) -> usize {
    let log = cluster.log(program).unwrap();
    log.lines().filter(|line| line.contains(text)).count()
}

async fn logs(cluster: &Cluster, program: Member, text: &str) {
    let logged = until(text, EXPORTED_WITHIN, async || {
        Ok((lines(cluster, program, text) > 0).then_some(()))
    });
    logged.await.unwrap();
}

/// The access line of the request is one object, and says which trace it belongs to.
fn tells_the_trace_in_json(cluster: &Cluster) {
    let log = cluster.log(Member::Ingress(0)).unwrap();
    let lines = log.lines().map(|line| {
        let line = serde_json::from_str::<Value>(line);
        line.unwrap_or_else(|error| panic!("{error}: {log}"))
    });
    let mut own: Vec<_> = lines.filter(|line| line["trace.id"] == TRACE).collect();
    let line = own.pop().unwrap();
    assert!(own.is_empty(), "{own:?}");
    assert_eq!(line["target"], "ingress::access");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["message"], "answered");
    assert_eq!(line["route"], "/code/execute");
    assert_eq!(line["status"], 200);
}
