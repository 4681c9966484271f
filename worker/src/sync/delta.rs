//! Turns what was found into the changes of one commit. Pure.

use std::collections::HashMap;

use store::log::{
    commit::{Change, Extent, File, Node, PathError, Source, TreePath},
    manifest::Manifest,
};

use super::{
    gather::{Content, Draft, Run},
    pack::PackOffset,
    plan::Plan,
    tree::{Kind, Stat, Tree},
};

/// A file whose contents a commit changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedFile {
    /// Where it is.
    pub path: TreePath,
    /// Its length in bytes.
    pub size: u64,
}

/// What one commit says, and what is known once it is written.
#[derive(Debug, Default)]
pub(super) struct Delta {
    /// Removals, then what is put, parents before children.
    pub(super) changes: Vec<Change>,
    pub(super) files: Vec<ChangedFile>,
    /// Positions in the tree whose contents the manifest holds then, with the state that they had.
    pub(super) trusted: Vec<(usize, Stat)>,
    /// Positions that vouch for nothing until the commit is written.
    pub(super) doubted: Vec<usize>,
}

/// Where the parts of a commit are.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Number of the part that the commit carries itself.
    pub(super) own: usize,
    /// Blobs by the numbers of the others.
    pub(super) blobs: HashMap<usize, String>,
}

/// There is no commit that says what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DeltaError {
    #[error("a part of the commit is missing")]
    Unwritten,
    #[error("not a path")]
    Path(#[from] PathError),
}

/// The delta from `manifest` to `now`.
pub(super) fn delta(
    manifest: &Manifest,
    now: &Tree,
    plan: Plan,
    drafts: Vec<Draft>,
    parts: &Parts,
) -> Result<Delta, DeltaError> {
    let mut delta = Delta {
        doubted: plan.unread,
        ..Delta::default()
    };
    let mut puts = Vec::with_capacity(plan.known.len() + drafts.len());
    for (index, node) in plan.known {
        if let Some(seen) = now.get(index).filter(|seen| seen.stat.kind == Kind::File) {
            delta.doubted.push(index);
            delta.trusted.push((index, seen.stat));
        }
        puts.push((index, Found::Node(node)));
    }
    for draft in drafts {
        if draft.trusted {
            delta.trusted.push((draft.index, draft.stat));
        }
        puts.push((draft.index, Found::Draft(draft)));
    }
    puts.sort_unstable_by_key(|(index, _)| *index);
    delta.changes = plan.removed.into_iter().map(Change::Remove).collect();
    for (index, found) in puts {
        let Some(seen) = now.get(index) else { continue };
        let path = TreePath::new(seen.path)?;
        let held = manifest.get(&path);
        let node = match found {
            Found::Node(node) => node,
            Found::Draft(draft) => read(draft, held, parts)?,
        };
        if held == Some(&node) {
            continue;
        }
        if let Node::File(file) = &node
            && !matches!(held, Some(Node::File(held)) if same_contents(held, file))
        {
            delta.files.push(ChangedFile {
                path: path.clone(),
                size: file.size,
            });
        }
        delta.changes.push(Change::Put(path, node));
    }
    Ok(delta)
}

enum Found {
    Node(Node),
    Draft(Draft),
}

/// What was read, as the log says it. Contents that are the same stay where they are.
fn read(draft: Draft, held: Option<&Node>, parts: &Parts) -> Result<Node, DeltaError> {
    let held: &[Extent] = match held {
        Some(Node::File(file)) => &file.extents,
        _ => &[],
    };
    match draft.content {
        Content::Link(target) => Ok(Node::Symlink { target }),
        Content::File { size, runs } => {
            let extents = runs.into_iter().map(|run| extent(run, held, parts));
            Ok(Node::File(File {
                mode: draft.stat.mode,
                modified_ns: draft.stat.modified_ns,
                size,
                extents: extents.collect::<Result<_, _>>()?,
            }))
        }
    }
}

fn extent(run: Run, held: &[Extent], parts: &Parts) -> Result<Extent, DeltaError> {
    let here = held.binary_search_by_key(&run.at, |extent| extent.at).ok();
    let here = here.and_then(|position| held.get(position));
    if let Some(here) = here.filter(|here| here.len == run.len && here.hash == run.hash) {
        return Ok(here.clone());
    }
    let (source, start) = match run.place {
        PackOffset::Held(source, start) => (source, start),
        PackOffset::Part(number, start) if number == parts.own => (Source::Own, start),
        PackOffset::Part(number, start) => {
            let name = parts.blobs.get(&number).ok_or(DeltaError::Unwritten)?;
            (Source::Blob(name.clone()), start)
        }
    };
    Ok(Extent {
        at: run.at,
        len: run.len,
        hash: run.hash,
        source,
        start,
    })
}

fn same_contents(one: &File, other: &File) -> bool {
    let contents = |file: &File| {
        let extents = file.extents.iter();
        extents
            .map(|extent| (extent.at, extent.len, extent.hash))
            .collect::<Vec<_>>()
    };
    one.size == other.size && contents(one) == contents(other)
}
