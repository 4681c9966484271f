use axum::{Router, extract::State, routing::get};
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use super::*;
use crate::auth::token::{Rules, TokenError, verify};

const ISSUER: &str = "https://issuer.test";
const AUDIENCE: &str = "https://dynamicsessions.io";

/// A signing key and what a key set says of it.
struct Signer {
    id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
    public: Value,
}

impl Signer {
    fn new(id: &'static str, algorithm: Algorithm) -> Self {
        let (pair, key) = match algorithm {
            Algorithm::RS256 => {
                let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
                let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
                (pair, key)
            }
            Algorithm::EdDSA => {
                let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
                let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
                (pair, key)
            }
            _ => {
                let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
                let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
                (pair, key)
            }
        };
        let mut public = if algorithm == Algorithm::EdDSA {
            let x = data_encoding::BASE64URL_NOPAD.encode(pair.public_key_raw());
            json!({ "kty": "OKP", "crv": "Ed25519", "x": x })
        } else {
            serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap()
        };
        public["kid"] = id.into();
        Self {
            id,
            algorithm,
            key,
            public,
        }
    }

    fn token(&self) -> String {
        let header = Header {
            kid: Some(self.id.to_owned()),
            ..Header::new(self.algorithm)
        };
        let expires = get_current_timestamp() + 60;
        let claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "exp": expires });
        encode(&header, &claims, &self.key).unwrap()
    }
}

fn key_set(signers: &[&Signer]) -> String {
    let keys: Vec<&Value> = signers.iter().map(|signer| &signer.public).collect();
    json!({ "keys": keys }).to_string()
}

fn rules() -> Rules {
    Rules {
        issuer: ISSUER.into(),
        audiences: vec![AUDIENCE.into()],
    }
}

#[test]
fn tokens_of_every_algorithm_are_verified() {
    let signers = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]
        .map(|algorithm| Signer::new("the key", algorithm));
    for signer in &signers {
        let set = KeySet::parse(key_set(&[signer]).as_bytes(), 0).unwrap();
        let verdict = verify(&signer.token(), &set, &rules());
        assert!(
            verdict.is_ok(),
            "{:?} {:?}",
            signer.algorithm,
            verdict.err()
        );
        for other in signers
            .iter()
            .filter(|other| other.algorithm != signer.algorithm)
        {
            assert!(verify(&other.token(), &set, &rules()).is_err());
        }
    }
}

/// A key server on loopback whose answer can be changed.
async fn key_server(set: String) -> (String, Arc<Mutex<String>>) {
    let set = Arc::new(Mutex::new(set));
    let answer = async |State(set): State<Arc<Mutex<String>>>| set.lock().unwrap().clone();
    let router = Router::new()
        .route("/keys", get(answer))
        .with_state(set.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}/keys"), set)
}

#[tokio::test]
async fn a_key_set_is_fetched_from_a_url_and_again_for_an_unknown_key() {
    let (old, new) = (
        Signer::new("old", Algorithm::ES256),
        Signer::new("new", Algorithm::ES256),
    );
    let (url, set) = key_server(key_set(&[&old])).await;
    let keys = Keys::open(&url).await.unwrap();
    assert!(verify(&old.token(), &keys.current(), &rules()).is_ok());
    let unknown = verify(&new.token(), &keys.current(), &rules());
    assert!(matches!(unknown, Err(TokenError::UnknownKey)));

    *set.lock().unwrap() = key_set(&[&new]);
    let refreshed = keys.refresh_for_unknown_key().await.unwrap();
    assert!(verify(&new.token(), &refreshed, &rules()).is_ok());
    assert!(verify(&old.token(), &refreshed, &rules()).is_err());

    // At most once in 30 seconds, however many unknown keys come.
    *set.lock().unwrap() = key_set(&[&old]);
    let unchanged = keys.refresh_for_unknown_key().await.unwrap();
    assert!(verify(&old.token(), &unchanged, &rules()).is_err());
}

#[tokio::test]
async fn a_key_server_that_is_gone_leaves_the_old_keys_in_use() {
    let old = Signer::new("old", Algorithm::ES256);
    let (url, set) = key_server(key_set(&[&old])).await;
    let keys = Keys::open(&url).await.unwrap();
    *set.lock().unwrap() = "no key set".to_owned();
    assert!(keys.refresh_for_unknown_key().await.is_err());
    assert!(verify(&old.token(), &keys.current(), &rules()).is_ok());
}
