//! Requests that no client library sends: cut off in the middle of their head, or with a header twice.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use loadtest::{client::API_VERSION, cluster::Cluster, raw::RawRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use ulid::Ulid;

use crate::stack::{Stack, shared};

/// Half a head is open no longer than the longest of the bounds (`ingress/src/connections.rs`), which is that
/// of HTTP/2, and some time for a busy machine.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(90);
/// The setting of the ingress that these requests go to.
const IDLE_SECONDS: u64 = 4;

fn listing(stack: &Stack) -> RawRequest {
    let query = format!("identifier=head-{}&api-version={API_VERSION}", Ulid::new());
    RawRequest::new("GET", &format!("{}/files?{query}", stack.pool()))
}

/// Status and code of the answer.
async fn answer(stack: &Stack, request: RawRequest) -> (u16, Option<String>) {
    let (http, _) = stack.addresses(0).unwrap();
    let answer = request.send(http).await.unwrap();
    let code = answer.header("x-ms-error-code").map(str::to_owned);
    (answer.status, code)
}

#[tokio::test]
async fn headers_that_decide_are_refused_when_there_are_two() {
    let stack = shared().await;
    let token = stack.token();
    let twice = listing(&stack).bearer(token).bearer(token);
    let unauthorized = (401, Some("Unauthorized".to_owned()));
    assert_eq!(answer(&stack, twice).await, unauthorized);
    let forged = listing(&stack)
        .bearer(token)
        .header("Authorization", "Bearer x");
    assert_eq!(answer(&stack, forged).await, unauthorized);
    for (name, one, other) in [
        ("operation-id", "one", "other"),
        ("operation-id", "one", "one"),
        ("Content-Type", "application/json", "text/plain"),
        ("Range", "bytes=0-1", "bytes=2-3"),
        // There is one already.
        ("HOST", "localhost", "elsewhere"),
    ] {
        let request = listing(&stack).bearer(token).header(name, one);
        let request = request.header(name, other);
        let invalid = (400, Some("SessionRequestValidationFailed".to_owned()));
        assert_eq!(answer(&stack, request).await, invalid, "{name}");
    }
    for query in [
        "identifier=aaaa&identifier=bbbb&api-version=2024-02-02-preview",
        "identifier=aaaa&api-version=2024-02-02-preview&API-version=2025-10-02-preview",
    ] {
        let request = RawRequest::new("GET", &format!("{}/files?{query}", stack.pool()));
        let refused = answer(&stack, request.bearer(token)).await;
        assert_eq!(refused.0, 400, "{query}");
    }
    let once = listing(&stack).bearer(token).header("operation-id", "one");
    assert_eq!(answer(&stack, once).await, (200, None));
}

/// Two lengths of one body are the way to smuggle a request in (RFC 9112 §11.2).
#[tokio::test]
async fn two_lengths_of_a_body_are_refused() {
    let stack = shared().await;
    let (http, _) = stack.addresses(0).unwrap();
    for (name, value) in [("Content-Length", "9"), ("Transfer-Encoding", "gzip")] {
        let request = listing(&stack).bearer(stack.token());
        let request = request.header(name, value).body(b"1234");
        let answered = request.send(http).await.map(|answer| answer.status);
        assert!(matches!(answered, Ok(400)), "{name}: {answered:?}");
    }
}

/// Time until the server closes a connection on which it first gets `bytes`, and what it said until then.
async fn closed(to: SocketAddr, bytes: &[u8]) -> (Duration, Vec<u8>) {
    let mut connection = TcpStream::connect(to).await.unwrap();
    let begun = Instant::now();
    connection.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = connection.read_to_end(&mut answer);
    // Whether it says so by a reset does not matter.
    let _any = tokio::time::timeout(GIVEN_UP_WITHIN, read)
        .await
        .expect("the server still waits");
    (begun.elapsed(), answer)
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2: kind, flags, stream.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// Half a head on a connection that has served a request already, of either version.
fn second_heads() -> (Vec<u8>, Vec<u8>) {
    let whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let second = [whole.as_slice(), b"GET /healthz HTTP/1.1\r\nHost: lo"].concat();
    // `:method GET`, `:scheme http`, `:authority a`, and `:path` without or with its value.
    let (start, path) = (b"\x82\x86\x41\x01a\x04\x08", b"/healthz");
    let headers = [start.as_slice(), path].concat();
    let (end_stream, end_headers) = (1, 4);
    let second_of_two = [
        PREFACE,
        &frame(4, 0, 0, b""),
        &frame(1, end_stream | end_headers, 1, &headers),
        &frame(1, end_stream, 3, start),
    ];
    (second, second_of_two.concat())
}

#[tokio::test]
async fn half_a_head_is_not_waited_for() {
    let seconds = IDLE_SECONDS.to_string();
    let cluster = Cluster::builder().ingress_arguments(["--idle-seconds", &seconds]);
    let cluster = cluster.start().await.unwrap();
    let (http, https) = cluster.addresses(0).unwrap();
    let (second, second_of_two) = second_heads();
    let preface = [PREFACE, &frame(4, 0, 0, b"")].concat();
    let (nothing, half, handshake, hello, begun, later, multiplexed) = tokio::join!(
        closed(http, b""),
        closed(http, b"GET /healthz HTTP/1.1\r\nHost: lo"),
        closed(https, b""),
        // The start of a TLS record.
        closed(https, b"\x16\x03\x01\x02\x00\x01"),
        closed(http, &preface),
        closed(http, &second),
        closed(http, &second_of_two),
    );
    for (what, answer) in [
        ("nothing", nothing.1),
        ("half a head", half.1),
        ("no handshake", handshake.1),
        ("half a handshake", hello.1),
    ] {
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{what}");
    }
    let served = String::from_utf8_lossy(&later.1);
    assert!(served.starts_with("HTTP/1.1 200 "), "{served}");
    assert!(later.0 >= Duration::from_secs(IDLE_SECONDS), "{later:?}");
    // Stream 1 was answered: a frame of headers with its end.
    let answers = multiplexed
        .1
        .windows(9)
        .filter(|head| head[3] == 1 && head[4] & 4 == 4 && head[5..] == 1_u32.to_be_bytes());
    assert_eq!(answers.count(), 1, "{:?}", multiplexed.1);
    eprintln!(
        "closed after {:?}, {:?}, {:?}",
        half.0, begun.0, multiplexed.0
    );
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_as_long_as_clients_keep_theirs() {
    let stack = shared().await;
    let (http, _) = stack.addresses(0).unwrap();
    let mut connection = TcpStream::connect(http).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut answer = [0; 4096];
    connection.write_all(request).await.unwrap();
    let length = connection.read(&mut answer).await.unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 "));
    // Longer than a new connection has for its first head.
    let idle = tokio::time::timeout(Duration::from_secs(13), connection.read(&mut answer));
    assert!(idle.await.is_err(), "it was closed");
    connection.write_all(request).await.unwrap();
    let length = connection.read(&mut answer).await.unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 "));
}
