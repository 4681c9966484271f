//! Addresses, bodies and answers of the old contract, in every spelling that clients use.

use loadtest::{
    client::{API_VERSION, escape},
    raw::RawRequest,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::{answer, refused, shared, succeed};

fn body(code: &str) -> Value {
    json!({ "properties": {
        "codeInputType": "inline", "executionType": "synchronous", "code": code
    } })
}

#[tokio::test]
async fn a_download_may_be_spelled_with_content_at_both_ends() {
    let stack = shared().await;
    let session = stack.session();
    session.upload("README.md", b"text").await.unwrap();
    session.upload("content", b"of that name").await.unwrap();
    for (path, expected) in [
        ("files/content/README.md", "text"),
        ("files/content/README.md/content", "text"),
        ("file/content/README.md", "text"),
        ("files/content/content", "of that name"),
    ] {
        let answer = session.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.text().await.unwrap(), expected, "{path}");
    }
}

#[tokio::test]
async fn an_execution_is_answered_in_the_old_envelope() {
    let stack = shared().await;
    let request = stack.session().request(Method::POST, "code/execute");
    let (status, answer) = answer(request.json(&body("print('a')\n40 + 2"))).await;
    assert_eq!(status, 200);
    let time = answer["properties"]["executionTimeInMilliseconds"].clone();
    assert!(time.is_u64(), "{answer}");
    let expected = json!({ "$id": "1", "properties": {
        "$id": "2", "status": "Success", "stdout": "a\n", "stderr": "", "result": 42,
        "executionResult": 42, "executionTimeInMilliseconds": time
    } });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn a_failure_of_the_code_is_http_200() {
    let stack = shared().await;
    let request = stack.session().request(Method::POST, "code/execute");
    let (status, answer) = answer(request.json(&body("1/0"))).await;
    assert_eq!(
        (status.as_u16(), &answer["properties"]["status"]),
        (200, &json!("Failure"))
    );
    assert_eq!(answer["properties"]["result"], "");
}

#[tokio::test]
async fn every_spelling_of_execute_reaches_the_session() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, "kept = 5").await;
    let id = escape(session.identifier());
    for path in [
        "code/execute",
        "/code/execute",
        "//code//execute",
        &format!("identifier/{id}/code/execute"),
    ] {
        let request = session.request(Method::POST, path);
        let (status, answer) = answer(request.json(&body("kept"))).await;
        assert_eq!(
            (status.as_u16(), &answer["properties"]["result"]),
            (200, &json!(5)),
            "{path}"
        );
    }
}

#[tokio::test]
async fn slashes_may_be_doubled_anywhere() {
    let stack = shared().await;
    let session = stack.session();
    session.upload("a.txt", b"a").await.unwrap();
    let query = format!(
        "identifier={}&api-version={API_VERSION}",
        escape(session.identifier())
    );
    for path in ["//files", "/files/", "///files//"] {
        let target = format!("{}{path}?{query}", stack.pool());
        let request = RawRequest::new("GET", &target).bearer(stack.token());
        let response = request.send(stack.addresses(0).unwrap().0).await.unwrap();
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(
            response.json().unwrap()["value"][0]["properties"]["filename"],
            "a.txt"
        );
    }
    let target = format!(
        "/{}/files/content/a.txt?{query}",
        stack.pool().replace('/', "//")
    );
    let request = RawRequest::new("GET", &target).bearer(stack.token());
    let response = request.send(stack.addresses(0).unwrap().0).await.unwrap();
    assert_eq!(
        (response.status, response.body.as_slice()),
        (200, b"a".as_slice())
    );
}

#[tokio::test]
async fn the_address_of_a_pool_does_not_depend_on_case() {
    let stack = shared().await;
    let session = stack.session();
    let path = stack.pool().replace("resourceGroups", "resourcegroups");
    let path = path.replace("sessionPools", "sessionpools");
    let query = format!(
        "identifier={}&api-version={API_VERSION}",
        session.identifier()
    );
    let request = RawRequest::new("GET", &format!("{path}/files?{query}")).bearer(stack.token());
    assert_eq!(
        request
            .send(stack.addresses(0).unwrap().0)
            .await
            .unwrap()
            .status,
        200
    );
}

