//! Multipart bodies as clients really send them, and as nobody should (facts 6 and 7 of the
//! contract).

use loadtest::{
    client::{API_VERSION, Session},
    multipart::Multipart,
    raw::RawRequest,
};
use reqwest::{Body, Method, RequestBuilder};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    object_store::{ObjectStore, on_every_object_store},
    stack::{Stack, answer, shared, shared_on, succeed, value},
};

on_every_object_store! {
    twenty_mebibytes_make_the_round_trip,
}

const MIB: usize = 1 << 20;

fn upload(session: &Session, content_type: &str, body: impl Into<Body>) -> RequestBuilder {
    session
        .request(Method::POST, "files/upload")
        .header("content-type", content_type)
        .body(body)
}

async fn stored_name(request: RequestBuilder) -> Value {
    let (status, answer) = answer(request).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["value"].as_array().map(Vec::len),
        Some(1),
        "{answer}"
    );
    answer["value"][0]["properties"]["filename"].clone()
}

#[tokio::test]
async fn an_absolute_name_below_the_data_root_is_stored_once() {
    let stack = shared().await;
    let session = stack.session();
    let body = Multipart::file("/mnt/data/x.txt", b"x");
    let name = stored_name(upload(&session, &body.content_type(), body.into_body())).await;
    assert!(name == "x.txt" || name == "/mnt/data/x.txt", "{name}");
    let code = "import os\nprint(sorted(os.listdir('/mnt/data')))";
    assert_eq!(succeed(&session, code).await.stdout, "['x.txt']\n");
    assert_eq!(session.download("x.txt").await.unwrap(), b"x");
}

#[tokio::test]
async fn a_chunked_body_without_a_length_is_stored() {
    let stack = shared().await;
    let session = stack.session();
    let body = Multipart::file("chunked.txt", b"in pieces");
    let content_type = body.content_type();
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = body
        .into_body()
        .chunks(7)
        .map(|piece| Ok(piece.to_vec()))
        .collect();
    let stream = Body::wrap_stream(futures_util::stream::iter(pieces));
    assert_eq!(
        stored_name(upload(&session, &content_type, stream)).await,
        "chunked.txt"
    );
    assert_eq!(session.download("chunked.txt").await.unwrap(), b"in pieces");
}

#[tokio::test]
async fn a_multipart_body_that_is_labelled_json_is_stored() {
    let stack = shared().await;
    let session = stack.session();
    let body = Multipart::file("/mnt/data/sk.txt", b"labelled").into_body();
    stored_name(upload(&session, "application/json", body)).await;
    assert_eq!(session.download("sk.txt").await.unwrap(), b"labelled");
}

#[tokio::test]
async fn a_hand_made_body_of_another_client_is_stored() {
    let stack = shared().await;
    let session = stack.session();
    let body = Multipart::new("----1717171717171").part_with_headers(
        b"Content-Disposition: form-data; name=\"file\"; filename=\"j.json\"\r\n\
              Content-Type: application/json\r\n",
        b"{}",
    );
    let name = stored_name(upload(&session, &body.content_type(), body.into_body())).await;
    assert_eq!(name, "j.json");
}

#[tokio::test]
async fn a_quoted_boundary_a_preamble_and_an_epilogue_are_read() {
    let stack = shared().await;
    let session = stack.session();
    let body = Multipart::file("p.txt", b"--almost\r\n--a boundary--\r\n");
    let content_type = body
        .content_type()
        .replace("boundary=", "charset=utf-8; boundary=");
    let quoted = content_type.replace("boundary=", "boundary=\"") + "\"";
    let bytes = [b"preamble\r\n".as_slice(), &body.into_body(), b"epilogue"].concat();
    assert_eq!(stored_name(upload(&session, &quoted, bytes)).await, "p.txt");
    let stored = session.download("p.txt").await.unwrap();
    assert_eq!(stored, b"--almost\r\n--a boundary--\r\n");
}

