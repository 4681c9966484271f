//! What `az containerapp session` sends, byte for byte: identifiers, names and directories are pasted into
//! addresses as they are, and its HTTP library escapes only what no address may hold.

use loadtest::{
    multipart::Multipart,
    raw::{RawRequest, RawResponse},
};
use serde_json::{Value, json};
use ulid::Ulid;

use crate::{
    new_contract::VERSIONS,
    stack::{Stack, shared},
};

/// One session, as the extension of one version addresses it.
struct Az<'a> {
    stack: &'a Stack,
    identifier: String,
    version: &'static str,
}

impl<'a> Az<'a> {
    /// A new session, with characters in its name that are not escaped.
    fn new(stack: &'a Stack, version: &'static str) -> Self {
        let identifier = format!("az-(1)[a];$=,:@!'*~/?{}", Ulid::new());
        Self {
            stack,
            identifier,
            version,
        }
    }

    /// A request for what is below the pool's endpoint. `parameters` stand before the identifier.
    fn request(&self, method: &str, path: &str, parameters: &str) -> RawRequest {
        let (pool, identifier, version) = (self.stack.pool(), &self.identifier, self.version);
        let query = format!("{parameters}identifier={identifier}&api-version={version}");
        RawRequest::new(method, &format!("{pool}/{path}?{query}"))
            .header("Accept-Encoding", "gzip, deflate")
            .header("Accept", "*/*")
            .bearer(self.stack.token())
    }

    async fn send(&self, request: RawRequest) -> RawResponse {
        let (http, _) = self.stack.addresses(0).unwrap();
        request.send(http).await.unwrap()
    }

    /// The body of an answer that must be 200.
    async fn told(&self, request: RawRequest) -> Value {
        let response = self.send(request).await;
        let told = response.json().unwrap();
        assert_eq!(response.status, 200, "{told}");
        told
    }

    /// `az containerapp session code-interpreter execute`
    async fn execute(&self, path: &str, body: Value) -> Value {
        let request = self.request("POST", path, "");
        let request = request.header("Content-Type", "application/json");
        self.told(request.body(body.to_string().as_bytes())).await
    }

    /// `upload-file`, whose part has no type.
    async fn upload(&self, parameters: &str, name: &str, content: &[u8]) -> Value {
        let part =
            format!("Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n");
        let body = Multipart::new("0123456789abcdef0123456789abcdef")
            .part_with_headers(part.as_bytes(), content);
        let request = self.request("POST", "files", parameters);
        let request = request.header("Content-Type", &body.content_type());
        self.told(request.body(&body.into_body())).await
    }

