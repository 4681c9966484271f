//! What is kept beside a session's log so that the session can be found again when the bus, which holds the
//! leases, lost its data.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, Incarnation, PoolId};

/// A session's identifier, encrypted by ingress under a key derived of the cluster key: workers and the
/// store carry it, and cannot read it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedIdentifier(#[serde(with = "serde_bytes")] Vec<u8>);

impl SealedIdentifier {
    /// What an ingress made: nonce, ciphertext and tag.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Nonce, ciphertext and tag.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SealedIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedIdentifier({} bytes)", self.0.len())
    }
}

/// What a session can be begun from again, beside its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The session's pool.
    pub pool: PoolId,
    /// Its life.
    pub incarnation: Incarnation,
    /// That of the owner who wrote this. The log may have a higher one.
    pub epoch: Epoch,
    /// The pool's, when this was written.
    pub cooldown_seconds: u32,
    /// Its name; `None` if no ingress sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedIdentifier>,
}
