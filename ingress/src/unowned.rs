//! Files of a session that no worker serves now, read from its commit log: a listing or a download
//! takes no sandbox and no slot.

use proto::{
    fault::{Fault, FaultCode},
    file::{DirectoryPath, FileEntry, FileKind, FilePath},
    limits::LIST_ENTRIES,
};
use store::log::{
    commit::{File, Node, TreePath},
    manifest::Manifest,
};

/// Symbolic links that are followed to one file; the kernel follows as many.
const LINKS: usize = 40;

/// What is at a path once links are followed.
enum Found<'a> {
    Root,
    Directory(TreePath),
    File(&'a File),
}

/// A directory's files and directories, sorted by path; at most [`LIST_ENTRIES`]. A link is shown as
/// the file that it leads to; links to directories are not entered.
///
/// # Errors
/// There is no such directory.
pub fn list(
    tree: &Manifest,
    directory: &DirectoryPath,
    recursive: bool,
) -> Result<Vec<FileEntry>, Fault> {
    let top = match find(tree, directory.as_str().as_bytes())? {
        Found::Root => None,
        Found::Directory(path) => Some(path),
        Found::File(_) => return Err(wrong_type()),
    };
    let skipped = top.as_ref().map_or(0, |path| path.as_bytes().len() + 1);
    let all: Box<dyn Iterator<Item = (&TreePath, &Node)>> = match &top {
        None => Box::new(tree.iter()),
        Some(path) => Box::new(tree.below(path)),
    };
    let mut entries = vec![];
    for (path, node) in all {
        let relative = path.as_bytes().get(skipped..).unwrap_or_default();
        if !recursive && relative.contains(&b'/') {
            continue;
        }
        let shown = match node {
            Node::Symlink { .. } => match find(tree, path.as_bytes()) {
                Ok(Found::File(file)) => file_entry(relative, file),
                // What leads out or nowhere is left out, as where the files are served.
                Ok(Found::Root | Found::Directory(_)) | Err(_) => continue,
            },
            Node::File(file) => file_entry(relative, file),
            Node::Directory { modified_ns, .. } => FileEntry {
                path: String::from_utf8_lossy(relative).into_owned(),
                kind: FileKind::Directory,
                size: 0,
                modified_ns: *modified_ns,
            },
        };
        entries.push(shown);
        if entries.len() == LIST_ENTRIES {
            break;
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// One file and where its bytes are.
///
/// # Errors
/// There is no such file.
pub fn file<'a>(tree: &'a Manifest, path: &FilePath) -> Result<(FileEntry, &'a File), Fault> {
    let bytes = path.as_str().as_bytes();
    match find(tree, bytes)? {
        Found::File(file) => Ok((file_entry(bytes, file), file)),
        Found::Root | Found::Directory(_) => Err(wrong_type()),
    }
}

/// What is told of a path, file or directory.
///
/// # Errors
/// There is nothing.
pub fn stat(tree: &Manifest, path: &FilePath) -> Result<FileEntry, Fault> {
    let bytes = path.as_str().as_bytes();
    match find(tree, bytes)? {
        Found::File(file) => Ok(file_entry(bytes, file)),
        Found::Root => Err(not_found()),
        Found::Directory(at) => {
            let modified_ns = match tree.get(&at) {
                Some(Node::Directory { modified_ns, .. }) => *modified_ns,
                _ => 0,
            };
            Ok(FileEntry {
                path: path.to_string(),
                kind: FileKind::Directory,
                size: 0,
                modified_ns,
            })
        }
    }
}

/// Walks part by part and follows links, none of them out of the tree.
fn find<'a>(tree: &'a Manifest, path: &[u8]) -> Result<Found<'a>, Fault> {
    let mut links = LINKS;
    // Parts that are still to be walked, the next one last.
    let mut ahead: Vec<Vec<u8>> = parts(path).rev().collect();
    let mut here: Vec<Vec<u8>> = vec![];
    while let Some(part) = ahead.pop() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                here.pop().ok_or_else(escapes)?;
                continue;
            }
            _ => here.push(part),
        }
        let at = TreePath::new(here.join(&b'/')).map_err(|_| not_found())?;
        match tree.get(&at).ok_or_else(not_found)? {
            Node::Directory { .. } => {}
            Node::File(file) if ahead.is_empty() => return Ok(Found::File(file)),
            Node::File(_) => return Err(not_found()),
            Node::Symlink { target } => {
                links = links.checked_sub(1).ok_or_else(escapes)?;
                if target.starts_with(b"/") {
                    return Err(escapes());
                }
                here.pop();
                ahead.extend(parts(target).rev());
            }
        }
    }
    if here.is_empty() {
        return Ok(Found::Root);
    }
    TreePath::new(here.join(&b'/'))
        .map(Found::Directory)
        .map_err(|_| not_found())
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').map(<[u8]>::to_vec)
}

