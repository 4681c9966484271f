//! The proxy before a real server of the S3 protocol: what passes is untouched, and every kind of
//! trouble is what a client of a real store can meet.

use std::time::Duration;

use loadtest::{
    cluster::{Cluster, Member},
    store_proxy::Trouble,
};
use reqwest::{
    Client, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};

/// Everything of one kind.
const ALWAYS: u16 = 1000;
/// The store believes every signature.
const SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=loadtest/20260101/us-east-1/s3/aws4_request, \
                         SignedHeaders=host, Signature=0";
/// Until a client gives up on what hangs.
const PATIENCE: Duration = Duration::from_secs(2);

/// A store with its proxy and nothing else, and addresses of both.
struct Stores {
    cluster: Cluster,
    direct: String,
    proxied: String,
    http: Client,
}

async fn stores() -> Stores {
    let builder = Cluster::builder().workers(0).ingresses(0);
    let cluster = builder.s3_store_behind_proxy(7).start().await.unwrap();
    let (direct, proxied) = cluster.store_addresses().unwrap();
    let mut signed = HeaderMap::new();
    signed.insert(AUTHORIZATION, HeaderValue::from_static(SIGNATURE));
    let http = Client::builder()
        .default_headers(signed)
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .unwrap();
    Stores {
        direct: format!("http://{direct}/hearth"),
        proxied: format!("http://{proxied}/hearth"),
        cluster,
        http,
    }
}

impl Stores {
    async fn put(&self, key: &str, body: &[u8]) -> Result<StatusCode, reqwest::Error> {
        let request = self
            .http
            .put(format!("{}/{key}", self.proxied))
            .body(body.to_vec());
        Ok(request.send().await?.status())
    }

    async fn get(&self, base: &str, key: &str) -> Result<(StatusCode, Vec<u8>), reqwest::Error> {
        let response = self.http.get(format!("{base}/{key}")).send().await?;
        Ok((response.status(), response.bytes().await?.to_vec()))
    }

    /// What the store itself has.
    async fn stored(&self, key: &str) -> Option<Vec<u8>> {
        let (status, body) = self.get(&self.direct, key).await.unwrap();
        (status == StatusCode::OK).then_some(body)
    }

    async fn trouble(&self, trouble: Trouble) {
        self.cluster.trouble(trouble).await.unwrap();
    }
}

#[tokio::test]
async fn what_passes_is_untouched() {
    let stores = stores().await;
    let large: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
    for (key, body) in [
        ("a/small", b"bytes".as_slice()),
        ("a/large", &large),
        ("empty", b""),
    ] {
        assert_eq!(stores.put(key, body).await.unwrap(), 200);
        assert_eq!(stores.stored(key).await.unwrap(), body);
        assert_eq!(stores.get(&stores.proxied, key).await.unwrap().1, body);
    }
    assert_eq!(stores.get(&stores.proxied, "none").await.unwrap().0, 404);
    // The condition that a commit log lives by.
    let again = stores.http.put(format!("{}/a/small", stores.proxied));
    let again = again
        .header("if-none-match", "*")
        .body("other")
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), StatusCode::PRECONDITION_FAILED);
    assert_eq!(stores.stored("a/small").await.unwrap(), b"bytes");
}

#[tokio::test]
async fn errors_come_with_and_without_the_effect() {
    let stores = stores().await;
    let cases = [
        (
            Trouble {
                refused: ALWAYS,
                ..Trouble::default()
            },
            None,
        ),
        (
            Trouble {
                forgotten: ALWAYS,
                ..Trouble::default()
            },
            Some(b"bytes".to_vec()),
        ),
    ];
    for (trouble, left) in cases {
        stores.trouble(trouble).await;
        assert_eq!(stores.put("key", b"bytes").await.unwrap(), 500);
        assert_eq!(stores.stored("key").await, left);
        stores.trouble(Trouble::default()).await;
        assert_eq!(stores.put("other", b"bytes").await.unwrap(), 200);
    }
}

#[tokio::test]
async fn connections_are_reset_before_and_after_the_effect() {
    let stores = stores().await;
    let cases = [
        (
            Trouble {
                reset: ALWAYS,
                ..Trouble::default()
            },
            None,
        ),
        (
            Trouble {
                cut: ALWAYS,
                ..Trouble::default()
            },
            Some(b"bytes".to_vec()),
        ),
    ];
    for (trouble, left) in cases {
        stores.trouble(trouble).await;
        assert!(stores.put("key", b"bytes").await.unwrap_err().is_request());
        assert_eq!(stores.stored("key").await, left);
    }
}

#[tokio::test]
async fn answers_to_reads_are_cut_in_the_middle() {
    let stores = stores().await;
    let body = vec![7; 1_000_000];
    stores.put("key", &body).await.unwrap();
    stores
        .trouble(Trouble {
            cut: ALWAYS,
            ..Trouble::default()
        })
        .await;
    let mut response = stores
        .http
        .get(format!("{}/key", stores.proxied))
        .send()
        .await
        .unwrap();
    assert_eq!(response.content_length(), Some(1_000_000));
    let mut read = 0;
    let error = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => read += chunk.len(),
            Ok(None) => panic!("the whole answer came"),
            Err(error) => break error,
        }
    };
    assert!(read <= 500_000, "{read} bytes, then {error}");
}

#[tokio::test]
async fn requests_are_delayed_or_hang_until_the_trouble_is_over() {
    let stores = stores().await;
    let delay_ms = 300;
    stores
        .trouble(Trouble {
            delayed: ALWAYS,
            delay_ms,
            ..Trouble::default()
        })
        .await;
    let started = std::time::Instant::now();
    assert_eq!(stores.put("key", b"bytes").await.unwrap(), 200);
    assert!(started.elapsed() >= Duration::from_millis(delay_ms));

    stores
        .trouble(Trouble {
            stalled: ALWAYS,
            ..Trouble::default()
        })
        .await;
    assert!(stores.put("hung", b"bytes").await.unwrap_err().is_timeout());
    assert_eq!(stores.stored("hung").await, None);
    let (hung, ()) = tokio::join!(
        stores.put("hung", b"bytes"),
        stores.trouble(Trouble::default())
    );
    // Either it came after the order, or the order ended it.
    assert!(hung.is_err() || hung.is_ok_and(|status| status == 200));
}

#[tokio::test]
async fn a_proxy_that_was_killed_comes_back_without_trouble() {
    let stores = stores().await;
    stores
        .trouble(Trouble {
            refused: ALWAYS,
            ..Trouble::default()
        })
        .await;
    stores.cluster.kill(Member::StoreProxy).await.unwrap();
    assert!(stores.put("key", b"bytes").await.unwrap_err().is_connect());
    stores.cluster.start(Member::StoreProxy).await.unwrap();
    assert_eq!(stores.put("key", b"bytes").await.unwrap(), 200);
    assert_eq!(stores.stored("key").await.unwrap(), b"bytes");
}
