//! The filesystem behind a session's `/mnt/data`: an ext4 image of its own, so that its size is
//! its limit and no path of the host shows in it.
//!
//! `mkfs` runs once per size. Every later image is a copy of the few blocks that it wrote.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use tokio::process::Command;

use super::disk::Disk;
use super::loops::LoopDevice;
use super::sys::{self, Access};

/// Smallest data filesystem; below it ext4's own bookkeeping leaves no room.
pub(super) const DATA_BYTES_MIN: u64 = 1 << 20;

/// Of the names of image files, which begin with the cage's.
const EXTENSION: &str = "ext4";

const MKFS: &str = "mkfs.ext4";

/// Longest piece of a template held in one buffer.
const PIECE_BYTES_MAX: u64 = 1 << 20;

/// Why there is no data filesystem.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// ext4's own bookkeeping would leave no room.
    #[error("a data filesystem has at least {DATA_BYTES_MIN} bytes, not {0}")]
    TooSmall(u64),
    /// The program is missing or cannot be started.
    #[error("{MKFS} cannot be run")]
    Run(#[source] io::Error),
    /// The program failed; its words.
    #[error("{MKFS} failed: {0}")]
    Format(String),
    /// The image cannot be written, for example because the disk is full.
    #[error("image of a data filesystem in {directory}")]
    Image {
        /// The data directory.
        directory: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The disk's reserve is reached, or would be with it.
    #[error("the disk of {directory} has no room for it above its reserve")]
    NoRoom {
        /// The data directory.
        directory: PathBuf,
    },
    /// There is no loop device for it.
    #[error("loop device for a data filesystem")]
    Attach(#[source] io::Error),
}

/// What a data filesystem is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The files of a session, for which the disk must have room above its reserve.
    Session,
    /// To find out whether sandboxes can be made. Nothing is kept in it, so the reserve does not count.
    Trial,
}

/// Makes data filesystems in one directory.
#[derive(Debug)]
pub(super) struct Volumes {
    directory: PathBuf,
    disk: Disk,
    templates: tokio::sync::Mutex<HashMap<u64, Arc<Template>>>,
}

/// An empty data filesystem.
#[derive(Debug)]
pub(super) struct Volume {
    /// What it is mounted from.
    pub(super) device: LoopDevice,
    /// What is stored of it.
    pub(super) image: Image,
}

/// The file behind a data filesystem. It has a name, so that `du` sees it, until it is
/// [removed](Self::remove) or dropped.
#[derive(Debug)]
pub(super) struct Image {
    file: File,
    path: PathBuf,
    removed: AtomicBool,
}

impl Volumes {
    pub(super) fn new(directory: PathBuf, disk: Disk) -> Self {
        Self {
            directory,
            disk,
            templates: tokio::sync::Mutex::default(),
        }
    }

    /// An empty filesystem of this size for a cage, attached to a loop device of this label.
    pub(super) async fn make(
        &self,
        bytes: u64,
        purpose: Purpose,
        cage: &str,
        label: String,
    ) -> Result<Volume, VolumeError> {
        let counts = purpose == Purpose::Session;
        let template = self.template(bytes).await?;
        let path = self.directory.join(format!("{cage}.{EXTENSION}"));
        let (directory, disk) = (self.directory.clone(), self.disk.clone());
        let made = tokio::task::spawn_blocking(move || {
            if counts && !disk.has_room(bytes) {
                return Err(VolumeError::NoRoom { directory });
            }
            let image = template
                .copy_to(path, counts && disk.is_whole())
                .map_err(|source| VolumeError::Image { directory, source })?;
            let device = LoopDevice::attach(&image.file, Access::ReadWrite, &label);
            let device = device.map_err(|error| VolumeError::Attach(io::Error::other(error)))?;
            Ok(Volume { device, image })
        });
        made.await
            .map_err(|error| VolumeError::Attach(io::Error::other(error)))?
    }

    async fn template(&self, bytes: u64) -> Result<Arc<Template>, VolumeError> {
        let mut templates = self.templates.lock().await;
        if let Some(template) = templates.get(&bytes) {
            return Ok(Arc::clone(template));
        }
        let template = Arc::new(self.format(bytes).await?);
        templates.insert(bytes, Arc::clone(&template));
        Ok(template)
    }

    async fn format(&self, bytes: u64) -> Result<Template, VolumeError> {
        if bytes < DATA_BYTES_MIN {
            return Err(VolumeError::TooSmall(bytes));
        }
        let image = |source| VolumeError::Image {
            directory: self.directory.clone(),
            source,
        };
        let path = self.directory.join(format!("template.{bytes}"));
        let file = create(&path, bytes).map_err(image)?;
        let mut command = Command::new(MKFS);
        command
            // No journal: the commit log is what survives a crash. Inodes that have room for fine times. No
            // reserved blocks, no tables written ahead of their use.
            .args([
                "-q",
                "-F",
                "-b",
                "4096",
                "-I",
                "256",
                "-m",
                "0",
                "-O",
                "^has_journal,^resize_inode",
            ])
            .args(["-E", "lazy_itable_init=1,nodiscard,root_owner=0:0"])
            .arg(&path)
            .stdin(Stdio::null());
        sys::ignore_signals_of_the_service(&mut command);
        let output = command.output().await;
        std::fs::remove_file(&path).map_err(image)?;
        let output = output.map_err(VolumeError::Run)?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(VolumeError::Format(words.trim().to_owned()));
        }
        Template::read(&file, bytes).map_err(image)
    }
}

