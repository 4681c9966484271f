//! One id leads from a caller's answer to what ingress and worker log about the request.

use loadtest::cluster::{Cluster, Member};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::succeed;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The lines of a process's log that have this trace's id.
fn lines(cluster: &Cluster, member: Member, trace: &str) -> Vec<String> {
    let log = cluster.log(member).unwrap();
    let lines = log.lines().filter(|line| line.contains(trace));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_callers_trace_is_in_its_error_and_in_the_lines_of_both_programs() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "1").await;
    // A frame that no kernel sends.
    let code = "import os, struct\nos.write(3, struct.pack('<I', 1) + b'{')\nwhile True: pass";
    let request = session.request(Method::POST, "code/execute");
    let request = request.header("traceparent", TRACEPARENT);
    let body = json!({ "properties": { "code": code } });
    let response = request.json(&body).send().await.unwrap();
    assert!(response.status().is_success(), "{response:?}");
    let [answered] = &lines(&cluster, Member::Ingress(0), TRACE)[..] else {
        panic!("{:?}", lines(&cluster, Member::Ingress(0), TRACE));
    };
    for part in ["route=\"/code/execute\"", "status=200", "method=POST"] {
        assert!(answered.contains(part), "{answered}");
    }
    assert!(!answered.contains(session.identifier()), "{answered}");
    let told = lines(&cluster, Member::Worker(0), TRACE);
    assert!(
        told.iter().any(|line| line.contains("broke its protocol")),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_refusal_names_the_trace_under_which_it_is_logged() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    for traceparent in [None, Some(TRACEPARENT)] {
        let mut request = session.request(Method::GET, "files/none");
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 404);
        let body: Value = response.json().await.unwrap();
        let trace = body["error"]["traceId"].as_str().unwrap();
        assert_eq!(traceparent.is_some(), trace == TRACE);
        let told = lines(&cluster, Member::Ingress(0), trace);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("status=404"), "{told:?}");
        assert!(!told[0].contains("none"), "{told:?}");
    }
}
