//! Bodies as clients and proxies frame and pack them, and as nobody should.

use std::io::Write as _;

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use loadtest::{
    client::API_VERSION,
    multipart::Multipart,
    raw::{RawRequest, RawResponse},
};
use serde_json::{Value, json};
use ulid::Ulid;

use crate::{
    new_contract::NEWEST,
    stack::{Stack, shared, succeed},
};

const CODE: &[u8] = b"{\"code\":\"6 * 7\"}";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(vec![], Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(vec![], Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(vec![], Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn query() -> String {
    format!("identifier=body-{}&api-version={API_VERSION}", Ulid::new())
}

fn post(stack: &Stack, path: &str, query: &str) -> RawRequest {
    let request = RawRequest::new("POST", &format!("{}/{path}?{query}", stack.pool()));
    request.bearer(stack.token())
}

async fn send(stack: &Stack, request: RawRequest) -> RawResponse {
    request.send(stack.addresses(0).unwrap().0).await.unwrap()
}

/// Status, code and words of a refusal.
async fn refusal(stack: &Stack, request: RawRequest) -> (u16, String, String) {
    let answer = send(stack, request).await;
    let body = answer.json().unwrap();
    let text = |field: &str| body["error"][field].as_str().unwrap_or_default().to_owned();
    (answer.status, text("code"), text("message"))
}

async fn result(stack: &Stack, request: RawRequest) -> Value {
    let answer = send(stack, request).await;
    let body = answer.json().unwrap();
    assert_eq!(answer.status, 200, "{body}");
    body["properties"]["result"].clone()
}

#[tokio::test]
async fn code_is_read_packed_and_with_a_byte_order_mark() {
    let stack = shared().await;
    let query = query();
    let marked = [b"\xef\xbb\xbf", CODE].concat();
    for (coding, body) in [
        ("identity", CODE.to_vec()),
        ("identity", marked.clone()),
        ("gzip", gzip(CODE)),
        ("X-GZIP", gzip(CODE)),
        ("gzip", gzip(&marked)),
        ("deflate", zlib(CODE)),
        ("deflate", raw_deflate(CODE)),
    ] {
        for path in ["code/execute", "python/execute"] {
            let request = post(&stack, path, &query).header("Content-Encoding", coding);
            let answer = send(&stack, request.body(&body)).await.json().unwrap();
            let told = answer.get("properties").unwrap_or(&answer);
            assert_eq!(told["result"], 42, "{coding} {path}: {answer}");
        }
        let pieces: Vec<&[u8]> = body.chunks(5).collect();
        let request = post(&stack, "code/execute", &query).header("Content-Encoding", coding);
        assert_eq!(
            result(&stack, request.chunked(&pieces)).await,
            42,
            "{coding}"
        );
    }
}

#[tokio::test]
async fn files_are_read_packed() {
    let stack = shared().await;
    let query = query();
    // Long enough to be staged.
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7 % 251) as u8).collect();
    for (name, coding, pack) in [
        ("a.bin", "gzip", gzip as fn(&[u8]) -> Vec<u8>),
        ("b.bin", "deflate", zlib),
    ] {
        let body = Multipart::file(name, &content);
        let request = post(&stack, "files/upload", &query)
            .header("Content-Type", &body.content_type())
            .header("Content-Encoding", coding);
        let stored = send(&stack, request.body(&pack(&body.into_body()))).await;
        let told = stored.json().unwrap();
        assert_eq!(stored.status, 200, "{told}");
        assert_eq!(told["value"][0]["properties"]["size"], content.len());
        let target = format!("{}/files/content/{name}?{query}", stack.pool());
        let download = RawRequest::new("GET", &target).bearer(stack.token());
        assert!(
            send(&stack, download).await.body == content,
            "{name}: bytes differ"
        );
    }
}

#[tokio::test]
async fn a_body_that_is_packed_otherwise_is_refused_by_name() {
    let stack = shared().await;
    for coding in ["br", "zstd", "compress", "gzip, gzip", "x"] {
        let request = post(&stack, "code/execute", &query()).header("Content-Encoding", coding);
        let answer = send(&stack, request.body(&gzip(CODE))).await;
        let code = answer.header("x-ms-error-code");
        let refused = (answer.status, code, answer.header("accept-encoding"));
        let expected = (
            415,
            Some("UnsupportedContentEncoding"),
            Some("gzip, deflate"),
        );
        assert_eq!(refused, expected, "{coding}");
    }
    // What has no body is not packed.
    let target = format!("{}/files?{}", stack.pool(), query());
    let request = RawRequest::new("GET", &target).bearer(stack.token());
    let request = request.header("Content-Encoding", "br");
    assert_eq!(send(&stack, request).await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_not_what_it_says_is_refused() {
    let stack = shared().await;
    let whole = gzip(CODE);
    for (coding, body) in [
        ("gzip", CODE),
        ("gzip", &whole[..whole.len() - 3]),
        ("deflate", CODE),
        ("deflate", &whole),
    ] {
        let request = post(&stack, "code/execute", &query()).header("Content-Encoding", coding);
        let refused = refusal(&stack, request.body(body)).await;
        assert_eq!(refused.0, 400, "{refused:?}");
        assert!(refused.2.contains(coding), "{refused:?}");
    }
}

#[tokio::test]
async fn a_bomb_meets_the_limits_of_what_it_becomes() {
    let stack = shared().await;
    let query = query();
    // 140 MiB of a file in 140 KiB.
    let body = Multipart::file("bomb.bin", &vec![0; 140 << 20]);
    let label = body.content_type();
    let packed = gzip(&body.into_body());
    assert!(packed.len() < 1 << 20);
    let upload = post(&stack, "files/upload", &query)
        .header("Content-Type", &label)
        .header("Content-Encoding", "gzip");
    let refused = refusal(&stack, upload.body(&packed)).await;
    assert_eq!(
        (refused.0, &*refused.1),
        (413, "RequestTooLarge"),
        "{refused:?}"
    );
    let code = format!("{{\"code\":\"{}\"}}", "#".repeat(64 << 20));
    let run = post(&stack, "code/execute", &query).header("Content-Encoding", "gzip");
    let refused = refusal(&stack, run.body(&gzip(code.as_bytes()))).await;
    assert_eq!(
        (refused.0, &*refused.1),
        (413, "RequestTooLarge"),
        "{refused:?}"
    );
    let target = format!("{}/files?{query}", stack.pool());
    let listing = RawRequest::new("GET", &target).bearer(stack.token());
    let listed = send(&stack, listing).await.json().unwrap();
    assert_eq!(listed["value"], json!([]));
}

/// A request whose chunks are these bytes.
fn chunks(stack: &Stack, path: &str, bytes: &[u8]) -> Vec<u8> {
    let request = post(stack, path, &query()).header("Transfer-Encoding", "chunked");
    let request = request.header("Content-Type", "multipart/form-data; boundary=b");
    [&request.into_bytes(), bytes].concat()
}

#[tokio::test]
async fn a_bad_chunk_is_a_bad_request() {
    let stack = shared().await;
    let (http, _) = stack.addresses(0).unwrap();
    for bytes in [
        &b"zz\r\n{}\r\n0\r\n\r\n"[..],
        b"5\r\n{\"cod\r\nxyz\r\n",
        b"-1\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}x\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n{}",
    ] {
        for path in ["code/execute", "executions", "files/upload"] {
            let answer = RawRequest::exchange(http, &chunks(&stack, path, bytes)).await;
            let answer = answer.unwrap();
            let shown = bytes.escape_ascii();
            assert_eq!(answer.status, 400, "{path} {shown}");
            let code = answer.header("x-ms-error-code");
            assert_eq!(
                code,
                Some("SessionRequestValidationFailed"),
                "{path} {shown}"
            );
        }
    }
    let good = chunks(
        &stack,
        "code/execute",
        b"e\r\n{\"code\":\"6*7\"}\r\n0\r\n\r\n",
    );
    assert_eq!(RawRequest::exchange(http, &good).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_request_names_its_host() {
    let stack = shared().await;
    let (http, _) = stack.addresses(0).unwrap();
    let listing = format!("{}/files?{}", stack.pool(), query());
    for target in [listing.as_str(), "/healthz", "/openapi.json"] {
        for (version, host, status) in [
            ("1.1", "", 400),
            ("1.1", "Host: a b\r\n", 400),
            ("1.1", "Host: a/b\r\n", 400),
            ("1.1", "Host: one\r\nHost: one\r\n", 400),
            ("1.1", "Host: localhost\r\n", 200),
            ("1.1", "Host:\r\n", 200),
            ("1.0", "", 200),
        ] {
            let head = format!(
                "GET {target} HTTP/{version}\r\n{host}Authorization: Bearer {}\r\nConnection: close\r\n\r\n",
                stack.token()
            );
            let answer = RawRequest::exchange(http, head.as_bytes()).await.unwrap();
            assert_eq!(answer.status, status, "{target} {version} {host:?}");
        }
    }
}

#[tokio::test]
async fn half_a_character_is_named_in_requests() {
    let stack = shared().await;
    for body in [
        &b"{\"code\":\"print('\\ud83d')\"}"[..],
        b"{\"code\":\"1\",\"identifier\":\"\\udc00\"}",
        b"{\"properties\":{\"code\":\"'\xed\xa0\x80'\"}}",
    ] {
        let request = post(&stack, "code/execute", &query()).body(body);
        let refused = refusal(&stack, request).await;
        assert_eq!(refused.0, 400, "{refused:?}");
        assert!(refused.2.contains("lone surrogate"), "{refused:?}");
    }
    let whole = post(&stack, "code/execute", &query());
    let whole = whole.body(b"{\"code\":\"len('\\ud83d\\ude00')\"}");
    assert_eq!(result(&stack, whole).await, 1);
}

/// Python's texts may hold halves of characters, and every parser must read the answer.
#[tokio::test]
async fn half_a_character_is_escaped_in_results() {
    let stack = shared().await;
    let session = stack.session();
    let printed = "print('a\\ud800b')\nimport sys\nsys.stderr.write('c\\udfffd')";
    let told = succeed(&session, printed).await;
    assert_eq!((&*told.stdout, &*told.stderr), ("a\\ud800b\n", "c\\udfffd"));
    let shown = "class A:\n    def __repr__(self):\n        return 'x\\ud800y'\nA()";
    assert_eq!(succeed(&session, shown).await.result, "x\\ud800y");
    let json = "display({'text/plain': '\"\\ud800\"'}, raw=True)";
    assert_eq!(succeed(&session, json).await.result, "\"\\ud800\"");
    let code = "from IPython.display import HTML, JSON\n\
                display(HTML('<b>\\ud83d</b>'), JSON({'a': '\\udc00'}), {'text/\\ud800': 'x'}, raw=False)\n\
                open('/mnt/data/\\udcff.txt', 'w').close()\nraise ValueError('\\ud801')";
    let body = json!({ "code": code, "hearth": {} });
    for (path, accept) in [
        ("executions", "application/json"),
        ("code/execute", "application/json"),
        ("executions", "text/event-stream"),
    ] {
        let request = session.versioned(reqwest::Method::POST, path, NEWEST);
        let request = request.json(&body).header("accept", accept);
        let text = request.send().await.unwrap().text().await.unwrap();
        let json = match accept {
            "text/event-stream" => text.rsplit("data: ").next().unwrap(),
            _ => text.as_str(),
        };
        let told: Value = serde_json::from_str(json.trim()).unwrap();
        assert!(text.contains("ValueError: \\\\ud801"), "{told}");
        // serde_json refuses half characters as well; this holds for whoever does not.
        let lone = ["\"\\ud8", "b>\\ud8", "y\\ud8", "\"\\udc", "/\\ud8"];
        assert!(lone.iter().all(|half| !text.contains(half)), "{text}");
    }
}
