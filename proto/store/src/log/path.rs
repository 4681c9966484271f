//! Paths below `/mnt/data`.

use std::fmt;

use proto::limits;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A path below `/mnt/data` as the filesystem spells it: any bytes but NUL, no empty, `.` or `..`
/// part, no leading slash. At most [`proto::limits::TREE_PATH_BYTES`] long.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Box<[u8]>);

/// Bytes that are no [`TreePath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// None at all, or more than [`limits::TREE_PATH_BYTES`].
    #[error("a path has 1 to {} bytes", limits::TREE_PATH_BYTES)]
    Length,
    /// A NUL byte.
    #[error("a path holds no NUL")]
    Nul,
    /// An empty, `.` or `..` part, or one longer than [`limits::FILE_NAME_BYTES`].
    #[error("a part of the path cannot be a name")]
    Part,
}

impl TreePath {
    /// The path that these bytes spell.
    ///
    /// # Errors
    /// They spell none, or one that is too long.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes.len() > limits::TREE_PATH_BYTES {
            return Err(PathError::Length);
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        let is_name = |part: &[u8]| {
            !matches!(part, b"" | b"." | b"..") && part.len() <= limits::FILE_NAME_BYTES
        };
        if !bytes.split(|byte| *byte == b'/').all(is_name) {
            return Err(PathError::Part);
        }
        Ok(Self(bytes))
    }

    /// The bytes, as the filesystem spells them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directory that it is in; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let cut = self.0.iter().rposition(|byte| *byte == b'/')?;
        let (parent, _) = self.0.split_at_checked(cut)?;
        Some(Self(parent.into()))
    }

    /// The last part.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let mut parts = self.0.rsplit(|byte| *byte == b'/');
        parts.next().unwrap_or(&self.0)
    }

    /// Bytes to compare paths with, which need not spell one.
    pub(super) fn bound(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// Whether it is in `directory` or further below.
    #[must_use]
    pub fn is_below(&self, directory: &Self) -> bool {
        let rest = self.0.strip_prefix(directory.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"/"))
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        Self::new(bytes.into_vec()).map_err(D::Error::custom)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TreePath(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::generate::paths;

    #[test]
    fn what_cannot_be_below_a_root_is_no_path() {
        let part = |length: usize| "x".repeat(length);
        let deep = |parts: usize| vec![part(255); parts].join("/");
        for (bytes, error) in [
            ("", PathError::Length),
            ("/", PathError::Part),
            ("/a", PathError::Part),
            ("a/", PathError::Part),
            ("a//b", PathError::Part),
            (".", PathError::Part),
            ("a/./b", PathError::Part),
            ("..", PathError::Part),
            ("a/../b", PathError::Part),
            ("a\0b", PathError::Nul),
            (&part(256), PathError::Part),
            (&deep(17), PathError::Length),
        ] {
            assert_eq!(TreePath::new(bytes.as_bytes()), Err(error), "{bytes:?}");
        }
        for bytes in ["a", "...", ".a", "a/b", "..a/b.", &deep(16)] {
            assert!(TreePath::new(bytes.as_bytes()).is_ok(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn the_parts_of_a_path_make_it_up(path in paths()) {
            let joined = match path.parent() {
                None => path.name().to_vec(),
                Some(parent) => {
                    prop_assert!(path.is_below(&parent) && parent < path);
                    [parent.as_bytes(), b"/", path.name()].concat()
                }
            };
            prop_assert_eq!(joined, path.as_bytes());
            prop_assert!(!path.is_below(&path));
        }

        #[test]
        fn only_paths_are_decoded(bytes in proptest::collection::vec(0..=255_u8, 0..40)) {
            let encoded = rmp_serde::to_vec(serde_bytes::Bytes::new(&bytes)).unwrap();
            let decoded: Option<TreePath> = rmp_serde::from_slice(&encoded).ok();
            prop_assert_eq!(decoded, TreePath::new(bytes).ok());
        }
    }
}
