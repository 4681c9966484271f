use store::log::commit::{Change, Extent, Hash, Seq, Source};

use super::*;

fn stat(kind: Kind, inode: u64) -> Stat {
    Stat {
        kind,
        mode: 0o644,
        inode,
        size: 5,
        modified_ns: 10,
        changed_ns: 20,
    }
}

fn tree(entries: &[(&str, Stat)]) -> Tree {
    let mut tree = Tree::default();
    for (path, stat) in entries {
        tree.add(None, path.as_bytes(), *stat).unwrap();
    }
    tree.sorted()
}

fn path(path: &str) -> TreePath {
    TreePath::new(path.as_bytes()).unwrap()
}

/// What the log holds of a tree, with contents that tell the inodes apart.
fn log(tree: &Tree) -> Manifest {
    let changes: Vec<_> = tree
        .iter()
        .map(|seen| Change::Put(TreePath::new(seen.path).unwrap(), node(seen.stat)))
        .collect();
    let mut manifest = Manifest::default();
    manifest.apply(Seq(1), &changes);
    manifest
}

fn node(stat: Stat) -> Node {
    match stat.kind {
        Kind::Directory => Node::Directory {
            mode: stat.mode,
            modified_ns: stat.modified_ns,
        },
        Kind::Symlink => Node::Symlink {
            target: b"x".to_vec(),
        },
        Kind::File => Node::File(File {
            mode: stat.mode,
            modified_ns: stat.modified_ns,
            size: 5,
            extents: vec![Extent {
                at: 0,
                len: 5,
                hash: Hash([u8::try_from(stat.inode).unwrap(); 32]),
                source: Source::Pack(Seq(1)),
                start: 0,
            }],
        }),
    }
}

fn usual() -> Tree {
    tree(&[
        ("d", stat(Kind::Directory, 1)),
        ("d/file", stat(Kind::File, 2)),
        ("d/link", stat(Kind::Symlink, 3)),
        ("d-file", stat(Kind::File, 4)),
    ])
}

/// Paths of the tree at positions.
fn paths(tree: &Tree, indices: &[usize]) -> Vec<String> {
    let path = |index: &usize| String::from_utf8_lossy(tree.get(*index).unwrap().path).into_owned();
    indices.iter().map(path).collect()
}

#[test]
fn what_is_as_it_was_needs_nothing() {
    let seen = usual();
    let plan = whole(&log(&seen), &seen, &seen, &Mapped::default());
    let expected = Plan {
        extents: 2,
        ..Plan::default()
    };
    assert_eq!(plan, expected);
}

#[test]
fn what_nobody_vouches_for_is_read() {
    let seen = usual();
    let plan = whole(&log(&seen), &Tree::default(), &seen, &Mapped::default());
    assert_eq!(paths(&seen, &plan.unread), ["d-file", "d/file", "d/link"]);
    assert!(plan.known.is_empty() && plan.removed.is_empty());

    let mut doubtful = seen.clone();
    doubtful.doubt(seen.find(b"d/file").unwrap());
    let plan = whole(&log(&seen), &doubtful, &seen, &Mapped::default());
    assert_eq!(paths(&seen, &plan.unread), ["d/file"]);
}

#[test]
fn what_was_seen_but_is_not_in_the_log_is_read() {
    let seen = usual();
    let plan = whole(&Manifest::default(), &seen, &seen, &Mapped::default());
    assert_eq!(paths(&seen, &plan.unread), ["d-file", "d/file", "d/link"]);
    assert_eq!(plan.known, [(0, node(stat(Kind::Directory, 1)))]);
}

#[test]
fn any_difference_in_what_the_filesystem_says_means_reading() {
    let seen = usual();
    type Alter = fn(&mut Stat);
    let alter: [Alter; 5] = [
        |stat| stat.mode = 0o600,
        |stat| stat.inode = 9,
        |stat| stat.size = 6,
        |stat| stat.modified_ns = 11,
        |stat| stat.changed_ns = 21,
    ];
    for alter in alter {
        let mut other = stat(Kind::File, 4);
        alter(&mut other);
        let now = tree(&[
            ("d", stat(Kind::Directory, 1)),
            ("d/file", stat(Kind::File, 2)),
            ("d/link", stat(Kind::Symlink, 3)),
            ("d-file", other),
        ]);
        let plan = whole(&log(&seen), &seen, &now, &Mapped::default());
        assert_eq!(paths(&now, &plan.unread), ["d-file"]);
    }
}

