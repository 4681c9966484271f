//! The manifest after a commit as one object, so that reading a log does not begin at its beginning.

use std::time::{SystemTime, UNIX_EPOCH};

use proto::{
    id::Epoch,
    limits,
    wire::{self, WireError},
};
use serde::{Deserialize, Serialize};

use super::{
    commit::{Node, NodeError, Seq, Source, TreePath, Variables},
    frame::{self, FrameError},
    key::LogKey,
};
use crate::{Store, StoreError};

/// Version of the encoding that is written, and the only one that is read.
pub(super) const VERSION: u16 = 1;

/// All that a log says up to a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// Version of the encoding.
    pub v: u16,
    /// The last commit that is in it.
    pub seq: Seq,
    /// Who wrote that commit.
    pub epoch: Epoch,
    /// What that commit carries, when it carries variables.
    pub variables: Option<Variables>,
    /// The tree, parents before children.
    pub nodes: Vec<(TreePath, Node)>,
    /// Commits up to `seq` that still carry a pack.
    pub packs: Vec<Seq>,
    /// Sources that nothing needs, and that nothing will ever point to again.
    pub dead: Vec<Dead>,
}

/// A source that is only kept for those who read an older state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dead {
    /// Which.
    pub source: Source,
    /// When the first checkpoint that said so was written, by the store's clock, in milliseconds
    /// since 1970; `None` if this is the first.
    pub since_ms: Option<u64>,
}

