//! Files of a session below `/mnt/data`, seen from the host. The sandbox controls every name and
//! link in there, so each path is resolved beneath the root by `cap-std` (`openat2` with
//! `RESOLVE_BENEATH`): no symlink is ever followed out.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

use cap_std::fs::{Dir, File, Metadata, OpenOptions, OpenOptionsExt};
use proto::{
    blob::Blob,
    fault::{Fault, FaultCode},
    file::{DirectoryPath, FileEntry, FileKind, FilePath},
    limits::LIST_ENTRIES,
};
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};
use store::{StagingScope, Store, StoreError};
use ulid::Ulid;

use crate::sandbox::layout;

mod list;

/// The directory behind a session's `/mnt/data`.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: Arc<Dir>,
    /// Beside it on the same filesystem, and out of the session's sight.
    uploads: Arc<Dir>,
    /// User and group on the host that own the session's files.
    owner: (u32, u32),
}

/// A file that is open to be sent. It is not larger than its file system.
#[derive(Debug)]
pub struct Opened {
    entry: FileEntry,
    file: File,
}

impl Opened {
    /// The file as it was when it was opened.
    #[must_use]
    pub fn entry(&self) -> &FileEntry {
        &self.entry
    }

    /// The file's bytes, inline or staged. Those that come in meanwhile are not among them.
    ///
    /// # Errors
    /// It cannot be read or staged.
    pub async fn stage(
        self,
        store: &Store,
        owner: StagingScope<'_>,
    ) -> Result<(FileEntry, Blob), FileError> {
        let mut entry = self.entry;
        let reader = tokio::fs::File::from_std(self.file.into_std());
        let mut bounded = tokio::io::AsyncReadExt::take(reader, entry.size);
        let content = if Blob::fits_inline(entry.size) {
            let mut bytes = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut bounded, &mut bytes).await?;
            Blob::Inline(bytes)
        } else {
            Blob::Staged(store.stage_reader(bounded, owner, "download").await?)
        };
        entry.size = content.len();
        Ok((entry, content))
    }
}

/// Why a file operation failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such file.
    #[error("no file of this name exists")]
    NotFound,
    /// A directory, fifo or socket where a file is wanted, or the reverse.
    #[error("the path is a directory or another kind of file than is wanted")]
    WrongType,
    /// A link on the way leads out of `/mnt/data`.
    #[error("the path leaves /mnt/data")]
    Escapes,
    /// The session's filesystem is full.
    #[error("the session's disk is full: /mnt/data and ~/.local share it")]
    Full,
    /// It has more bytes than its whole filesystem: holes, which would all have to be sent.
    #[error("the file is larger than /mnt/data: it has holes")]
    TooLarge,
    /// The object store failed.
    #[error("the object store failed")]
    Store(#[from] StoreError),
    /// Anything else that the host's filesystem said.
    #[error("the file system failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => Self::NotFound,
            Some(Errno::NOTDIR | Errno::ISDIR | Errno::NXIO | Errno::NOTEMPTY) => Self::WrongType,
            Some(Errno::LOOP | Errno::XDEV) => Self::Escapes,
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full,
            // cap-std's own refusal has no number.
            None if error.kind() == io::ErrorKind::PermissionDenied => Self::Escapes,
            _ => Self::Io(error),
        }
    }
}

