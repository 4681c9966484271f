//! Tokens: who gets in, and everybody who does not.

use std::time::Duration;

use loadtest::{
    cluster::{AUDIENCE, Cluster, ISSUER},
    token::{Claims, now},
    wait::until,
};
use reqwest::Method;
use serde_json::json;

use crate::stack::{Stack, shared};

/// Longer than the 30 seconds that lie between two refreshes of the key set.
const REFRESHED_WITHIN: Duration = Duration::from_secs(45);

/// Status of a request that needs nothing but a good token, which makes it 404.
async fn status(cluster: &Cluster, token: &str) -> u16 {
    let client = cluster.client_of("nowhere").unwrap().with_token(token);
    let session = client.session("some-session");
    session
        .request(Method::GET, "files")
        .send()
        .await
        .unwrap()
        .status()
        .as_u16()
}

fn claims() -> Claims {
    Claims::new(ISSUER, AUDIENCE)
}

async fn expect(stack: &Stack, claims: Claims, expected: u16, what: &str) {
    let token = stack.signer().sign(&claims).unwrap();
    assert_eq!(status(stack, &token).await, expected, "{what}");
}

#[tokio::test]
async fn good_tokens_get_in() {
    let stack = shared().await;
    assert_eq!(status(&stack, stack.token()).await, 404);
    expect(&stack, claims(), 404, "signed here").await;
    expect(
        &stack,
        claims().set("aud", json!("https://acasessions.io")),
        404,
        "the other audience",
    )
    .await;
    let several = json!(["https://elsewhere.io", AUDIENCE]);
    expect(
        &stack,
        claims().set("aud", several),
        404,
        "one of several audiences",
    )
    .await;
    expect(
        &stack,
        claims().without("nbf").without("iat"),
        404,
        "without optional claims",
    )
    .await;
}

#[tokio::test]
async fn tokens_with_wrong_or_missing_claims_are_refused() {
    let stack = shared().await;
    let cases = [
        ("expired", claims().set("exp", json!(now() - 3600))),
        (
            "expired beyond the leeway",
            claims().set("exp", json!(now() - 61)),
        ),
        ("not valid yet", claims().set("nbf", json!(now() + 3600))),
        (
            "another issuer",
            claims().set("iss", json!("https://issuer.elsewhere")),
        ),
        (
            "issuer with more behind",
            claims().set("iss", json!(format!("{ISSUER}.evil"))),
        ),
        (
            "another audience",
            claims().set("aud", json!("https://elsewhere.io")),
        ),
        ("no audience at all", claims().without("aud")),
        ("no issuer", claims().without("iss")),
        ("no expiry", claims().without("exp")),
        (
            "expiry of the wrong type",
            claims().set("exp", json!("tomorrow")),
        ),
        ("empty list of audiences", claims().set("aud", json!([]))),
    ];
    for (what, claims) in cases {
        expect(&stack, claims, 401, what).await;
    }
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let stack = shared().await;
    let stranger = stack.another_signer().unwrap();
    assert_eq!(
        status(&stack, &stranger.sign(&claims()).unwrap()).await,
        401,
        "a stranger's key"
    );
    let good = stack.signer().sign(&claims()).unwrap();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other = stack
        .signer()
        .sign(&claims().set("sub", json!("other")))
        .unwrap();
    let (_, other_signature) = other.rsplit_once('.').unwrap();
    for (what, token) in [
        ("no signature", signed.to_owned()),
        ("empty signature", format!("{signed}.")),
        (
            "another token's signature",
            format!("{signed}.{other_signature}"),
        ),
        (
            "cut-off signature",
            format!("{signed}.{}", &signature[..signature.len() - 4]),
        ),
        ("one part more", format!("{good}.x")),
        ("no token", "definitely-wrong".to_owned()),
        ("long nonsense", "a".repeat(7000)),
    ] {
        assert_eq!(status(&stack, &token).await, 401, "{what}");
    }
    for algorithm in ["none", "None", "NONE", "nOnE"] {
        assert_eq!(
            status(&stack, &claims().unsigned(algorithm)).await,
            401,
            "{algorithm}"
        );
    }
}

