//! What makes a token valid.

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;

use super::keys::{KeyError, KeySet};

/// Clock difference between issuer and this host that is forgiven, in seconds.
const LEEWAY_SECONDS: u64 = 30;

/// What tokens must say.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Claim `iss`.
    pub issuer: String,
    /// Claim `aud` must hold one of these.
    pub audiences: Vec<String>,
}

/// What a valid token said.
#[derive(Debug, Deserialize)]
pub struct Claims {
    /// Seconds since 1970 at which it ends.
    pub exp: u64,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    scp: String,
}

/// Why a token is refused. The texts are shown to callers.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT.
    #[error("the token is not a JWT")]
    Malformed,
    /// Signed with a key that the key set does not hold.
    #[error("the token is signed with an unknown key")]
    UnknownKey,
    /// The header names another algorithm than the key's own.
    #[error("the token's algorithm is not its key's")]
    Algorithm,
    /// Too old.
    #[error("the token has expired")]
    Expired,
    /// Signature or claims are wrong.
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
    /// The key set cannot be had.
    #[error("the key set is not available")]
    Keys(#[from] KeyError),
}

impl Claims {
    /// Whether `roles` or `scp` names the role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role) || self.scp.split(' ').any(|own| own == role)
    }
}

/// Checks a token's signature and claims. The algorithm is the key's own: what the token's header
/// says is only compared with it.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(token: &str, keys: &KeySet, rules: &Rules) -> Result<Claims, TokenError> {
    let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
    let key = keys
        .find(header.kid.as_deref())
        .ok_or(TokenError::UnknownKey)?;
    if header.alg != key.algorithm {
        return Err(TokenError::Algorithm);
    }
    let validation = validation(key.algorithm, rules);
    match decode::<Claims>(token, &key.key, &validation) {
        Ok(data) => Ok(data.claims),
        Err(error) => Err(refusal(error.kind())),
    }
}

fn validation(algorithm: Algorithm, rules: &Rules) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY_SECONDS;
    validation.validate_nbf = true;
    validation.set_issuer(&[&rules.issuer]);
    validation.set_audience(&rules.audiences);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation
}

fn refusal(kind: &jsonwebtoken::errors::ErrorKind) -> TokenError {
    use jsonwebtoken::errors::ErrorKind;
    match kind {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::InvalidSignature => TokenError::Invalid("its signature is wrong"),
        ErrorKind::InvalidIssuer => TokenError::Invalid("its issuer is wrong"),
        ErrorKind::InvalidAudience => TokenError::Invalid("its audience is wrong"),
        ErrorKind::ImmatureSignature => TokenError::Invalid("it is not valid yet"),
        ErrorKind::MissingRequiredClaim(_) => {
            TokenError::Invalid("one of the claims exp, iss and aud is missing")
        }
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => TokenError::Algorithm,
        _ => TokenError::Invalid("it cannot be read"),
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tokens are checked by a library that reads this clock"
)]
mod tests;