/// Why a checkpoint cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Written by a version that came later.
    #[error("a checkpoint of version {0}, which this one does not know")]
    Version(u16),
    /// It cannot be decompressed.
    #[error("failed to read the checkpoint's frame")]
    Frame(#[from] FrameError),
    /// It is not what it should be.
    #[error("failed to read the checkpoint's contents")]
    Wire(#[source] WireError),
    /// A node of it is impossible.
    #[error("failed to decode a node of the checkpoint")]
    Node(#[from] NodeError),
    /// It points into an own pack, which it does not have.
    #[error("a node of the checkpoint points outside of it")]
    Own,
    /// It is of another commit than its key says.
    #[error("the checkpoint is of commit {0}")]
    Seq(Seq),
    /// It is longer than [`limits::TREE_BYTES`].
    #[error("the checkpoint is too long")]
    Long,
    /// It cannot be compressed.
    #[error("failed to compress the checkpoint")]
    Compress(#[source] std::io::Error),
}

/// The object that a checkpoint becomes.
pub(super) fn encode(checkpoint: &Checkpoint) -> Result<Vec<u8>, CheckpointError> {
    let bytes = wire::encode(checkpoint).map_err(CheckpointError::Wire)?;
    if bytes.len() > limits::TREE_BYTES {
        return Err(CheckpointError::Long);
    }
    frame::compress(&bytes).map_err(CheckpointError::Compress)
}

/// The checkpoint that an object holds.
pub(super) fn decode(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u16,
    }
    let bytes = frame::decompress(bytes, limits::TREE_BYTES)?;
    let checkpoint: Checkpoint = wire::decode(&bytes).map_err(|error| {
        // What cannot be read may be of a version that says more.
        match wire::decode::<Versioned>(&bytes) {
            Ok(Versioned { v }) if v != VERSION => CheckpointError::Version(v),
            _ => CheckpointError::Wire(error),
        }
    })?;
    if checkpoint.v != VERSION {
        return Err(CheckpointError::Version(checkpoint.v));
    }
    for (_, node) in &checkpoint.nodes {
        node.check()?;
        if let Node::File(file) = node
            && file
                .extents
                .iter()
                .any(|extent| extent.source == Source::Own)
        {
            return Err(CheckpointError::Own);
        }
    }
    Ok(checkpoint)
}

/// Reads the checkpoint at `seq`, if there is one, and when it was written, in milliseconds since
/// 1970.
pub(super) async fn read(
    store: &Store,
    place: &LogKey,
    seq: Seq,
) -> Result<Option<(Checkpoint, u64)>, CheckpointError> {
    let key = place.checkpoint(seq);
    let Some(object) = store.get(&key, limits::TREE_BYTES as u64).await? else {
        return Ok(None);
    };
    let bytes = object.bytes;
    let checkpoint = frame::run_blocking(bytes.len(), move || decode(&bytes)).await?;
    if checkpoint.seq != seq {
        return Err(CheckpointError::Seq(checkpoint.seq));
    }
    Ok(Some((checkpoint, milliseconds(object.written))))
}

/// Milliseconds since 1970.
pub(super) fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::tests::generate::{epoch, file, nodes, path, paths};

    fn checkpoint(nodes: Vec<(TreePath, Node)>) -> Checkpoint {
        Checkpoint {
            v: VERSION,
            seq: Seq(64),
            epoch: epoch(3),
            variables: None,
            nodes,
            packs: vec![Seq(3), Seq(5)],
            dead: vec![
                Dead {
                    source: Source::Pack(Seq(3)),
                    since_ms: Some(1_700_000_000_000),
                },
                Dead {
                    source: Source::Blob("2-01jde1kz0000000000000000py".into()),
                    since_ms: None,
                },
            ],
        }
    }

    /// What the manifest would have made of it.
    fn owned(mut node: Node) -> Node {
        if let Node::File(file) = &mut node {
            for extent in &mut file.extents {
                if extent.source == Source::Own {
                    extent.source = Source::Pack(Seq(64));
                }
            }
        }
        node
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(nodes in vec((paths(), nodes().prop_map(owned)), 0..20)) {
            let checkpoint = checkpoint(nodes);
            let bytes = encode(&checkpoint).unwrap();
            prop_assert_eq!(decode(&bytes).unwrap(), checkpoint);
        }

        #[test]
        fn arbitrary_bytes_are_an_error(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).is_err());
            let frame = frame::compress(&bytes).unwrap();
            prop_assert!(decode(&frame).is_err());
        }

        #[test]
        fn a_damaged_checkpoint_is_an_error(
            nodes in vec((paths(), nodes().prop_map(owned)), 0..20),
            at in any::<prop::sample::Index>(),
            change in 1..=255_u8,
        ) {
            let checkpoint = checkpoint(nodes);
            let mut bytes = encode(&checkpoint).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            if let Ok(decoded) = decode(&bytes) {
                prop_assert_eq!(decoded, checkpoint);
            }
        }
    }

    #[test]
    fn a_node_without_a_source_is_refused() {
        let node = Node::File(file(b"x", Source::Own, 0));
        let bytes = encode(&checkpoint(vec![(path("a"), node)])).unwrap();
        assert!(matches!(decode(&bytes), Err(CheckpointError::Own)));
    }

    #[test]
    fn a_later_version_is_refused_by_its_number() {
        #[derive(Serialize)]
        struct Later {
            v: u16,
            nodes: &'static str,
        }
        let later = wire::encode(&Later { v: 2, nodes: "new" }).unwrap();
        let refused = decode(&frame::compress(&later).unwrap());
        assert!(
            matches!(refused, Err(CheckpointError::Version(2))),
            "{refused:?}"
        );
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_unread() {
        // The longest run of zeros that fits, and one byte: a few kilobytes of zstd.
        let bytes = frame::compress(&vec![0; limits::TREE_BYTES + 1]).unwrap();
        assert!(matches!(
            decode(&bytes),
            Err(CheckpointError::Frame(FrameError::Length))
        ));
    }

    /// Committed bytes, as they lie in stores since version 1. Never edited; another version gets
    /// another file.
    const GOLDEN: &[u8] = include_bytes!("checkpoint.v1.golden");

    #[test]
    fn checkpoints_keep_their_bytes() {
        let directory = Node::Directory {
            mode: 0o755,
            modified_ns: 5,
        };
        let link = Node::Symlink {
            target: b"d".to_vec(),
        };
        let small = Node::File(file(b"small", Source::Pack(Seq(5)), 10));
        let large = Node::File(file(b"large", Source::Blob("2-x".into()), 0));
        let mut golden = checkpoint(vec![
            (path("d"), directory),
            (path("d/large"), large),
            (path("d/small"), small),
            (path("link"), link),
        ]);
        golden.variables = Some(Variables {
            blob: "3-y".into(),
            size: 5,
            lost: vec!["x".into()],
        });
        assert_eq!(decode(GOLDEN).unwrap(), golden);
        // What compression makes of it is zstd's own matter.
        let plain = frame::decompress(GOLDEN, limits::TREE_BYTES).unwrap();
        assert_eq!(plain, wire::encode(&golden).unwrap());
    }
}
