//! The new contract, api-versions from 2024-10-02-preview on: executions and files.

use loadtest::{
    client::{Session, escape},
    multipart::Multipart,
    raw::RawRequest,
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::stack::{answer, refused, shared, succeed};

/// All api-versions of the new contract.
pub(crate) const VERSIONS: [&str; 3] = [
    "2024-10-02-preview",
    "2025-02-02-preview",
    "2025-10-02-preview",
];
/// The newest.
pub(crate) const NEWEST: &str = "2025-10-02-preview";

fn newest(session: &Session, method: Method, path: &str) -> RequestBuilder {
    session.versioned(method, path, NEWEST)
}

/// Runs a body that must be accepted.
pub(crate) async fn run(session: &Session, body: Value) -> Value {
    let request = newest(session, Method::POST, "executions").json(&body);
    let (status, answer) = answer(request).await;
    assert_eq!(status, 200, "{body} {answer}");
    answer
}

fn upload(request: RequestBuilder, name: &str, content: &[u8]) -> RequestBuilder {
    let body = Multipart::file(name, content);
    let request = request.header("content-type", body.content_type());
    request.body(body.into_body())
}

async fn store(session: &Session, directory: &str, name: &str, content: &[u8]) -> Value {
    let path = format!("files?path={}", escape(directory));
    let request = newest(session, Method::POST, &path);
    let (status, stored) = answer(upload(request, name, content)).await;
    assert_eq!(status, 200, "{directory} {name} {stored}");
    stored
}

async fn names(session: &Session, query: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = query
        .iter()
        .map(|(name, value)| format!("{name}={}", escape(value)));
    let path = format!("files?{}", pairs.collect::<Vec<_>>().join("&"));
    let (status, listed) = answer(newest(session, Method::GET, &path)).await;
    assert_eq!(status, 200, "{listed}");
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
    let entries = listed["value"].as_array().unwrap().iter();
    entries
        .map(|entry| (text(entry, "directory"), text(entry, "name")))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    expected.iter().map(owned).collect()
}

#[tokio::test]
async fn an_execution_is_flat_with_or_without_the_wrapper() {
    let stack = shared().await;
    let session = stack.session();
    let bodies = [
        json!({ "code": "print('a')\n40 + 2" }),
        json!({ "codeInputType": "Inline", "executionType": "Synchronous",
                "code": "print('a')\n40 + 2", "timeoutInSeconds": 60 }),
        json!({ "properties": { "codeInputType": "inline", "executionType": "synchronous",
                "code": "print('a')\n40 + 2" } }),
        json!({ "codeInputType": "InlineBase64", "code": "cHJpbnQoJ2EnKQo0MCArIDI=" }),
        json!({ "codeInputType": "InlineText", "code": "print('a')\n40 + 2" }),
        json!({ "codeInputType": "INLINE", "executionType": "SYNCHRONOUS",
                "code": "print('a')\n40 + 2", "identifier": session.identifier() }),
    ];
    for body in bodies {
        let told = run(&session, body).await;
        let time = told["result"]["executionTimeInMilliseconds"].clone();
        assert!(time.is_u64() && told["id"].is_string(), "{told}");
        let expected = json!({
            "id": told["id"], "identifier": session.identifier(), "executionType": "Synchronous",
            "status": "Succeeded", "result": { "stdout": "a\n", "stderr": "",
                "executionResult": 42, "executionTimeInMilliseconds": time } });
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn code_that_fails_is_http_200_and_failed() {
    let stack = shared().await;
    let session = stack.session();
    for (body, words) in [
        (json!({ "code": "{}['a']" }), "KeyError: 'a'"),
        (
            json!({ "code": "while True: pass", "timeoutInSeconds": 1 }),
            "Request timed out waiting for code execution to complete",
        ),
    ] {
        let told = run(&session, body).await;
        assert_eq!(told["status"], "Failed", "{told}");
        let stderr = told["result"]["stderr"].as_str().unwrap();
        assert!(stderr.contains(words), "{stderr}");
        assert_eq!(told["result"]["executionResult"], "");
    }
    let memory = json!({ "code": "x = bytearray(1 << 40)" });
    assert_eq!(run(&session, memory).await["status"], "Failed");
}

#[tokio::test]
async fn results_have_the_types_of_the_contract() {
    let stack = shared().await;
    let session = stack.session();
    for (code, expected) in [
        ("6 * 7", json!(42)),
        ("print('x')", json!("")),
        ("None", json!("")),
        ("float('nan')", json!("nan")),
        ("{'a': 1}", json!("{'a': 1}")),
        ("[1, 2]", json!([1, 2])),
    ] {
        let told = run(&session, json!({ "code": code })).await;
        assert_eq!(told["result"]["executionResult"], expected, "{code}");
    }
    let plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()";
    let told = run(&session, json!({ "code": plot })).await;
    let image = &told["result"]["executionResult"];
    assert_eq!(
        (&image["type"], &image["format"]),
        (&json!("image"), &json!("png"))
    );
    let body = json!({ "code": "import pandas\npandas.DataFrame({'a': [1]})",
                       "returnJupyterFormatExecutionResult": true });
    let told = run(&session, body).await;
    let forms = told["result"]["executionResult"].as_object().unwrap();
    assert!(forms["text/html"].as_str().unwrap().contains("<table"));
    assert!(forms.contains_key("text/plain"));
}

#[tokio::test]
async fn streams_are_cut_to_the_length_that_is_asked_for_and_only_then() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import sys\nprint('ž' * 9000, end='')\nsys.stderr.write('e' * 9000);";
    let told = run(
        &session,
        json!({ "code": code, "outputStreamsMaxLength": 10 }),
    )
    .await;
    assert_eq!(told["result"]["stdout"], "ž".repeat(10));
    assert_eq!(told["result"]["stderr"], "e".repeat(10));
    let told = run(&session, json!({ "code": code })).await;
    assert_eq!(told["result"]["stdout"], "ž".repeat(9000));
    let code = "print('x' * 100)\nraise ValueError('why')";
    let told = run(
        &session,
        json!({ "code": code, "outputStreamsMaxLength": 15 }),
    )
    .await;
    assert_eq!(told["result"]["stderr"], "ValueError: why");
}

#[tokio::test]
async fn an_empty_kernel_is_the_sessions_own() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, "kept = 3").await;
    let told = run(&session, json!({ "code": "kept", "useEmptyKernel": true })).await;
    assert_eq!(told["result"]["executionResult"], 3);
}

