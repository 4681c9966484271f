use std::sync::LazyLock;

use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};

use super::*;
use crate::auth::keys::Keys;

const ISSUER: &str = "https://issuer.test";
const AUDIENCE: &str = "https://dynamicsessions.io";

static DIRECTORY: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    devkeys::make(directory.path()).unwrap();
    directory
});

async fn keys() -> Keys {
    Keys::open(DIRECTORY.path().join("jwks.json").to_str().unwrap())
        .await
        .unwrap()
}

fn rules() -> Rules {
    Rules {
        issuer: ISSUER.into(),
        audiences: vec![AUDIENCE.into()],
    }
}

fn claims(change: Value) -> Value {
    let mut claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "exp": get_current_timestamp() + 60 });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    claims
}

fn signing_key() -> EncodingKey {
    let pem = std::fs::read(DIRECTORY.path().join("signing-key.pem")).unwrap();
    EncodingKey::from_ec_pem(&pem).unwrap()
}

fn header(algorithm: Algorithm) -> Header {
    Header {
        kid: Some(devkeys::key_id(&signing_key()).unwrap()),
        ..Header::new(algorithm)
    }
}

fn signed(claims: &Value) -> String {
    encode(&header(Algorithm::ES256), claims, &signing_key()).unwrap()
}

async fn verdict(token: &str) -> Result<Claims, TokenError> {
    verify(token, &keys().await.current(), &rules())
}

#[tokio::test]
async fn a_token_with_all_claims_is_valid() {
    assert!(verdict(&signed(&claims(json!({})))).await.is_ok());
    let several = claims(json!({ "aud": ["other", AUDIENCE] }));
    assert!(verdict(&signed(&several)).await.is_ok());
}

#[tokio::test]
async fn every_required_claim_is_required() {
    for claim in ["exp", "iss", "aud"] {
        let token = signed(&claims(json!({ claim: null })));
        assert!(
            matches!(verdict(&token).await, Err(TokenError::Invalid(_))),
            "{claim}"
        );
    }
}

#[tokio::test]
async fn wrong_claims_are_refused() {
    let now = get_current_timestamp();
    let wrong = [
        json!({ "iss": "https://other.test" }),
        json!({ "aud": "https://other.test" }),
        json!({ "nbf": now + 600 }),
    ];
    for change in wrong {
        let token = signed(&claims(change.clone()));
        assert!(
            matches!(verdict(&token).await, Err(TokenError::Invalid(_))),
            "{change}"
        );
    }
    let old = signed(&claims(json!({ "exp": now - 61 })));
    assert!(matches!(verdict(&old).await, Err(TokenError::Expired)));
}

#[tokio::test]
async fn the_algorithm_comes_from_the_key_and_never_from_the_header() {
    let public = std::fs::read(DIRECTORY.path().join("jwks.json")).unwrap();
    let header = header(Algorithm::HS256);
    let forged = encode(
        &header,
        &claims(json!({})),
        &EncodingKey::from_secret(&public),
    )
    .unwrap();
    assert!(matches!(verdict(&forged).await, Err(TokenError::Algorithm)));

    let parts = signed(&claims(json!({})));
    let (_, rest) = parts.split_once('.').unwrap();
    let none = data_encoding::BASE64URL_NOPAD.encode(br#"{"alg":"none","typ":"JWT"}"#);
    let unsigned = format!("{none}.{}.", rest.split_once('.').unwrap().0);
    assert!(matches!(
        verdict(&unsigned).await,
        Err(TokenError::Malformed)
    ));
}

#[tokio::test]
async fn a_changed_claim_breaks_the_signature() {
    let token = signed(&claims(json!({})));
    let mut parts: Vec<&str> = token.split('.').collect();
    let other = signed(&claims(json!({ "sub": "someone" })));
    let stolen = other.split('.').nth(1).unwrap().to_owned();
    parts[1] = &stolen;
    assert!(matches!(
        verdict(&parts.join(".")).await,
        Err(TokenError::Invalid(_))
    ));
}

#[tokio::test]
async fn an_unknown_key_is_named_as_such() {
    let pem = std::fs::read(DIRECTORY.path().join("signing-key.pem")).unwrap();
    let header = Header {
        kid: Some("other".into()),
        ..Header::new(Algorithm::ES256)
    };
    let key = EncodingKey::from_ec_pem(&pem).unwrap();
    let token = encode(&header, &claims(json!({})), &key).unwrap();
    assert!(matches!(verdict(&token).await, Err(TokenError::UnknownKey)));
    assert!(matches!(
        verdict("no.token.here").await,
        Err(TokenError::Malformed)
    ));
}
