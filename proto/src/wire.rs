//! The one encoding of the bus: MessagePack with named fields.

use serde::{Serialize, de::DeserializeOwned};

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A value that MessagePack cannot hold.
    #[error("failed to encode a message")]
    Encode(#[from] rmp_serde::encode::Error),
    /// Not MessagePack, or not this message.
    #[error("failed to decode a message")]
    Decode(#[from] rmp_serde::decode::Error),
    /// Bytes after the message.
    #[error("message is followed by {0} more bytes")]
    Trailing(usize),
}

/// Encodes with field names, so that either side may be the older one.
///
/// # Errors
/// A value that MessagePack cannot hold.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    Ok(rmp_serde::to_vec_named(value)?)
}

/// Decodes a whole message.
///
/// # Errors
/// Anything but exactly one message of this type.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let mut rest = bytes;
    let value = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(WireError::Trailing(rest.len()))
    }
}
