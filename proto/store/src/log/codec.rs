//! Commits as bytes: four bytes with the length of the header (big endian), the header as MessagePack
//! with named fields, and, when the commit carries contents, one zstd frame with them, the *pack*.

use proto::{
    limits,
    wire::{self, WireError},
};
use serde::Deserialize;

use super::{
    commit::{
        Body, Change, Commit, Extent, Node, NodeError, PACK_BYTES, Packed, Source, VERSION,
        is_blob_name,
    },
    frame::{self, FrameError},
};

/// Why bytes are no commit, or a value cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Written by a version that came later.
    #[error("a commit of version {0}, which this one does not know")]
    Version(u16),
    /// The end is missing.
    #[error("the commit is cut short")]
    Short,
    /// The header is beyond [`limits::TREE_BYTES`].
    #[error("the commit is too long")]
    Long,
    /// The header is not what it should be.
    #[error("failed to decode the commit's header")]
    Header(#[source] WireError),
    /// A node of it is impossible.
    #[error("failed to decode a node of the commit")]
    Node(#[from] NodeError),
    /// Contents longer than [`PACK_BYTES`], or none where extents point into them.
    #[error("the extents of the commit do not fit its pack")]
    Pack,
    /// The pack cannot be read.
    #[error("failed to read the commit's pack")]
    Frame(#[from] FrameError),
    /// The pack cannot be compressed.
    #[error("failed to compress the commit's pack")]
    Compress(#[source] std::io::Error),
}

/// A commit's header and where its pack begins.
#[derive(Debug)]
pub(super) struct Header {
    pub commit: Commit,
    /// Offset of the pack in the object.
    pub pack_at: u64,
}

impl Commit {
    /// Checks what a type cannot say. `pack` is the length of the pack if that is known.
    fn check(&self, pack: Option<usize>) -> Result<(), CommitError> {
        let changes: &[Change] = match &self.body {
            Body::Delta(changes) => changes,
            Body::Variables(variables) if !is_blob_name(&variables.blob) => {
                return Err(NodeError::Blob.into());
            }
            _ if pack.is_some_and(|length| length > 0) => return Err(CommitError::Pack),
            Body::Fence | Body::Variables(_) | Body::Hollow => return Ok(()),
        };
        for change in changes {
            let Change::Put(_, node) = change else {
                continue;
            };
            node.check()?;
            if let (Node::File(file), Some(pack)) = (node, pack)
                && !file.extents.iter().all(|extent| extent.is_in(pack))
            {
                return Err(CommitError::Pack);
            }
        }
        Ok(())
    }
}

impl Extent {
    /// Whether it lies in a pack of this length, if it is in the own pack at all.
    fn is_in(&self, pack: usize) -> bool {
        let end = u64::from(self.start) + u64::from(self.len);
        self.source != Source::Own || end <= pack as u64
    }
}

/// The object that a commit becomes.
///
/// # Errors
/// The commit breaks a limit or contradicts itself.
pub fn encode(packed: &Packed) -> Result<Vec<u8>, CommitError> {
    if packed.pack.len() > PACK_BYTES as usize {
        return Err(CommitError::Pack);
    }
    packed.commit.check(Some(packed.pack.len()))?;
    let header = wire::encode(&packed.commit).map_err(CommitError::Header)?;
    let length = u32::try_from(header.len()).map_err(|_| CommitError::Long)?;
    if header.len() > limits::TREE_BYTES {
        return Err(CommitError::Long);
    }
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(header);
    if !packed.pack.is_empty() {
        bytes.extend(frame::compress(&packed.pack).map_err(CommitError::Compress)?);
    }
    Ok(bytes)
}

/// The commit that a whole object holds.
///
/// # Errors
/// It holds none, or one of a version that is not known here.
pub fn decode(bytes: &[u8]) -> Result<Packed, CommitError> {
    let Header { commit, pack_at } = decode_header(bytes)?;
    let pack = decode_pack(bytes, pack_at)?;
    commit.check(Some(pack.len()))?;
    Ok(Packed { commit, pack })
}

/// The pack of a whole object, without a look at its header.
pub(super) fn pack_of(bytes: &[u8]) -> Result<Vec<u8>, CommitError> {
    let pack_at = header_end(bytes)?;
    decode_pack(bytes, pack_at)
}

/// The commit at the beginning of an object, whose rest may be missing.
pub(super) fn decode_header(bytes: &[u8]) -> Result<Header, CommitError> {
    let pack_at = header_end(bytes)?;
    let end = usize::try_from(pack_at).map_err(|_| CommitError::Long)?;
    let header = bytes.get(4..end).ok_or(CommitError::Short)?;
    let commit = wire::decode::<Commit>(header).map_err(|error| unknown_version(header, error))?;
    if commit.v != VERSION {
        return Err(CommitError::Version(commit.v));
    }
    commit.check(None)?;
    Ok(Header { commit, pack_at })
}

/// Where the header ends and the pack begins, from the first four bytes.
pub(super) fn header_end(bytes: &[u8]) -> Result<u64, CommitError> {
    let length = bytes.first_chunk::<4>().ok_or(CommitError::Short)?;
    let length = u32::from_be_bytes(*length);
    if length as usize > limits::TREE_BYTES {
        return Err(CommitError::Long);
    }
    Ok(u64::from(length) + 4)
}

fn decode_pack(bytes: &[u8], pack_at: u64) -> Result<Vec<u8>, CommitError> {
    let start = usize::try_from(pack_at).map_err(|_| CommitError::Long)?;
    let frame = bytes.get(start..).ok_or(CommitError::Short)?;
    if frame.is_empty() {
        return Ok(Vec::new());
    }
    Ok(frame::decompress(frame, PACK_BYTES as usize)?)
}

/// What cannot be read may be of a version that says more.
fn unknown_version(header: &[u8], error: WireError) -> CommitError {
    #[derive(Deserialize)]
    struct Versioned {
        v: u16,
    }
    match wire::decode::<Versioned>(header) {
        Ok(Versioned { v }) if v != VERSION => CommitError::Version(v),
        _ => CommitError::Header(error),
    }
}

#[cfg(test)]
mod tests;
