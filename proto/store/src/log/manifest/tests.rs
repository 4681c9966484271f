use std::collections::HashSet;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::tests::generate::{changes, file, path, put};

/// The same as a list that is searched from end to end.
#[derive(Debug, Default)]
struct Model(Vec<(TreePath, Node)>);

impl Model {
    fn apply(&mut self, seq: Seq, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(path, node) => self.put(path, &kept(node.clone(), seq)),
                Change::Remove(path) => {
                    self.0
                        .retain(|(other, _)| other != path && !other.is_below(path));
                }
            }
        }
    }

    fn put(&mut self, path: &TreePath, node: &Node) {
        if let Some(parent) = path.parent() {
            let parents = self.0.iter().find(|(other, _)| *other == parent);
            if !matches!(parents, Some((_, Node::Directory { .. }))) {
                let mode = IMPLIED_MODE;
                let implied = Node::Directory {
                    mode,
                    modified_ns: 0,
                };
                self.put(&parent, &implied);
            }
        }
        let is_directory = matches!(node, Node::Directory { .. });
        self.0
            .retain(|(other, _)| other != path && (is_directory || !other.is_below(path)));
        self.0.push((path.clone(), node.clone()));
        self.0.sort_by(|one, other| one.0.cmp(&other.0));
    }

    fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.0.iter().flat_map(|(_, node)| extents(node))
    }
}

proptest! {
    #[test]
    fn the_fold_equals_a_naive_one(commits in vec(changes(), 0..12)) {
        let (mut manifest, mut model) = (Manifest::default(), Model::default());
        for (index, changes) in commits.iter().enumerate() {
            let before: HashSet<Source> = model.extents().map(|extent| extent.source.clone()).collect();
            let seq = Seq(index as u64 + 10);
            let released: HashSet<Source> = manifest.apply(seq, changes).into_iter().collect();
            model.apply(seq, changes);

            let all: Vec<_> = manifest.iter().map(|(path, node)| (path.clone(), node.clone())).collect();
            prop_assert_eq!(&all, &model.0);
            prop_assert_eq!(manifest.len(), model.0.len());
            let bytes: usize = model.0.iter().map(|(path, _)| path.as_bytes().len()).sum();
            prop_assert_eq!(manifest.path_bytes(), bytes);

            // The index says no more and no less than the nodes do.
            let needed: HashSet<Source> = model.extents().map(|extent| extent.source.clone()).collect();
            prop_assert!(needed.iter().all(|source| manifest.needs(source)));
            prop_assert!(!needed.contains(&Source::Own));
            prop_assert_eq!(manifest.contents.uses.len(), needed.len());
            prop_assert!(before.difference(&needed).all(|source| released.contains(source)));
            prop_assert!(released.is_disjoint(&needed));
            for extent in model.extents() {
                let (source, start) = manifest.find(&extent.hash, extent.len).unwrap();
                let is_there = model.extents().any(|other| {
                    (other.hash, other.len, &other.source, other.start)
                        == (extent.hash, extent.len, source, start)
                });
                prop_assert!(is_there);
            }
            let contents: HashSet<_> = model.extents().map(|extent| (extent.hash, extent.len)).collect();
            prop_assert_eq!(manifest.contents.copies.len(), contents.len());
        }
        prop_assert_eq!(Manifest::of_nodes(model.0), manifest);
    }

    #[test]
    fn every_parent_is_a_directory_and_comes_first(commits in vec(changes(), 0..12)) {
        let mut manifest = Manifest::default();
        for changes in &commits {
            manifest.apply(Seq(1), changes);
        }
        let mut seen = HashSet::new();
        for (path, node) in manifest.iter() {
            if let Some(parent) = path.parent() {
                prop_assert!(seen.contains(&parent));
            }
            if matches!(node, Node::Directory { .. }) {
                seen.insert(path.clone());
            }
        }
        for directory in &seen {
            let below = manifest.below(directory).count();
            let naive = manifest.iter().filter(|(path, _)| path.is_below(directory)).count();
            prop_assert_eq!(below, naive);
        }
    }
}

fn names(manifest: &Manifest) -> Vec<&[u8]> {
    manifest.iter().map(|(path, _)| path.as_bytes()).collect()
}

fn file_at(at: &str) -> Change {
    Change::Put(path(at), Node::File(file(b"x", Source::Own, 0)))
}

#[test]
fn a_removed_directory_takes_what_is_below_and_nothing_beside_it() {
    let mut manifest = Manifest::default();
    let all = ["a/b/c", "a/b", "a!", "a/b!/c", "ab"].map(file_at);
    manifest.apply(Seq(1), &all[..1]);
    manifest.apply(Seq(2), &all[2..]);
    manifest.apply(Seq(3), &[Change::Remove(path("a/b"))]);
    let left: [&[u8]; 5] = [b"a", b"a!", b"a/b!", b"a/b!/c", b"ab"];
    assert_eq!(names(&manifest), left);
    manifest.apply(Seq(4), &[Change::Remove(path("a"))]);
    assert_eq!(names(&manifest), [&b"a!"[..], b"ab"]);
}

#[test]
fn a_file_in_place_of_a_directory_takes_what_was_below() {
    let mut manifest = Manifest::default();
    manifest.apply(Seq(1), &["a/b/c", "a/d"].map(file_at));
    manifest.apply(Seq(2), &[file_at("a")]);
    assert_eq!(names(&manifest), [b"a"]);
    // And a path below a file makes a directory of it.
    let released = manifest.apply(Seq(3), &[file_at("a/b")]);
    assert_eq!(names(&manifest), [&b"a"[..], b"a/b"]);
    assert_eq!(released, [Source::Pack(Seq(2))]);
}

#[test]
fn a_directory_that_is_put_again_keeps_what_is_below() {
    let mut manifest = Manifest::default();
    manifest.apply(Seq(1), &[file_at("a/b")]);
    let again = Node::Directory {
        mode: 0o700,
        modified_ns: 5,
    };
    manifest.apply(Seq(2), &[Change::Put(path("a"), again.clone())]);
    assert_eq!(manifest.get(&path("a")), Some(&again));
    assert_eq!(manifest.len(), 2);
}

#[test]
fn a_rename_releases_nothing() {
    let mut manifest = Manifest::default();
    let (body, _) = put("old", b"bytes");
    let crate::log::commit::Body::Delta(changes) = body else {
        panic!("a delta");
    };
    manifest.apply(Seq(1), &changes);
    let node = manifest.get(&path("old")).unwrap().clone();
    let rename = [Change::Remove(path("old")), Change::Put(path("new"), node)];
    assert_eq!(manifest.apply(Seq(2), &rename), []);
    assert!(manifest.needs(&Source::Pack(Seq(1))));
}
