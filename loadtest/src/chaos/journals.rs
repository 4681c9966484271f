//! Reading the workers' start journals.

use std::{io, path::Path};

use proto::journal::Start;

/// A journal as it was found.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// Its starts, in order.
    pub starts: Vec<Start>,
    /// Lines that a kill has torn.
    pub torn: usize,
}

/// Reads the journal of a worker; one that never started anything has none.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> io::Result<Journal> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Journal::default()),
        Err(error) => return Err(error),
    };
    let lines = text
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty());
    let mut journal = Journal::default();
    for line in lines {
        match serde_json::from_slice(line) {
            Ok(start) => journal.starts.push(start),
            Err(_) => journal.torn += 1,
        }
    }
    Ok(journal)
}
