//! What clients send that cannot be installed here, byte for byte: how they escape, what their forms look
//! like, which fields they read.

use loadtest::{
    client::API_VERSION,
    multipart::Multipart,
    raw::{RawRequest, RawResponse},
};
use serde_json::{Value, json};
use ulid::Ulid;

use crate::stack::{Stack, shared};

/// Sends a request for what is below the pool's endpoint, from its first slash on.
async fn send(stack: &Stack, request: RawRequest) -> RawResponse {
    let (http, _) = stack.addresses(0).unwrap();
    request.send(http).await.unwrap()
}

/// The body of an answer that must be 200.
async fn told(stack: &Stack, request: RawRequest) -> Value {
    let response = send(stack, request).await;
    let told = response.json().unwrap();
    assert_eq!(response.status, 200, "{told}");
    told
}

fn to(stack: &Stack, method: &str, target: &str) -> RawRequest {
    let request = RawRequest::new(method, &format!("{}{target}", stack.pool()));
    request.bearer(stack.token())
}

fn form(request: RawRequest, content_type: &str, body: Multipart) -> RawRequest {
    let request = request.header("Content-Type", content_type);
    request.body(&body.into_body())
}

fn json_of(request: RawRequest, body: &Value) -> RawRequest {
    let request = request.header("Content-Type", "application/json");
    request.body(body.to_string().as_bytes())
}

