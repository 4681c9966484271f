//! Names of files below `/mnt/data`, and what is told about them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::limits::{FILE_NAME_BYTES, FILE_PATH_BYTES};

/// Where callers and their code see a session's files.
pub const DATA_ROOT: &str = "/mnt/data";

/// Why a text is no path below `/mnt/data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing is left of it.
    #[error("the file name is empty")]
    Empty,
    /// A part is `.` or `..`.
    #[error("a path must not contain `.` or `..`")]
    Dots,
    /// An absolute path outside `/mnt/data`.
    #[error("an absolute path must start with /mnt/data/")]
    Absolute,
    /// A NUL or another control character.
    #[error("a path must not contain control characters")]
    Control,
    /// A part above 255 bytes or a path above 1024.
    #[error("a file name has at most 255 bytes, a path 1024")]
    TooLong,
}

/// A relative path of a file below `/mnt/data`: no empty, `.` or `..` part, no control character.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilePath(String);

impl FilePath {
    /// The path without a leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The directory that holds it, `""` at the top.
    #[must_use]
    pub fn directory(&self) -> &str {
        self.0
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory)
    }

    /// The file `name` in the directory `directory`, both as callers write them.
    ///
    /// # Errors
    /// As [`FromStr`].
    pub fn in_directory(directory: &DirectoryPath, name: &str) -> Result<Self, PathError> {
        let file: Self = name.parse()?;
        if directory.0.is_empty() {
            Ok(file)
        } else {
            format!("{}/{file}", directory.0).parse()
        }
    }
}

/// A directory below `/mnt/data`; the root itself is `""`, `/` or `/mnt/data`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DirectoryPath(String);

impl DirectoryPath {
    /// The path without a leading slash, `""` for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Strips what clients put in front: `/mnt/data`, as often as it stands there at the very start,
/// and leading slashes only where `/mnt/data` followed them.
fn relative(text: &str) -> Result<&str, PathError> {
    let below = text
        .strip_prefix(DATA_ROOT)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'));
    match below {
        Some(rest) => Ok(rest.trim_start_matches('/')),
        None if text.starts_with('/') => Err(PathError::Absolute),
        None => Ok(text),
    }
}

fn check_parts(path: &str) -> Result<(), PathError> {
    if path.len() > FILE_PATH_BYTES {
        return Err(PathError::TooLong);
    }
    if path.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    for part in path.split('/') {
        match part {
            "" => return Err(PathError::Empty),
            "." | ".." => return Err(PathError::Dots),
            long if long.len() > FILE_NAME_BYTES => return Err(PathError::TooLong),
            _ => {}
        }
    }
    Ok(())
}

impl FromStr for FilePath {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Self, PathError> {
        let path = relative(text)?;
        check_parts(path)?;
        Ok(Self(path.to_owned()))
    }
}

impl FromStr for DirectoryPath {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Self, PathError> {
        let path = relative(text.trim_end_matches('/')).or_else(|error| match error {
            // Directories are also written with one leading slash that means the data root.
            PathError::Absolute => Ok(text.trim_matches('/')),
            other => Err(other),
        })?;
        if !path.is_empty() {
            check_parts(path)?;
        }
        Ok(Self(path.to_owned()))
    }
}

macro_rules! text_conversions {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = PathError;
            fn try_from(text: String) -> Result<Self, PathError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(path: $name) -> Self {
                path.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
text_conversions!(FilePath);
text_conversions!(DirectoryPath);

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Sent by a newer peer.
    #[serde(other)]
    Unknown,
}

/// One file or directory as it is told to callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path relative to `/mnt/data`; names that are not UTF-8 are shown with replacement characters.
    pub path: String,
    /// File or directory.
    pub kind: FileKind,
    /// Length in bytes, 0 for directories.
    pub size: u64,
    /// Last modification, nanoseconds since 1970.
    pub modified_ns: i64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_data_root_is_stripped_once() {
        assert_eq!(
            "/mnt/data/x.txt".parse::<FilePath>().unwrap().as_str(),
            "x.txt"
        );
        assert_eq!("x.txt".parse::<FilePath>().unwrap().as_str(), "x.txt");
        assert_eq!(
            "/mnt/data//a/b".parse::<FilePath>().unwrap().as_str(),
            "a/b"
        );
        assert_eq!(
            "mnt/data/x".parse::<FilePath>().unwrap().as_str(),
            "mnt/data/x"
        );
    }

    #[test]
    fn escapes_are_refused_by_name() {
        assert_eq!("../x".parse::<FilePath>(), Err(PathError::Dots));
        assert_eq!("a/../../x".parse::<FilePath>(), Err(PathError::Dots));
        assert_eq!("/etc/passwd".parse::<FilePath>(), Err(PathError::Absolute));
        assert_eq!(
            "/mnt/database".parse::<FilePath>(),
            Err(PathError::Absolute)
        );
        assert_eq!("a\0b".parse::<FilePath>(), Err(PathError::Control));
        assert_eq!("".parse::<FilePath>(), Err(PathError::Empty));
        assert_eq!("/mnt/data/".parse::<FilePath>(), Err(PathError::Empty));
        assert_eq!("a//b".parse::<FilePath>(), Err(PathError::Empty));
        assert_eq!("a".repeat(256).parse::<FilePath>(), Err(PathError::TooLong));
        assert_eq!(
            "a/".repeat(600).parse::<FilePath>(),
            Err(PathError::TooLong)
        );
    }

    #[test]
    fn every_spelling_of_the_root_directory_is_the_root() {
        for root in ["", "/", "/mnt/data", "/mnt/data/"] {
            assert_eq!(
                root.parse::<DirectoryPath>().unwrap().as_str(),
                "",
                "{root:?}"
            );
        }
        for sub in ["sub/dir", "/sub/dir", "/mnt/data/sub/dir", "sub/dir/"] {
            assert_eq!(
                sub.parse::<DirectoryPath>().unwrap().as_str(),
                "sub/dir",
                "{sub:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_parsed_path_stays_below_its_root(text in "\\PC{0,40}|(/|\\.|a|\0|mnt/data){0,20}") {
            if let Ok(path) = text.parse::<FilePath>() {
                let path = path.as_str();
                prop_assert!(!path.starts_with('/') && !path.contains('\0'));
                prop_assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")));
                let again: FilePath = path.parse().unwrap();
                prop_assert_eq!(again.as_str(), path);
            }
            if let Ok(path) = text.parse::<DirectoryPath>() {
                let path = path.as_str();
                prop_assert!(path.is_empty() || path.parse::<FilePath>().is_ok());
            }
        }
    }
}