#[tokio::test]
async fn what_an_execution_lacks_or_has_wrong_is_named() {
    let stack = shared().await;
    let session = stack.session();
    let table = [
        (json!({}), "SessionPropertiesMissing"),
        (json!({ "properties": {} }), "SessionPropertiesMissing"),
        (json!({ "shellCommand": "ls" }), "SessionPropertiesMissing"),
        (
            json!({ "code": "1", "executionType": "Later" }),
            "SessionRequestValidationFailed",
        ),
        (
            json!({ "code": "1", "outputStreamsMaxLength": "many" }),
            "SessionRequestValidationFailed",
        ),
    ];
    for (body, code) in table {
        let request = newest(&session, Method::POST, "executions").json(&body);
        refused(request, 400, code).await;
    }
    let request = stack
        .http()
        .request(Method::POST, &format!("executions?api-version={NEWEST}"));
    let request = request.json(&json!({ "code": "1" }));
    refused(request, 400, "SessionRequestValidationFailed").await;
    let request = newest(&session, Method::GET, "executions/some-id");
    refused(request, 404, "ExecutionNotFound").await;
    let short = stack.http().session("abc");
    let request = newest(&short, Method::GET, "files");
    refused(request, 400, "InvalidLengthOfSessionIdentifier").await;
}

