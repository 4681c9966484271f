//! Trees, changes and contents to test with.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::{collection::vec, prelude::*, sample::select};
use proto::id::{Epoch, Incarnation};
use ulid::Ulid;

use crate::log::{
    commit::{
        Body, Change, Commit, Extent, File, Hash, Node, PIECE_BYTES, Packed, Seq, Source, TreePath,
        VERSION, Variables,
    },
    key::LogKey,
};

/// A place that no other test has.
pub(crate) fn place() -> LogKey {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    LogKey {
        pool: "01JDE1KZ0000000000000000PY".parse().unwrap(),
        session: "a".repeat(26).parse().unwrap(),
        incarnation: Incarnation::from_ulid(Ulid::from_parts(number, 0)),
    }
}

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

pub(crate) fn epoch(number: u64) -> Epoch {
    Epoch::from_number(number)
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut bytes = vec![0; length];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// A file that consists of one extent.
pub(crate) fn file(bytes: &[u8], source: Source, start: usize) -> File {
    File {
        mode: 0o644,
        modified_ns: 1_700_000_000_000_000_000,
        size: bytes.len() as u64,
        extents: vec![Extent {
            at: 0,
            len: u32::try_from(bytes.len()).unwrap(),
            hash: Hash::of(bytes),
            source,
            start: u32::try_from(start).unwrap(),
        }],
    }
}

/// The delta that puts one file with its bytes in the pack.
pub(crate) fn put(at: &str, bytes: &[u8]) -> (Body, Vec<u8>) {
    let file = Node::File(file(bytes, Source::Own, 0));
    (
        Body::Delta(vec![Change::Put(path(at), file)]),
        bytes.to_vec(),
    )
}

pub(crate) fn remove(at: &str) -> Body {
    Body::Delta(vec![Change::Remove(path(at))])
}

/// Few names, so that paths meet; `a!` sorts between `a` and `a/…`, and one is no text.
pub(crate) fn paths() -> impl Strategy<Value = TreePath> {
    let names: Vec<&[u8]> = vec![b"a", b"b", b"a!", b"\xff\xfe", "ž".as_bytes()];
    vec(select(names), 1..4).prop_map(|parts| TreePath::new(parts.join(&b'/')).unwrap())
}

fn sources() -> impl Strategy<Value = Source> {
    prop_oneof![
        Just(Source::Own),
        (1..5_u64).prop_map(|seq| Source::Pack(Seq(seq))),
        select(vec!["1-x", "1-y", "2-z"]).prop_map(|name| Source::Blob(name.to_owned())),
    ]
}

/// Files of a few pieces with holes; their hashes are of nothing in particular, and few.
pub(crate) fn files() -> impl Strategy<Value = File> {
    let extent = (any::<bool>(), 0..1000_u32, 1..1000_u32, 0..4_u8, sources());
    (vec(extent, 0..4), 0..0o1000_u32, any::<i64>(), 0..5000_u64).prop_map(
        |(pieces, mode, modified_ns, tail)| {
            let mut extents = vec![];
            let mut size = 0;
            for (index, (present, skip, len, content, source)) in pieces.into_iter().enumerate() {
                if present {
                    let at = index as u64 * u64::from(PIECE_BYTES) + u64::from(skip);
                    size = at + u64::from(len);
                    extents.push(Extent {
                        at,
                        len,
                        hash: Hash([content; 32]),
                        source,
                        start: u32::from(content) * 1000,
                    });
                }
            }
            File {
                mode,
                modified_ns,
                size: size + tail,
                extents,
            }
        },
    )
}

pub(crate) fn nodes() -> impl Strategy<Value = Node> {
    prop_oneof![
        3 => files().prop_map(Node::File),
        2 => (0..0o1000_u32, any::<i64>())
            .prop_map(|(mode, modified_ns)| Node::Directory { mode, modified_ns }),
        1 => vec(1..=255_u8, 1..20).prop_map(|target| Node::Symlink { target }),
    ]
}

pub(crate) fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        3 => (paths(), nodes()).prop_map(|(path, node)| Change::Put(path, node)),
        1 => paths().prop_map(Change::Remove),
    ];
    vec(change, 0..8)
}

/// Commits whose own extents lie in their packs.
pub(crate) fn commits() -> impl Strategy<Value = Packed> {
    let body = prop_oneof![
        1 => Just(Body::Fence),
        1 => Just(Body::Hollow),
        1 => (any::<u64>(), vec("\\PC{0,20}", 0..4)).prop_map(|(size, lost)| {
            Body::Variables(Variables { blob: "7-vars".into(), size, lost })
        }),
        6 => changes().prop_map(Body::Delta),
    ];
    (body, 0..u64::MAX, "[0-9A-Z]{26}", any::<u64>()).prop_map(|(body, number, nonce, seed)| {
        let pack = match &body {
            // As long as the generated extents reach.
            Body::Delta(_) => noise(seed, 4000),
            Body::Fence | Body::Variables(_) | Body::Hollow => vec![],
        };
        let commit = Commit {
            v: VERSION,
            epoch: epoch(number),
            nonce,
            body,
        };
        Packed { commit, pack }
    })
}