/// What `mkfs` wrote, and where.
#[derive(Debug)]
struct Template {
    bytes: u64,
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Template {
    fn read(file: &File, bytes: u64) -> io::Result<Self> {
        let mut pieces = Vec::new();
        let mut offset = 0;
        loop {
            let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
                Err(Errno::NXIO) => return Ok(Self { bytes, pieces }),
                found => found?,
            };
            let hole = rustix::fs::seek(file, SeekFrom::Hole(start))?;
            offset = hole.min(start + PIECE_BYTES_MAX);
            let length = usize::try_from(offset - start).map_err(io::Error::other)?;
            let mut piece = vec![0; length];
            file.read_exact_at(&mut piece, start)?;
            if piece.iter().any(|&byte| byte != 0) {
                pieces.push((start, piece));
            }
        }
    }

    /// A copy in a new file; `whole` has the disk keep all its bytes for it.
    fn copy_to(&self, path: PathBuf, whole: bool) -> io::Result<Image> {
        let image = Image {
            file: create(&path, self.bytes)?,
            path,
            removed: AtomicBool::new(false),
        };
        if whole {
            rustix::fs::fallocate(&image.file, FallocateFlags::empty(), 0, self.bytes)?;
        }
        for (offset, piece) in &self.pieces {
            image.file.write_all_at(piece, *offset)?;
        }
        Ok(image)
    }
}

impl Image {
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Takes its name away; what is stored goes when nothing has it mounted any more.
    pub(super) fn remove(&self) {
        if self.removed.swap(true, Ordering::Relaxed) {
            return;
        }
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = self.path.display();
                tracing::warn!(%error, %path, "failed to remove the image of a data filesystem");
            }
            _ => {}
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.remove();
    }
}

fn create(path: &Path, bytes: u64) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    file.set_len(bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_copy_has_the_bytes_and_the_holes_of_its_template() {
        let directory = tempfile::tempdir().unwrap();
        let file = create(&directory.path().join("a"), 8 << 20).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(b"last", (8 << 20) - 4).unwrap();
        let template = Template::read(&file, 8 << 20).unwrap();
        let path = directory.path().join("b");
        let copy = template.copy_to(path.clone(), false).unwrap();
        let mut bytes = vec![1; 8 << 20];
        copy.file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.starts_with(b"first\0") && bytes.ends_with(b"\0last"));
        assert_eq!(bytes.iter().filter(|&&byte| byte != 0).count(), 9);
        let stored = |image: &Image| image.file.metadata().unwrap().blocks() * 512;
        assert!(stored(&copy) < 1 << 20, "{} bytes stored", stored(&copy));
        assert!(path.exists());
        drop(copy);
        assert!(!path.exists());
        let whole = template.copy_to(path, true).unwrap();
        whole.file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.starts_with(b"first\0") && bytes.ends_with(b"\0last"));
        assert!(stored(&whole) >= 8 << 20, "{} bytes stored", stored(&whole));
    }

    #[tokio::test]
    async fn a_filesystem_without_room_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(directory.path(), Some(0), false).unwrap();
        let volumes = Volumes::new(directory.path().to_owned(), disk);
        let refused = volumes.make(DATA_BYTES_MIN - 1, Purpose::Session, "1", "x".into());
        let refused = refused.await;
        assert!(
            matches!(refused, Err(VolumeError::TooSmall(_))),
            "{refused:?}"
        );
    }
}