#[tokio::test]
async fn an_execution_tells_its_times_and_its_session_in_headers() {
    let stack = shared().await;
    let session = stack.session();
    let request = newest(&session, Method::POST, "executions");
    let response = request.json(&json!({ "code": "1" })).send().await.unwrap();
    let headers = response.headers();
    for name in [
        "x-ms-preparation-time",
        "x-ms-total-execution-service-time",
        "x-ms-overall-execution-time",
        "x-ms-container-execution-duration",
    ] {
        let value = headers[name].to_str().unwrap();
        assert!(value.parse::<u64>().is_ok(), "{name}: {value}");
    }
    let guid = headers["x-ms-session-guid"].to_str().unwrap();
    let (_, told) = answer(newest(&session, Method::GET, "session")).await;
    assert_eq!(told["etag"], guid);
}

#[tokio::test]
async fn a_file_is_stored_told_sent_and_removed() {
    let stack = shared().await;
    let session = stack.session();
    for version in VERSIONS {
        let at = |method, path: &str| session.versioned(method, path, version);
        let (status, stored) = answer(upload(at(Method::POST, "files"), "a b.md", b"text")).await;
        assert_eq!(status, 200, "{stored}");
        assert_eq!(
            (&stored["name"], &stored["sizeInBytes"]),
            (&json!("a b.md"), &json!(4))
        );
        assert_eq!(stored["type"], "file");
        assert_eq!(stored["contentType"], "text/markdown; charset=utf-8");
        assert_eq!(stored.get("directory").is_some(), version == NEWEST);
        let (status, told) = answer(at(Method::GET, "files/a%20b.md")).await;
        assert_eq!((status.as_u16(), &told), (200, &stored));
        let (status, listed) = answer(at(Method::GET, "files")).await;
        assert_eq!(
            (status.as_u16(), &listed),
            (200, &json!({ "value": [stored] }))
        );
        let content = at(Method::GET, "files/a%20b.md/content");
        let response = content.send().await.unwrap();
        assert!(response.headers().contains_key("last-modified"));
        assert_eq!(response.text().await.unwrap(), "text");
        let response = at(Method::DELETE, "files/a%20b.md").send().await.unwrap();
        assert_eq!(response.status(), 204);
        assert_eq!(response.bytes().await.unwrap().len(), 0);
        for path in ["files/a%20b.md", "files/a%20b.md/content"] {
            refused(at(Method::GET, path), 404, "FileNotFound").await;
        }
        refused(at(Method::DELETE, "files/a%20b.md"), 404, "FileNotFound").await;
    }
}

#[tokio::test]
async fn directories_are_named_in_every_way_that_clients_do() {
    let stack = shared().await;
    let session = stack.session();
    for (number, directory) in ["/", "", "/mnt/data", "/mnt/data/"].iter().enumerate() {
        let stored = store(&session, directory, &format!("top{number}"), b"1").await;
        assert_eq!(stored["directory"], "", "{directory}");
    }
    for directory in ["sub/dir", "/sub/dir", "/mnt/data/sub/dir", "sub/dir/"] {
        let stored = store(&session, directory, "deep.txt", b"22").await;
        assert_eq!(
            (&stored["directory"], &stored["name"]),
            (&json!("sub/dir"), &json!("deep.txt"))
        );
        assert_eq!(
            names(&session, &[("path", directory)]).await,
            pairs(&[("sub/dir", "deep.txt")])
        );
        let at = |method, path: &str| {
            newest(
                &session,
                method,
                &format!("{path}?path={}", escape(directory)),
            )
        };
        assert_eq!(answer(at(Method::GET, "files/deep.txt")).await.1, stored);
        let content = at(Method::GET, "files/deep.txt/content");
        assert_eq!(content.send().await.unwrap().text().await.unwrap(), "22");
        let (status, _) = answer(at(Method::DELETE, "files/deep.txt")).await;
        assert_eq!(status, 204, "{directory}");
        assert_eq!(names(&session, &[("path", directory)]).await, []);
        refused(at(Method::DELETE, "files/deep.txt"), 404, "FileNotFound").await;
    }
    store(&session, "sub/dir", "deep.txt", b"22").await;
    for path in [
        "files/sub/dir/deep.txt/content",
        "files/sub%2Fdir%2Fdeep.txt/content",
    ] {
        let response = newest(&session, Method::GET, path).send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "22", "{path}");
    }
    let outside = newest(&session, Method::GET, "files?path=../etc");
    refused(outside, 400, "SessionRequestValidationFailed").await;
}