impl From<&FileError> for Fault {
    fn from(error: &FileError) -> Self {
        let code = match error {
            FileError::NotFound => FaultCode::FileNotFound,
            FileError::WrongType => FaultCode::WrongFileType,
            FileError::Escapes => FaultCode::InvalidPath,
            FileError::Full => FaultCode::DiskFull,
            FileError::TooLarge => FaultCode::FileTooLarge,
            FileError::Store(_) => FaultCode::StorageUnavailable,
            FileError::Io(_) => FaultCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl DataDir {
    /// The files on a filesystem that is [laid out](layout) for them and whose root is open as `volume`.
    /// They belong to `owner` (user, group) on the host.
    ///
    /// # Errors
    /// It is not laid out, or cannot be opened.
    pub fn new(volume: &OwnedFd, owner: (u32, u32)) -> io::Result<Self> {
        let open = |name| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(volume, name, flags, Mode::empty()).map_err(io::Error::from)
        };
        let (root, uploads) = (open(layout::FILES)?, open(layout::UPLOADS)?);
        Ok(Self::of(root, uploads, owner))
    }

    /// The files below `root`; `uploads` is another directory of the same filesystem.
    pub(crate) fn of(root: OwnedFd, uploads: OwnedFd, owner: (u32, u32)) -> Self {
        let directory = |opened: OwnedFd| Arc::new(Dir::from_std_file(opened.into()));
        Self {
            root: directory(root),
            uploads: directory(uploads),
            owner,
        }
    }

    /// The directory itself. Nothing in it may be followed or trusted.
    pub(crate) fn root(&self) -> &Arc<Dir> {
        &self.root
    }

    /// User and group on the host that own the session's files.
    pub(crate) fn owner(&self) -> (u32, u32) {
        self.owner
    }

    /// Stores a file, replacing one of the same name only once it is complete. Missing directories
    /// are made.
    ///
    /// # Errors
    /// The path cannot be a file's, the file system is full, or the bytes cannot be had.
    pub async fn upload(
        &self,
        path: &FilePath,
        content: &Blob,
        store: &Store,
    ) -> Result<FileEntry, FileError> {
        let unfinished = match self.blocking(path, Self::begin).await {
            Ok(unfinished) => unfinished,
            Err(error) => {
                if let Blob::Staged(staged) = content {
                    store.discard(staged).await;
                }
                return Err(error);
            }
        };
        let mut file = tokio::fs::File::from_std(unfinished.try_clone()?);
        let stored = store.fetch(content, &mut file).await.map_err(copy_error);
        self.blocking(path, move |this, path| match stored {
            Ok(()) => this.finish(&unfinished, path),
            Err(error) => Err(error),
        })
        .await
    }

    /// A directory's files and directories, sorted by path; at most [`LIST_ENTRIES`].
    ///
    /// # Errors
    /// There is no such directory.
    pub async fn list(
        &self,
        directory: &DirectoryPath,
        recursive: bool,
    ) -> Result<Vec<FileEntry>, FileError> {
        self.blocking(directory, move |this, directory| {
            list::list(&this.root, directory.as_str(), recursive, LIST_ENTRIES)
        })
        .await
    }

    /// One file's entry.
    ///
    /// # Errors
    /// There is no such file.
    pub async fn stat(&self, path: &FilePath) -> Result<FileEntry, FileError> {
        self.blocking(path, |this, path| {
            let metadata = this.root.metadata(path.as_str())?;
            entry(path.as_str(), &metadata).ok_or(FileError::WrongType)
        })
        .await
    }

    /// Opens one file to be sent.
    ///
    /// # Errors
    /// There is no such file, or it is larger than its file system.
    pub async fn open(&self, path: &FilePath) -> Result<Opened, FileError> {
        self.blocking(path, Self::open_here).await
    }

    /// Removes one file.
    ///
    /// # Errors
    /// There is no such file, or it is a directory.
    pub async fn delete(&self, path: &FilePath) -> Result<(), FileError> {
        self.blocking(path, |this, path| {
            Ok(this.root.remove_file(path.as_str())?)
        })
        .await
    }

    /// Runs blocking file work where it does not hold up the runtime.
    async fn blocking<P, T>(
        &self,
        path: &P,
        work: impl FnOnce(&Self, &P) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, FileError>
    where
        P: Clone + Send + 'static,
        T: Send + 'static,
    {
        let (this, path) = (self.clone(), path.clone());
        let done = tokio::task::spawn_blocking(move || work(&this, &path)).await;
        done.map_err(|_| FileError::Io(io::Error::other("file work was cancelled")))?
    }

    /// Makes the directories above a file, and a file without a name that goes when it is closed.
    fn begin(&self, path: &FilePath) -> Result<std::fs::File, FileError> {
        let mut directory = String::new();
        for part in path.directory().split('/').filter(|part| !part.is_empty()) {
            directory.push_str(part);
            match self.root.create_dir(&directory) {
                Ok(()) => self.give(&self.root.open_dir(&directory)?.into_std_file())?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
            directory.push('/');
        }
        if self
            .root
            .symlink_metadata(path.as_str())
            .is_ok_and(|found| found.is_dir())
        {
            return Err(FileError::WrongType);
        }
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let file = rustix::fs::openat(&*self.uploads, ".", flags, mode);
        Ok(file.map_err(io::Error::from)?.into())
    }

    /// Puts a complete file in its place. Only a file with a name can replace another, so it gets one
    /// where the session cannot see it.
    fn finish(&self, complete: &std::fs::File, path: &FilePath) -> Result<FileEntry, FileError> {
        self.give(complete)?;
        let itself = format!("/proc/self/fd/{}", complete.as_raw_fd());
        let name = new_name();
        rustix::fs::linkat(
            rustix::fs::CWD,
            itself,
            &*self.uploads,
            &name,
            AtFlags::SYMLINK_FOLLOW,
        )
        .map_err(io::Error::from)?;
        if let Err(error) = self.uploads.rename(&name, &self.root, path.as_str()) {
            self.uploads.remove_file(&name)?;
            return Err(error.into());
        }
        let metadata = Metadata::from_file(complete)?;
        entry(path.as_str(), &metadata).ok_or(FileError::WrongType)
    }

    /// Makes the session the owner of what the worker created.
    fn give(&self, file: &impl std::os::fd::AsFd) -> Result<(), FileError> {
        let (user, group) = self.owner;
        let (user, group) = (
            rustix::fs::Uid::from_raw(user),
            rustix::fs::Gid::from_raw(group),
        );
        // A directory is open for its path only, which `fchown` refuses.
        let itself = AtFlags::EMPTY_PATH;
        rustix::fs::chownat(file, "", Some(user), Some(group), itself).map_err(io::Error::from)?;
        Ok(())
    }

    fn open_here(&self, path: &FilePath) -> Result<Opened, FileError> {
        // Without NONBLOCK the open of a fifo would wait for its writer.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let options = OpenOptions::new().read(true).custom_flags(flags).clone();
        let file = self.root.open_with(path.as_str(), &options)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(FileError::WrongType);
        }
        let space = rustix::fs::fstatvfs(&file).map_err(io::Error::from)?;
        if metadata.len() > space.f_blocks.saturating_mul(space.f_frsize) {
            return Err(FileError::TooLarge);
        }
        let entry = entry(path.as_str(), &metadata).ok_or(FileError::WrongType)?;
        Ok(Opened { entry, file })
    }
}

/// A name that nothing else has.
#[expect(
    clippy::disallowed_methods,
    reason = "it lasts for two system calls, where nobody looks"
)]
fn new_name() -> String {
    Ulid::new().to_string()
}

/// A full disk shows while the bytes are copied, and is the session's own matter, not the store's.
fn copy_error(error: StoreError) -> FileError {
    match error {
        StoreError::Copy(error) => error.into(),
        other => other.into(),
    }
}

/// What is told of a file or directory; nothing of other kinds.
fn entry(path: &str, metadata: &Metadata) -> Option<FileEntry> {
    let (kind, size) = if metadata.is_file() {
        (FileKind::File, metadata.len())
    } else if metadata.is_dir() {
        (FileKind::Directory, 0)
    } else {
        return None;
    };
    let seconds = cap_std::fs::MetadataExt::mtime(metadata);
    let nanoseconds = cap_std::fs::MetadataExt::mtime_nsec(metadata);
    let modified_ns = seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds);
    Some(FileEntry {
        path: path.to_owned(),
        kind,
        size,
        modified_ns,
    })
}

#[cfg(test)]
mod tests;