    /// `list-files`: the names.
    async fn list(&self, directory: &str) -> Vec<String> {
        // Here the identifier comes first.
        let (pool, identifier, version) = (self.stack.pool(), &self.identifier, self.version);
        let query = format!("identifier={identifier}&path={directory}&api-version={version}");
        let request = RawRequest::new("GET", &format!("{pool}/files?{query}"));
        let listed = self.told(request.bearer(self.stack.token())).await;
        let entries = listed["value"].as_array().unwrap().iter();
        entries
            .map(|entry| entry["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[tokio::test]
async fn code_runs_with_or_without_the_wrapper_and_at_the_older_path() {
    let stack = shared().await;
    for version in VERSIONS {
        let az = Az::new(&stack, version);
        let flat = json!({ "identifier": az.identifier, "codeInputType": "inline",
            "executionType": "synchronous", "timeoutInSeconds": 60, "code": "print('hi')\n6 * 7" });
        for body in [flat.clone(), json!({ "properties": flat })] {
            let told = az.execute("executions", body.clone()).await;
            assert_eq!(told["identifier"], *az.identifier);
            assert_eq!(told["status"], "Succeeded", "{told}");
            assert_eq!(
                (
                    &told["result"]["stdout"],
                    &told["result"]["executionResult"]
                ),
                (&json!("hi\n"), &json!(42))
            );
            let told = az.execute("code/execute", body).await;
            assert_eq!(
                (&told["properties"]["status"], &told["properties"]["stdout"]),
                (&json!("Success"), &json!("hi\n"))
            );
        }
    }
}

#[tokio::test]
async fn files_go_up_are_listed_shown_and_deleted_at_the_top() {
    let stack = shared().await;
    for version in VERSIONS {
        let az = Az::new(&stack, version);
        // Without `--path` and with the one of the extension's own tests.
        for (parameters, directory) in [("", ""), ("path=/&", "/")] {
            let stored = az.upload(parameters, "cert.txt", b"testing").await;
            assert_eq!(stored["name"], "cert.txt", "{version}");
            assert_eq!(az.list(directory).await, ["cert.txt"], "{version}");
            let content = az.request("GET", "files/cert.txt/content", parameters);
            let content = az.send(content).await;
            assert_eq!(
                (content.status, &*content.body),
                (200, b"testing".as_slice())
            );
            let told = az
                .told(az.request("GET", "files/cert.txt", parameters))
                .await;
            assert_eq!(told, stored, "{version}");
            let request = az.request("DELETE", "files/cert.txt", parameters);
            assert_eq!(az.send(request).await.status, 204, "{version}");
            assert_eq!(az.list(directory).await, Vec::<String>::new(), "{version}");
        }
    }
}

/// `--filename sub/dir/a.txt` and `--path sub --filename dir/a.txt` are taken apart by the extension; both
/// ask for `files/a.txt?path=sub/dir`.
#[tokio::test]
async fn files_of_a_directory_are_reached_by_its_unescaped_path() {
    let stack = shared().await;
    for version in VERSIONS {
        let az = Az::new(&stack, version);
        for directory in ["sub/dir", "/sub/dir", "/mnt/data/sub/dir"] {
            let parameters = format!("path={directory}&");
            az.upload(&parameters, "a.txt", b"deep").await;
            assert_eq!(az.list(directory).await, ["a.txt"], "{version}");
            assert_eq!(az.list("").await, ["sub"], "{version}");
            let content = az.request("GET", "files/a.txt/content", &parameters);
            let content = az.send(content).await;
            assert_eq!((content.status, &*content.body), (200, b"deep".as_slice()));
            let told = az.told(az.request("GET", "files/a.txt", &parameters)).await;
            assert_eq!(told["sizeInBytes"], 4, "{version}");
            let request = az.request("DELETE", "files/a.txt", &parameters);
            assert_eq!(az.send(request).await.status, 204, "{version}");
            assert_eq!(az.list(directory).await, Vec::<String>::new(), "{version}");
        }
    }
}

/// `(name, as its HTTP library writes it)`: what an address cannot hold is escaped, `+`, `&` and the like
/// are not. The library sends names of files in UTF-8.
#[tokio::test]
async fn names_are_pasted_into_addresses() {
    let stack = shared().await;
    let az = Az::new(&stack, VERSIONS[2]);
    for (name, written) in [
        ("my file.txt", "my%20file.txt"),
        ("a+b&c=d;e,f@g$h(1).txt", "a+b&c=d;e,f@g$h(1).txt"),
        (
            "Résumé 日本.txt",
            "R%C3%A9sum%C3%A9%20%E6%97%A5%E6%9C%AC.txt",
        ),
        ("a^b.txt", "a%5Eb.txt"),
    ] {
        let stored = az.upload("", name, b"x").await;
        assert_eq!(stored["name"], name);
        let told = az
            .told(az.request("GET", &format!("files/{written}"), ""))
            .await;
        assert_eq!(told, stored);
        let content = az.request("GET", &format!("files/{written}/content"), "");
        assert_eq!(az.send(content).await.body, b"x", "{name}");
        let request = az.request("DELETE", &format!("files/{written}"), "");
        assert_eq!(az.send(request).await.status, 204, "{name}");
        assert_eq!(az.list("").await, Vec::<String>::new());
    }
}

/// Whatever is 400 or above is an error for it, with the body as its words.
#[tokio::test]
async fn a_missing_file_is_an_error_that_it_can_show() {
    let stack = shared().await;
    let az = Az::new(&stack, VERSIONS[2]);
    for (method, path) in [
        ("GET", "files/none.txt"),
        ("GET", "files/none.txt/content"),
        ("DELETE", "files/none.txt"),
    ] {
        let response = az.send(az.request(method, path, "path=/&")).await;
        let told = response.json().unwrap();
        assert_eq!(
            (response.status, &told["error"]["code"]),
            (404, &json!("FileNotFound")),
            "{method} {path}"
        );
    }
}

/// `az containerapp session stop`.
#[tokio::test]
async fn a_session_is_stopped() {
    let stack = shared().await;
    let az = Az::new(&stack, VERSIONS[2]);
    az.execute("executions", json!({ "code": "gone = 1" }))
        .await;
    let request = || az.request("POST", ".management/stopSession", "");
    let response = az.send(request().body(b"")).await;
    let text = String::from_utf8(response.body).unwrap();
    assert_eq!(response.status, 200, "{text}");
    let expected = format!("Session {} in session pool python stopped.", az.identifier);
    assert_eq!(text, expected);
    let again = az.send(request()).await;
    assert_eq!(again.status, 400);
    let code = again.json().unwrap()["error"]["code"].clone();
    assert_eq!(code, "SessionWithIdentifierNotFound");
}