#[test]
fn a_file_that_can_be_written_through_a_mapping_is_read() {
    let seen = usual();
    let mapped = Mapped::of([(4, true), (2, false)]);
    let plan = whole(&log(&seen), &seen, &seen, &mapped);
    assert_eq!(paths(&seen, &plan.unread), ["d-file"]);
}

#[test]
fn what_is_gone_is_removed_with_one_word() {
    let seen = tree(&[
        ("a", stat(Kind::Directory, 1)),
        ("a-", stat(Kind::File, 2)),
        ("a/b", stat(Kind::Directory, 3)),
        ("a/b/c", stat(Kind::File, 4)),
        ("keep", stat(Kind::Directory, 5)),
        ("keep/gone", stat(Kind::File, 6)),
    ]);
    let now = tree(&[("keep", stat(Kind::Directory, 5))]);
    let plan = whole(&log(&seen), &seen, &now, &Mapped::default());
    assert_eq!(plan.removed, ["a", "a-", "keep/gone"].map(path));
    assert!(plan.known.is_empty() && plan.unread.is_empty());
}

#[test]
fn a_directory_that_becomes_something_else_goes_first() {
    let seen = tree(&[
        ("a", stat(Kind::Directory, 1)),
        ("a/b", stat(Kind::File, 2)),
    ]);
    for kind in [Kind::File, Kind::Symlink] {
        let now = tree(&[("a", stat(kind, 3))]);
        let plan = whole(&log(&seen), &seen, &now, &Mapped::default());
        assert_eq!(plan.removed, [path("a")]);
        assert_eq!(plan.unread, [0]);
    }
    let before = tree(&[("a", stat(Kind::File, 3))]);
    let plan = whole(&log(&before), &before, &seen, &Mapped::default());
    assert!(plan.removed.is_empty());
    assert_eq!(plan.known, [(0, node(stat(Kind::Directory, 1)))]);
}

#[test]
fn a_file_that_moved_with_its_directory_is_recognised_unless_it_can_be_written() {
    let seen = usual();
    let now = tree(&[
        ("new", stat(Kind::Directory, 1)),
        ("new/file", stat(Kind::File, 2)),
        ("d-file", stat(Kind::File, 4)),
    ]);
    let plan = whole(&log(&seen), &seen, &now, &Mapped::default());
    assert_eq!(plan.removed, [path("d")]);
    let moved = [
        (1, node(stat(Kind::Directory, 1))),
        (2, node(stat(Kind::File, 2))),
    ];
    assert_eq!(plan.known, moved);
    assert!(plan.unread.is_empty());
    assert_eq!(plan.extents, 2);

    let plan = whole(&log(&seen), &seen, &now, &Mapped::of([(2, true)]));
    assert_eq!(paths(&now, &plan.unread), ["new/file"]);
    let mut doubtful = seen.clone();
    doubtful.doubt(seen.find(b"d/file").unwrap());
    let plan = whole(&log(&seen), &doubtful, &now, &Mapped::default());
    assert_eq!(paths(&now, &plan.unread), ["new/file"]);
}

#[test]
fn two_files_that_changed_places_are_each_what_they_were() {
    let seen = tree(&[
        ("a", stat(Kind::Directory, 1)),
        ("a/f", stat(Kind::File, 2)),
        ("b", stat(Kind::Directory, 3)),
        ("b/f", stat(Kind::File, 4)),
    ]);
    let now = tree(&[
        ("a", stat(Kind::Directory, 3)),
        ("a/f", stat(Kind::File, 4)),
        ("b", stat(Kind::Directory, 1)),
        ("b/f", stat(Kind::File, 2)),
    ]);
    let plan = whole(&log(&seen), &seen, &now, &Mapped::default());
    let swapped = [
        (1, node(stat(Kind::File, 4))),
        (3, node(stat(Kind::File, 2))),
    ];
    assert_eq!(plan.known, swapped);
    assert!(plan.unread.is_empty() && plan.removed.is_empty());
}

#[test]
fn a_single_path_says_nothing_of_others() {
    let seen = usual();
    let held = log(&seen);
    let now = tree(&[
        ("d", stat(Kind::Directory, 1)),
        ("d/file", stat(Kind::File, 2)),
    ]);
    let plan = super::path(&held, &path("d/file"), &now);
    assert_eq!(plan.unread, [1]);
    assert!(plan.removed.is_empty() && plan.known.is_empty());

    let gone = tree(&[("d", stat(Kind::Directory, 1))]);
    let plan = super::path(&held, &path("d/file"), &gone);
    assert_eq!(plan.removed, [path("d/file")]);
    let plan = super::path(&held, &path("d/never"), &gone);
    assert_eq!(plan, Plan::default());
}
