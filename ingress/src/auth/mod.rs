//! Who may ask: bearer tokens (JWT), verified once and remembered for a while.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, header};
use moka::{Expiry, future::Cache};
use sha2::{Digest, Sha256};

use crate::{
    error::{ApiError, ErrorCode},
    headers::single,
};

pub mod keys;
pub mod token;

use keys::Keys;
use token::{Claims, Rules, TokenError};

/// Longest time that a verification is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Verifications remembered at once.
const CAPACITY: u64 = 10_000;
/// Longest token in bytes.
const TOKEN_BYTES: usize = 16 * 1024;

/// Verifies the tokens of requests.
#[derive(Clone, Debug)]
pub struct Authenticator {
    keys: Keys,
    rules: Arc<Rules>,
    required_role: Option<Arc<str>>,
    /// Keyed by the token's SHA-256 and the key set's generation: another key set finds nothing.
    /// Holds verifications, never authorisations.
    verified: Cache<([u8; 32], u64), Arc<Claims>>,
}

impl Authenticator {
    /// Verifies against these keys by these rules.
    #[must_use]
    pub fn new(keys: Keys, rules: Rules, required_role: Option<String>) -> Self {
        let verified = Cache::builder()
            .max_capacity(CAPACITY)
            .expire_after(UntilTokenExpires)
            .build();
        let required_role = required_role.map(Arc::from);
        Self {
            keys,
            rules: Arc::new(rules),
            required_role,
            verified,
        }
    }

    /// The keys, for readiness and refresh.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Checks a request's token and its right to use pools.
    ///
    /// # Errors
    /// 401 without a valid token, 403 without the right.
    pub async fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let token = bearer(headers)?;
        let claims = self.verify(token).await.map_err(|error| match error {
            TokenError::Keys(_) => {
                let message = "the service cannot check tokens at the moment";
                ApiError::new(ErrorCode::BusUnavailable, message)
            }
            refused => ApiError::unauthorized(refused.to_string()),
        })?;
        match &self.required_role {
            Some(role) if !claims.has_role(role) => {
                let message = format!("the token lacks the role `{role}`");
                Err(ApiError::new(ErrorCode::Forbidden, message))
            }
            _ => Ok(()),
        }
    }

    async fn verify(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let set = self.keys.current();
        let key = (digest, set.generation());
        if let Some(claims) = self.verified.get(&key).await {
            return Ok(claims);
        }
        let (claims, generation) = match token::verify(token, &set, &self.rules) {
            Err(TokenError::UnknownKey) => {
                let set = self.keys.refresh_for_unknown_key().await?;
                (token::verify(token, &set, &self.rules)?, set.generation())
            }
            verified => (verified?, set.generation()),
        };
        let claims = Arc::new(claims);
        self.verified
            .insert((digest, generation), claims.clone())
            .await;
        Ok(claims)
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let value = single(headers, header::AUTHORIZATION.as_str());
    let value = value.map_err(|twice| ApiError::unauthorized(twice.to_string()))?;
    let Some(value) = value else {
        return Err(ApiError::unauthorized(
            "the Authorization header is missing",
        ));
    };
    let value = value.to_str().unwrap_or_default();
    match value.split_once(' ') {
        Some((scheme, token))
            if scheme.eq_ignore_ascii_case("bearer") && token.len() <= TOKEN_BYTES =>
        {
            Ok(token.trim())
        }
        _ => Err(ApiError::unauthorized(
            "the Authorization header is not `Bearer` and a token",
        )),
    }
}

/// A verification lives until its token expires, and never longer than [`REMEMBERED`].
struct UntilTokenExpires;

impl Expiry<([u8; 32], u64), Arc<Claims>> for UntilTokenExpires {
    #[expect(
        clippy::disallowed_methods,
        reason = "the library that checks tokens reads this clock, too"
    )]
    fn expire_after_create(
        &self,
        _key: &([u8; 32], u64),
        claims: &Arc<Claims>,
        _created: std::time::Instant,
    ) -> Option<Duration> {
        let left = claims
            .exp
            .saturating_sub(jsonwebtoken::get_current_timestamp());
        Some(Duration::from_secs(left).min(REMEMBERED))
    }
}