/// What the documentation allows in names, at the top and in a directory of such a name.
#[tokio::test]
async fn names_of_all_allowed_characters_are_the_same_everywhere() {
    let stack = shared().await;
    let session = stack.session();
    for name in ["aZ09-_ .@$&=;,#%^().txt", "žluť 日本 Ω.md", "100%.txt", "+"] {
        for directory in ["", "sub @$&=;,#%^() ž"] {
            let stored = store(&session, directory, name, b"x").await;
            assert_eq!(
                (&stored["name"], &stored["directory"]),
                (&json!(name), &json!(directory))
            );
            let pasted = escape(name);
            let at = |method, below: &str| {
                let directory = escape(directory);
                newest(
                    &session,
                    method,
                    &format!("files/{pasted}{below}?path={directory}"),
                )
            };
            assert_eq!(answer(at(Method::GET, "")).await.1, stored);
            let content = at(Method::GET, "/content").send().await.unwrap();
            assert_eq!(content.text().await.unwrap(), "x", "{directory} {name}");
            let listed = names(&session, &[("path", directory)]).await;
            assert!(
                listed.contains(&(directory.into(), name.into())),
                "{listed:?}"
            );
            assert_eq!(answer(at(Method::DELETE, "")).await.0, 204, "{name}");
        }
    }
}

#[tokio::test]
async fn an_execution_that_its_caller_names_is_told_under_that_name() {
    let stack = shared().await;
    let session = stack.session();
    for version in VERSIONS {
        let id = format!("mine-{version}");
        let request = session.versioned(Method::POST, "executions", version);
        let request = request.header("operation-id", &id);
        let response = request
            .json(&json!({ "code": "6 * 7" }))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["operation-id"], *id);
        let location = response.headers()["operation-location"]
            .to_str()
            .unwrap()
            .to_owned();
        let ran: Value = response.json().await.unwrap();
        assert_eq!(ran["id"], *id);
        let path = format!("executions/{id}");
        let later = session.versioned(Method::GET, &path, version);
        assert_eq!(
            answer(later).await,
            (reqwest::StatusCode::OK, ran),
            "{version}"
        );
        for part in [path.as_str(), version, session.identifier()] {
            assert!(location.contains(part), "{location}");
        }
    }
}

#[tokio::test]
async fn a_listing_shows_a_directory_or_all_below_it() {
    let stack = shared().await;
    let session = stack.session();
    store(&session, "", "a.txt", b"1").await;
    store(&session, "sub/dir", "b.txt", b"2").await;
    assert_eq!(
        names(&session, &[]).await,
        pairs(&[("", "a.txt"), ("", "sub")])
    );
    let all = [
        ("", "a.txt"),
        ("", "sub"),
        ("sub", "dir"),
        ("sub/dir", "b.txt"),
    ];
    assert_eq!(names(&session, &[("recursive", "true")]).await, pairs(&all));
    let below = [("sub", "dir"), ("sub/dir", "b.txt")];
    let query = [("path", "sub"), ("recursive", "True")];
    assert_eq!(names(&session, &query).await, pairs(&below));
    let (_, listed) = answer(newest(&session, Method::GET, "files")).await;
    let directory = &listed["value"][1];
    assert_eq!(directory["type"], "directory");
    assert_eq!(directory["contentType"], "application/octet-stream");
    // Earlier versions know neither the parameter nor the field.
    let earlier = session.versioned(Method::GET, "files?recursive=true", "2025-02-02-preview");
    let (_, listed) = answer(earlier).await;
    assert_eq!(listed["value"].as_array().unwrap().len(), 2, "{listed}");
    assert!(listed["value"][0].get("directory").is_none(), "{listed}");
}

