//! Processes of a stack whose clocks are wrong.

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;

/// A wall clock of its own for every process that is started with its [environment](Self::environment).
pub(crate) struct WrongClock(TempDir);

impl WrongClock {
    /// A clock that is right at first.
    pub(crate) fn new() -> Self {
        let clock = Self(tempfile::tempdir().unwrap());
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/wrong_clock.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([clock.library(), source.into()])
            .status()
            .unwrap();
        assert!(compiled.success());
        clock.set_ahead_by(0);
        clock
    }

    /// From now on the clock is ahead by so many seconds.
    pub(crate) fn set_ahead_by(&self, seconds: i64) {
        let new = self.0.path().join("new");
        fs::write(&new, seconds.to_string()).unwrap();
        fs::rename(new, self.offset()).unwrap();
    }

    /// Variables that give a process this clock.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        [
            ("LD_PRELOAD", text(self.library())),
            ("WRONG_CLOCK_FILE", text(self.offset())),
        ]
    }

    fn library(&self) -> PathBuf {
        self.0.path().join("wrong_clock.so")
    }

    fn offset(&self) -> PathBuf {
        self.0.path().join("offset")
    }
}
