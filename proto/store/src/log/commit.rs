//! What one commit says.

use std::fmt;

use proto::{id::Epoch, limits};
use serde::{Deserialize, Serialize};

pub use super::{
    codec::{CommitError, decode, encode},
    path::{PathError, TreePath},
};

/// Place of a commit in its log; the first is 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Seq(pub u64);

/// One change of the tree. A rename is a removal and a `Put` that points to the same blobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The path is now this, whatever it was.
    Put(TreePath, Node),
    /// The path is gone, and everything below it.
    Remove(TreePath),
}

/// What is at a path. Devices, fifos, sockets, extended attributes and ownership are not kept; hard
/// links become copies.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// A directory.
    Directory {
        /// Permission bits, `& 0o777`.
        mode: u32,
        /// Last modification, nanoseconds since 1970.
        modified_ns: i64,
    },
    /// A regular file.
    File(File),
    /// A symbolic link, as text that nobody follows here.
    Symlink {
        /// What it says, at most [`limits::TREE_PATH_BYTES`].
        #[serde(with = "serde_bytes")]
        target: Vec<u8>,
    },
}

/// A regular file. What no extent covers is a hole and reads as zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Permission bits, `& 0o777`.
    pub mode: u32,
    /// Last modification, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Length in bytes.
    pub size: u64,
    /// Its data, by rising offset, without overlap.
    pub extents: Vec<Extent>,
}

/// A run of a file's bytes. Never crosses a multiple of [`PIECE_BYTES`] in its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Offset in the file.
    pub at: u64,
    /// Length in bytes, at most [`PIECE_BYTES`].
    pub len: u32,
    /// BLAKE3 of the bytes: what is already in the session's own manifest is not written again.
    pub hash: Hash,
    /// Where they are kept.
    pub source: Source,
    /// Offset in the uncompressed source.
    pub start: u32,
}

/// Where bytes are kept. Every source is one zstd frame of at most [`PACK_BYTES`] uncompressed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// In the pack of the commit that holds this extent. Never in a [`super::manifest::Manifest`].
    Own,
    /// In the pack of another commit of this log.
    Pack(Seq),
    /// In a blob `b/<name>`. Names are never used twice, so what was deleted never comes back.
    Blob(String),
}

/// BLAKE3 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hash(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// Files are cut at multiples of this many bytes.
pub const PIECE_BYTES: u32 = 4 * 1024 * 1024;
/// Largest file, and largest piece of a longer one, whose bytes go into a pack together with others.
pub const SMALL_FILE_BYTES: u64 = 1024 * 1024;
/// Most uncompressed bytes in one pack.
pub const PACK_BYTES: u32 = 8 * 1024 * 1024;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Version of the encoding.
    pub v: u16,
    /// Who wrote it. Never falls along the log.
    pub epoch: Epoch,
    /// Tells a writer whose acknowledgement was lost that the commit is its own.
    pub nonce: String,
    /// What it does.
    pub body: Body,
}

/// Version of the encoding that is written, and the only one that is read.
pub const VERSION: u16 = 1;

/// What a commit does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// A new owner begins. Nothing with a lower epoch follows.
    Fence,
    /// The tree changes; the pack behind the commit holds what its `Own` extents point into.
    Delta(Vec<Change>),
    /// The interpreter's variables, left for the next owner on a planned move. Means something only
    /// directly before a fence, and only once.
    Variables(Variables),
    /// What it did is in a checkpoint and its pack was of no more use; it stays because its key must
    /// never be free again. A reader that meets it must begin with a newer checkpoint.
    Hollow,
}

/// Variables that were carried out of an interpreter.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variables {
    /// Blob that holds them, in the kernel's own encoding, never read outside a sandbox.
    pub blob: String,
    /// Length of the uncompressed blob in bytes.
    pub size: u64,
    /// Names that could not be carried.
    pub lost: Vec<String>,
}

/// A commit and its pack.
#[derive(Clone, PartialEq, Eq)]
pub struct Packed {
    /// What the commit says.
    pub commit: Commit,
    /// Uncompressed bytes that its `Own` extents point into; empty for none.
    pub pack: Vec<u8>,
}

/// A node that no tree can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// More than permission bits.
    #[error("a mode holds permission bits only")]
    Mode,
    /// A symbolic link without a target, or with one that is too long or holds a NUL.
    #[error(
        "a symbolic link says 1 to {} bytes without NUL",
        limits::TREE_PATH_BYTES
    )]
    Target,
    /// Extents that are empty, overlap, cross a piece, or lie beyond the file or their source.
    #[error("the extents of a file do not fit it")]
    Extents,
    /// A blob that cannot be one of ours.
    #[error("not the name of a blob")]
    Blob,
}

impl Seq {
    /// The place behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Hash {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

impl Node {
    /// Whether a tree can hold it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), NodeError> {
        let (mode, extents): (u32, &[Extent]) = match self {
            Self::Symlink { target } => {
                let fits = (1..=limits::TREE_PATH_BYTES).contains(&target.len());
                let fits = fits && !target.contains(&0);
                return if fits { Ok(()) } else { Err(NodeError::Target) };
            }
            Self::Directory { mode, .. } => (*mode, &[]),
            Self::File(file) => (file.mode, &file.extents),
        };
        if mode & !0o777 != 0 {
            return Err(NodeError::Mode);
        }
        let mut free = 0;
        for extent in extents {
            let end = extent.end().ok_or(NodeError::Extents)?;
            if extent.len == 0 || extent.at < free || !extent.fits_its_source() {
                return Err(NodeError::Extents);
            }
            let piece = u64::from(PIECE_BYTES);
            if extent.at / piece != (end - 1) / piece {
                return Err(NodeError::Extents);
            }
            if let Source::Blob(name) = &extent.source
                && !is_blob_name(name)
            {
                return Err(NodeError::Blob);
            }
            free = end;
        }
        match self {
            Self::File(file) if file.size < free => Err(NodeError::Extents),
            _ => Ok(()),
        }
    }
}

impl Extent {
    /// Offset in the file behind its last byte; `None` if there is no such number.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.at.checked_add(u64::from(self.len))
    }

    fn fits_its_source(&self) -> bool {
        let end = self.start.checked_add(self.len);
        end.is_some_and(|end| end <= PACK_BYTES)
    }
}

/// Names become parts of keys, so they hold nothing that could lead elsewhere.
pub(super) fn is_blob_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

// What users wrote or named is never shown.

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { .. } => f.write_str("Directory(..)"),
            Self::File(file) => file.fmt(f),
            Self::Symlink { .. } => f.write_str("Symlink(..)"),
        }
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blob, size, .. } = self;
        f.debug_struct("Variables")
            .field("blob", blob)
            .field("size", size)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed")
            .field("commit", &self.commit)
            .field("pack_bytes", &self.pack.len())
            .finish()
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(..)")
    }
}
