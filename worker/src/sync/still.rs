//! Holds a cage still while its files are looked at.

use std::io;
use std::path::Path;

use crate::sandbox::{Cage, kernel_file};

/// A cage in which nothing runs. It goes on when this is dropped, however that comes about.
#[derive(Debug)]
pub(super) struct Still<'a> {
    cage: &'a Cage,
    frozen: bool,
    processes: Vec<u32>,
}

impl<'a> Still<'a> {
    /// Freezes the cage, unless all that is in it is a kernel with one thread, which waits between
    /// cells. (Freezing costs more than looking at a few files.)
    pub(super) async fn begin(cage: &'a Cage) -> io::Result<Self> {
        let mut still = Self {
            cage,
            frozen: false,
            processes: cage.processes()?,
        };
        if !is_quiet(&still.processes, cage.resident())? {
            // Before the freezing, which may be given up half-way.
            still.frozen = true;
            cage.freeze().await?;
            still.processes = cage.processes()?;
        }
        Ok(still)
    }

    /// The processes inside.
    pub(super) fn processes(&self) -> &[u32] {
        &self.processes
    }

    /// Lets the cage go on.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.thaw()
    }

    fn thaw(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.frozen) {
            self.cage.thaw()?;
        }
        Ok(())
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.thaw() {
            let error = &error as &dyn std::error::Error;
            tracing::error!(cage = self.cage.name(), error, "failed to thaw a cage");
        }
    }
}

/// Whether nothing can be running: there is no process, or one with one thread that is a kernel. A
/// kernel's parent is outside; what a dead kernel has left behind belongs to the cage's resident.
fn is_quiet(processes: &[u32], resident: u32) -> io::Result<bool> {
    let process = match processes {
        [] => return Ok(true),
        [process] => process,
        _ => return Ok(false),
    };
    match kernel_file::read(Path::new(&format!("/proc/{process}/stat"))) {
        Ok(stat) => Ok(Status::parse(&stat)
            .is_some_and(|status| status.threads == 1 && status.parent != resident)),
        // It has ended, and may have left another.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Status {
    parent: u32,
    threads: u32,
}

impl Status {
    /// From `/proc/<pid>/stat`. The name in it may hold anything.
    fn parse(stat: &[u8]) -> Option<Self> {
        const PARENT: usize = 1;
        const THREADS: usize = 17;
        let name_end = stat.iter().rposition(|&byte| byte == b')')?;
        let fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
        let field = |number| fields.split_ascii_whitespace().nth(number);
        Some(Self {
            parent: field(PARENT)?.parse().ok()?,
            threads: field(THREADS)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_fields_misleads_nobody() {
        let stat = b"7 (a) R 9 9 9\xff) S 42 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 99 1 2\n";
        let expected = Status {
            parent: 42,
            threads: 3,
        };
        assert_eq!(Status::parse(stat), Some(expected));
        assert_eq!(Status::parse(b"7 (cut"), None);
    }

    #[test]
    fn this_process_is_read_right() {
        let stat = std::fs::read("/proc/self/stat").unwrap();
        let status = Status::parse(&stat).unwrap();
        assert_eq!(status.parent, std::os::unix::process::parent_id());
        assert!(status.threads > 1);
    }

    #[test]
    fn only_an_empty_cage_and_a_lone_kernel_are_quiet() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let (me, it) = (std::process::id(), child.id());
        assert!(is_quiet(&[], 1).unwrap());
        assert!(is_quiet(&[it], 1).unwrap());
        // It was adopted, so it is no kernel.
        assert!(!is_quiet(&[it], me).unwrap());
        assert!(!is_quiet(&[it, it], 1).unwrap());
        // This one has several threads.
        assert!(!is_quiet(&[me], 1).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_quiet(&[it], 1).unwrap());
    }
}