fn file_entry(path: &[u8], file: &File) -> FileEntry {
    FileEntry {
        path: String::from_utf8_lossy(path).into_owned(),
        kind: FileKind::File,
        size: file.size,
        modified_ns: file.modified_ns,
    }
}

fn not_found() -> Fault {
    Fault::new(FaultCode::FileNotFound, "no file of this name exists")
}

fn wrong_type() -> Fault {
    let words = "the path is a directory or another kind of file than is wanted";
    Fault::new(FaultCode::WrongFileType, words)
}

fn escapes() -> Fault {
    Fault::new(FaultCode::InvalidPath, "the path leaves /mnt/data")
}

#[cfg(test)]
mod tests {
    use store::log::commit::{Change, Seq};

    use super::*;

    fn put(path: &str, node: Node) -> Change {
        Change::Put(TreePath::new(path.as_bytes()).unwrap(), node)
    }

    fn file_of(size: u64) -> Node {
        Node::File(File {
            mode: 0o644,
            modified_ns: 5,
            size,
            extents: vec![],
        })
    }

    fn link(target: &str) -> Node {
        Node::Symlink {
            target: target.into(),
        }
    }

    fn tree() -> Manifest {
        let mut tree = Manifest::default();
        let changes = [
            put("top.txt", file_of(1)),
            put("dir/sub/deep.txt", file_of(2)),
            put("dir/up", link("../top.txt")),
            put("dir/around", link("sub")),
            put("out", link("../secret")),
            put("absolute", link("/etc/passwd")),
            put("loop", link("loop")),
        ];
        drop(tree.apply(Seq(1), &changes));
        tree
    }

    fn paths(directory: &str, recursive: bool) -> Vec<String> {
        let listed = list(&tree(), &directory.parse().unwrap(), recursive).unwrap();
        listed.into_iter().map(|entry| entry.path).collect()
    }

    fn size(path: &str) -> Result<u64, FaultCode> {
        let found = file(&tree(), &path.parse().unwrap()).map(|(entry, _)| entry.size);
        found.map_err(|fault| fault.code)
    }

    #[test]
    fn a_directory_is_listed_as_a_worker_lists_it() {
        assert_eq!(paths("", false), ["dir", "top.txt"]);
        let all = ["dir", "dir/sub", "dir/sub/deep.txt", "dir/up", "top.txt"];
        assert_eq!(paths("", true), all);
        assert_eq!(paths("dir", false), ["sub", "up"]);
        assert_eq!(paths("dir/around", true), ["deep.txt"]);
    }

    #[test]
    fn links_are_followed_inside_and_never_out() {
        assert_eq!(size("dir/up"), Ok(1));
        assert_eq!(size("dir/around/deep.txt"), Ok(2));
        for way_out in ["out", "absolute", "loop"] {
            assert_eq!(size(way_out), Err(FaultCode::InvalidPath), "{way_out}");
        }
    }

    #[test]
    fn what_is_no_file_is_named_as_such() {
        assert_eq!(size("dir"), Err(FaultCode::WrongFileType));
        assert_eq!(size("none"), Err(FaultCode::FileNotFound));
        assert_eq!(size("top.txt/below"), Err(FaultCode::FileNotFound));
        let directory = stat(&tree(), &"dir".parse().unwrap()).unwrap();
        assert_eq!(directory.kind, FileKind::Directory);
    }
}
