//! Loop devices: a file as a block device, for as long as somebody uses it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;

use super::kernel_file;
use super::sys::{self, Access};

const CONTROL: &str = "/dev/loop-control";

/// Below a device's directory in `/sys`, as long as something is attached.
const BACKING_FILE: &str = "loop/backing_file";

/// Major number of loop devices.
const MAJOR: u32 = 7;

/// How often another process may snatch a free device before this gives up.
const ATTEMPTS: u32 = 500;

/// Time for the other process to finish.
const AFTER_YOU: Duration = Duration::from_millis(1);

/// The kernel names the same free device to all who ask. Within this process one asks at a time: of a
/// hundred at once, the last would need a hundred attempts.
static TURN: Mutex<()> = Mutex::new(());

/// Why there is no loop device.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// The kernel gives none away.
    #[error("{CONTROL} gives no loop device")]
    Control(#[source] io::Error),
    /// One cannot be used.
    #[error("{path} cannot be used")]
    Device {
        /// The device.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others always take them first.
    #[error("all loop devices are taken")]
    Taken,
}

/// An attached loop device. Dropping this detaches it, unless it is mounted: then the last
/// unmount does.
#[derive(Debug)]
pub(super) struct LoopDevice {
    path: PathBuf,
    attached: Attached,
    // Held, not read: the device lives while somebody has it open.
    _open: File,
}

impl LoopDevice {
    /// Attaches a file. Blocks. `label` shows up in the device's status; it names the owner.
    pub(super) fn attach(file: impl AsFd, access: Access, label: &str) -> Result<Self, LoopError> {
        let control = OpenOptions::new().read(true).write(true).open(CONTROL);
        let control = control.map_err(LoopError::Control)?;
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(AFTER_YOU);
            }
            let number = sys::free_loop(&control).map_err(LoopError::Control)?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = match open(&path, number, access) {
                // Somebody else is faster at times, and the device may even be gone again.
                Err(error) if is_taken(&error) => continue,
                Err(source) => return Err(LoopError::Device { path, source }),
                Ok(opened) => opened,
            };
            match sys::attach_loop(&device, &file, access, label) {
                Err(error) if is_taken(&error) => {}
                Err(source) => return Err(LoopError::Device { path, source }),
                Ok(()) => {
                    let attached = Attached::now(format!("/sys/block/loop{number}").into());
                    return Ok(Self {
                        path,
                        attached,
                        _open: device,
                    });
                }
            }
        }
        Err(LoopError::Taken)
    }

    /// Path of the device node.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Closes this handle; what comes back tells when the device is free again.
    pub(super) fn release(self) -> Released {
        Released(self.attached)
    }
}

/// A device that this process no longer holds open.
#[derive(Debug)]
pub(super) struct Released(Attached);

impl Released {
    /// Whether anything, such as a mount, still keeps the device attached. Once it is not, the kernel may
    /// give its number to another file at any moment.
    pub(super) fn is_attached(&self) -> bool {
        let Attached { device, file, life } = &self.0;
        let now = Attached::now(device.clone());
        match life {
            Some(_) => now.life == *life && device.join(BACKING_FILE).exists(),
            None => now.life.is_none() && now.file.is_some() && now.file == *file,
        }
    }
}

/// What a device stands for, as `/sys` tells it.
#[derive(Clone, Debug)]
struct Attached {
    device: PathBuf,
    /// Another one each time that something is attached (Linux 5.15).
    life: Option<String>,
    /// Name of the file; only read where there is no `life`.
    file: Option<String>,
}

impl Attached {
    fn now(device: PathBuf) -> Self {
        let read = |name| kernel_file::read_text(&device.join(name)).ok();
        let life = read("diskseq");
        let file = match life {
            Some(_) => None,
            None => read(BACKING_FILE),
        };
        Self { device, life, file }
    }
}

/// Whether the kernel would give a device away; takes none.
pub(super) fn look() -> Result<(), LoopError> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL);
    let control = control.map_err(LoopError::Control)?;
    sys::free_loop(&control).map_err(LoopError::Control)?;
    Ok(())
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::BUSY | Errno::NXIO | Errno::NODEV)
    )
}

fn open(path: &Path, number: u32, access: Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(access == Access::ReadWrite);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A container's /dev is not the kernel's: new devices do not show up by themselves.
            let device = rustix::fs::makedev(MAJOR, number);
            let mode = Mode::RUSR | Mode::WUSR;
            match rustix::fs::mknodat(CWD, path, FileType::BlockDevice, mode, device) {
                Ok(()) | Err(Errno::EXIST) => options.open(path),
                Err(error) => Err(error.into()),
            }
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attach(device: &Path, file: &str, life: Option<&str>) {
        std::fs::create_dir_all(device.join("loop")).unwrap();
        std::fs::write(device.join(BACKING_FILE), file).unwrap();
        if let Some(life) = life {
            std::fs::write(device.join("diskseq"), life).unwrap();
        }
    }

    #[test]
    fn a_device_that_was_given_to_another_file_is_not_attached_any_more() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("loop7");
        attach(&device, "/data/one (deleted)", Some("7"));
        let released = Released(Attached::now(device.clone()));
        assert!(released.is_attached());
        attach(&device, "/data/one (deleted)", Some("8"));
        assert!(!released.is_attached());
        attach(&device, "/data/one (deleted)", Some("7"));
        assert!(released.is_attached());
        std::fs::remove_dir_all(device.join("loop")).unwrap();
        assert!(!released.is_attached());
    }

    #[test]
    fn an_older_kernel_tells_files_apart_by_name() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("loop7");
        attach(&device, "/data/one (deleted)", None);
        let released = Released(Attached::now(device.clone()));
        assert!(released.is_attached());
        attach(&device, "/data/two (deleted)", None);
        assert!(!released.is_attached());
        std::fs::remove_dir_all(device.join("loop")).unwrap();
        assert!(!released.is_attached());
    }
}
