//! Loop devices: a file as a block device, for as long as somebody uses it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;

use super::sys::{self, Access};

const CONTROL: &str = "/dev/loop-control";

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
    backing: PathBuf,
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
                    let backing = format!("/sys/block/loop{number}/loop/backing_file").into();
                    return Ok(Self {
                        path,
                        backing,
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
        Released {
            backing: self.backing.clone(),
        }
    }
}

/// A device that this process no longer holds open.
#[derive(Debug)]
pub(super) struct Released {
    backing: PathBuf,
}

impl Released {
    /// Whether anything, such as a mount, still keeps the device attached.
    pub(super) fn is_attached(&self) -> bool {
        self.backing.exists()
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