#[tokio::test]
async fn a_file_may_be_called_like_a_part_of_the_address() {
    let stack = shared().await;
    let session = stack.session();
    for name in ["content", "upload", "README.md"] {
        store(&session, "", name, name.as_bytes()).await;
    }
    for (path, expected) in [
        ("files/content/content", "content"),
        ("files/upload/content", "upload"),
        ("files/content/upload", "upload"),
        ("files/content/README.md/content", "README.md"),
        ("files/README.md/content", "README.md"),
    ] {
        for version in ["2024-02-02-preview", NEWEST] {
            let request = session.versioned(Method::GET, path, version);
            assert_eq!(
                request.send().await.unwrap().text().await.unwrap(),
                expected,
                "{path}"
            );
        }
    }
    for name in ["content", "upload"] {
        let (status, told) = answer(newest(&session, Method::GET, &format!("files/{name}"))).await;
        assert_eq!((status.as_u16(), &told["name"]), (200, &json!(name)));
    }
    // A directory of that name: at one end of a path the word always asks for bytes.
    let session = stack.session();
    store(&session, "content", "x", b"below").await;
    let request = newest(&session, Method::GET, "files/content/x/content");
    assert_eq!(request.send().await.unwrap().text().await.unwrap(), "below");
    refused(
        newest(&session, Method::GET, "files/content/x"),
        404,
        "FileNotFound",
    )
    .await;
    for path in ["files/content%2Fx", "files/x?path=content"] {
        assert_eq!(
            answer(newest(&session, Method::GET, path)).await.1["name"],
            "x",
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_part_of_a_file_is_sent() {
    let stack = shared().await;
    let session = stack.session();
    store(&session, "", "digits", b"0123456789").await;
    let part = newest(&session, Method::GET, "files/digits/content").header("range", "bytes=2-4");
    let response = part.send().await.unwrap();
    assert_eq!(response.status(), 206);
    assert_eq!(response.headers()["content-range"], "bytes 2-4/10");
    assert_eq!(response.text().await.unwrap(), "234");
    let beyond = newest(&session, Method::GET, "files/digits/content");
    refused(
        beyond.header("range", "bytes=20-"),
        416,
        "RangeNotSatisfiable",
    )
    .await;
}

#[tokio::test]
async fn an_upload_is_read_however_it_is_sent() {
    let stack = shared().await;
    let session = stack.session();
    let stored = store(&session, "", "/mnt/data/absolute.txt", b"1").await;
    assert_eq!(stored["name"], "absolute.txt");
    let body = Multipart::file("labelled.txt", b"22").into_body();
    let labelled = newest(&session, Method::POST, "files")
        .header("content-type", "application/json")
        .body(body.clone());
    let (status, stored) = answer(labelled).await;
    assert_eq!(
        (status.as_u16(), &stored["name"]),
        (200, &json!("labelled.txt"))
    );
    let query = format!("identifier={}&api-version={NEWEST}", session.identifier());
    let chunked = RawRequest::new("POST", &format!("{}/files?{query}", stack.pool()))
        .bearer(stack.token())
        .chunked(&[&body[..10], &body[10..]]);
    let response = chunked.send(stack.addresses(0).unwrap().0).await.unwrap();
    assert_eq!(
        (response.status, &response.json().unwrap()["sizeInBytes"]),
        (200, &json!(2))
    );
    let listed = names(&session, &[]).await;
    assert_eq!(listed, pairs(&[("", "absolute.txt"), ("", "labelled.txt")]));
}

#[tokio::test]
async fn an_upload_is_one_file() {
    let stack = shared().await;
    let session = stack.session();
    let none = Multipart::new("b").part("other", "x", b"1");
    let two = Multipart::file("a", b"1").part("file", "b", b"2");
    for body in [none, two] {
        let request = newest(&session, Method::POST, "files");
        let request = request.header("content-type", body.content_type());
        let request = request.body(body.into_body());
        refused(request, 400, "SessionRequestValidationFailed").await;
    }
    assert_eq!(names(&session, &[]).await, []);
}

#[tokio::test]
async fn a_pool_tells_what_its_sandboxes_hold() {
    let stack = shared().await;
    let session = stack.session();
    let path = format!("metadata?api-version={NEWEST}");
    let (status, told) = answer(stack.http().request(Method::GET, &path)).await;
    assert_eq!(status, 200, "{told}");
    let installed = "import importlib.metadata as m, json, platform\n\
                     print(json.dumps([platform.python_version(), m.version('numpy'), m.version('ipython'),\n\
                     len({d.metadata['Name'] for d in m.distributions()})]))";
    let printed: Value = serde_json::from_str(&succeed(&session, installed).await.stdout).unwrap();
    assert_eq!(
        told["runtimes"],
        json!([{ "name": "Python", "version": printed[0] }])
    );
    let packages = told["preInstalledPackages"].as_array().unwrap();
    assert!(
        packages.contains(&json!({ "name": "numpy", "version": printed[1] })),
        "{told}"
    );
    assert_eq!(json!(packages.len()), printed[3]);
    let kernel = &told["jupyterKernel"];
    assert_eq!(
        (&kernel["name"], &kernel["version"]),
        (&json!("ipython"), &printed[2])
    );
    assert!(
        kernel["projectUrl"]
            .as_str()
            .unwrap()
            .starts_with("https://"),
        "{kernel}"
    );
    assert!(
        !kernel["description"].as_str().unwrap().is_empty(),
        "{kernel}"
    );
    for time in ["createdAt", "lastUpdatedAt"] {
        assert!(told[time].as_str().unwrap().ends_with('Z'), "{told}");
    }
}

/// The names that executions had in the withdrawn 2024-09-01.
#[tokio::test]
async fn executions_are_reached_under_their_withdrawn_names() {
    let stack = shared().await;
    let session = stack.session();
    for version in ["2024-09-01", "2024-02-02-preview", NEWEST] {
        let id = format!("op-{version}");
        let body = json!({ "code": "print('a')\n6 * 7" });
        let request = session.versioned(Method::POST, "execute", version);
        let request = request.header("operation-id", &id).json(&body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{version}");
        let location = response.headers()["operation-location"].to_str().unwrap();
        assert!(location.contains(&format!("/execute/{id}?")), "{location}");
        let ran: Value = response.json().await.unwrap();
        assert_eq!(
            (&ran["id"], &ran["status"]),
            (&json!(id), &json!("Succeeded"))
        );
        assert_eq!(ran["result"]["executionResult"], 42);
        assert_eq!(ran["result"]["stdout"], "a\n");
        let at = |method, path: String, version| answer(session.versioned(method, &path, version));
        let (status, asked) = at(Method::GET, format!("execute/{id}"), version).await;
        assert_eq!((status.as_u16(), &asked), (200, &ran), "{version}");
        let (_, same) = at(Method::GET, format!("executions/{id}"), NEWEST).await;
        assert_eq!(same, ran);
        let (status, ended) = at(Method::DELETE, format!("execute/{id}"), version).await;
        assert_eq!(
            (status.as_u16(), &ended["status"]),
            (200, &json!("Succeeded"))
        );
    }
    // At all other paths the withdrawn version is as unknown as ever.
    for path in ["executions", "code/execute"] {
        let request = session.versioned(Method::POST, path, "2024-09-01");
        let request = request.json(&json!({ "code": "1" }));
        refused(request, 400, "SessionRequestValidationFailed").await;
    }
}
