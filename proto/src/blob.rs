//! Bytes on their way: small ones inside the message, long ones by reference.

use serde::{Deserialize, Serialize};

use crate::{id::Incarnation, limits::INLINE_BYTES};

/// A body of at most [`INLINE_BYTES`], or where in the object store a longer one lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blob {
    /// The bytes themselves.
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A staging object. Whoever reads it to its end deletes it.
    Staged(Staged),
}

/// A file's bytes in the commit log of a session. They stay there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// The life of the session whose log it is.
    pub incarnation: Incarnation,
    /// Where its bytes are, in the log's own encoding.
    #[serde(with = "serde_bytes")]
    pub file: Vec<u8>,
}

/// A staging object in the store that ingress and workers share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Key below the store's root, made by [`crate::subject::staging_key`].
    pub key: String,
    /// Length in bytes.
    pub size: u64,
}

impl Blob {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Staged(staged) => staged.size,
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `size` bytes travel inside a message.
    #[must_use]
    pub fn fits_inline(size: u64) -> bool {
        size <= INLINE_BYTES as u64
    }
}