/// LangChain4j: `URLEncoder` for the identifier, nothing for names of files, a form made by hand, and an
/// HTTP client that offers HTTP/2 in the clear with every request.
#[tokio::test]
async fn langchain4j_runs_code_and_moves_files() {
    let stack = shared().await;
    let query = format!(
        "?identifier=java%7C1%2B%28a%29*{}&api-version={API_VERSION}",
        Ulid::new()
    );
    let java = |method: &str, path: &str| {
        to(&stack, method, &format!("/{path}{query}"))
            .header("Connection", "Upgrade, HTTP2-Settings")
            .header("Upgrade", "h2c")
            .header("HTTP2-Settings", "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA")
            .header("User-Agent", "langchain4j-azure-dynamic-sessions")
    };
    let body = json!({ "properties": { "codeInputType": "inline", "executionType": "synchronous",
        "code": "print('a')\nopen('/mnt/data/a+b.txt', 'w').write('plus')" } });
    let ran = told(&stack, json_of(java("POST", "code/execute"), &body)).await;
    let properties = &ran["properties"];
    assert_eq!(
        (
            &properties["result"],
            &properties["stdout"],
            &properties["stderr"]
        ),
        (&json!(4), &json!("a\n"), &json!(""))
    );
    let upload = Multipart::new("----1717171717171").part_with_headers(
        "Content-Disposition: form-data; name=\"file\"; filename=\"Résumé 1.json\"\r\n\
         Content-Type: application/json\r\n"
            .as_bytes(),
        b"{}",
    );
    let label = upload.content_type();
    let stored = told(&stack, form(java("POST", "files/upload"), &label, upload)).await;
    let properties = &stored["value"][0]["properties"];
    assert_eq!(
        (&properties["filename"], &properties["size"]),
        (&json!("Résumé 1.json"), &json!(2))
    );
    let listed = told(&stack, java("GET", "files")).await;
    let entries = listed["value"].as_array().unwrap().iter();
    let names = entries.map(|entry| entry["properties"]["filename"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["Résumé 1.json", "a+b.txt"]);
    // A plus in a path is a plus.
    let content = send(&stack, java("GET", "files/content/a+b.txt")).await;
    assert_eq!((content.status, &*content.body), (200, b"plus".as_slice()));
    let missing = send(&stack, java("GET", "files/content/none.txt")).await;
    assert_eq!(missing.status, 404);
}

/// LangChain for JavaScript: `encodeURIComponent`, and forms as browsers make them.
#[tokio::test]
async fn langchain_js_runs_code_and_moves_files() {
    let stack = shared().await;
    let id = Ulid::new();
    let query = format!("?identifier=js-(1)!'*~%7Ba%7D%26{id}&api-version={API_VERSION}");
    let js = |method: &str, path: &str| to(&stack, method, &format!("/{path}{query}"));
    let body = json!({ "properties": { "codeInputType": "inline", "executionType": "synchronous",
        "code": "print('hello')\n1+1" } });
    let ran = told(&stack, json_of(js("POST", "code/execute"), &body)).await;
    let properties = &ran["properties"];
    assert_eq!(
        (
            &properties["result"],
            &properties["stdout"],
            &properties["stderr"]
        ),
        (&json!(2), &json!("hello\n"), &json!(""))
    );
    let upload = Multipart::new("----formdata-undici-012345678901");
    let upload = upload.part("file", "Résumé (1).txt", b"text");
    let label = upload.content_type();
    let stored = told(&stack, form(js("POST", "files/upload"), &label, upload)).await;
    let name = &stored["value"][0]["properties"]["filename"];
    assert_eq!(name, "Résumé (1).txt");
    let listed = told(&stack, js("GET", "files")).await;
    assert_eq!(&listed["value"][0]["properties"]["filename"], name);
    let content = send(
        &stack,
        js("GET", "files/content/R%C3%A9sum%C3%A9%20(1).txt"),
    )
    .await;
    assert_eq!((content.status, &*content.body), (200, b"text".as_slice()));
}

/// A form as .NET makes it: names in quotes only where they need them, and the file's name once more with
/// its character set, which alone holds what is not ASCII.
fn dotnet_form(name: &str, ascii: &str, escaped: &str) -> (String, Multipart) {
    let boundary = "5ca18a42-9d1c-4ef2-8bd9-6d1fb6a1c3d0";
    let part = format!(
        "Content-Disposition: form-data; name=file; filename={ascii}; filename*=utf-8''{escaped}\r\n"
    );
    let body = Multipart::new(boundary).part_with_headers(part.as_bytes(), name.as_bytes());
    (
        format!("multipart/form-data; boundary=\"{boundary}\""),
        body,
    )
}

/// `(name, filename=, filename*=)`.
const DOTNET_NAMES: [(&str, &str, &str); 4] = [
    ("test.txt", "test.txt", "test.txt"),
    ("my file;1.txt", "\"my file;1.txt\"", "my%20file%3B1.txt"),
    (
        "Résumé.txt",
        "\"=?utf-8?B?UsOpc3Vtw6kudHh0?=\"",
        "R%C3%A9sum%C3%A9.txt",
    ),
    ("100%25.txt", "100%25.txt", "100%2525.txt"),
];

/// Semantic Kernel for .NET before 2025: the oldest paths for code and downloads, with the identifier in
/// the body or in the query, and a listing below two slashes.
#[tokio::test]
async fn semantic_kernel_for_dotnet_runs_code_and_moves_files() {
    let stack = shared().await;
    let id = format!("dotnet-{}", Ulid::new());
    let ran = json!({ "properties": { "identifier": id, "codeInputType": "inline",
        "executionType": "synchronous", "timeoutInSeconds": 100,
        "pythonCode": "print('Hello World!')\n6 * 7" } });
    let execute = format!("/python/execute?api-version={API_VERSION}");
    let ran = told(&stack, json_of(to(&stack, "POST", &execute), &ran)).await;
    assert_eq!(
        (
            &ran["status"],
            &ran["result"],
            &ran["stdout"],
            &ran["stderr"]
        ),
        (
            &json!("Success"),
            &json!(42),
            &json!("Hello World!\n"),
            &json!("")
        )
    );
    let query = format!("identifier={id}&api-version={API_VERSION}");
    for (name, ascii, escaped) in DOTNET_NAMES {
        let (label, body) = dotnet_form(name, ascii, escaped);
        let request = to(&stack, "POST", &format!("/files/upload?{query}"));
        let stored = told(&stack, form(request, &label, body)).await;
        let properties = &stored["value"][0]["properties"];
        assert_eq!(
            (&properties["filename"], &properties["size"]),
            (&json!(name), &json!(name.len()))
        );
        // With and without a version, as it did over time.
        for version in [format!("&api-version={API_VERSION}"), String::new()] {
            let target =
                format!("/python/downloadFile?identifier={id}&filename={escaped}{version}");
            let content = send(&stack, to(&stack, "GET", &target)).await;
            assert_eq!(
                (content.status, &*content.body),
                (200, name.as_bytes()),
                "{name}"
            );
        }
    }
    let listed = told(&stack, to(&stack, "GET", &format!("//files?{query}"))).await;
    let names = |field: &str| {
        let entries = listed["value"].as_array().unwrap().iter();
        entries
            .filter(|entry| entry["properties"][field].is_string())
            .count()
    };
    assert_eq!((names("filename"), names("lastModifiedTime")), (4, 4));
}

/// Semantic Kernel for .NET since: the new contract.
#[tokio::test]
async fn semantic_kernel_for_dotnet_speaks_the_new_contract_too() {
    let stack = shared().await;
    let query = format!(
        "identifier=dotnet-{}&api-version=2024-10-02-preview",
        Ulid::new()
    );
    let body = json!({ "codeInputType": "Inline", "executionType": "Synchronous",
        "timeoutInSeconds": 100, "code": "print('hi')\n'text'" });
    let request = to(&stack, "POST", &format!("/executions?{query}"));
    let ran = told(&stack, json_of(request, &body)).await;
    let result = &ran["result"];
    assert_eq!(ran["status"], "Succeeded");
    assert_eq!(
        (
            &result["executionResult"],
            &result["stdout"],
            &result["stderr"]
        ),
        (&json!("'text'"), &json!("hi\n"), &json!(""))
    );
    for (name, ascii, escaped) in DOTNET_NAMES {
        let (label, body) = dotnet_form(name, ascii, escaped);
        let request = to(&stack, "POST", &format!("/files?{query}"));
        let stored = told(&stack, form(request, &label, body)).await;
        for field in ["lastModifiedAt", "contentType", "type"] {
            assert!(stored[field].is_string(), "{field} of {stored}");
        }
        assert_eq!(
            (&stored["name"], &stored["sizeInBytes"]),
            (&json!(name), &json!(name.len()))
        );
        let target = format!("/files/{escaped}/content?{query}");
        let content = send(&stack, to(&stack, "GET", &target)).await;
        assert_eq!(
            (content.status, &*content.body),
            (200, name.as_bytes()),
            "{name}"
        );
    }
    let listed = told(&stack, to(&stack, "GET", &format!("/files?{query}"))).await;
    assert_eq!(
        listed["value"].as_array().unwrap().len(),
        DOTNET_NAMES.len()
    );
}

/// An address may hold more than most libraries leave in it: these paste identifiers in as they are.
#[tokio::test]
async fn identifiers_are_read_as_they_are_pasted() {
    let stack = shared().await;
    let tail = Ulid::new();
    for pasted in ["!$'()*+,-./:;=?@_~[]", "a|b{c}^d\\e`f"] {
        let escaped: String = pasted.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for (spelled, code, result) in [
            (pasted, format!("kept = {}", pasted.len()), json!("")),
            (&*escaped, "kept".to_owned(), json!(pasted.len())),
        ] {
            let query = format!("identifier={spelled}{tail}&api-version={API_VERSION}");
            let request = to(&stack, "POST", &format!("/code/execute?{query}"));
            let body = json!({ "properties": { "code": code } });
            let ran = told(&stack, json_of(request, &body)).await;
            assert_eq!(ran["properties"]["result"], result, "{spelled}");
        }
    }
}