#[tokio::test]
async fn several_files_in_one_body_are_all_stored_and_told() {
    let stack = shared().await;
    let session = stack.session();
    let body = Multipart::new("B")
        .part("file", "a.txt", b"a")
        .part("file", "b.txt", b"b");
    let (status, told) = answer(upload(&session, &body.content_type(), body.into_body())).await;
    assert_eq!(status, 200, "{told}");
    let entries = told["value"].as_array().unwrap().iter();
    let names: Vec<_> = entries
        .map(|entry| entry["properties"]["filename"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a.txt", "b.txt"]);
    assert_eq!(session.list().await.unwrap().len(), 2);
}

/// Long bodies are announced by some, curl among them, and sent when they are asked for.
#[tokio::test]
async fn a_sender_that_waits_to_be_asked_is_asked() {
    let stack = shared().await;
    let session = stack.session();
    let body = Multipart::file("asked.txt", b"for");
    let label = body.content_type();
    let bytes = body.into_body();
    let query = format!(
        "identifier={}&api-version={API_VERSION}",
        session.identifier()
    );
    let head = RawRequest::new("POST", &format!("{}/files/upload?{query}", stack.pool()))
        .bearer(stack.token())
        .header("Content-Type", &label)
        .header("Content-Length", &bytes.len().to_string())
        .header("Expect", "100-continue");
    let (http, _) = stack.addresses(0).unwrap();
    let mut connection = TcpStream::connect(http).await.unwrap();
    connection.write_all(&head.into_bytes()).await.unwrap();
    let mut asked = [0; 25];
    connection.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    connection.write_all(&bytes).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(session.download("asked.txt").await.unwrap(), b"for");
}

#[tokio::test]
async fn bodies_that_hold_no_file_are_refused_and_store_nothing() {
    let stack = shared().await;
    let session = stack.session();
    let good = Multipart::file("a.txt", b"a");
    let content_type = good.content_type();
    let whole = good.into_body();
    let no_file = Multipart::new("B").part("other", "a.txt", b"a");
    let no_name = Multipart::new("B")
        .part_with_headers(b"Content-Disposition: form-data; name=\"file\"\r\n", b"a");
    let empty_name = Multipart::new("B").part("file", "", b"a");
    let cases: Vec<(&str, String, Vec<u8>)> = vec![
        ("empty", content_type.clone(), Vec::new()),
        (
            "no part",
            Multipart::new("B").content_type(),
            Multipart::new("B").into_body(),
        ),
        (
            "another boundary",
            "multipart/form-data; boundary=other".into(),
            whole.clone(),
        ),
        (
            "cut off",
            content_type.clone(),
            whole[..whole.len() - 30].to_vec(),
        ),
        (
            "no boundary",
            "multipart/form-data".into(),
            b"nonsense".to_vec(),
        ),
        ("JSON", "application/json".into(), b"{}".to_vec()),
        ("other field", no_file.content_type(), no_file.into_body()),
        ("no file name", no_name.content_type(), no_name.into_body()),
        (
            "empty file name",
            empty_name.content_type(),
            empty_name.into_body(),
        ),
    ];
    for (what, content_type, body) in cases {
        let (status, answer) = answer(upload(&session, &content_type, body)).await;
        assert_eq!(status, 400, "{what}: {answer}");
        assert!(answer["error"]["code"].is_string(), "{what}: {answer}");
        assert_eq!(session.list().await.unwrap(), [], "{what}");
    }
}

#[tokio::test]
async fn a_part_with_endless_headers_is_refused() {
    let stack = shared().await;
    let session = stack.session();
    let flood = format!("X: {}\r\n", "x".repeat(8 * MIB));
    let body = Multipart::new("B").part_with_headers(flood.as_bytes(), b"a");
    let (status, _) = answer(upload(&session, &body.content_type(), body.into_body())).await;
    assert!(matches!(status.as_u16(), 400 | 413), "{status}");
    assert_eq!(session.list().await.unwrap(), []);
}

async fn twenty_mebibytes_make_the_round_trip(store: ObjectStore) {
    let stack = shared_on(store).await;
    let session = stack.session();
    let content: Vec<u8> = (0..20 * MIB)
        .map(|n| u8::try_from(n * 31 % 251).unwrap())
        .collect();
    assert_eq!(
        session.upload("big.bin", &content).await.unwrap().size,
        content.len() as u64
    );
    assert!(
        session.download("big.bin").await.unwrap() == content,
        "the bytes differ"
    );
    assert_eq!(
        value(&session, "import os\nos.stat('/mnt/data/big.bin').st_size").await,
        20 * MIB
    );
}

#[tokio::test]
async fn a_file_beyond_128_mebibytes_is_refused_whether_announced_or_not() {
    let stack = shared().await;
    let session = stack.session();
    let body = Multipart::file("huge.bin", &vec![7; 129 * MIB]);
    let content_type = body.content_type();
    let bytes = body.into_body();
    let query = format!(
        "identifier={}&api-version={API_VERSION}",
        session.identifier()
    );
    let target = format!("{}/files/upload?{query}", stack.pool());
    let request = || {
        let request = RawRequest::new("POST", &target).bearer(stack.token());
        request.header("Content-Type", &content_type)
    };
    let pieces: Vec<&[u8]> = bytes.chunks(MIB).collect();
    for request in [request().body(&bytes), request().chunked(&pieces)] {
        let response = request.send(stack.addresses(0).unwrap().0).await.unwrap();
        assert_eq!(response.status, 413);
        assert!(response.json().unwrap()["error"]["code"].is_string());
    }
    assert_eq!(session.list().await.unwrap(), []);
}

#[tokio::test]
async fn the_memory_of_ingress_does_not_grow_with_a_file() {
    let stack = shared().await;
    let session = stack.session();
    let size = 100 * MIB;
    session.upload("warm.bin", &vec![1; MIB]).await.unwrap();
    let before = peak_memory(&stack).await;
    session.upload("large.bin", &vec![7; size]).await.unwrap();
    let content = session.download("large.bin").await.unwrap();
    assert!(
        content.len() == size && content.iter().all(|byte| *byte == 7),
        "the bytes differ"
    );
    let grown = peak_memory(&stack).await - before;
    assert!(grown < 30 * MIB as u64, "grew by {} KiB", grown >> 10);
    session.delete().await.unwrap();
}

/// Largest memory that ingress ever held, in bytes.
async fn peak_memory(stack: &Stack) -> u64 {
    let pid = stack
        .pid(loadtest::cluster::Member::Ingress(0))
        .await
        .unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
