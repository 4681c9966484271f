//! Sessions' identifiers, sealed: what ingress sends along so that it lies beside a session's files, where
//! neither workers nor whoever reads the store can read it. Only who has the cluster key opens it again.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use proto::{
    id::{ClusterKey, Identifier, PoolId, SessionKey},
    limits,
    recovery::SealedIdentifier,
};

/// First byte of everything sealed so.
const VERSION: u8 = 1;
/// What the cluster key is made into.
const PURPOSE: &str = "hearth sealed identifier v1";
/// Every identifier is sealed at this length, so that it is not told by the length either: the length in
/// one byte, then the longest identifier.
const PLAIN_BYTES: usize = 1 + *limits::IDENTIFIER_CHARS.end();

const _: () = assert!(*limits::IDENTIFIER_CHARS.end() <= u8::MAX as usize);

/// Something was not sealed, or cannot be opened: another key, another session, or other bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to seal or open the identifier")]
pub struct SealError;

/// Seals and opens identifiers.
#[derive(Clone, Debug)]
pub struct Sealer(Arc<RandomizedNonceKey>);

impl Sealer {
    /// With a key of its own, derived from the cluster's.
    ///
    /// # Errors
    /// The provider refuses a key of 32 bytes.
    pub fn new(key: &ClusterKey) -> Result<Self, SealError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, &key.subkey(PURPOSE));
        key.map(|key| Self(Arc::new(key))).map_err(|_| SealError)
    }

    /// Seals an identifier so that it opens for this session alone.
    ///
    /// # Errors
    /// The provider has no random bytes.
    pub fn seal(
        &self,
        identifier: &Identifier,
        (pool, session): (&PoolId, &SessionKey),
    ) -> Result<SealedIdentifier, SealError> {
        let text = identifier.as_str().as_bytes();
        let mut plain = vec![u8::try_from(text.len()).map_err(|_| SealError)?];
        plain.extend(text);
        plain.resize(PLAIN_BYTES, 0);
        let bound = Aad::from(bound(pool, session));
        let nonce = self.0.seal_in_place_append_tag(bound, &mut plain);
        let nonce = nonce.map_err(|_| SealError)?;
        let sealed = [&[VERSION], &nonce.as_ref()[..], &plain].concat();
        Ok(SealedIdentifier::new(sealed))
    }

    /// Opens an identifier of this session.
    ///
    /// # Errors
    /// It was sealed under another key or for another session, or was changed.
    pub fn open(
        &self,
        sealed: &SealedIdentifier,
        (pool, session): (&PoolId, &SessionKey),
    ) -> Result<Identifier, SealError> {
        let (&version, rest) = sealed.as_bytes().split_first().ok_or(SealError)?;
        let (nonce, rest) = rest.split_at_checked(NONCE_LEN).ok_or(SealError)?;
        if version != VERSION {
            return Err(SealError);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError)?;
        let mut bytes = rest.to_vec();
        let bound = Aad::from(bound(pool, session));
        let plain = self.0.open_in_place(nonce, bound, &mut bytes);
        let (length, text) = plain
            .map_err(|_| SealError)?
            .split_first()
            .ok_or(SealError)?;
        let text = text.get(..usize::from(*length)).ok_or(SealError)?;
        let text = std::str::from_utf8(text).map_err(|_| SealError)?;
        text.parse().map_err(|_| SealError)
    }
}

/// What a sealed identifier is bound to.
fn bound(pool: &PoolId, session: &SessionKey) -> Vec<u8> {
    [pool.as_str().as_bytes(), &[0], session.as_str().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(digits: &str) -> Sealer {
        Sealer::new(&digits.repeat(32).parse().unwrap()).unwrap()
    }

    fn pool() -> PoolId {
        "01JDE1KZ0000000000000000PY".parse().unwrap()
    }

    fn session(letter: &str) -> SessionKey {
        letter.repeat(26).parse().unwrap()
    }

    #[test]
    fn the_cluster_key_opens_a_sealed_identifier_again() {
        let (pool, session) = (pool(), session("a"));
        for text in ["abcd", "user|1-(a)", &"z".repeat(128)] {
            let identifier: Identifier = text.parse().unwrap();
            let sealed = sealer("ab").seal(&identifier, (&pool, &session)).unwrap();
            let opened = sealer("ab").open(&sealed, (&pool, &session));
            assert_eq!(opened, Ok(identifier));
            let shown = sealed.as_bytes();
            assert!(
                !shown
                    .windows(text.len())
                    .any(|part| part == text.as_bytes())
            );
        }
    }

    #[test]
    fn nothing_else_opens_it() {
        let identifier: Identifier = "user-1".parse().unwrap();
        let (pool, own) = (pool(), session("a"));
        let sealed = sealer("ab").seal(&identifier, (&pool, &own)).unwrap();
        let again = sealer("ab").seal(&identifier, (&pool, &own)).unwrap();
        assert_ne!(
            sealed, again,
            "two seals do not tell that they are of one session"
        );
        let other_pool: PoolId = "01JDE1KZ0000000000000000PX".parse().unwrap();
        let refused = Err(SealError);
        assert_eq!(sealer("cd").open(&sealed, (&pool, &own)), refused);
        assert_eq!(sealer("ab").open(&sealed, (&pool, &session("b"))), refused);
        assert_eq!(sealer("ab").open(&sealed, (&other_pool, &own)), refused);
        for at in 0..sealed.as_bytes().len() {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[at] ^= 1;
            let changed = SealedIdentifier::new(bytes);
            assert_eq!(sealer("ab").open(&changed, (&pool, &own)), refused, "{at}");
        }
        for short in [0, 1, 12, 13, 20] {
            let cut = SealedIdentifier::new(sealed.as_bytes()[..short].to_vec());
            assert_eq!(sealer("ab").open(&cut, (&pool, &own)), refused, "{short}");
        }
    }

    #[test]
    fn its_length_says_nothing_of_the_identifier() {
        let (pool, own) = (pool(), session("a"));
        let length = |text: &str| {
            let sealed = sealer("ab").seal(&text.parse().unwrap(), (&pool, &own));
            sealed.unwrap().as_bytes().len()
        };
        assert_eq!(length("abcd"), length(&"z".repeat(128)));
    }
}
