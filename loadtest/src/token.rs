//! Tokens, good ones and all kinds of bad ones.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};

/// Signs tokens with the key that `devkeys make` made.
#[derive(Clone)]
pub struct Signer {
    key: EncodingKey,
    jwk: Value,
}

/// The claims of a token before it is signed.
#[derive(Clone, Debug)]
pub struct Claims(Map<String, Value>);

impl Signer {
    /// Reads `signing-key.pem` and `jwks.json` in `directory`.
    ///
    /// # Errors
    /// They are missing or no ES256 key.
    pub fn read(directory: &Path) -> Result<Self> {
        let pem = fs::read(directory.join("signing-key.pem")).context("signing-key.pem")?;
        let jwks = fs::read(directory.join("jwks.json")).context("jwks.json")?;
        let jwks: Value = serde_json::from_slice(&jwks)?;
        let jwk = jwks
            .pointer("/keys/0")
            .context("a key in jwks.json")?
            .clone();
        Ok(Self {
            key: EncodingKey::from_ec_pem(&pem)?,
            jwk,
        })
    }

    /// The public key as JWK.
    #[must_use]
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// Name of the key.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.jwk.get("kid").and_then(Value::as_str)
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// The key does not sign.
    pub fn sign(&self, claims: &Claims) -> Result<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = self.kid().map(str::to_owned);
        Ok(jsonwebtoken::encode(&header, &claims.0, &self.key)?)
    }

    /// The public key in the encodings that a confused verifier could take for an HMAC secret: JWK,
    /// raw point, DER and PEM.
    ///
    /// # Errors
    /// The key is no point of a curve.
    pub fn public_key_encodings(&self) -> Result<Vec<Vec<u8>>> {
        /// SubjectPublicKeyInfo of P-256 up to the point (RFC 5480).
        const P256_PREFIX: [u8; 26] = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        let coordinate = |name: &str| -> Result<Vec<u8>> {
            let text = self
                .jwk
                .get(name)
                .and_then(Value::as_str)
                .context("a coordinate")?;
            Ok(URL_SAFE_NO_PAD.decode(text)?)
        };
        let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
        let der = [P256_PREFIX.as_slice(), &point].concat();
        let base64 = base64::engine::general_purpose::STANDARD.encode(&der);
        let (first, second) = base64.split_at_checked(64).context("a P-256 key")?;
        let pem =
            format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}\n-----END PUBLIC KEY-----\n");
        Ok(vec![
            self.jwk.to_string().into_bytes(),
            point,
            der,
            pem.into_bytes(),
        ])
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("kid", &self.kid())
            .finish_non_exhaustive()
    }
}

impl Claims {
    /// What a good token says: `iss`, `aud`, `sub`, and an hour until `exp`.
    #[must_use]
    pub fn new(issuer: &str, audience: &str) -> Self {
        let now = now();
        let claims = [
            ("iss", json!(issuer)),
            ("aud", json!(audience)),
            ("sub", json!("loadtest")),
            ("iat", json!(now)),
            ("nbf", json!(now)),
            ("exp", json!(now + 3600)),
        ];
        Self(
            claims
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }

    /// With another value of a claim.
    #[must_use]
    pub fn set(mut self, name: &str, value: Value) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    /// Without a claim.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    /// A token that claims to need no signature.
    #[must_use]
    pub fn unsigned(&self, algorithm: &str) -> String {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let header = json!({ "alg": algorithm, "typ": "JWT" });
        format!(
            "{}.{}.",
            part(&header),
            part(&Value::Object(self.0.clone()))
        )
    }

    /// A token signed with HS256 and this secret.
    ///
    /// # Errors
    /// The secret is none.
    pub fn sign_hs256(&self, secret: &[u8], kid: Option<&str>) -> Result<String> {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = kid.map(str::to_owned);
        Ok(jsonwebtoken::encode(
            &header,
            &self.0,
            &EncodingKey::from_secret(secret),
        )?)
    }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
