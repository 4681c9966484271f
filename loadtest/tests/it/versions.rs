//! The path tells the contract, the api-version only where both contracts have the path: one session is
//! used with several versions at once.

use loadtest::{client::Session, multipart::Multipart};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    new_contract::VERSIONS as NEW,
    stack::{answer, shared, succeed},
};

/// Those of the old contract; the first is known from an error message only.
const OLD: [&str; 3] = [
    "2023-08-01-preview",
    "2024-02-02-preview",
    "2024-08-02-preview",
];

/// Every version, and whether it is one of the new contract.
fn every_version() -> impl Iterator<Item = (&'static str, bool)> {
    let old = OLD.into_iter().map(|version| (version, false));
    old.chain(NEW.into_iter().map(|version| (version, true)))
}

/// The body of an answer that must be 200.
async fn told(session: &Session, method: Method, path: &str, version: &str) -> Value {
    let request = session.versioned(method, path, version);
    let (status, told) = answer(request).await;
    assert_eq!(status, 200, "{path} {version} {told}");
    told
}

#[tokio::test]
async fn the_path_of_an_execution_tells_its_words_in_every_version() {
    let stack = shared().await;
    let session = stack.session();
    for (version, _) in every_version() {
        for (path, at, result, ended) in [
            (
                "code/execute",
                "/properties",
                "/properties/result",
                ["Success", "Failure"],
            ),
            ("python/execute", "", "/result", ["Success", "Failure"]),
            (
                "executions",
                "",
                "/result/executionResult",
                ["Succeeded", "Failed"],
            ),
        ] {
            for (code, result_expected, status_expected) in [
                ("6 * 7", json!(42), ended[0]),
                ("1 / 0", json!(""), ended[1]),
            ] {
                let body = json!({ "properties": { "code": code } });
                let request = session.versioned(Method::POST, path, version).json(&body);
                let (status, told) = answer(request).await;
                assert_eq!(status, 200, "{path} {version} {told}");
                let word = told.pointer(&format!("{at}/status"));
                assert_eq!(word, Some(&json!(status_expected)), "{path} {version}");
                let got = told.pointer(result);
                assert_eq!(got, Some(&result_expected), "{path} {version}");
            }
        }
    }
}

#[tokio::test]
async fn the_version_tells_the_shape_where_both_contracts_have_the_path() {
    let stack = shared().await;
    let session = stack.session();
    for (version, is_new) in every_version() {
        let body = Multipart::file("a.txt", b"text");
        let request = session.versioned(Method::POST, "files", version);
        let request = request.header("content-type", body.content_type());
        let (status, stored) = answer(request.body(body.into_body())).await;
        assert_eq!(status, 200, "{version} {stored}");
        let listed = told(&session, Method::GET, "files", version).await;
        let one = told(&session, Method::GET, "files/a.txt", version).await;
        let removal = session.versioned(Method::DELETE, "files/a.txt", version);
        let (status, removed) = answer(removal).await;
        if is_new {
            assert_eq!(listed, json!({ "value": [stored] }), "{version}");
            assert_eq!(one, stored, "{version}");
            assert_eq!(stored["sizeInBytes"], 4, "{version} {stored}");
            assert_eq!((status.as_u16(), removed), (204, json!("")), "{version}");
        } else {
            assert_eq!((&listed, &one), (&stored, &stored), "{version}");
            let entry = &stored["value"][0];
            assert_eq!(
                (&stored["$id"], &entry["$id"], &entry["properties"]["$id"]),
                (&json!("1"), &json!("2"), &json!("3"))
            );
            assert_eq!(entry["properties"]["filename"], "a.txt", "{version}");
            let message = json!({ "message": "file deleted successfully" });
            assert_eq!((status.as_u16(), removed), (200, message), "{version}");
        }
    }
}

#[tokio::test]
async fn sessions_are_told_and_ended_in_every_version() {
    let stack = shared().await;
    let session = stack.session();
    for (number, (version, _)) in every_version().enumerate() {
        succeed(&session, "1").await;
        let one = told(&session, Method::GET, "session", version).await;
        assert_eq!(one["identifier"], session.identifier(), "{version}");
        let managed = told(&session, Method::POST, ".management/getSession", version).await;
        assert_eq!(managed["etag"], one["etag"], "{version}");
        let all = told(&session, Method::GET, "listSessions", version).await;
        assert!(all["sessions"].is_array(), "{version} {all}");
        let about = told(&session, Method::GET, "metadata", version).await;
        assert!(about["runtimes"].is_array(), "{version} {about}");
        let (method, path, expected) = match number % 2 {
            0 => (Method::DELETE, "session", 204),
            _ => (Method::POST, ".management/stopSession", 200),
        };
        let (status, ended) = answer(session.versioned(method, path, version)).await;
        assert_eq!(status, expected, "{version} {ended}");
    }
}
