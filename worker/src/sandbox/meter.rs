//! What one execution uses, as the kernel of the host counts it. Whatever cannot be read is not told:
//! it is no reason to fail an execution.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use proto::execution::Resources;

use super::cgroup::Cgroups;
use super::kernel_file;

/// Counts from its making to its reading.
#[derive(Debug)]
pub struct Meter {
    cgroups: Cgroups,
    cpu_us: Option<u64>,
    peak: Option<Peak>,
    kernel: Option<u32>,
    written: Option<u64>,
}

/// The most memory in use at once.
#[derive(Debug)]
pub(super) struct Peak {
    /// A reset of version 2 holds for the open file alone.
    pub(super) file: File,
    pub(super) begins_anew: bool,
}

impl Meter {
    pub(super) fn start(cgroups: Cgroups) -> Self {
        Self {
            cpu_us: cgroups.cpu_us().ok(),
            peak: cgroups.peak().ok(),
            cgroups,
            kernel: None,
            written: None,
        }
    }

    /// Counts also what this process writes, and processes that it waits for.
    pub fn watch(&mut self, kernel: u32) {
        self.written = written(kernel).ok();
        self.kernel = Some(kernel);
    }

    /// What was used.
    #[must_use]
    pub fn read(self) -> Resources {
        let since = |now: io::Result<u64>, before: Option<u64>| {
            now.ok()
                .zip(before)
                .map(|(now, before)| now.saturating_sub(before))
        };
        let cpu_us = since(self.cgroups.cpu_us(), self.cpu_us);
        let now = self.kernel.map_or_else(|| Err(gone()), written);
        let peak_of_session = self.peak.as_ref().is_some_and(|peak| !peak.begins_anew);
        Resources {
            cpu_ms: cpu_us.map(|us| us / 1000),
            peak_memory_bytes: self.peak.and_then(|peak| peak.read().ok()),
            peak_of_session,
            bytes_written: since(now, self.written),
        }
    }
}

impl Peak {
    /// Lets the count begin anew where the kernel can.
    pub(super) fn begin(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        if let Ok(mut file) = file {
            let begins_anew = file.write_all(b"0").is_ok();
            return Ok(Self { file, begins_anew });
        }
        Ok(Self {
            file: File::open(path)?,
            begins_anew: false,
        })
    }

    fn read(mut self) -> io::Result<u64> {
        let mut text = String::new();
        self.file.rewind()?;
        self.file.read_to_string(&mut text)?;
        text.trim().parse().map_err(io::Error::other)
    }
}

/// Bytes that a process and those that it waited for caused to be written to disks.
fn written(process: u32) -> io::Result<u64> {
    let text = kernel_file::read_text(Path::new(&format!("/proc/{process}/io")))?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    value
        .ok_or_else(gone)?
        .trim()
        .parse()
        .map_err(io::Error::other)
}

fn gone() -> io::Error {
    io::ErrorKind::NotFound.into()
}
