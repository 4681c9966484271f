//! Where contents lie: blobs of their own, and the packs of commits.

use bytes::Bytes;
use proto::{id::Epoch, limits};

use super::{
    codec::{self, CommitError},
    commit::{PACK_BYTES, Source, Variables},
    frame::{self, FrameError},
    key::LogKey,
};
use crate::{Store, StoreError};

/// Longest object that holds a source: contents that do not compress, and a commit's header.
const OBJECT_BYTES: u64 = 2 * PACK_BYTES as u64 + limits::TREE_BYTES as u64;

/// Why contents are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such object: the reader is older than [`limits::DEAD_GRACE`], or it was lost.
    #[error("contents are gone from the object store")]
    Gone,
    /// The commit that carried them has been hollowed, for the same reasons.
    #[error("contents are gone from their commit")]
    Hollow,
    /// The blob is damaged.
    #[error("failed to read a blob of the log")]
    Blob(#[source] FrameError),
    /// The commit is damaged.
    #[error("failed to read a pack")]
    Pack(#[source] CommitError),
    /// `Own` means something only inside a commit.
    #[error("an own pack outside of a commit")]
    Own,
    /// Longer than [`limits::VARIABLES_BYTES`].
    #[error("more contents than one blob may hold")]
    Long,
    /// Variables of another length than their commit says.
    #[error("variables are of another length than was said")]
    Length,
    /// The bytes cannot be compressed.
    #[error("failed to compress contents")]
    Compress(#[source] std::io::Error),
}

/// Writes a blob and returns its name, which is never used twice.
pub(super) async fn put_blob(
    store: &Store,
    place: &LogKey,
    epoch: Epoch,
    bytes: Bytes,
) -> Result<(String, u64), SourceError> {
    if bytes.len() > limits::VARIABLES_BYTES {
        return Err(SourceError::Long);
    }
    let name = format!(
        "{epoch}-{}",
        store.ids.next().to_string().to_ascii_lowercase()
    );
    let frame = frame::run_blocking(bytes.len(), move || frame::compress(&bytes)).await;
    let frame = frame.map_err(SourceError::Compress)?;
    let written = frame.len() as u64;
    store.put(&place.blob(&name), frame.into()).await?;
    Ok((name, written))
}

/// All bytes of a source, uncompressed: at most [`PACK_BYTES`].
///
/// # Errors
/// The store failed, or what it has is not what was written.
pub async fn fetch(store: &Store, place: &LogKey, source: &Source) -> Result<Bytes, SourceError> {
    let key = match source {
        Source::Own => return Err(SourceError::Own),
        Source::Pack(seq) => place.commit(*seq),
        Source::Blob(name) => place.blob(name),
    };
    let object = store.get(&key, OBJECT_BYTES).await?;
    let object = object.ok_or(SourceError::Gone)?.bytes;
    let is_pack = matches!(source, Source::Pack(_));
    let bytes = frame::run_blocking(object.len(), move || unpack(&object, is_pack)).await?;
    Ok(bytes.into())
}

fn unpack(object: &[u8], is_pack: bool) -> Result<Vec<u8>, SourceError> {
    if !is_pack {
        return frame::decompress(object, PACK_BYTES as usize).map_err(SourceError::Blob);
    }
    let pack = codec::pack_of(object).map_err(SourceError::Pack)?;
    if pack.is_empty() {
        return Err(SourceError::Hollow);
    }
    Ok(pack)
}

/// Variables in the kernel's own encoding.
///
/// # Errors
/// The store failed, or what it has is not what was written.
pub async fn fetch_variables(
    store: &Store,
    place: &LogKey,
    variables: &Variables,
) -> Result<Bytes, SourceError> {
    let object = store
        .get(&place.blob(&variables.blob), OBJECT_BYTES)
        .await?;
    let object = object.ok_or(SourceError::Gone)?.bytes;
    let bytes = frame::run_blocking(object.len(), move || {
        frame::decompress(&object, limits::VARIABLES_BYTES).map_err(SourceError::Blob)
    });
    let bytes = bytes.await?;
    if bytes.len() as u64 == variables.size {
        Ok(bytes.into())
    } else {
        Err(SourceError::Length)
    }
}

/// The epoch that wrote a blob, from its name.
pub(super) fn epoch_of(blob: &str) -> Option<Epoch> {
    let (epoch, _) = blob.split_once('-')?;
    epoch.parse().ok().map(Epoch::from_number)
}
