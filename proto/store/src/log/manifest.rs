//! The tree that a log stands for: the fold of its commits.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Bound,
};

use super::commit::{Change, Extent, File, Hash, Node, Seq, Source, TreePath};

/// All that is below `/mnt/data`, by path, parents before children. Every parent of a path in it is
/// a directory in it.
#[derive(Clone, Default)]
pub struct Manifest {
    nodes: BTreeMap<TreePath, Node>,
    path_bytes: usize,
    contents: Contents,
}

/// Permission bits of a directory that no change names and that must be there.
const IMPLIED_MODE: u32 = 0o755;

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.nodes.len();
        write!(f, "Manifest({nodes} nodes)")
    }
}

impl PartialEq for Manifest {
    /// All the rest follows from the nodes.
    fn eq(&self, other: &Self) -> bool {
        self.nodes == other.nodes
    }
}

impl Eq for Manifest {}

impl Manifest {
    /// What is at a path.
    #[must_use]
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Everything, parents before children.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Node)> {
        self.nodes.iter()
    }

    /// Everything below a directory, at any depth, parents before children.
    pub fn below(&self, directory: &TreePath) -> impl Iterator<Item = (&TreePath, &Node)> {
        self.nodes.range(range_below(directory))
    }

    /// Number of files, directories and links.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Length of all paths together, in bytes.
    #[must_use]
    pub fn path_bytes(&self) -> usize {
        self.path_bytes
    }

    /// Where bytes of this hash and length are kept already: a source and an offset in it.
    #[must_use]
    pub fn find(&self, hash: &Hash, len: u32) -> Option<(&Source, u32)> {
        self.contents.find(hash, len)
    }

    /// Whether a file needs this source.
    #[must_use]
    pub fn needs(&self, source: &Source) -> bool {
        self.contents.uses.contains_key(source)
    }

    /// Applies the changes of commit `seq`; its `Own` extents become extents of `Pack(seq)`. Returns
    /// the sources that were needed and are not any more.
    pub fn apply(&mut self, seq: Seq, changes: &[Change]) -> Vec<Source> {
        let mut released = vec![];
        for change in changes {
            match change {
                Change::Put(path, node) => {
                    self.make_parents(path, &mut released);
                    self.put(path.clone(), kept(node.clone(), seq), &mut released);
                }
                Change::Remove(path) => {
                    self.remove_below(path, &mut released);
                    self.remove(path, &mut released);
                }
            }
        }
        // What one change released another may have taken up.
        released.retain(|source| !self.needs(source));
        released
    }

    /// The manifest that holds exactly these nodes, none of which may point into an own pack.
    pub(super) fn of_nodes(nodes: impl IntoIterator<Item = (TreePath, Node)>) -> Self {
        let mut manifest = Self::default();
        for (path, node) in nodes {
            manifest.make_parents(&path, &mut vec![]);
            manifest.put(path, node, &mut vec![]);
        }
        manifest
    }

    /// Puts directories where the path needs them. If its parent is one, so is everything above.
    fn make_parents(&mut self, path: &TreePath, released: &mut Vec<Source>) {
        let Some(parent) = path.parent() else {
            return;
        };
        if matches!(self.nodes.get(&parent), Some(Node::Directory { .. })) {
            return;
        }
        self.make_parents(&parent, released);
        let implied = Node::Directory {
            mode: IMPLIED_MODE,
            modified_ns: 0,
        };
        self.put(parent, implied, released);
    }

    fn put(&mut self, path: TreePath, node: Node, released: &mut Vec<Source>) {
        if !matches!(node, Node::Directory { .. }) {
            self.remove_below(&path, released);
        }
        self.contents.add(&node);
        let length = path.as_bytes().len();
        match self.nodes.insert(path, node) {
            Some(old) => self.contents.drop(&old, released),
            None => self.path_bytes += length,
        }
    }

    fn remove(&mut self, path: &TreePath, released: &mut Vec<Source>) {
        if let Some(old) = self.nodes.remove(path) {
            self.path_bytes -= path.as_bytes().len();
            self.contents.drop(&old, released);
        }
    }

    fn remove_below(&mut self, path: &TreePath, released: &mut Vec<Source>) {
        // Only directories have anything below them.
        if !matches!(self.nodes.get(path), Some(Node::Directory { .. })) {
            return;
        }
        let below: Vec<TreePath> = self.below(path).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.remove(&path, released);
        }
    }
}

/// All paths that begin with the directory and a slash, which sort together.
fn range_below(directory: &TreePath) -> (Bound<TreePath>, Bound<TreePath>) {
    let ends_in = |last: u8| TreePath::bound([directory.as_bytes(), &[last]].concat());
    (
        Bound::Excluded(ends_in(b'/')),
        Bound::Excluded(ends_in(b'/' + 1)),
    )
}

/// The node as it is kept: own extents belong to the commit.
fn kept(mut node: Node, seq: Seq) -> Node {
    if let Node::File(file) = &mut node {
        for extent in &mut file.extents {
            if extent.source == Source::Own {
                extent.source = Source::Pack(seq);
            }
        }
    }
    node
}

/// Which bytes are where, and which sources are needed.
#[derive(Clone, Debug, Default)]
struct Contents {
    /// Copies of the same bytes, usually one.
    copies: HashMap<(Hash, u32), Vec<Copy>>,
    /// Number of extents in each source that is needed.
    uses: HashMap<Source, u64>,
}

#[derive(Clone, Debug)]
struct Copy {
    source: Source,
    start: u32,
    uses: u64,
}

impl Contents {
    fn find(&self, hash: &Hash, len: u32) -> Option<(&Source, u32)> {
        let copy = self.copies.get(&(*hash, len))?.first()?;
        Some((&copy.source, copy.start))
    }

    fn add(&mut self, node: &Node) {
        for extent in extents(node) {
            let copies = self.copies.entry((extent.hash, extent.len)).or_default();
            match copies.iter_mut().find(|copy| copy.is_of(extent)) {
                Some(copy) => copy.uses += 1,
                None => copies.push(Copy {
                    source: extent.source.clone(),
                    start: extent.start,
                    uses: 1,
                }),
            }
            match self.uses.get_mut(&extent.source) {
                Some(uses) => *uses += 1,
                None => drop(self.uses.insert(extent.source.clone(), 1)),
            }
        }
    }

    fn drop(&mut self, node: &Node, released: &mut Vec<Source>) {
        for extent in extents(node) {
            let key = (extent.hash, extent.len);
            if let Some(copies) = self.copies.get_mut(&key) {
                copies.retain_mut(|copy| {
                    copy.uses -= u64::from(copy.is_of(extent));
                    copy.uses > 0
                });
                if copies.is_empty() {
                    self.copies.remove(&key);
                }
            }
            if let Some(uses) = self.uses.get_mut(&extent.source) {
                *uses -= 1;
                if *uses == 0 {
                    self.uses.remove(&extent.source);
                    released.push(extent.source.clone());
                }
            }
        }
    }
}

impl Copy {
    fn is_of(&self, extent: &Extent) -> bool {
        self.start == extent.start && self.source == extent.source
    }
}

fn extents(node: &Node) -> &[Extent] {
    match node {
        Node::File(File { extents, .. }) => extents,
        Node::Directory { .. } | Node::Symlink { .. } => &[],
    }
}

#[cfg(test)]
mod tests;