#[tokio::test]
async fn the_public_key_is_no_secret_to_sign_with() {
    let stack = shared().await;
    for secret in stack.signer().public_key_encodings().unwrap() {
        for kid in [stack.signer().kid(), None] {
            let token = claims().sign_hs256(&secret, kid).unwrap();
            assert_eq!(status(&stack, &token).await, 401);
        }
    }
}

#[tokio::test]
async fn requests_without_a_bearer_token_are_refused_with_the_contracts_body() {
    let stack = shared().await;
    let target = format!(
        "{}/files?identifier=abcd&api-version=2024-02-02-preview",
        stack.pool()
    );
    let address = stack.addresses(0).unwrap().0;
    let request = || loadtest::raw::RawRequest::new("GET", &target);
    let basic = request().header("Authorization", "Basic dXNlcjpwYXNzd29yZA==");
    let bare = request().header("Authorization", stack.token());
    let empty = request().header("Authorization", "Bearer ");
    let key = request().header("x-ms-apikey", stack.token());
    for request in [request(), basic, bare, empty, key] {
        let response = request.send(address).await.unwrap();
        assert_eq!(response.status, 401);
        let body = response.json().unwrap();
        assert_eq!(body["error"]["code"], "Unauthorized");
        assert!(body["error"]["message"].is_string());
        assert!(
            response
                .header("www-authenticate")
                .is_some_and(|value| value.starts_with("Bearer"))
        );
    }
    let lower = request().header("authorization", &format!("bearer {}", stack.token()));
    assert_eq!(
        lower.send(address).await.unwrap().status,
        200,
        "the scheme is read without case"
    );
}

#[tokio::test]
async fn nothing_is_told_or_started_without_a_token() {
    let stack = shared().await;
    let session = stack.session();
    let stranger = session.through(&stack.http().with_token("wrong"));
    for (method, path) in [
        (Method::GET, "files"),
        (Method::POST, "code/execute"),
        (Method::POST, "files/upload"),
        (Method::DELETE, "session"),
        (Method::GET, "nonsense"),
    ] {
        let response = stranger.request(method.clone(), path).send().await.unwrap();
        assert_eq!(response.status(), 401, "{method} {path}");
    }
    let request = session.versioned(Method::DELETE, "session", "2025-10-02-preview");
    crate::stack::refused(request, 400, "SessionWithIdentifierNotFound").await;
}

#[tokio::test]
async fn a_good_token_without_the_required_role_is_forbidden() {
    let cluster = Cluster::builder()
        .ingress_arguments(["--jwt-required-role", "Session.Executor"])
        .start()
        .await
        .unwrap();
    let sign = |claims: Claims| cluster.signer().sign(&claims).unwrap();
    assert_eq!(status(&cluster, &sign(claims())).await, 403);
    let client = cluster.client(0).unwrap().with_token(sign(claims()));
    let request = client.fresh().request(Method::GET, "files");
    crate::stack::refused(request, 403, "Forbidden").await;
    let other = claims().set("roles", json!(["Session.Reader", "session.executor.not"]));
    assert_eq!(status(&cluster, &sign(other)).await, 403);
    let right = claims().set("roles", json!(["Session.Reader", "Session.Executor"]));
    assert_eq!(status(&cluster, &sign(right)).await, 404);
    let expired = claims()
        .set("roles", json!(["Session.Executor"]))
        .set("exp", json!(1));
    assert_eq!(status(&cluster, &sign(expired)).await, 401);
}

#[tokio::test]
async fn a_rotated_key_is_picked_up_and_the_old_one_is_dropped() {
    let cluster = Cluster::builder().start().await.unwrap();
    let old = cluster.signer().sign(&claims()).unwrap();
    assert_eq!(
        status(&cluster, &old).await,
        404,
        "and its verification is cached now"
    );
    let signer = cluster.another_signer().unwrap();
    assert_ne!(signer.kid(), cluster.signer().kid());
    let new = signer.sign(&claims()).unwrap();
    assert_eq!(status(&cluster, &new).await, 401);
    cluster.publish_keys(&[&signer]).unwrap();
    let picked_up = until("the new key is accepted", REFRESHED_WITHIN, || async {
        Ok((status(&cluster, &new).await == 404).then_some(()))
    });
    picked_up.await.unwrap();
    assert_eq!(
        status(&cluster, &old).await,
        401,
        "the old key's cached verification is dropped"
    );
}