#[tokio::test]
async fn names_and_values_of_the_body_are_read_liberally() {
    let stack = shared().await;
    let session = stack.session();
    let bodies = [
        json!({ "properties": { "code": "7" } }),
        json!({ "properties": { "code": "7", "codeInputType": "Inline",
            "executionType": "Synchronous", "timeoutInSeconds": 100 } }),
        json!({ "properties": { "code": "7", "identifier": session.identifier(),
            "unknown": [1, 2] }, "other": null }),
        json!({ "code": "7", "codeInputType": "inline", "executionType": "synchronous" }),
    ];
    for body in bodies {
        let request = session.request(Method::POST, "code/execute").json(&body);
        let (status, answer) = answer(request).await;
        assert_eq!(
            (status.as_u16(), &answer["properties"]["result"]),
            (200, &json!(7)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn both_old_versions_are_served() {
    let stack = shared().await;
    let session = stack.session();
    for version in ["2024-02-02-preview", "2024-08-02-preview"] {
        let request = session.versioned(Method::POST, "code/execute", version);
        let (status, answer) = answer(request.json(&body("3"))).await;
        assert_eq!(
            (status.as_u16(), &answer["properties"]["result"]),
            (200, &json!(3))
        );
    }
}

#[tokio::test]
async fn the_oldest_spelling_answers_at_the_top_level() {
    let stack = shared().await;
    let session = stack.session();
    let body = json!({ "properties": {
        "identifier": session.identifier(), "codeInputType": "inline",
        "executionType": "synchronous", "pythonCode": "print('Hello World!')", "timeoutInSeconds": 100
    } });
    let client = stack.http();
    for query in ["", "?api-version=2024-02-02-preview"] {
        let request = client.request(Method::POST, &format!("python/execute{query}"));
        let (status, answer) = answer(request.json(&body)).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(
            (&answer["$id"], &answer["status"]),
            (&json!("1"), &json!("Success"))
        );
        assert_eq!(
            (&answer["stdout"], &answer["stderr"]),
            (&json!("Hello World!\n"), &json!(""))
        );
        assert_eq!(answer["result"], "");
        assert!(answer["executionTimeInMilliseconds"].is_u64());
    }
}

#[tokio::test]
async fn the_oldest_spellings_of_file_operations_work() {
    let stack = shared().await;
    let session = stack.session();
    let upload = loadtest::multipart::Multipart::file("old.txt", b"old");
    let request = session.request(Method::POST, "python/uploadFile");
    let request = request
        .header("content-type", upload.content_type())
        .body(upload.into_body());
    let (status, stored) = answer(request).await;
    assert_eq!(status, 200, "{stored}");
    assert_eq!(stored["value"][0]["properties"]["filename"], "old.txt");
    let (status, listed) = answer(session.request(Method::GET, "python/files")).await;
    assert_eq!(
        (status.as_u16(), &listed["value"][0]["properties"]["size"]),
        (200, &json!(3))
    );
    let query = format!(
        "identifier={}&api-version={API_VERSION}",
        session.identifier()
    );
    let path = format!("python/downloadFile?{query}&filename=old.txt");
    let request = stack.http().request(Method::GET, &path);
    assert_eq!(
        answer(request).await,
        (reqwest::StatusCode::OK, json!("old"))
    );
}

#[tokio::test]
async fn every_spelling_of_upload_stores_the_file_and_tells_of_no_other() {
    let stack = shared().await;
    let session = stack.session();
    session.upload("earlier.txt", b"earlier").await.unwrap();
    for (number, path) in [
        "files/upload",
        "files/uploadFile",
        "uploadFile",
        "python/uploadFile",
        "files",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{number}.txt");
        let body = loadtest::multipart::Multipart::file(&name, b"text");
        let request = session
            .request(Method::POST, path)
            .header("content-type", body.content_type())
            .body(body.into_body());
        let (status, stored) = answer(request).await;
        assert_eq!(status, 200, "{path} {stored}");
        let time = stored["value"][0]["properties"]["lastModifiedTime"].clone();
        let file = json!({ "$id": "3", "filename": name, "size": 4, "lastModifiedTime": time });
        let expected = json!({ "$id": "1", "value": [{ "$id": "2", "properties": file }] });
        assert_eq!(stored, expected, "{path}");
        assert_eq!(session.download(&name).await.unwrap(), b"text", "{path}");
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused() {
    let stack = shared().await;
    let session = stack.session();
    let post = || {
        session
            .request(Method::POST, "code/execute")
            .header("content-type", "application/json")
    };
    for body in [
        "{",
        "",
        "nonsense",
        "{\"properties\":{\"code\":\"1\"}",
        "\u{feff}",
        "[1]",
        "7",
    ] {
        let (status, answer) = answer(post().body(body)).await;
        assert_eq!(status, 400, "{body:?} {answer}");
        assert!(answer["error"]["code"].is_string(), "{body:?} {answer}");
    }
    let (status, answer) = answer(post().body(vec![b'{', 0xff, 0xfe])).await;
    assert_eq!(status, 400, "{answer}");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let (status, answer) = crate::stack::answer(post().body(deep)).await;
    assert_eq!(status, 400, "{answer}");
    succeed(&session, "1").await;
}

#[tokio::test]
async fn a_body_without_code_is_refused_by_name() {
    let stack = shared().await;
    let session = stack.session();
    for body in [
        json!({ "properties": {} }),
        json!({}),
        json!({ "properties": { "code": null } }),
    ] {
        let request = session.request(Method::POST, "code/execute").json(&body);
        refused(request, 400, "SessionPropertiesMissing").await;
    }
}

#[tokio::test]
async fn values_of_the_wrong_type_are_refused() {
    let stack = shared().await;
    let session = stack.session();
    let wrong = [
        json!({ "code": 7 }),
        json!({ "code": ["1"] }),
        json!({ "code": "1", "timeoutInSeconds": "soon" }),
        json!({ "code": "1", "timeoutInSeconds": -1 }),
        json!({ "code": "1", "timeoutInSeconds": 1.5 }),
        json!({ "code": "1", "codeInputType": "Elsewhere" }),
        json!({ "code": "1", "executionType": "Sometimes" }),
    ];
    for properties in wrong {
        let body = json!({ "properties": properties });
        let request = session.request(Method::POST, "code/execute").json(&body);
        let (status, answer) = answer(request).await;
        assert_eq!(status, 400, "{body} {answer}");
        assert!(answer["error"]["message"].is_string(), "{answer}");
    }
    let request = session.request(Method::POST, "code/execute");
    let (status, answer) = answer(request.json(&json!({ "properties": "text" }))).await;
    assert_eq!(status, 400, "{answer}");
}

#[tokio::test]
async fn versions_are_required_and_known() {
    let stack = shared().await;
    let session = stack.session();
    for version in ["2019-01-01", "latest", "", "2024-02-02"] {
        let request = session
            .versioned(Method::POST, "code/execute", version)
            .json(&body("1"));
        refused(request, 400, "SessionRequestValidationFailed").await;
    }
    let path = format!("files?identifier={}", session.identifier());
    let request = stack.http().request(Method::GET, &path);
    refused(request, 400, "SessionRequestValidationFailed").await;
}

#[tokio::test]
async fn unknown_addresses_and_methods_are_refused_with_the_contracts_body() {
    let stack = shared().await;
    let session = stack.session();
    let (path, method) = (
        "SessionRequestNotSupported",
        "SessionRequestValidationFailed",
    );
    for (sent, to, code) in [
        (Method::POST, "code/nonsense", path),
        (Method::GET, "nonsense", path),
        (Method::GET, "", path),
        (Method::POST, "files/a.txt", path),
        (Method::POST, "mcp", path),
        (Method::GET, "code/execute", method),
        (Method::PUT, "files", method),
        (Method::PATCH, "files/a.txt", method),
        (Method::POST, "session", method),
    ] {
        refused(session.request(sent, to), 400, code).await;
    }
    // What is below no pool at all.
    for target in ["/nonsense", "/", "/subscriptions/s/resourceGroups/g"] {
        let request = RawRequest::new("GET", target).bearer(stack.token());
        let response = request.send(stack.addresses(0).unwrap().0).await.unwrap();
        let code = response.json().unwrap()["error"]["code"].clone();
        assert_eq!(
            (response.status, code),
            (404, json!("PathNotFound")),
            "{target}"
        );
    }
}

#[tokio::test]
async fn an_unknown_pool_is_not_found() {
    let stack = shared().await;
    let session = stack.client_of("nowhere").unwrap().fresh();
    let request = session.request(Method::GET, "files");
    refused(request, 404, "SessionPoolNotFound").await;
}

#[tokio::test]
async fn answers_name_their_operation() {
    let stack = shared().await;
    let session = stack.session();
    let request = session
        .request(Method::POST, "code/execute")
        .header("operation-id", "mine-1");
    let response = request.json(&body("1")).send().await.unwrap();
    assert_eq!(response.headers()["operation-id"], "mine-1");
    let response = session
        .request(Method::POST, "code/execute")
        .json(&body("1"))
        .send()
        .await;
    assert!(!response.unwrap().headers()["operation-id"].is_empty());
    let long = "x".repeat(129);
    for bad in [long.as_str(), "tab\tinside"] {
        let request = session
            .request(Method::POST, "code/execute")
            .header("operation-id", bad);
        let (status, answer) = answer(request.json(&body("1"))).await;
        assert_eq!(status, 400, "{bad:?} {answer}");
    }
}

#[tokio::test]
async fn https_serves_the_same_sessions() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, "kept = 8").await;
    let secure = session.through(&stack.https_client(0).unwrap());
    assert_eq!(secure.execute("kept").await.unwrap().result, 8);
}

#[tokio::test]
async fn health_readiness_and_descriptions_need_no_token() {
    let stack = shared().await;
    for path in [
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/openapi/new.json",
        "/openapi/old.json",
    ] {
        let response = RawRequest::new("GET", path)
            .send(stack.addresses(0).unwrap().0)
            .await;
        assert_eq!(response.unwrap().status, 200, "{path}");
    }
}
