//! Pages in browsers: what they are let send and read, in pools that name their origins and in all others.

use loadtest::{
    client::API_VERSION,
    cluster::{Cluster, pool_path},
    raw::{RawRequest, RawResponse},
};
use ulid::Ulid;

/// A page that the pool `python` is for.
const PAGE: &str = "https://app.example";
/// One that it is not for.
const EVIL: &str = "https://evil.example";
/// The pool that is for all pages.
const OPEN: &str = "open";
/// The pool that is for none.
const CLOSED: &str = "closed";

async fn start() -> Cluster {
    let cluster = Cluster::builder()
        .pool(|pool| pool.cors_origins(&["http://localhost:5173", PAGE]))
        .pool(|pool| pool.name(OPEN).cors_origins(&["*"]))
        .pool(|pool| pool.name(CLOSED));
    cluster.start().await.unwrap()
}

fn request(method: &str, pool: &str, path: &str) -> RawRequest {
    let query = format!("identifier=cors-{}&api-version={API_VERSION}", Ulid::new());
    RawRequest::new(method, &format!("{}/{path}?{query}", pool_path(pool)))
}

fn preflight(pool: &str, origin: &str) -> RawRequest {
    request("OPTIONS", pool, "code/execute")
        .header("Origin", origin)
        .header("Access-Control-Request-Method", "POST")
        .header(
            "Access-Control-Request-Headers",
            "authorization,content-type",
        )
}

fn run(cluster: &Cluster, pool: &str) -> RawRequest {
    request("POST", pool, "code/execute").bearer(cluster.token())
}

async fn send(cluster: &Cluster, request: RawRequest) -> RawResponse {
    let (http, _) = cluster.addresses(0).unwrap();
    request.send(http).await.unwrap()
}

/// What an answer allows, and what it may be kept apart by.
fn allowed(answer: &RawResponse) -> (Option<&str>, Option<&str>) {
    let credentials = answer.header("access-control-allow-credentials");
    assert_eq!(credentials, None, "no answer allows credentials");
    (
        answer.header("access-control-allow-origin"),
        answer.header("vary"),
    )
}

#[tokio::test]
async fn pages_of_named_origins_may_call_and_read() {
    let cluster = start().await;
    let asked = send(&cluster, preflight("python", PAGE)).await;
    assert_eq!((asked.status, asked.body.len()), (204, 0));
    assert_eq!(allowed(&asked), (Some(PAGE), Some("origin")));
    let has = |answer: &RawResponse, header: &str, name: &str| {
        let list = answer.header(header).unwrap_or_default().to_owned();
        list.split(',')
            .any(|own| own.trim().eq_ignore_ascii_case(name))
    };
    assert!(has(&asked, "access-control-allow-methods", "POST"));
    assert!(has(&asked, "access-control-allow-methods", "DELETE"));
    for name in ["authorization", "content-type", "operation-id"] {
        assert!(has(&asked, "access-control-allow-headers", name), "{name}");
    }
    let body = b"{\"code\":\"6 * 7\"}";
    let ran = run(&cluster, "python").header("Origin", PAGE).body(body);
    let ran = send(&cluster, ran).await;
    assert_eq!(ran.status, 200);
    assert_eq!(allowed(&ran), (Some(PAGE), Some("origin")));
    assert!(has(&ran, "access-control-expose-headers", "operation-id"));
    // A page reads why it was refused, too.
    for (refused, status) in [
        (request("POST", "python", "code/execute").body(body), 401),
        (run(&cluster, "python").body(b"{}"), 400),
        (
            request("GET", "python", "nothing").bearer(cluster.token()),
            400,
        ),
    ] {
        let answer = send(&cluster, refused.header("Origin", PAGE)).await;
        assert_eq!(answer.status, status);
        assert_eq!(allowed(&answer).0, Some(PAGE), "{status}");
        assert!(has(
            &answer,
            "access-control-expose-headers",
            "x-ms-error-code"
        ));
    }
    let events = run(&cluster, "python")
        .header("Origin", PAGE)
        .header("Accept", "text/event-stream");
    let events = send(&cluster, events.body(body)).await;
    assert_eq!(allowed(&events).0, Some(PAGE));
    // Callers that are no pages are told nothing but that pages exist.
    let plain = send(&cluster, run(&cluster, "python").body(body)).await;
    assert_eq!(
        (plain.status, allowed(&plain)),
        (200, (None, Some("origin")))
    );
}

#[tokio::test]
async fn other_pages_and_other_pools_are_allowed_nothing() {
    let cluster = start().await;
    for (pool, origin) in [
        ("python", EVIL),
        ("python", "null"),
        ("python", "https://app.example.evil.example"),
        ("python", "http://app.example"),
        ("python", "https://app.example:8443"),
        (CLOSED, PAGE),
        ("none", PAGE),
    ] {
        let asked = send(&cluster, preflight(pool, origin)).await;
        assert_eq!(
            (asked.status, allowed(&asked).0),
            (401, None),
            "{pool} {origin}"
        );
    }
    let body = b"{\"code\":\"1\"}";
    for (pool, vary) in [("python", Some("origin")), (CLOSED, None)] {
        let ran = run(&cluster, pool).header("Origin", EVIL).body(body);
        let ran = send(&cluster, ran).await;
        assert_eq!((ran.status, allowed(&ran)), (200, (None, vary)), "{pool}");
        assert_eq!(ran.header("access-control-expose-headers"), None);
    }
    let twice = run(&cluster, "python")
        .header("Origin", PAGE)
        .header("Origin", EVIL);
    let twice = send(&cluster, twice.body(body)).await;
    assert_eq!(allowed(&twice).0, None);
    // No more than a preflight gets past the token.
    let options = request("OPTIONS", "python", "code/execute").header("Origin", PAGE);
    assert_eq!(send(&cluster, options).await.status, 401);
}

#[tokio::test]
async fn a_pool_for_all_pages_says_so() {
    let cluster = start().await;
    for origin in [PAGE, EVIL, "null"] {
        let asked = send(&cluster, preflight(OPEN, origin)).await;
        assert_eq!((asked.status, allowed(&asked)), (204, (Some("*"), None)));
        let ran = run(&cluster, OPEN).header("Origin", origin);
        let ran = send(&cluster, ran.body(b"{\"code\":\"1\"}")).await;
        assert_eq!((ran.status, allowed(&ran)), (200, (Some("*"), None)));
    }
}
