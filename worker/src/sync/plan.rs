//! Decides what a commit must say, from what the log holds and what was seen. Pure.
//!
//! The times of a file vouch for its contents only with a past: a file is read unless the last
//! commit saw it with the very same inode, size and times, had no doubt about it, and nobody could
//! have written it through a mapping since. Whatever is read is compared by contents, so a doubt
//! costs time and never a write.

use std::collections::HashMap;

use store::log::{
    commit::{File, Node, TreePath},
    manifest::Manifest,
};

use super::{
    mapped::Mapped,
    tree::{Kind, Seen, Stat, Tree, split},
};

/// What to do so that the log holds what was seen.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub(super) struct Plan {
    /// Paths that are gone, or were directories and are none; everything below them goes with them.
    pub(super) removed: Vec<TreePath>,
    /// What changes and needs no reading, by position in the tree that was seen.
    pub(super) known: Vec<(usize, Node)>,
    /// Files and links whose contents must be read, by position in the tree that was seen.
    pub(super) unread: Vec<usize>,
    /// Extents of the files that stay as they are or are only moved.
    pub(super) extents: usize,
}

/// The plan for a whole tree: `manifest` is what the log holds, `last` what was seen at the last
/// commit, `now` what is there.
pub(super) fn whole(manifest: &Manifest, last: &Tree, now: &Tree, mapped: &Mapped) -> Plan {
    let mut plan = Plan::default();
    let mut held = manifest.iter().peekable();
    let mut before = last.iter().peekable();
    // Files that the last commit vouches for and that are not where they were.
    let mut displaced = Vec::new();
    let mut unmatched = Vec::new();
    for (index, seen) in now.iter().enumerate() {
        while let Some((path, _)) = held.next_if(|(path, _)| path.as_bytes() < seen.path) {
            plan.gone(path, now);
        }
        while let Some(lost) = before.next_if(|lost| lost.path < seen.path) {
            displaced.push(lost);
        }
        let held = held.next_if(|(path, _)| path.as_bytes() == seen.path);
        let before = before.next_if(|before| before.path == seen.path);
        if let Some((path, Node::Directory { .. })) = held
            && seen.stat.kind != Kind::Directory
        {
            plan.removed.push(path.clone());
        }
        let node = held.map(|(_, node)| node);
        match as_it_is(seen, node, before, mapped) {
            Kept::Same(extents) => plan.extents += extents,
            Kept::Changed(node) => plan.known.push((index, node)),
            Kept::Unknown => {
                displaced.extend(before);
                unmatched.push(index);
            }
        }
    }
    for (path, _) in held {
        plan.gone(path, now);
    }
    displaced.extend(before);
    plan.recognise(unmatched, &displaced, (manifest, now, mapped));
    plan
}

/// The plan for single paths that were looked at, the directories above them and the links on the
/// way among them, while everything else stays. `leaf` is the path that it is about.
pub(super) fn path(manifest: &Manifest, leaf: &TreePath, now: &Tree) -> Plan {
    let mut plan = Plan::default();
    for (index, seen) in now.iter().enumerate() {
        let path = TreePath::new(seen.path).ok();
        let held = path.as_ref().and_then(|path| manifest.get(path));
        if let (Some(path), Some(Node::Directory { .. })) = (path, held)
            && seen.stat.kind != Kind::Directory
        {
            plan.removed.push(path);
        }
        match as_it_is(seen, held, None, &Mapped::default()) {
            Kept::Same(_) => {}
            Kept::Changed(node) => plan.known.push((index, node)),
            Kept::Unknown => plan.unread.push(index),
        }
    }
    if now.find(leaf.as_bytes()).is_none() && manifest.get(leaf).is_some() {
        plan.removed.push(leaf.clone());
    }
    plan
}

/// What becomes of one entry.
enum Kept {
    /// The log holds it, in so many extents.
    Same(usize),
    /// It becomes this.
    Changed(Node),
    /// Only its contents tell.
    Unknown,
}

fn as_it_is(seen: Seen<'_>, held: Option<&Node>, last: Option<Seen<'_>>, mapped: &Mapped) -> Kept {
    let stat = seen.stat;
    if stat.kind == Kind::Directory {
        // What the filesystem says is all there is to know of it.
        let node = Node::Directory {
            mode: stat.mode,
            modified_ns: stat.modified_ns,
        };
        return if held == Some(&node) {
            Kept::Same(0)
        } else {
            Kept::Changed(node)
        };
    }
    let vouched = last.is_some_and(|last| !last.doubtful && last.stat == stat);
    match (stat.kind, held) {
        (Kind::Symlink, Some(Node::Symlink { .. })) if vouched => Kept::Same(0),
        (Kind::File, Some(Node::File(file))) if vouched && !mapped.writable(stat.inode) => {
            Kept::Same(file.extents.len())
        }
        _ => Kept::Unknown,
    }
}

impl Plan {
    /// A path of the log that is not there any more. What is below something that is removed
    /// itself needs no word of its own.
    fn gone(&mut self, path: &TreePath, now: &Tree) {
        let above = split(path.as_bytes()).0;
        let parent = above.and_then(|above| now.at(above));
        if above.is_none() || parent.is_some_and(|parent| parent.stat.kind == Kind::Directory) {
            self.removed.push(path.clone());
        }
    }

    /// Tells files that were only moved, with a directory above them, from those that must be read.
    /// The move of a file itself moves its time of change, so it is read and found by its contents.
    fn recognise(
        &mut self,
        unmatched: Vec<usize>,
        displaced: &[Seen<'_>],
        (manifest, now, mapped): (&Manifest, &Tree, &Mapped),
    ) {
        let known: HashMap<u64, &Seen<'_>> = displaced
            .iter()
            .filter(|lost| !lost.doubtful && lost.stat.kind == Kind::File)
            .map(|lost| (lost.stat.inode, lost))
            .collect();
        for index in unmatched {
            let Some(stat) = now.get(index).map(|seen| seen.stat) else {
                continue;
            };
            let origin = known
                .get(&stat.inode)
                .filter(|lost| lost.stat == stat && !mapped.writable(stat.inode));
            match origin.and_then(|origin| file_at(manifest, origin.path)) {
                Some(file) => {
                    self.extents += file.extents.len();
                    self.known.push((index, Node::File(moved(file, stat))));
                }
                None => self.unread.push(index),
            }
        }
    }
}

fn file_at<'a>(manifest: &'a Manifest, path: &[u8]) -> Option<&'a File> {
    match manifest.get(&TreePath::new(path).ok()?)? {
        Node::File(file) => Some(file),
        Node::Directory { .. } | Node::Symlink { .. } => None,
    }
}

fn moved(file: &File, stat: Stat) -> File {
    File {
        mode: stat.mode,
        modified_ns: stat.modified_ns,
        ..file.clone()
    }
}

#[cfg(test)]
mod tests;
