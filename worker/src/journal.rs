//! The start journal: a local file with one line for every execution, written before a kernel gets
//! its code. Tests join the journals of all workers with what callers heard and so find code that
//! ran twice, or for a session that had another owner by then.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use proto::{
    ambient::WallClock,
    id::{Epoch, Incarnation, OperationId, PoolId, SessionKey, WorkerId},
    journal::Start,
};

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
#[error("failed to open the start journal")]
pub struct OpenError(#[from] io::Error);

/// Where starts are noted; nowhere unless it was asked for.
#[derive(Clone, Debug, Default)]
pub struct Journal(Option<Arc<Pages>>);

#[derive(Debug)]
struct Pages {
    file: File,
    worker: WorkerId,
    clock: WallClock,
}

impl Journal {
    /// Opens the journal of a worker's run, behind what earlier runs noted. Starts are told by this clock.
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub fn open(
        path: Option<&Path>,
        worker: &WorkerId,
        clock: &WallClock,
    ) -> Result<Self, OpenError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let mut options = OpenOptions::new();
        let mut file = options.create(true).append(true).read(true).open(path)?;
        if is_torn(&mut file)? {
            file.write_all(b"\n")?;
        }
        Ok(Self(Some(Arc::new(Pages {
            file,
            worker: worker.clone(),
            clock: clock.clone(),
        }))))
    }

    /// Notes that an execution is about to be handed to a kernel. Returns when the line is in the
    /// file, which outlives this process but not a crash of the machine.
    pub fn starts(
        &self,
        operation: &OperationId,
        (pool, session): (&PoolId, &SessionKey),
        (incarnation, epoch): (Incarnation, Epoch),
    ) {
        let Some(pages) = &self.0 else { return };
        let start = Start {
            operation: operation.clone(),
            pool: pool.clone(),
            session: session.clone(),
            incarnation,
            epoch,
            worker: pages.worker.clone(),
            at_us: now_us(&pages.clock),
        };
        if let Err(error) = pages.write(&start) {
            tracing::error!(%error, "failed to note a start");
        }
    }
}

impl Pages {
    /// One write for one line: a kill leaves at most the last one torn.
    fn write(&self, start: &Start) -> io::Result<()> {
        let mut line = serde_json::to_vec(start)?;
        line.push(b'\n');
        (&self.file).write_all(&line)
    }
}

/// Whether the last line has no end.
fn is_torn(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn now_us(clock: &WallClock) -> u64 {
    let since = clock.now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    fn note(journal: &Journal, operation: &str) {
        let pool = "01JDE1KZ0000000000000000PY".parse().unwrap();
        let session = "a".repeat(26).parse().unwrap();
        let life = (Incarnation::from_ulid(Ulid::nil()), Epoch::default().next());
        journal.starts(&operation.parse().unwrap(), (&pool, &session), life);
    }

    fn opened(path: Option<&Path>, run: &str) -> Journal {
        Journal::open(path, &run.parse().unwrap(), &WallClock::system()).unwrap()
    }

    fn read(path: &Path) -> Vec<Option<Start>> {
        let text = std::fs::read_to_string(path).unwrap();
        let parse = |line| serde_json::from_str(line).ok();
        text.lines().map(parse).collect()
    }

    #[test]
    fn every_start_is_a_line_and_runs_append() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        for (run, operation) in [("w-1", "first"), ("w-2", "second")] {
            let journal = opened(Some(&path), run);
            note(&journal, operation);
        }
        let starts: Vec<_> = read(&path).into_iter().map(Option::unwrap).collect();
        let told = starts
            .iter()
            .map(|start| (start.worker.as_str(), start.operation.as_str()));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [("w-1", "first"), ("w-2", "second")]
        );
        assert!(starts[0].at_us > 0 && starts[0].at_us <= starts[1].at_us);
    }

    #[test]
    fn a_torn_line_spoils_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        std::fs::write(&path, "{\"operation\":\"to").unwrap();
        let journal = opened(Some(&path), "w-1");
        note(&journal, "whole");
        let lines = read(&path);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].is_none() && lines[1].is_some(), "{lines:?}");
    }

    #[test]
    fn without_a_file_nothing_happens() {
        let journal = opened(None, "w-1");
        note(&journal, "unnoted");
    }
}
