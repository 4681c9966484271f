use proptest::{collection::vec, prelude::*};
use serde::Serialize;

use super::*;
use crate::{
    log::commit::{File, Hash, Seq, TreePath, Variables},
    tests::generate::{commits, epoch, file, path},
};

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(packed in commits()) {
        let bytes = encode(&packed).unwrap();
        prop_assert_eq!(&decode(&bytes).unwrap(), &packed);
        let header = decode_header(&bytes).unwrap();
        prop_assert_eq!(header.commit, packed.commit);
        prop_assert_eq!(pack_of(&bytes).unwrap(), packed.pack);
        let end = usize::try_from(header.pack_at).unwrap();
        prop_assert!(decode_header(&bytes[..end]).is_ok());
    }

    #[test]
    fn arbitrary_bytes_are_an_error(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).is_err());
        prop_assert!(decode_header(&bytes).is_err());
    }

    #[test]
    fn a_commit_that_is_cut_short_is_an_error(packed in commits(), cut in any::<prop::sample::Index>()) {
        let bytes = encode(&packed).unwrap();
        let header = usize::try_from(header_end(&bytes).unwrap()).unwrap();
        let whole = if packed.pack.is_empty() { bytes.len() } else { header };
        let cut = cut.index(bytes.len());
        // Cut exactly where a pack would begin it is one that points nowhere, or to no pack at all.
        if cut != whole {
            prop_assert!(decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn a_damaged_commit_never_panics(
        packed in commits(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = encode(&packed).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = value;
        // The pack carries a checksum; the header is the store's to keep.
        if let Ok(decoded) = decode(&bytes) {
            prop_assert_eq!(decoded.pack, packed.pack);
        }
    }
}

fn with_header(header: &impl Serialize) -> Vec<u8> {
    let header = wire::encode(header).unwrap();
    let length = u32::try_from(header.len()).unwrap();
    [&length.to_be_bytes()[..], &header].concat()
}

fn delta(file: File, pack: usize) -> Packed {
    Packed {
        commit: Commit {
            v: VERSION,
            epoch: epoch(1),
            nonce: "nonce".into(),
            body: Body::Delta(vec![Change::Put(path("a"), Node::File(file))]),
        },
        pack: vec![1; pack],
    }
}

#[test]
fn a_later_version_is_refused_by_its_number() {
    #[derive(Serialize)]
    struct Later {
        v: u16,
        epoch: u64,
        body: &'static str,
    }
    let later = Later {
        v: 2,
        epoch: 1,
        body: "something_new",
    };
    let refused = decode(&with_header(&later));
    assert!(
        matches!(refused, Err(CommitError::Version(2))),
        "{refused:?}"
    );
    let mut known = delta(file(b"x", Source::Own, 0), 1).commit;
    known.v = 3;
    let refused = decode(&with_header(&known));
    assert!(
        matches!(refused, Err(CommitError::Version(3))),
        "{refused:?}"
    );
}

#[test]
fn a_header_that_claims_too_much_is_refused_unread() {
    let bytes = [0xff, 0xff, 0xff, 0xff, 0];
    assert!(matches!(decode(&bytes), Err(CommitError::Long)));
}

#[test]
fn a_pack_that_would_unpack_beyond_its_limit_is_refused() {
    let mut bytes = with_header(&delta(file(b"x", Source::Own, 0), 1).commit);
    bytes.extend(frame::compress(&vec![0; PACK_BYTES as usize + 1]).unwrap());
    assert!(matches!(
        decode(&bytes),
        Err(CommitError::Frame(FrameError::Length))
    ));
    assert!(matches!(
        encode(&delta(file(b"x", Source::Own, 0), PACK_BYTES as usize + 1)),
        Err(CommitError::Pack)
    ));
}

#[test]
fn extents_that_do_not_fit_their_pack_are_refused() {
    for (start, pack) in [(0, 0), (0, 2), (1, 3)] {
        let packed = delta(file(b"abc", Source::Own, start), pack);
        assert!(matches!(encode(&packed), Err(CommitError::Pack)));
    }
    assert!(encode(&delta(file(b"abc", Source::Own, 1), 4)).is_ok());
}

#[test]
fn impossible_nodes_are_refused() {
    let good = file(b"abc", Source::Blob("1-x".into()), 0);
    let mut bad = vec![];
    let mut with = |change: fn(&mut File)| {
        let mut file = good.clone();
        change(&mut file);
        bad.push(Node::File(file));
    };
    with(|file| file.mode = 0o1644);
    with(|file| file.size = 2);
    with(|file| file.extents[0].len = 0);
    with(|file| file.extents[0].at = u64::MAX);
    with(|file| file.extents[0].start = u32::MAX);
    with(|file| file.extents[0].start = PACK_BYTES - 2);
    with(|file| file.extents[0].source = Source::Blob("../c/1".into()));
    with(|file| file.extents[0].source = Source::Blob(String::new()));
    // Across a piece, and twice the same bytes.
    with(|file| {
        file.extents[0].at = u64::from(crate::log::commit::PIECE_BYTES) - 1;
        file.size = u64::MAX;
    });
    with(|file| file.extents.push(file.extents[0].clone()));
    bad.push(Node::Symlink { target: vec![] });
    bad.push(Node::Symlink {
        target: b"a\0b".to_vec(),
    });
    bad.push(Node::Symlink {
        target: vec![b'a'; limits::TREE_PATH_BYTES + 1],
    });
    bad.push(Node::Directory {
        mode: 0o1777,
        modified_ns: 0,
    });
    assert!(Node::File(good).check().is_ok());
    for node in bad {
        assert!(node.check().is_err(), "{node:?}");
    }
}

#[test]
fn nothing_that_users_wrote_is_shown() {
    let secret = b"a-secret-of-a-user";
    let target = secret.to_vec();
    let name = TreePath::new(&secret[..]).unwrap();
    let packed = Packed {
        commit: Commit {
            v: VERSION,
            epoch: epoch(1),
            nonce: "nonce".into(),
            body: Body::Delta(vec![
                Change::Put(name.clone(), Node::Symlink { target }),
                Change::Put(name.clone(), Node::File(file(secret, Source::Own, 0))),
                Change::Remove(name),
            ]),
        },
        pack: secret.to_vec(),
    };
    let variables = Variables {
        blob: "1-x".into(),
        size: 1,
        lost: vec![String::from_utf8(secret.to_vec()).unwrap()],
    };
    let shown = format!("{packed:?} {variables:?} {:?}", Hash::of(secret));
    let numbers = format!("{:?}", &secret[..4]);
    let numbers = numbers.trim_matches(['[', ']']);
    assert!(
        !shown.contains("secret") && !shown.contains(numbers),
        "{shown}"
    );
}

/// Committed bytes, as they lie in stores since version 1. Never edited; another version gets
/// another file.
const GOLDEN: &[u8] = include_bytes!("commit.v1.golden");

fn golden() -> Packed {
    let mut extents = file(b"first", Source::Own, 0).extents;
    extents.push(Extent {
        at: 4096,
        source: Source::Blob("3-01jde1kz0000000000000000py".into()),
        ..extents[0].clone()
    });
    let two = File {
        size: 5000,
        extents,
        ..file(b"", Source::Own, 0)
    };
    let again = file(b"again", Source::Pack(Seq(7)), 100);
    Packed {
        commit: Commit {
            v: VERSION,
            epoch: epoch(3),
            nonce: "01JDE1KZ0000000000000000PY".into(),
            body: Body::Delta(vec![
                Change::Put(
                    path("directory"),
                    Node::Directory {
                        mode: 0o755,
                        modified_ns: -1,
                    },
                ),
                Change::Put(path("directory/two extents"), Node::File(two)),
                Change::Put(
                    TreePath::new(&b"not text \xff"[..]).unwrap(),
                    Node::File(again),
                ),
                Change::Put(
                    path("link"),
                    Node::Symlink {
                        target: b"directory".to_vec(),
                    },
                ),
                Change::Remove(path("gone")),
            ]),
        },
        pack: b"first".to_vec(),
    }
}

#[test]
fn commits_keep_their_bytes() {
    assert_eq!(decode(GOLDEN).unwrap(), golden());
    let encoded = encode(&golden()).unwrap();
    // What compression makes of the pack is zstd's own matter.
    let end = usize::try_from(header_end(GOLDEN).unwrap()).unwrap();
    assert_eq!(encoded.get(..end), GOLDEN.get(..end));
}
