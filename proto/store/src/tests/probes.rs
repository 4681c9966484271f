//! The probe against servers that speak S3 and do not keep its promise.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use proto::ambient::Ids;
use tokio::sync::Barrier;

use crate::{ProbeError, Store};

/// What the server does with `If-None-Match: *`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Looks first and writes then.
    Hasty,
    /// Does as if it had not been said. (Garage 2.5 does.)
    Deaf,
    /// Refuses always.
    Stubborn,
    /// Honours it, but lists nothing.
    Secretive,
}

#[derive(Debug)]
struct Stub {
    manner: Manner,
    objects: Mutex<BTreeMap<String, Bytes>>,
    /// All of the probe's creators have looked when it opens.
    looked: Barrier,
}

async fn serve(manner: Manner) -> Store {
    let stub = Arc::new(Stub {
        manner,
        objects: Mutex::default(),
        looked: Barrier::new(8),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(stub);
    // Ends with the test's runtime.
    drop(tokio::spawn(axum::serve(listener, router).into_future()));
    let environment = [
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Store::open_with("s3://bucket", environment, Ids::random()).unwrap()
}

async fn answer(State(stub): State<Arc<Stub>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let key = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default();
    match parts.method {
        Method::PUT => {
            let create = parts.headers.contains_key(header::IF_NONE_MATCH);
            stub.put(key, body, create).await
        }
        Method::GET if query.contains("list-type") => stub.list(),
        Method::GET => stub.get(&key),
        Method::POST => stub.delete(&String::from_utf8_lossy(&body)),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

impl Stub {
    async fn put(&self, key: String, body: Bytes, create: bool) -> Response {
        let taken = self.objects.lock().unwrap().contains_key(&key);
        if self.manner == Manner::Hasty && !taken {
            self.looked.wait().await;
        }
        let refuse = match self.manner {
            Manner::Hasty | Manner::Secretive => create && taken,
            Manner::Deaf => false,
            Manner::Stubborn => create,
        };
        if refuse {
            return StatusCode::PRECONDITION_FAILED.into_response();
        }
        self.objects.lock().unwrap().insert(key, body);
        [(header::ETAG, "\"1\"")].into_response()
    }

    fn get(&self, key: &str) -> Response {
        match self.objects.lock().unwrap().get(key) {
            Some(body) => {
                let modified = "Wed, 25 Nov 2026 10:00:00 GMT";
                let headers = [(header::ETAG, "\"1\""), (header::LAST_MODIFIED, modified)];
                (headers, body.clone()).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }

    fn delete(&self, request: &str) -> Response {
        let keys = request.split("<Key>").skip(1);
        let keys = keys.filter_map(|rest| Some(rest.split_once("</Key>")?.0));
        let deleted: String = keys
            .map(|key| {
                let path = format!("/bucket/{key}");
                self.objects.lock().unwrap().remove(&path);
                format!("<Deleted><Key>{key}</Key></Deleted>")
            })
            .collect();
        format!("<DeleteResult>{deleted}</DeleteResult>").into_response()
    }

    fn list(&self) -> Response {
        let keys = self.objects.lock().unwrap();
        let shown = keys.keys().filter(|_| self.manner != Manner::Secretive);
        let entries: String = shown
            .map(|key| {
                let key = key.trim_start_matches("/bucket/");
                format!(
                    "<Contents><Key>{key}</Key><Size>26</Size>\
                     <LastModified>2026-11-25T10:00:00.000Z</LastModified></Contents>"
                )
            })
            .collect();
        format!("<ListBucketResult>{entries}</ListBucketResult>").into_response()
    }
}

#[tokio::test]
async fn a_store_that_looks_first_and_writes_then_is_refused() {
    let refused = serve(Manner::Hasty).await.probe().await.unwrap_err();
    assert!(
        matches!(refused, ProbeError::NotExclusive { successes: 8 }),
        "{refused:?}"
    );
    assert!(
        refused
            .to_string()
            .contains("does not keep conditional writes apart")
    );
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused() {
    let refused = serve(Manner::Deaf).await.probe().await.unwrap_err();
    assert!(
        matches!(refused, ProbeError::NotExclusive { .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_store_that_creates_nothing_is_refused() {
    let refused = serve(Manner::Stubborn).await.probe().await.unwrap_err();
    assert!(matches!(refused, ProbeError::Refuses), "{refused:?}");
}

#[tokio::test]
async fn a_store_that_does_not_list_what_was_written_is_refused() {
    let refused = serve(Manner::Secretive).await.probe().await.unwrap_err();
    assert!(matches!(refused, ProbeError::Inconsistent), "{refused:?}");
}

#[tokio::test]
async fn a_store_that_is_not_there_is_an_error_that_shows_no_secret() {
    let environment = [
        ("AWS_ACCESS_KEY_ID", "an-access-key"),
        ("AWS_SECRET_ACCESS_KEY", "a-very-secret-key"),
        // Nothing listens on the discard port of this host.
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let store = Store::open_with("s3://bucket", environment, Ids::random()).unwrap();
    let refused = store.probe().await.unwrap_err();
    assert!(matches!(refused, ProbeError::Store(_)), "{refused:?}");
    for shown in [format!("{refused:?}"), format!("{store:?}")] {
        assert!(!shown.contains("secret-key"), "{shown}");
    }
}
