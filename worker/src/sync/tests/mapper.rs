//! Another process that maps files, as code in a sandbox does.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// Maps files and writes to them through the mappings; ends with this value.
pub(crate) struct Mapper {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

const PROGRAM: &str = r#"
import mmap, sys
maps = []
for line in sys.stdin:
    order, _, rest = line.rstrip("\n").partition(" ")
    if order in ("map", "read"):
        access = mmap.ACCESS_WRITE if order == "map" else mmap.ACCESS_READ
        with open(rest, "r+b" if order == "map" else "rb") as file:
            maps.append(mmap.mmap(file.fileno(), 0, access=access))
    elif order == "store":
        at, byte = map(int, rest.split())
        maps[-1][at] = byte
    elif order == "unmap":
        maps.pop().close()
    print("done", flush=True)
"#;

impl Mapper {
    pub(crate) fn start() -> Self {
        let mut process = Command::new("python3")
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            orders: process.stdin.take().unwrap(),
            answers: BufReader::new(process.stdout.take().unwrap()),
            process,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Maps a file, writable and shared.
    pub(crate) fn map(&mut self, path: &Path) {
        self.order(&format!("map {}", path.display()));
    }

    /// Maps a file, shared and not writable.
    pub(crate) fn map_readable(&mut self, path: &Path) {
        self.order(&format!("read {}", path.display()));
    }

    /// Writes a byte through the last mapping.
    pub(crate) fn store(&mut self, at: usize, byte: u8) {
        self.order(&format!("store {at} {byte}"));
    }

    /// Removes the last mapping.
    pub(crate) fn unmap(&mut self) {
        self.order("unmap");
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "{order}");
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}
